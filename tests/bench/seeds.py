"""Measures every way to a sliver that this machine has. tests/bench/run calls it, in namespaces of its own for mounts and processes."""

import io
import os
import shutil
import statistics
import sys
import tarfile
from collections import namedtuple

import arguments
import disks
import measures
import plots
import report
import seedsreport
import verdicts
import ways
from figures import Figures, growth
from node import Node, command, private_boot
from process import Failed
from replay import Replay

GIB = 1 << 30
MIB = 1 << 20
# Slivers of each way, but for full copies; pairs of these; the large file's size; how often a snapshot is made, and a file written to.
Extent = namedtuple("Extent", "slivers copies pairs large snapshots writes")
EXTENTS = {"full": Extent(10, 3, 11, 64 * MIB, 30, 3), "quick": Extent(3, 2, 3, 8 * MIB, 5, 2)}
DISKS = {"ext4": 16 * GIB, "btrfs": 8 * GIB, "xfs": 8 * GIB, "zfs-fuse": 6 * GIB}
LARGE = "var/lib/large"


def main():
    parser = arguments.parser(__doc__, EXTENTS)
    parser.add_argument("--disks", nargs="+", choices=DISKS, default=list(DISKS), help="only these")
    args = parser.parse_args()
    arguments.end_as_exception()

    private_boot()
    extent = EXTENTS[args.extent]
    tar = os.path.join(args.work, "base.tar")
    with_large_file(args.base, tar, extent.large)
    figures, rows, missing, machine = Figures(), [], [], None
    cgroup = measures.Cgroup()
    try:
        for kind in args.disks:
            try:
                disk = make_disk(kind, args.work)
            except (Failed, OSError) as err:
                missing.append(("everything on " + kind, str(err).strip()))
                continue
            node = Node(args.program, disk.path)
            machine = machine or report.machine(node) + "\npage cache: " + cgroup.how
            rows += run(disk, node, tar, extent, cgroup, missing)
            disk.close()
    finally:
        cgroup.close()
    verdicts.judge(figures, rows)
    growth(figures, args.weighed, 2)
    if args.write:
        seedsreport.write(args.write, machine, extent, rows, missing, figures.rows)
        plots.write(args.write, rows)
    else:
        print(seedsreport.text(machine, extent, rows, missing, figures.rows))
    missed = figures.missed() + [what for what, _ in missing if what.endswith("FAILED")]
    if missed:
        sys.exit("bench: missed: " + "; ".join(missed))


def make_disk(kind, work):
    return disks.ZfsDisk(work, DISKS[kind]) if kind == "zfs-fuse" else disks.LoopDisk(kind, work, DISKS[kind])


def with_large_file(source, to, size):
    """The base with a large file that holds the same share of each of its files: it compresses as the base does."""
    shutil.copyfile(source, to)
    sample, done = io.BytesIO(), 0
    with tarfile.open(to, "r:") as tar:
        files = [entry for entry in tar if entry.isreg() and entry.size]
        if not files:
            raise Failed("%s has no file with data" % source)
        share = max(1, sum(entry.size for entry in files) // size)
        while sample.tell() < size:
            for entry in files:
                sample.write(tar.extractfile(entry).read(-(-entry.size // share)))
            share = 1
    with tarfile.open(to, "a:") as tar:
        entry = tarfile.TarInfo(LARGE)
        entry.size, entry.mode, entry.mtime = size, 0o644, 1300000000
        sample.seek(0)
        tar.addfile(entry, sample)


def run(disk, node, tar, extent, cgroup, missing):
    """The rows of one disk."""
    print("on %s" % disk.kind, flush=True)
    bases = add_bases(disk, node, tar, missing)
    works = {verdict["kind"]: verdict for verdict in node.json("probe")}
    rows = []
    for way in ways.on(disk, node):
        if way.ours and way.base not in bases:
            continue  # told by add_bases
        lack = lacking(way, works)
        if lack:
            missing.append(("%s on %s" % (way.title, disk.kind), lack))
            continue
        if not way.ours:
            way.prepare()
        rows.append(Row(disk, way, bases, extent))
    rows = create(disk, rows, missing)
    for row in rows:
        row.read(cgroup)
        row.write(disk, extent)
    for row in rows:
        row.unmount()
    snapshots = [row for row in rows if row.way.title in (ways.SNAPSHOT, ways.SNAPSHOT_BY_HAND)]
    if len(snapshots) == 2:
        rows.insert(rows.index(snapshots[-1]) + 1, race(disk, node, snapshots, extent, bases))
    copies = [row for row in rows if row.way.title in (ways.COPY, ways.COPY_BY_HAND)]
    if len(copies) == 2:
        again(disk, node, copies, extent)
    for row in rows:
        row.say()
    if disk.kind == "ext4":
        told = {row.way.backend for row in rows if row.way.ours} | {"btrfs-snapshot", "reflink"}
        missing += [(kind, verdict["reason"]) for kind, verdict in works.items() if kind not in told and not verdict["works"]]
    return rows


def lacking(way, works):
    """Why a way cannot run here, if it cannot."""
    if way.ours:
        verdict = works.get(way.backend, {"works": False, "reason": "this program does not know it"})
        return None if verdict["works"] else verdict["reason"]
    return "%s is not installed" % way.program if way.program and not shutil.which(way.program) else None


def add_bases(disk, node, tar, missing):
    """Bytes on the disk of each base. Images only on ext4: they are the same elsewhere."""
    taken = {}
    for form in ["plain"] + (["squashfs", "erofs", "btrfs"] if disk.kind == "ext4" else []):
        options = [] if form == "plain" else ["--pack", form]
        try:
            before = disk.used()
            node.ok("base", "add", form, tar, *options)
            taken[form] = disk.used() - before
        except (Failed, OSError) as err:
            if form == "plain":
                raise
            missing.append(("a base packed as " + form, str(err).strip().splitlines()[-1]))
    return taken


def create(disk, rows, missing):
    """The slivers of all ways in turn, so that what else the machine does hits all of them. The rows that went well."""
    for number in range(max(row.count for row in rows)):
        for row in list(rows if number % 2 == 0 else reversed(rows)):
            try:
                if number < row.count:
                    row.create(disk, "n%d" % number)
            except Failed as err:
                row.failed = True
                missing.append(("%s on %s FAILED" % (row.way.title, disk.kind), " ".join(str(err).split())))
        rows = [row for row in rows if not row.failed]
    return rows


def by_turns(disk, rows, count, remove):
    """So many creations by each, in turn: who began a round ends the next one. Removed before the next, or left."""
    for row in rows:
        row.creates = []
    for number in range(count):
        name = "t%d" % number
        for row in rows if number % 2 == 0 else reversed(rows):
            command(["sync", "-f", disk.path])
            row.creates.append(row.way.create(name))
            if remove:
                row.way.remove(name)


def race(disk, node, rows, extent, bases):
    """More snapshots by the program and by hand, and by hand with the same fsyncs, in turn."""
    ours = rows[0].way if rows[0].way.ours else rows[1].way
    replay = Replay(node, ours, os.path.join(node.disk, "hand", "replay"))
    third = Row(disk, replay, bases, extent)
    third.note = "%d fsyncs" % replay.syncs
    racers = [*rows, third]
    by_turns(disk, racers, extent.snapshots, False)
    return third


def again(disk, node, rows, extent):
    """Full copies by the program and by hand, in turn, of a base that is in memory: each is removed before the next."""
    measures.read(os.path.join(node.lxcpath, ".base", "plain", "tree"))
    by_turns(disk, rows, extent.pairs, True)


class Row:
    """A way on a disk, and what was measured of it. Bytes, milliseconds, seconds of CPU; None is what was not."""

    def __init__(self, disk, way, bases, extent):
        self.way, self.kind, self.note = way, disk.kind, ""
        self.count = extent.slivers
        if way.slow:
            # zfs-fuse takes many seconds for each.
            self.count = 2 if disk.kind == "zfs-fuse" else extent.copies
        self.readers = self.count if way.ours or way.mounts else min(3, self.count)
        self.base, self.plain = bases[way.base if way.ours else "plain"], bases["plain"]
        self.names, self.extra, self.creates, self.mounts = [], [], [], []
        self.reading = self.first_write = self.write_disk = None
        self.failed = False
        self.daemon = getattr(disk, "daemon", None)
        self.pids, self.memory, self.cpu = set(), 0, 0.0

    def create(self, disk, name):
        before, processes = disk.used(), measures.daemons()
        self.names.append(name)
        self.creates.append(self.way.create(name))
        mount = self.way.mount(name)
        if mount is not None:
            self.mounts.append(mount)
        self.account(processes)
        self.extra.append(disk.used() - before)

    def account(self, before):
        """What its daemons took since then."""
        now = measures.daemons()
        self.pids |= now.keys() - before.keys() | ({self.daemon.pid} if self.daemon else set())
        for pid in self.pids & now.keys():
            self.cpu += now[pid][1] - before.get(pid, (0, 0.0))[1]
        self.memory = sum(now[pid][0] for pid in self.pids & now.keys())

    def read(self, cgroup):
        if self.way.view("x"):
            processes = measures.daemons()
            self.reading = measures.readings(cgroup, [self.way.view(name) for name in self.names[: self.readers]])
            self.account(processes)

    def write(self, disk, extent):
        if self.way.view("x"):
            times = []
            processes = measures.daemons()
            for name in self.names[: extent.writes]:
                before = disk.used()
                times.append(measures.first_write(os.path.join(self.way.view(name), LARGE)))
                if self.write_disk is None:
                    self.write_disk = disk.used() - before
            self.account(processes)
            self.first_write = statistics.median(times)

    def unmount(self):
        for name in self.names:
            self.way.unmount(name)

    def median(self, times):
        return statistics.median(times) if times else None

    def say(self):
        told = seedsreport.disk_cells(self) + (seedsreport.memory_cells(self)[1:] if self.reading else ())
        print("  " + " | ".join(told), flush=True)


if __name__ == "__main__":
    try:
        main()
    except Failed as failed:
        sys.exit("bench: %s" % failed)
