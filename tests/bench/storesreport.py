"""The document on what works on stores: the figures, all times and memory, and how they were measured."""

import datetime
import os

import plots
from races import took
from seedsreport import size, table


class Measured:
    """All that was measured. `stores` are (title, how often each edit was made, (entries, bytes))."""

    def __init__(self, extent):
        self.extent, self.machine = extent, None
        self.stores, self.races, self.memory, self.entries = [], [], [], 0


def rows(measured):
    for race in measured.races:
        for runner in race.runners:
            spread = "%s – %s" % (took(min(runner.times)), took(max(runner.times)))
            yield race.title, runner.title, took(runner.median()), spread, str(len(runner.times))


def text(measured, verdicts):
    today = datetime.date.today().isoformat()
    lines = ["# Work on stores, measured", ""]
    lines += ["Written by `make bench-stores` on %s; `make bench-stores BENCH=quick` measures less and writes nothing." % today, ""]
    lines += ["- " + line for line in measured.machine.splitlines()]
    lines += ["", "## To reach", ""] + table(("figure", "measured", "to reach", ""), verdicts)
    lines += ["", "![Times](stores-times.svg)", "", "![Memory](stores-memory.svg)"]
    lines += ["", "## All times", ""]
    lines += table(("store, and what is cached", "command", "median", "least – most", "times"), rows(measured))
    lines += ["", "## The stores", ""]
    for title, done, (entries, taken) in measured.stores:
        made = ", ".join("%s %d" % pair for pair in done.items())
        lines.append("- %s: %d entries, %s. Edits: %s." % (title, entries, size(taken), made))
    return "\n".join(lines) + "\n\n" + TEXT


def write(folder, measured, verdicts):
    """As a whole or not at all."""
    path = os.path.join(folder, "stores.md")
    with open(path + ".new", "w") as file:
        file.write(text(measured, verdicts))
    os.rename(path + ".new", path)
    plots.save(folder, {"stores-times": times(measured), "stores-memory": memory(measured)})


def times(measured):
    small, rebased, mounted, cold, export = measured.races[:5]
    return plots.two_svg(
        ("A store of 1 % of the base's files, all that is read cached", "ms, logarithmic", bars(small, rebased, mounted, export)),
        ("The same, with nothing cached", "ms, logarithmic", bars(cold)),
    )


def bars(*races):
    """Of each command but one."""
    found = {}
    for race in races:
        for runner in race.runners:
            found.setdefault(label(runner.title), (runner.ours, [runner.median()]))
    return [(name, *bar) for name, bar in found.items()]


def label(title):
    what, store = title.replace("`", "").split(", ")
    return what + (", ten times the base" if store.endswith("ten") else "")


def memory(measured):
    title = "The most memory, with a store of %s entries" % format(measured.entries, ",")
    return plots.bars_svg(title, "MiB", [("sliverfs " + peak.title, True, [peak.kib / 1024]) for peak in measured.memory])


TEXT = """## How it is measured
- The base `one` is a Debian root file system of real packages. `ten` has the same, and below `more/` nine others of each of its
  entries, whose files hold 4 KiB at most. `next` and `next-ten`, which slivers are rebased onto, have other contents in 2 % of the same files.
- What a part of the roadmap takes of the ipk is the sum of what each byte of it costs, as the packer knows it (`cross/weigh`); which files
  are of which part stands in `cross/parts`.
- The disk is an ext4 of 4 KiB blocks in a sparse file, alone in its use, on a loop device that does not keep pages (direct I/O), mounted
  `noatime`.
- A store of 1 % has that share of the base's regular files edited through a mounted overlay, evenly spread, none larger than 1 MiB: `modify`
  appends, `replace` renames a new file over the old one, `mode`, `owner` and `time` change nothing else, `equal` copies a file up and
  leaves it as it was: only this does `compact` drop, with the folders that hold no more than that.
- The commands of a race run in turn, once in this order and once in the other. Times are of whole processes, a ratio is of the medians of
  one race. One run of each goes before it, which is not counted. Where a figure is missed, the whole race is run again, once; the last one
  counts, and the table tells.
- Before each `compact` and `rebase` the sliver gets the whole store again, by `cp -a`, and the disk is synced. Before each rsync of
  two views the new view is made anew, empty, and both are walked through; with no cache, the caches are dropped after all that.
- `tar` and `export` write into one file in memory (tmpfs): to /dev/null, GNU tar reads no contents. tar is called with `--xattrs
  --xattrs-include=* --acls --numeric-owner`, so both keep the same of each entry.
- All runs in a namespace of processes of its own, so what looks for views in other mount namespaces has few to look at.
- Peak memory is VmHWM of /proc when a process is about to end: the most that any process of the command took. rsync's own, which sync
  starts, is not counted. The store lies in memory (tmpfs), 10,000 entries in each folder: files, links, whiteouts, 2 % with
  two names, 2 % with contents. `rebase` meets conflicts in a thousandth of it.

## What may be concluded
- With nothing cached, `compact` waits for the disk, for which rsync waits as long as it works. Counted on 2026-11-27: compact has 430 reads
  issued (230 of a block of one of the base's folders, 113 of inodes, 85 of contents), rsync 2,550, which take 0.17 ms each: a
  hundredth of rsync's time has room for 50. The folders' blocks that a name is looked up in lie in 59 stretches of 128 KiB, the inodes in 38:
  who knew all of them before would still need twice that time. Reading ahead by several processes cannot help here: 220 reads of
  4 KiB take this disk 36 ms one after the other, 18 ms two at a time, and 16 ms sixteen at a time.
"""
