"""The ways to a sliver: the program's, and what a user would type on the same disk."""

import os
import shutil

from node import command
from process import Failed, milliseconds


class Ours:
    """`sliverfs create` and `sliverfs mount`."""

    ours = True

    def __init__(self, node, title, base, backend, slow=False):
        self.node, self.title, self.base, self.backend, self.slow = node, title, base, backend, slow

    def create(self, name):
        return timed(self.node.argv("create", self.full(name), "--base", self.base, "--backend", self.backend))

    def mount(self, name):
        return timed(self.node.argv("mount", self.full(name)))

    def full(self, name):
        return "%s-%s-%s" % (self.backend, self.base, name)

    def view(self, name):
        return self.node.view(self.full(name))

    def unmount(self, name):
        self.node.ok("umount", self.full(name))

    def remove(self, name):
        self.node.ok("destroy", self.full(name))


class Hand:
    """Lines of a shell. In them, $base is the tree, $at a folder of this sliver, which is there."""

    ours = False

    def __init__(self, node, title, create, mount=None, view="view", ready=None, slow=False, program=None):
        self.title, self.lines, self.mounts, self.inside = title, create, mount, view
        self.ready, self.slow, self.program = ready, slow, program
        self.root = os.path.join(node.disk, "hand", "".join(filter(str.isalnum, title)))
        self.base = os.path.join(node.lxcpath, ".base", "plain", "tree")

    def prepare(self):
        """Where its program is installed."""
        os.makedirs(self.root)
        if self.ready:
            command(self.argv(self.ready, self.root))

    def argv(self, line, at):
        words = ["/usr/bin/env", "base=" + self.base, "at=" + at, "root=" + self.root, "name=" + os.path.basename(at)]
        return [*words, "/bin/sh", "-ec", line]

    def at(self, name):
        return os.path.join(self.root, name)

    def create(self, name):
        os.mkdir(self.at(name))
        return timed(self.argv(self.lines, self.at(name)))

    def mount(self, name):
        return timed(self.argv(self.mounts, self.at(name))) if self.mounts else None

    def view(self, name):
        return os.path.join(self.at(name), self.inside) if self.inside else None

    def unmount(self, name):
        if self.mounts:
            command(["umount", self.view(name)])

    def remove(self, name):
        shutil.rmtree(self.at(name))


def timed(argv):
    """Milliseconds of a command that must succeed; what it says is passed on only where it does not."""
    said = os.memfd_create("said")
    try:
        return milliseconds(argv, said, said)
    except Failed as failed:
        os.lseek(said, 0, os.SEEK_SET)
        raise Failed("%s: %s" % (failed, os.read(said, 4096).decode(errors="replace"))) from None
    finally:
        os.close(said)


OVERLAY = 'exec mount -t overlay -o noatime,lowerdir="$base",upperdir="$at/upper",workdir="$at/work" overlay "$at/view"'
# A container whose root is the base's tree, which lxc-copy only reads; it wants the container's name in the path.
ORIGINAL = """mkdir -p "$root/original/rootfs"
mount --bind "$base" "$root/original/rootfs"
printf 'lxc.rootfs.path = dir:%s\\nlxc.uts.name = original\\n' "$root/original/rootfs" >"$root/original/config"
"""
LXC_COPY = 'rmdir "$at"; exec lxc-copy -P "$root" -n original -N "$name" -s -B overlay'


# The two that are held against each other more often.
SNAPSHOT, SNAPSHOT_BY_HAND = "btrfs-snapshot", "`btrfs subvolume snapshot`"
SNAPSHOT_SYNCED = SNAPSHOT_BY_HAND + ", same fsyncs"
# As these are, where a disk can hold more of them.
COPY, COPY_BY_HAND = "copy", "`cp -a`, `sync -f`"


def on(disk, node):
    """The ways on a disk, those that are held against each other side by side."""
    kind = disk.kind
    if kind == "ext4":
        return [
            Ours(node, "overlay on a folder", "plain", "overlay"),
            Hand(node, "`mount -t overlay`", 'mkdir "$at/upper" "$at/work" "$at/view"', OVERLAY),
            Hand(node, "`lxc-copy -s`, overlay", LXC_COPY, view=None, ready=ORIGINAL, program="lxc-copy"),
            Ours(node, "overlay on squashfs", "squashfs", "overlay"),
            Ours(node, "overlay on erofs", "erofs", "overlay"),
            Ours(node, "btrfs-seed", "btrfs", "btrfs-seed"),
            Ours(node, "fuse-overlayfs", "plain", "fuse-overlayfs"),
            Ours(node, COPY, "plain", "copy", slow=True),
            Hand(node, COPY_BY_HAND, 'cp -a "$base" "$at/view"; sync -f "$at"', slow=True),
        ]
    reflink = [
        Ours(node, "reflink", "plain", "reflink"),
        Hand(node, "`cp -a --reflink=always`, `sync -f`", 'cp -a --reflink=always "$base" "$at/view"; sync -f "$at"'),
    ]
    if kind == "btrfs":
        return [
            Ours(node, SNAPSHOT, "plain", "btrfs-snapshot"),
            Hand(node, SNAPSHOT_BY_HAND, 'exec btrfs subvolume snapshot "$base" "$at/view"'),
            *reflink,
        ]
    if kind == "xfs":
        return reflink
    return [
        Ours(node, COPY, "plain", "copy", slow=True),
        Hand(node, "`cp -a`", 'cp -a "$base" "$at/view"', slow=True),
    ]
