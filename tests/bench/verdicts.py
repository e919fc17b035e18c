"""What the ways must reach, each against its neighbour in the same run."""

import ways
from figures import kib, mib


def judge(figures, rows):
    """Adds the figures that have a limit; one whose ways are not here is told as such."""
    packed(figures, rows)
    ratio(figures, rows, "btrfs", ways.SNAPSHOT, ways.SNAPSHOT_BY_HAND, 3.0)
    ratio(figures, rows, "btrfs", ways.SNAPSHOT, ways.SNAPSHOT_SYNCED, 1.3)
    for disk in "btrfs", "xfs":
        ratio(figures, rows, disk, "reflink", "`cp -a --reflink=always`, `sync -f`", 1.0)
    ratio(figures, rows, "ext4", ways.COPY, ways.COPY_BY_HAND, 1.0)
    # No limit: the kernel hands no sync on to FUSE, so the one by hand ends before anything is on the disk.
    ratio(figures, rows, "zfs-fuse", ways.COPY, "`cp -a`", None)


def find(rows, disk, title):
    for row in rows:
        if (row.kind, row.way.title) == (disk, title):
            return row
    return None


def packed(figures, rows):
    """One of the forms must be small; the smallest is held against the limit, the others are told."""
    found = [row for row in rows if row.way.title.startswith(("overlay on squashfs", "overlay on erofs"))]
    if not found:
        figures.add("a packed base", "not measured")
        return
    least = min(found, key=lambda row: row.base)
    for row in found:
        share = row.base / row.plain
        figures.add(
            "disk of the base of %s, against the plain tree" % row.way.title,
            "%s of %s: ratio %.3f" % (mib(row.base), mib(row.plain), share),
            "ratio at most 0.30" if row is least else None,
            share <= 0.30,
        )
        most = max(row.extra)
        figures.add("disk of each sliver of " + row.way.title, "at most " + kib(most), "at most 32 KiB", most <= 32 << 10)
        figures.add(
            "what stays in use for it",
            "%d processes, %.2f s of a processor" % (len(row.pids), row.cpu),
            "no process, no time",
            not row.pids and row.cpu == 0,
        )


def ratio(figures, rows, disk, ours, theirs, limit):
    one, other = find(rows, disk, ours), find(rows, disk, theirs)
    what = "creating on %s: %s against %s" % (disk, ours, theirs)
    if not one or not other:
        figures.add(what, "not measured")
        return
    mine, others = one.median(one.creates), other.median(other.creates)
    # Two that ran one after the other found the same disk; a median of each may be of another hour.
    share = one.median([mine / others for mine, others in zip(one.creates, other.creates)])
    figures.add(
        "%s, medians of %d pairs" % (what, min(len(one.creates), len(other.creates))),
        "%.1f ms, %.1f ms: ratio %.2f" % (mine, others, share),
        "ratio at most %.2f" % limit if limit else None,
        not limit or share <= limit,
    )
