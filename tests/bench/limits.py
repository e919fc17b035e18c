"""What limits cost: a creation with one, and what `usage` tells of many slivers, beside Btrfs's own list of its groups."""

import os
import shutil
import statistics
import subprocess
import time

from node import command
from process import milliseconds

GIB = 1 << 30
MKFS = "-q -F -m 0 -b 4096 -J size=4 -E nodiscard,lazy_itable_init=1".split()
BACKEND = ("--backend", "btrfs-snapshot")
GROUP = ("--quota", "2M", "--means", "qgroup")


def images(node, figures, base, runs, surroundings=""):
    """A creation with an image of 1 GiB, which an overcommit makes sparse, against one without, and mkfs.ext4 by itself."""
    config = os.path.join(node.disk, "overcommit")
    with open(config, "w") as file:
        file.write("config sliverfs main\n option overcommit '1000'\n")
    create = [node.program, "--config", config, "create", "limit", "--base", base, "--backend", "overlay"]
    image = os.path.join(node.disk, "limit.img")
    mkfs = [command(["sh", "-c", "command -v mkfs.ext4"]).strip(), *MKFS, image]

    def empty():
        with open(image, "w") as file:
            file.truncate(GIB)

    def unnoted():
        try:
            os.unlink(os.path.join(node.lxcpath, ".store", ".promised"))
        except FileNotFoundError:
            pass

    limit = [*create, "--quota", "1G"]
    plain, limited, first, made = medians(node, [(create, None), (limit, None), (limit, unnoted), (mkfs, empty)], runs)
    os.unlink(image)
    figures.add(
        "mkfs.ext4 of an image of 1 GiB, sparse, median of %d%s" % (runs, surroundings),
        "%.1f ms" % made, "at most 100 ms", made <= 100,
    )
    added(figures, "an image of 1 GiB, without its mkfs.ext4", plain, limited - made, runs, surroundings)
    figures.add(
        "the same with the first limit of a boot, which reads all records%s" % surroundings,
        "%.1f ms, beside %.1f ms without" % (first - made - plain, plain),
    )


def groups(node, figures, base, runs):
    """The same with a qgroup, and both without one on a disk that has them."""
    create = node.argv("create", "limit", "--base", base, *BACKEND)
    plain, limited = medians(node, [(create, None), ([*create, *GROUP], None)], runs)
    added(figures, "a qgroup", plain, limited, runs, "")


def datasets(node, pool, figures, base, runs):
    """The same with a dataset of ZFS, and the least that it can take by hand: the dataset, and a limit when the copy in it is counted, for
    which the second call waits. One call alone would do for a dataset in which nothing is to lie that came from a base."""
    create = node.argv("create", "limit", "--base", base, "--backend", "copy")
    limit = [*create, "--quota", "8M", "--means", "zfs"]
    dataset, folder = pool + "/by-hand", os.path.join(node.disk, "folder")
    copy = "cp -a %s/. " % os.path.join(node.lxcpath, ".base", base, "tree") + "%s && sync %s/*"
    place = os.path.join(node.disk, "by-hand")
    plainly = shell("mkdir " + folder, copy % (folder, folder))
    calls = shell("zfs create " + dataset, copy % (place, place), "zfs set refquota=%d %s" % (64 << 20, dataset))
    alone = shell("zfs create -o refquota=%d %s" % (64 << 20, dataset))

    def unmade():
        """One that was just made is busy for a moment."""
        for _ in range(100):
            gone = command(shell("zfs destroy %s 2>/dev/null || zfs list %s 2>/dev/null || echo gone" % (dataset, dataset)))
            if gone in ("", "gone\n"):
                break
            time.sleep(0.05)

    race = [(create, None), (limit, None), (plainly, lambda: shutil.rmtree(folder, True)), (calls, unmade), (alone, unmade)]
    plain, limited, copied, called, made = medians(node, race, runs)
    unmade()
    added(figures, "a dataset of zfs-fuse", plain, limited, runs, "")
    least, more = called - copied, limited - plain
    for what, by_hand in (
        ("`zfs create` and `zfs set`, added to `cp -a` and `sync`", least), ("`zfs create -o refquota` alone", made),
    ):
        figures.add(
            "the same against %s by hand, medians of %d" % (what, runs),
            "%.1f ms, %.1f ms: ratio %.2f" % (more, by_hand, more / by_hand),
        )


def shell(*commands):
    return ["/bin/sh", "-c", " && ".join(commands)]


def added(figures, what, plain, limited, runs, surroundings):
    more = limited - plain
    figures.add(
        "what a limit adds to `create`: %s, medians of %d%s" % (what, runs, surroundings),
        "%.1f ms, beside %.1f ms without" % (more, plain), "at most 5 ms", more <= 5,
    )


def medians(node, commands, runs):
    """Milliseconds of commands that are run in turn, each after what makes it ready. What they make is destroyed outside the time."""
    times = [[] for _ in commands]
    # Not its words, and nobody waits for a console.
    with open(os.devnull, "w") as nowhere:
        for number in range(runs + 1):
            for which, (argv, ready) in enumerate(commands) if number % 2 == 0 else reversed(list(enumerate(commands))):
                if ready:
                    ready()
                command(["sync", "-f", node.disk])
                took = milliseconds(argv, nowhere.fileno(), nowhere.fileno())
                # The first is warming up.
                times[which].extend([took] if number else [])
                if argv[0] == node.program:
                    node.ok("destroy", "limit")
    return [statistics.median(one) for one in times]


def usage(node, figures, base, slivers, runs):
    """The whole process against btrfs-progs: as a person reads them, in turn."""
    names = ["u%03d" % number for number in range(slivers)]
    node.create(names, base, *BACKEND, *GROUP)
    command(["sync", "-f", node.disk])
    ours = node.argv("usage")
    theirs = [command(["sh", "-c", "command -v btrfs"]).strip(), "qgroup", "show", node.lxcpath]
    shown = command(theirs).count("1/")
    times = [[], []]
    with open(os.devnull, "w") as nowhere:
        for number in range(runs + 1):
            for which, argv in enumerate((ours, theirs)) if number % 2 == 0 else ((1, theirs), (0, ours)):
                took = milliseconds(argv, nowhere.fileno(), nowhere.fileno())
                times[which].extend([took] if number else [])
    our, their = (statistics.median(one) for one in times)
    figures.add(
        "`sliverfs usage` against `btrfs qgroup show`, %d slivers of %d groups with a limit, medians of %d" % (slivers, shown, runs),
        "%.1f ms, %.1f ms: ratio %.2f" % (our, their, our / their), "ratio at most 2.00", our <= 2 * their,
    )


def quotas(node):
    """Turns simple quotas on. False where the kernel has none."""
    return subprocess.run(node.argv("quota", "--enable"), stderr=subprocess.DEVNULL, check=False).returncode == 0
