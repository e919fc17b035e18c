"""Disks to measure on: each a file system in a sparse file, or a pool of zfs-fuse, alone in its use.

All that is mounted here goes with the mount namespace that this runs in, the daemon with the namespace of processes.
"""

import os
import socket
import subprocess
import time

from node import command
from process import Failed

FORMATS = {
    # Inodes for some full copies of a root file system.
    "ext4": ["mkfs.ext4", "-q", "-F", "-b", "4096", "-N", "600000"],
    "btrfs": ["mkfs.btrfs", "-q"],
    "xfs": ["mkfs.xfs", "-q"],
}
# What a reader would write to the disk, and what ext4 still writes to a new one, is no part of any figure.
OPTIONS = {"ext4": "noatime,noinit_itable", "btrfs": "noatime", "xfs": "noatime"}
POOL = "sliverfs-bench"


class LoopDisk:
    """A file system in a file. It is read and written past the page cache, which is then that of the file system alone."""

    def __init__(self, kind, work, size):
        self.kind = kind
        self.image = os.path.join(work, kind + ".img")
        self.path = os.path.join(work, kind)
        os.mkdir(self.path)
        with open(self.image, "wb") as file:
            file.truncate(size)
        command([*FORMATS[kind], self.image])
        device = command(["losetup", "--find", "--show", "--direct-io=on", self.image]).strip()
        try:
            command(["mount", "-t", kind, "-o", OPTIONS[kind], device, self.path])
        finally:
            # Free once nothing has it mounted.
            command(["losetup", "-d", device])

    def used(self):
        """The bytes that are taken on the disk, after everything was written to it."""
        command(["sync", "-f", self.path])
        if self.kind == "btrfs":
            return self.used_btrfs()
        stat = os.statvfs(self.path)
        return (stat.f_blocks - stat.f_bfree) * stat.f_frsize

    def used_btrfs(self):
        """What statfs(2) of Btrfs tells is whole chunks."""
        taken = 0
        for line in command(["btrfs", "filesystem", "df", "--raw", self.path]).splitlines():
            what, _, numbers = line.partition(": ")
            if not what.startswith("GlobalReserve"):
                taken += int(numbers.rpartition("used=")[2]) * (2 if ", DUP" in what else 1)
        return taken

    def close(self):
        command(["umount", "--recursive", self.path])
        os.unlink(self.image)


class ZfsDisk:
    """A pool of zfs-fuse with dedup on, and a daemon of its own. What is in /run is ours alone already."""

    kind = "zfs-fuse"

    def __init__(self, work, size):
        self.image = os.path.join(work, "zfs.img")
        self.path = os.path.join(work, "zfs")
        command(["mount", "-t", "tmpfs", "tmpfs", "/var/lib/zfs"])
        os.makedirs("/run/lock", exist_ok=True)
        with open(os.path.join(work, "zfs-fuse.log"), "wb") as log:
            self.daemon = subprocess.Popen(
                ["zfs-fuse", "--no-daemon", "--no-kstat-mount", "--enable-xattr"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.wait()
        with open(self.image, "wb") as file:
            file.truncate(size)
        self.tool("zpool", "create", "-m", self.path, "-O", "dedup=on", POOL, self.image)

    def wait(self):
        until = time.monotonic() + 10
        while True:
            with socket.socket(socket.AF_UNIX) as asked:
                if asked.connect_ex("/run/zfs/zfs_socket") == 0:
                    return
            if self.daemon.poll() is not None or time.monotonic() > until:
                raise Failed("zfs-fuse does not come up")
            time.sleep(0.01)

    def tool(self, *words):
        return command(["timeout", "-k", "1", "120", *words])

    def used(self):
        """To the three digits that the tool tells. The kernel hands no sync on to FUSE; a new property waits for what was written."""
        for value in "one", "two":
            self.tool("zfs", "set", "bench:sync=" + value, POOL)
        text = self.tool("zpool", "list", "-H", "-o", "allocated", POOL).strip()
        unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1], 1)
        return int(float(text.rstrip("KMG")) * unit)

    def close(self):
        self.tool("zpool", "export", "-f", POOL)
        self.daemon.terminate()
        try:
            self.daemon.wait(20)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()
        command(["umount", "/var/lib/zfs"])
        os.unlink(self.image)
