"""Measures what works on stores: its time beside rsync's and tar's, whatever the base's size, and its memory. tests/bench/run
calls it, in namespaces of its own for mounts and processes."""

import os
import shutil
import sys
from collections import namedtuple

import arguments
import edits
import million
import report
import storesreport
from disks import LoopDisk
from figures import Figures, growth
from node import Node, command, private_boot
from process import Failed
from races import Race, Runner

GIB = 1 << 30
# How many turns a race has, a cold one, and one of the large store; how often a race is run at most; entries of the store whose
# memory is looked at.
Extent = namedtuple("Extent", "turns cold large rounds entries")
EXTENTS = {"full": Extent(9, 3, 3, 2, 1000000), "quick": Extent(3, 2, 1, 1, 100000)}
RSYNC = ["/usr/bin/rsync", "-aHAX", "--delete"]
TAR = ["/usr/bin/tar", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-c", "-C"]


def main():
    parser = arguments.parser(__doc__, EXTENTS)
    parser.add_argument("--entries", type=int, help="another number of entries to look at the memory with")
    args = parser.parse_args()
    arguments.end_as_exception()

    private_boot()
    extent = EXTENTS[args.extent]
    figures, measured = Figures(), storesreport.Measured(extent)
    disk = LoopDisk("ext4", args.work, 16 * GIB)
    node = Node(args.program, disk.path)
    measured.machine = report.machine(node) + "\nrsync: " + report.first_line(["rsync", "--version"])
    print(measured.machine, flush=True)
    times(node, disk, args, extent, figures, measured)
    disk.close()
    measured.entries = args.entries or extent.entries
    measured.memory = million.memory(args.program, args.work, measured.entries, figures)
    growth(figures, args.weighed, 3)
    if args.write:
        storesreport.write(args.write, measured, figures.rows)
    else:
        print(storesreport.text(measured, figures.rows))
    missed = figures.missed()
    if missed:
        sys.exit("bench: missed: " + "; ".join(missed))


def times(node, disk, args, extent, figures, measured):
    node.ok("probe")
    add_bases(node, args)
    # In a file in memory, so that nobody waits for what was written.
    output = os.path.join(args.work, "output")
    os.mkdir(output)
    command(["mount", "-t", "tmpfs", "tmpfs", output])
    one, ten = Store(node, disk, "one", 0.01, measured), Store(node, disk, "ten", 0.01, measured)
    large = Store(node, disk, "one", 0.10, measured)
    for race, limits in (
        small(one, ten, extent),
        rebased(one, ten, extent),
        looked_at(one, ten, extent),
        cold(one, ten, extent),
        exported(one, output, extent),
        exported(large, output, extent),
        ten_percent(large, extent),
    ):
        race.run(limits, extent.rounds).tell(figures, limits)
        measured.races.append(race)
        for store in one, ten, large:
            store.settle()
    for store in one, ten, large:
        node.ok("umount", store.view)
    command(["umount", output])


def add_bases(node, args):
    for name, tar in edits.tars(args.base, args.work).items():
        node.ok("base", "add", name, tar)
        os.unlink(tar)
        tree = os.path.join(node.lxcpath, ".base", name, "tree")
        print("base %s: %s entries" % (name, command(["sh", "-c", 'find "$1" | wc -l', "sh", tree]).strip()), flush=True)


class Store:
    """What one sliver changed: `view` is that sliver, mounted; `spare` is one that gets the same store again and again."""

    def __init__(self, node, disk, base, share, measured):
        self.node, self.disk, self.base = node, disk, base
        self.view, self.spare = ("%s-%d-%s" % (base, share * 100, what) for what in ("view", "spare"))
        self.tree = os.path.join(node.lxcpath, ".base", base, "tree")
        for name in self.view, self.spare:
            node.ok("create", name, "--base", base, "--backend", "overlay")
        node.ok("mount", self.view)
        done = edits.edit(node.view(self.view), edits.picked(self.tree, share))
        # What is left of it in memory is on the disk, and the store at rest.
        node.ok("umount", self.view)
        self.kept = os.path.join(disk.path, self.view)
        command(["cp", "-a", self.upper(self.view), self.kept])
        node.ok("mount", self.view)
        self.rebased = False
        self.title = "%d%% of the base `%s`" % (share * 100, base)
        measured.stores.append((self.title, done, measured_size(self.kept)))

    def upper(self, name):
        return os.path.join(self.node.lxcpath, ".store", name, "upper")

    def fresh(self):
        """The spare sliver has the whole store again, and it is on the disk."""
        self.settle()
        upper = self.upper(self.spare)
        shutil.rmtree(upper)
        command(["cp", "-a", self.kept, upper])
        command(["sync", "-f", self.disk.path])

    def before_rebase(self):
        if not self.rebased:
            self.fresh()
        self.settle()
        self.rebased = True
        command(["sync", "-f", self.disk.path])

    def settle(self):
        """The spare sliver stands on its first base."""
        if self.rebased:
            self.rebased = False
            self.node.ok("rebase", self.spare, "--undo")

    def compact(self, **more):
        return Runner("`sliverfs compact`, " + self.title, self.node.argv("compact", self.spare), self.fresh, **more)

    def rebase(self, **more):
        onto = "next" if self.base == "one" else "next-ten"
        argv = self.node.argv("rebase", self.spare, "--onto", onto)
        return Runner("`sliverfs rebase`, " + self.title, argv, self.before_rebase, **more)

    def diff(self, **more):
        return Runner("`sliverfs diff`, " + self.title, self.node.argv("diff", self.view), **more)

    def rsync(self, **more):
        """The page's way: into a view that is new and empty. Both were walked through before."""
        old, new = self.node.view(self.view), self.node.view("rsync")

        def ready():
            if os.path.exists(new):
                self.node.ok("umount", "rsync")
                self.node.ok("destroy", "rsync")
            self.node.ok("create", "rsync", "--base", self.base, "--backend", "overlay")
            self.node.ok("mount", "rsync")
            for view in old, new:
                command(["find", view, "-printf", "%s"])
            command(["sync", "-f", self.disk.path])

        argv = [*RSYNC, old + "/", new + "/"]
        return Runner("`rsync -aHAX --delete` of two views, " + self.title, argv, ready, ours=False, **more)

    def rsync_n(self, **more):
        argv = [RSYNC[0], "-n", *RSYNC[1:], self.node.view(self.view) + "/", self.tree + "/"]
        return Runner("`rsync -n -aHAX --delete` of view and base, " + self.title, argv, ours=False, **more)


def measured_size(upper):
    """Entries and bytes of a store."""
    entries = int(command(["sh", "-c", 'find "$1" | wc -l', "sh", upper]))
    return entries, int(command(["du", "-s", "-B1", upper]).split()[0])


def small(one, ten, extent):
    rsync, compact, wide = one.rsync(), one.compact(often=3), ten.compact(often=3)
    return Race("1%, warm", [rsync, compact, wide], extent.turns), [
        ("`compact` against the rsync way", compact, rsync, 50, None),
        ("`compact` with ten times the base's files against once", wide, compact, None, 1.10),
    ]


def rebased(one, ten, extent):
    compact, rebase, rebase_wide = one.compact(often=2), one.rebase(often=2), ten.rebase(often=2)
    return Race("1%, warm", [compact, rebase, rebase_wide], extent.turns), [
        ("`rebase` against `compact` of the same store", rebase, compact, None, 3.0),
        ("`rebase` with ten times the bases' files against once", rebase_wide, rebase, None, 1.10),
    ]


def looked_at(one, ten, extent):
    rsync, diff, wide = one.rsync_n(), one.diff(often=5), ten.diff(often=5)
    return Race("1%, mounted", [rsync, diff, wide], extent.turns), [
        ("`diff` against `rsync -n` of view and base", diff, rsync, 50, None),
        ("`diff` with ten times the base's files against once", wide, diff, None, 1.10),
    ]


def cold(one, ten, extent):
    rsync, compact, wide = one.rsync(), one.compact(often=2), ten.compact(often=2)
    return Race("1%, no cache", [rsync, compact, wide], extent.cold, cold=True), [
        ("`compact` against the rsync way", compact, rsync, 100, None),
    ]


def exported(store, output, extent):
    ours = store.node.argv("export", store.view, "-o", "-")
    theirs = [*TAR, store.upper(store.view), "."]
    export = Runner("`sliverfs export`, " + store.title, ours, often=2, out=os.path.join(output, "layer"))
    tar = Runner("`tar` of the upper folder, " + store.title, theirs, ours=False, often=2, out=os.path.join(output, "tar"))
    race = Race("%s, warm" % store.title.split(" ")[0], [tar, export], extent.turns)
    return race, [("`export` against `tar` of the upper folder", export, tar, None, 1.20)]


def ten_percent(store, extent):
    rsync, compact, rebase = store.rsync(), store.compact(), store.rebase()
    rsync_n, diff = store.rsync_n(), store.diff()
    return Race("10%, warm", [rsync, compact, rebase, rsync_n, diff], extent.large), [
        ("`compact` against the rsync way", compact, rsync, None, None),
        ("`diff` against `rsync -n` of view and base", diff, rsync_n, None, None),
        ("`rebase` against `compact` of the same store", rebase, compact, None, None),
    ]


if __name__ == "__main__":
    try:
        main()
    except Failed as failed:
        sys.exit("bench: %s" % failed)
