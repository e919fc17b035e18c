"""A node to measure: a disk with an LXCPATH on it, and the program at work there."""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

from process import Failed

RUN = "/var/run/sliverfs"


def command(argv, **more):
    """Runs a command that must succeed, and returns what it prints."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    if done.returncode != 0:
        raise Failed("%s: %s%s" % (" ".join(argv), done.stdout, done.stderr))
    return done.stdout


def private_run():
    """What is kept for the boot gets a place of its own; where a container's /run is on its disk, it would lie there."""
    let_go_of_others()
    command(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", RUN])


def private_boot():
    """Places of our own for all that the program, LXC and zfs-fuse keep for the boot."""
    let_go_of_others()
    command(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"])
    for folder in RUN, "/run/lock":
        os.makedirs(folder, exist_ok=True)


def ext4(work):
    """An ext4 of 4 KiB blocks in a file, mounted."""
    image, disk = os.path.join(work, "disk.img"), os.path.join(work, "disk")
    with open(image, "wb") as file:
        file.truncate(4 << 30)
    command(["mkfs.ext4", "-q", "-F", "-b", "4096", "-N", "200000", image])
    os.mkdir(disk)
    command(["mount", "-o", "loop", image, disk])
    return disk


class Node:
    """Mounts go with the mount namespace that this runs in."""

    def __init__(self, program, disk):
        self.program, self.disk = program, disk
        self.lxcpath = os.path.join(disk, "lxc")
        os.mkdir(self.lxcpath)
        # The same words for the program under test and for what it is measured against.
        os.environ["SLIVERFS_LXCPATH"] = self.lxcpath
        self.ok("init")

    def argv(self, *words):
        return [self.program, "--config", "/dev/null", *words]

    def ok(self, *words):
        return command(self.argv(*words))

    def json(self, *words):
        return json.loads(self.ok(*words, "--json"))

    def view(self, name):
        return os.path.join(self.lxcpath, name, "rootfs")

    def create(self, names, base, *more):
        """Creates slivers, some at a time: each waits for the disk."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda name: self.ok("create", name, "--base", base, *more), names))

    def used(self):
        """The bytes that are taken on the disk, after everything was written to it."""
        disk = os.open(self.disk, os.O_RDONLY)
        try:
            os.sync()
            stat = os.fstatvfs(disk)
        finally:
            os.close(disk)
        return (stat.f_blocks - stat.f_bfree) * stat.f_frsize

    def allocated(self, *names):
        """The bytes that the folders take, as du(1) counts."""
        folders = [os.path.join(self.lxcpath, name) for name in names]
        return sum(int(line.split()[0]) for line in command(["du", "-s", "-B1", *folders]).splitlines())


def let_go_of_others():
    """A new mount namespace has a copy of every view, which would keep it alive."""
    with open("/proc/self/mountinfo") as lines:
        mounts = [line.split(" ") for line in lines]
    for fields in reversed(mounts):
        source = fields[fields.index("-") + 2]
        if source.startswith("sliverfs:"):
            subprocess.run(["umount", "-l", fields[4].encode().decode("unicode_escape")], check=False)


def mountinfo(target):
    """Type, options, source and super options of what is mounted on a folder: all but numbers."""
    with open("/proc/self/mountinfo") as lines:
        for line in lines:
            fields = line.rstrip("\n").split(" ")
            if fields[4] == target:
                end = fields.index("-")
                return fields[5], fields[end + 1:]
    raise Failed("nothing is mounted on %s" % target)


def counts():
    """How many processes and mounts there are."""
    with open("/proc/self/mountinfo") as lines:
        mounts = sum(1 for _ in lines)
    return sum(name.isdigit() for name in os.listdir("/proc")), mounts
