"""Bases of which one is ten times another, and newer ones; and a sliver's share of edits, made through its mounted view."""

import copy
import os
import shutil
import stat
import tarfile

from process import Failed

# What the nine others of each file hold at most, in the base that has ten times the files.
LITTLE = 4096
# A newer base has another content in each file of so many.
UPDATED = 50
# The largest file that is edited: a store of some hundred files is not to be one library.
MOST = 1 << 20
# What becomes of one file of twenty after the other.
TURNS = "modify delete modify add mode modify equal delete modify add owner modify delete replace add equal modify delete time modify".split()


def tars(source, work):
    """The tars of the bases `one` and `ten`, and of their updates `next` and `next-ten`."""
    paths = {name: os.path.join(work, name + ".tar") for name in ("one", "ten", "next", "next-ten")}
    with tarfile.open(source, "r:") as tar:
        entries = tar.getmembers()
        end = tar.offset

        def body(entry, size):
            return tar.extractfile(entry).read(size) if entry.isreg() else b""

        members = [(entry, body(entry, LITTLE)) for entry in entries]
        files = sorted((entry for entry in entries if entry.isreg() and entry.size <= MOST), key=lambda entry: entry.name)
        updates = [(newer(entry), body(entry, MOST) + b"\nof the next base\n") for entry in files[7::UPDATED]]
    shutil.copyfile(source, paths["one"])
    shutil.copyfile(source, paths["ten"])
    more = [(moved(entry, number), body) for number in range(1, 10) for entry, body in members]
    grown = append(paths["ten"], end, more)
    for name, old, at in (("next", "one", end), ("next-ten", "ten", grown)):
        shutil.copyfile(paths[old], paths[name])
        append(paths[name], at, updates)
    return paths


def append(path, at, members):
    """Writes members behind what a tar holds, and returns where they end. Of two of one name the later one counts."""
    with open(path, "r+b") as file:
        file.seek(at)
        with tarfile.open(fileobj=file, mode="w:", format=tarfile.PAX_FORMAT) as tar:
            for entry, body in members:
                entry.size = len(body)
                tar.addfile(entry, Bytes(body))
            at = tar.offset
        file.truncate()
    return at


class Bytes:
    """A file of some bytes that is read once, from its start to its end."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def read(self, size):
        self.at += size
        return self.data[self.at - size:self.at]


def same(entry):
    """A copy without what its extended header says of name, size and time, which would count more than the new ones."""
    entry = copy.copy(entry)
    entry.pax_headers = {key: value for key, value in entry.pax_headers.items() if "." in key}
    return entry


def moved(entry, number):
    entry = same(entry)
    entry.name = os.path.normpath("more/%d/%s" % (number, entry.name))
    if entry.islnk():
        entry.linkname = os.path.normpath("more/%d/%s" % (number, entry.linkname))
    return entry


def newer(entry):
    entry = same(entry)
    entry.mtime += 1000
    return entry


def picked(base, share):
    """As many paths of regular files as that share of all, evenly spread; of one name, since overlay breaks links apart."""
    found, count = [], 0
    for folder, names, files in os.walk(base):
        names[:] = sorted(name for name in names if (folder, name) != (base, "more"))
        for name in sorted(files):
            path = os.path.join(folder, name)
            seen = os.lstat(path)
            if stat.S_ISREG(seen.st_mode):
                count += 1
                if seen.st_nlink == 1 and seen.st_size <= MOST:
                    found.append(os.path.relpath(path, base))
    wanted = max(20, round(count * share))
    if len(found) < wanted:
        raise Failed("%s has too few files to edit %d" % (base, wanted))
    return [found[number * len(found) // wanted] for number in range(wanted)]


def edit(view, paths):
    """Does to each path what is its turn, and tells how often each was done."""
    done = dict.fromkeys(TURNS, 0)
    for number, path in enumerate(paths):
        turn = TURNS[number % len(TURNS)]
        globals()["do_" + turn](os.path.join(view, path))
        done[turn] += 1
    return done


def do_modify(path):
    with open(path, "ab") as file:
        file.write(b"\nof the sliver\n")


def do_replace(path):
    """As a package manager does."""
    shutil.copy2(path, path + ".new")
    do_modify(path + ".new")
    os.rename(path + ".new", path)


def do_delete(path):
    os.unlink(path)


def do_add(path):
    shutil.copyfile(path, path + ".added")


def do_mode(path):
    os.chmod(path, os.stat(path).st_mode & 0o7777 ^ 0o020)


def do_owner(path):
    os.chown(path, 1234, 1234)


def do_time(path):
    os.utime(path, (1500000000, 1500000000))


def do_equal(path):
    """Copied up, and as it was."""
    seen = os.stat(path)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
