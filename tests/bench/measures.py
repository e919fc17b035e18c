"""What a view costs to read and to write: time, page cache, and what a daemon takes for it."""

import os
import time

from process import Failed, field, milliseconds

# Read by programs that take a moment themselves: 24,000 files through cat(1).
READ = ["/usr/bin/find", "", "-xdev", "-type", "f", "-exec", "cat", "{}", "+"]


class Cgroup:
    """A memory cgroup for this process and all that it starts, so that other work on the machine is not counted."""

    def __init__(self):
        self.folder = self.parent = None
        with open("/proc/self/cgroup") as lines:
            for line in lines:
                _, controllers, path = line.strip().split(":", 2)
                if "memory" in controllers.split(","):
                    self.parent = "/sys/fs/cgroup/memory" + path
        try:
            self.folder = os.path.join(self.parent, "sliverfs-bench")
            os.makedirs(self.folder, exist_ok=True)
            enter(self.folder)
        except (OSError, TypeError):
            self.folder = None
        self.how = "`cache` of a memory cgroup" if self.folder else "Cached of /proc/meminfo, of the whole machine"

    def cache(self):
        """Bytes of page cache."""
        if not self.folder:
            return 1024 * number("/proc/meminfo", "Cached:")
        return number(os.path.join(self.folder, "memory.stat"), "total_cache")

    def close(self):
        if self.folder:
            enter(self.parent)
            os.rmdir(self.folder)


def enter(cgroup):
    with open(os.path.join(cgroup, "cgroup.procs"), "w") as file:
        file.write("0")


def number(path, key):
    with open(path) as lines:
        for line in lines:
            words = line.split()
            if words[0] == key:
                return int(words[1])
    raise Failed("%s has no %s" % (path, key))


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


def read(view):
    """Milliseconds to read every file of a view."""
    argv = list(READ)
    argv[1] = view
    with open(os.devnull, "w") as nowhere:
        return milliseconds(argv, nowhere.fileno())


def readings(cgroup, views):
    """Times to read the first view cold and again, to read the second; the page cache once the first is read, and all are."""
    drop_caches()
    before = cgroup.cache()
    cold = read(views[0])
    one = cgroup.cache() - before
    warm = read(views[0])
    others = [read(view) for view in views[1:]]
    cache = cgroup.cache() - before
    return {"cold": cold, "warm": warm, "next": others[0], "one": one, "cache": cache, "readers": len(views)}


def first_write(path):
    """Milliseconds until 4 KiB in the middle of a file are on the disk."""
    begin = time.perf_counter_ns()
    file = os.open(path, os.O_RDWR)
    try:
        middle = os.fstat(file).st_size // 2 & ~4095
        os.pwrite(file, b"x" * 4096, middle)
        os.fsync(file)
    finally:
        os.close(file)
    return (time.perf_counter_ns() - begin) / 1e6


def daemons():
    """The processes that stay: all of this namespace but the bench and who started it. (memory in bytes, seconds of CPU) of each."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) in (1, os.getpid(), os.getppid()):
            continue
        try:
            with open("/proc/%s/stat" % pid) as line:
                fields = line.read().rpartition(")")[2].split()
            ticks = int(fields[11]) + int(fields[12])
            found[int(pid)] = (field(int(pid), "smaps_rollup", "Pss:") << 10, ticks / os.sysconf("SC_CLK_TCK"))
        except (OSError, ValueError, Failed):
            pass  # It has just ended.
    return found
