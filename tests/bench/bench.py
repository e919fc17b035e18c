"""Measures the program's figures on a node of its own. tests/bench/run calls it, in a mount namespace of its own."""

import argparse
import os
import shutil
import signal
import sys

import figures as measure
import limits
import report
from disks import POOL, LoopDisk, ZfsDisk
from node import Node, counts, ext4, private_boot, private_run
from process import Failed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=os.path.realpath, required=True)
    parser.add_argument("--work", type=os.path.realpath, required=True, help="a folder for a disk of 4 GiB, sparse")
    parser.add_argument("--base", type=os.path.realpath, required=True, help="the tar of a root file system")
    parser.add_argument("--extent", choices=["full", "quick"], required=True)
    parser.add_argument("--sizes", type=os.path.realpath, help="the table of the packages' sizes")
    parser.add_argument("--weighed", type=os.path.realpath, help="what cross/weigh printed")
    parser.add_argument("--write", type=os.path.realpath, help="the document to write")
    args = parser.parse_args()
    full = args.extent == "full"
    # As an exception, so that what was begun is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    figures = measure.Figures()
    sleepers = measure.crowd(150)
    try:
        private_run()
        node = Node(args.program, ext4(args.work))
        machine = report.machine(node, counts())
        print(machine, flush=True)
        run(node, figures, args.base, full)
        on_btrfs(args, figures, full)
        on_zfs(args, figures, full)
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()
    if args.sizes:
        with open(args.sizes) as table:
            measure.packages(figures, table)
        measure.growth(figures, args.weighed, 4)
    if args.write:
        report.write(args.write, machine, figures.rows)
    missed = figures.missed()
    if missed:
        sys.exit("bench: missed: " + "; ".join(missed))


def run(node, figures, tar, full):
    node.ok("probe")
    before = node.used()
    node.ok("base", "add", "plain", tar)
    plain = node.used() - before
    measure.space_of_one_more(node, figures, "plain")

    # Timed things come before anybody else's, also where the machine has other work.
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    measure.probes_again(node, figures, "space0")
    measure.time_of_mount(node, figures, 100 if full else 50, "space0", "")
    measure.memory(node, figures, "`sliverfs mount`", "mount", "space0")
    node.ok("umount", "space0")

    limits.images(node, figures, "plain", 21 if full else 7)

    names = ["s%03d" % number for number in range(1000 - 8)]
    before = node.used()
    node.create(names, "plain")
    figures.add("disk of each of %d more slivers, their folders' growth counted" % len(names), each(node.used() - before, names))
    measure.time_of_list(node, figures, "1,000 slivers, none mounted", 50)
    measure.memory(node, figures, "`sliverfs list` with 1,000 slivers", "list")
    if full:
        limits.images(node, figures, "plain", 21, ", with 1,000 slivers")
        node.ok("mount", *names[:100])
        measure.time_of_mount(node, figures, 50, "space0", ", with 100 slivers mounted", limit=False)
        node.ok("mount", "--all")
        measure.time_of_list(node, figures, "1,000 slivers, all mounted", None)
        measure.memory(node, figures, "`sliverfs list` with 1,000 slivers, all mounted", "list")
        node.ok("umount", "space0")
        measure.time_of_mount(node, figures, 50, "space0", ", with 999 slivers mounted", limit=False)
        node.ok("umount", "--all")

    before = node.used()
    node.ok("base", "add", "packed", tar, "--pack", "squashfs")
    measure.space_of_packed(node, figures, plain, node.used() - before)


def on_btrfs(args, figures, full):
    """On a disk with simple quotas, where the kernel has them."""
    node = Node(args.program, LoopDisk("btrfs", args.work, 4 << 30).path)
    if not limits.quotas(node):
        figures.add("limits by qgroups", "not measured: no simple quotas")
        return
    add_small(node, args)
    limits.groups(node, figures, "small", 21 if full else 7)
    limits.usage(node, figures, "small", 1000 if full else 200, 51 if full else 21)


def on_zfs(args, figures, full):
    """On a pool, where zfs-fuse is there."""
    if not shutil.which("zfs-fuse"):
        figures.add("limits by datasets of ZFS", "not measured: no zfs-fuse")
        return
    private_boot()
    disk = ZfsDisk(args.work, 2 << 30)
    node = Node(args.program, disk.path)
    add_small(node, args)
    limits.datasets(node, POOL, figures, "small", 21 if full else 7)
    disk.close()


def add_small(node, args):
    """A base of one file, of which there is nothing to copy or share that takes time."""
    small = os.path.join(args.work, "small")
    os.makedirs(small, exist_ok=True)
    shutil.copy(args.program, small)
    node.ok("base", "add", "small", small)
    node.ok("probe")


def each(size, names):
    return "%.1f KiB" % (size / len(names) / 1024)


if __name__ == "__main__":
    try:
        main()
    except Failed as failed:
        sys.exit("bench: %s" % failed)
