"""The most memory that each command takes for a store of very many entries, at most ten thousand in a folder."""

import os
import time
from collections import namedtuple

from node import Node, command
from process import peak_kib

FOLDER = 10000
LIMIT_KIB = 8 << 10
BLOCK = 512
TIME = 1400000000
# A command, the most memory of any process of it in KiB, and how long it took in seconds.
Peak = namedtuple("Peak", "title kib seconds")


def memory(program, work, entries, figures):
    """Runs each command on a node in memory: the file system has no part in what a process takes."""
    place = os.path.join(work, "memory")
    os.mkdir(place)
    command(["mount", "-t", "tmpfs", "-o", "mode=755,size=80%,nr_inodes=0", "tmpfs", place])
    node = Node(program, place)
    layer, source = os.path.join(place, "layer.tar"), os.path.join(place, "source")
    store(layer, entries)
    for name in "old", "new":
        tar = os.path.join(place, name + ".tar")
        base(tar, entries, name == "new")
        node.ok("base", "add", name, tar)
        os.unlink(tar)
    node.ok("create", "m", "--base", "old", "--backend", "overlay")
    os.mkdir(source)
    peaks = []

    def peak(title, *words):
        begin = time.monotonic()
        kib = peak_kib(node.argv(*words), family=True)
        peaks.append(Peak(title, kib, time.monotonic() - begin))
        what = "peak memory of `%s`, a store of %s entries" % (title, format(entries, ","))
        figures.add(what, "%d KiB, in %.1f s" % (kib, peaks[-1].seconds), "at most %d KiB" % LIMIT_KIB, kib <= LIMIT_KIB)

    peak("import", "import", "m", layer)
    # What the sync starts from: all of the store, but nothing of the base's.
    command(["tar", "-C", source, "-xf", layer, "--exclude=.wh.*"])
    os.unlink(layer)
    peak("diff", "diff", "m")
    peak("check", "check", "m")
    peak("export", "export", "m", "-o", "/dev/null")
    peak("rebase", "rebase", "m", "--onto", "new")
    node.ok("rebase", "m", "--commit")
    peak("compact", "compact", "m")
    peak("convert", "convert", "m", "--to", "aufs")
    node.ok("convert", "m", "--undo")
    peak("sync", "sync", "m", source)
    peak("restore", "restore", "m", "top")
    command(["umount", place])
    return peaks


def folders(entries):
    """The folders, and how many names each has."""
    count = -(-entries // FOLDER)
    return ["top/folder-%03d/" % number for number in range(count)], entries // count - 1


def name(number):
    return "entry-of-the-store-%08d" % number


def store(path, entries):
    """An OCI layer of which each hundredth entry deletes a file of the base's, is as the base's, changes one, and is a second
    name, and each twentieth is a link."""
    where, each = folders(entries)
    with Tar(path) as tar:
        tar.add("top/", b"5")
        for folder in where:
            tar.add(folder, b"5")
            for number in range(each):
                kind, entry = number % 100, folder + name(number)
                if kind == 0:
                    tar.add("%s.wh.%s" % (folder, name(number)))
                elif kind == 1:
                    tar.add(entry, body=b"of the base\n")
                elif kind == 2:
                    tar.add(entry, body=b"of the sliver\n")
                elif kind == 3:
                    tar.add(entry, b"1", link=folder + name(number - 1))
                elif kind % 20 == 4:
                    tar.add(entry, b"2", link=name(number - 1))
                else:
                    tar.add(entry)


def base(path, entries, new):
    """What such a store stands on. A newer one has other contents in each tenth file that the store changes."""
    where, each = folders(entries)
    with Tar(path) as tar:
        tar.add("top/", b"5")
        for folder in where:
            tar.add(folder, b"5")
            for number in range(each):
                if number % 100 < 3:
                    changed = new and number % 1000 == 2
                    tar.add(folder + name(number), body=b"of the next base\n" if changed else b"of the base\n")


class Tar:
    """Plain headers (tar(5)), made by hand: tarfile takes a minute for a million of them."""

    def __init__(self, path):
        self.file = open(path, "wb", 1 << 20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.write(bytes(2 * BLOCK))
        self.file.close()

    def add(self, path, flag=b"0", link="", body=b""):
        mode = b"0000755\0" if flag == b"5" else b"0000644\0"
        head = b"%s%s0000000\x000000000\0%011o\0%011o\0        %s%s" % (
            path.encode().ljust(100, b"\0"), mode, len(body), TIME, flag, link.encode().ljust(100, b"\0")
        )
        head = (head + b"ustar\x0000").ljust(BLOCK, b"\0")
        self.file.write(head[:148] + b"%06o\0 " % sum(head) + head[156:])
        if body:
            self.file.write(body.ljust(-(-len(body) // BLOCK) * BLOCK, b"\0"))
