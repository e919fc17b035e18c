"""The document on every way to a sliver: the table, what it was measured on and how, and what follows from it."""

import datetime
import os

WAY = "way, on which disk"
DISK = (WAY, "disk of the base", "of the 2nd sliver", "of the last", "create", "mount", "first write", "and its disk")
MEMORY = (WAY, "read cold", "again", "the 2nd", "page cache of one", "of all that were read", "daemons: memory, processor")
# As the page tells them, of 2011 and a Core2 Duo of 2 GHz.
PAGE_DISK = (
    ("the page: lessfs", "230 of 410 MiB", "12 MiB", "", "", "", "", ""),
    ("the page: `cp -a --reflink`, btrfs", "510 MiB", "61 MiB", "", "some seconds", "", "", ""),
    ("the page: Btrfs snapshot", "510 MiB", "0", "", "instantaneous", "", "", ""),
)
PAGE_MEMORY = (("the page: lessfs", "", "", "", "", "", "more than 700 MiB, 80 % of it"),)
NONE = "–"


def title(row):
    return "%s%s, %s" % ("" if row.way.ours else "by hand: ", row.way.title, row.kind)


def disk_cells(row):
    """A row of the first table, as texts."""
    return (
        title(row),
        size(row.base),
        size(row.extra[1]) if row.extra else NONE,
        "%s (%d.)" % (size(row.extra[-1]), len(row.extra)) if row.extra else NONE,
        took(row.median(row.creates)) + (" (%s)" % row.note if row.note else ""),
        took(row.median(row.mounts)) if row.mounts else NONE,
        took(row.first_write) if row.first_write is not None else NONE,
        size(row.write_disk) if row.write_disk is not None else NONE,
    )


def memory_cells(row):
    """A row of the second."""
    reading = row.reading
    return (
        title(row),
        *(took(reading[key]) for key in ("cold", "warm", "next")),
        size(reading["one"]),
        "%s (%d)" % (size(reading["cache"]), reading["readers"]),
        daemons(row),
    )


def daemons(row):
    if not row.pids:
        return "none"
    return "%d: %s, %.1f s" % (len(row.pids), size(row.memory), row.cpu)


def size(count):
    count = max(0, count)
    if count >= 10 << 20:
        return "%d MiB" % round(count / (1 << 20))
    if count >= 1 << 20:
        return "%.1f MiB" % (count / (1 << 20))
    return "%d KiB" % round(count / 1024)


def took(milliseconds):
    if milliseconds >= 1000:
        return "%.1f s" % (milliseconds / 1000)
    return "%.*f ms" % (0 if milliseconds >= 100 else 1, milliseconds)


def table(head, rows):
    lines = ["| %s |" % " | ".join(head), "|%s" % ("---|" * len(head))]
    return lines + ["| %s |" % " | ".join(row) for row in rows]


def text(machine, extent, rows, missing, verdicts):
    today = datetime.date.today().isoformat()
    lines = ["# The ways to a sliver, measured", ""]
    lines += ["Written by `make bench-seeds` on %s; `make bench-seeds BENCH=quick` measures less and writes nothing." % today, ""]
    lines += ["- " + line for line in (machine or "nothing could be measured").splitlines()]
    lines += ["", "## To reach", ""] + table(("figure", "measured", "to reach", ""), verdicts)
    lines += ["", "## Disk and time of every way", ""] + table(DISK, [*map(disk_cells, rows), *PAGE_DISK])
    lines += ["", "![Disk of ten slivers](seeds-disk.svg)", "", "![Times](seeds-times.svg)"]
    lines += ["", "## Reading and memory", ""]
    lines += table(MEMORY, [*map(memory_cells, (row for row in rows if row.reading)), *PAGE_MEMORY])
    lines += ["", "![Page cache](seeds-cache.svg)"]
    lines += ["", "## What is not in the table", ""]
    lines += ["- %s: %s" % entry for entry in [*missing, *ELSEWHERE]]
    return "\n".join(lines) + "\n\n" + TEXT % {**extent._asdict(), "large": size(extent.large)}


# The page names them; nothing here could start them.
ELSEWHERE = (
    ("lessfs, SDFS", "Debian 12 has no package of them; the page's own figures of lessfs stand in the table"),
    ("ZFS of the kernel", "its module is not part of Linux; zfs-fuse stands for the way it deduplicates"),
)


def write(folder, *about):
    """As a whole or not at all."""
    path = os.path.join(folder, "seeds.md")
    with open(path + ".new", "w") as file:
        file.write(text(*about))
    os.rename(path + ".new", path)


TEXT = """## How it is measured
- The base is a Debian root file system of real packages, and a file of %(large)s in it that has an even share of each of its
  files, so that it compresses as the rest does. All ways on a disk have the same one.
- A disk is a sparse file with one file system, on a loop device that does not keep pages (direct I/O), mounted `noatime`. Disk is the
  difference of what is taken before and after, when all is written: by statfs; on Btrfs by `btrfs filesystem df`, metadata
  twice where they are kept twice; on zfs-fuse by `zpool list`, in its three digits.
- A sliver's disk is counted after its first mount. "The last" is the one whose number stands in brackets: full copies share nothing
  on ext4 and take long on zfs-fuse, so fewer are made.
- What a part of the roadmap takes of the ipk is the sum of what each byte of it costs, as the packer knows it (`cross/weigh`); which files
  are of which part stands in `cross/parts`.
- Squashfs is packed as `base add --pack squashfs` does (zstd, blocks of 128 KiB), erofs as `--pack erofs` does,
  which takes zstd where erofs-utils has it (1.8), else lz4hc.
- The slivers of all ways on a disk are made in turn, once in this order and once in the other, with the disk at rest before each;
  times are of whole processes, medians of %(slivers)d (snapshots: %(snapshots)d; full copies: %(pairs)d on ext4, each removed before the next, 2 on
  zfs-fuse); a ratio is the median of those of two that were made one after the other.
- "The same fsyncs" is a replay: the folders, files, renames and fsyncs that strace saw `sliverfs create` make, with `btrfs subvolume
  snapshot` where it makes its snapshot.
- Reading is `find -type f -exec cat` over the whole view: with no page cached, again, then the other slivers. Page cache is what the first
  left, and what all of them did (how many stands in brackets), the pages of images below included.
- Daemons: how many, their memory (Pss) with all views read once, and their processor time for all that was done with them. Threads of
  the kernel are not counted.
- First write: 4 KiB into the middle of the large file, until fsync is done, in a view that was read before; the median of
  %(writes)d slivers. What a union copies is the whole file (footnote 3 of the page).
- `lxc-copy -s` mounts nothing; `lxc-start` does, as `mount -t overlay` does.

## What may be concluded
- Compare ways of one disk with each other. Between disks, times depend on their file systems and on the machine's own disk.
- squashfs keeps pages for the whole block of a file that is smaller (seen on Linux 6.18): many small files take more page cache than
  they have bytes; blocks of 256 KiB took twice as much. It is taken once for all slivers, and given back when memory is short.
- Where a view costs page cache for each sliver, ten containers that use the same programs hold them in memory ten times; on a
  small node that matters more than the disk.
- A union's first write to a file costs its whole size, in time and in disk; the ways that share extents pay by block.
- The page's figures come from another machine, another base and kernels of 2011: they tell the order of magnitude.
"""
