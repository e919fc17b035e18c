"""A snapshot made by hand with the same writes to the disk as the program's: what strace(1) saw, done again."""

import os
import re
import subprocess
import time

import ways
from node import command
from process import Failed, libc

CALLS = "ioctl,fsync,fdatasync,syncfs,sync,mkdir,mkdirat,rename,renameat,renameat2,openat,open"
PATH = r'(?:\w+<(?P<%s>[^>]*)>, )?"(?P<%s>[^"]*)"'
PATTERNS = (
    ("snapshot", re.compile(r'ioctl\(\d+<(?P<d>[^>]*)>, BTRFS_IOC_SNAP_CREATE\w*, .*name="(?P<a>[^"]*)"')),
    ("mkdir", re.compile(r"mkdir(?:at)?\(" + PATH % ("d", "a"))),
    ("rename", re.compile(r"rename(?:at2?)?\(" + PATH % ("d", "a") + ", " + PATH % ("e", "b"))),
    ("write", re.compile(r"open(?:at)?\(" + PATH % ("d", "a") + r", [^,)]*O_CREAT")),
    ("sync", re.compile(r"f(?:data)?sync\(\d+<(?P<a>[^>]*)>")),
    ("syncfs", re.compile(r"syncfs\(\d+<(?P<a>[^>]*)>")),
)


class Replay:
    """What `sliverfs create NAME` does in LXCPATH, as a list that is done again elsewhere on the disk under another name."""

    title = ways.SNAPSHOT_SYNCED
    ours = slow = False
    mounts = None

    def __init__(self, node, way, root):
        self.node, self.root, self.base = node, root, os.path.join(node.lxcpath, ".base", "plain", "tree")
        self.name = way.full("traced")
        argv = node.argv("create", self.name, "--base", way.base, "--backend", way.backend)
        lines = command(["sh", "-c", 'exec "$@" 2>&1', "sh", "strace", "-f", "-y", "-s", "4096", "-e", "trace=" + CALLS, *argv])
        self.steps = [step for line in lines.splitlines() if " = -1 " not in line for step in self.steps_of(line)]
        kinds = [step[0] for step in self.steps]
        if "snapshot" not in kinds:
            raise Failed("strace saw no snapshot in: " + lines)
        self.syncs = kinds.count("sync") + kinds.count("syncfs")
        os.makedirs(os.path.join(root, ".store"))

    def view(self, _):
        """None that is looked at: it is that of the snapshot by hand."""

    def steps_of(self, line):
        for kind, pattern in PATTERNS:
            match = pattern.search(line)
            if match:
                found = match.groupdict()
                paths = [os.path.join(found.get(d) or "", found[a]) for d, a in (("d", "a"), ("e", "b")) if found.get(a)]
                if all(path.startswith(self.node.lxcpath + "/") for path in paths):
                    yield kind, [os.path.relpath(path, self.node.lxcpath) for path in paths]
                return

    def create(self, name):
        """Milliseconds."""
        steps = [(kind, [os.path.join(self.root, path.replace(self.name, name)) for path in paths]) for kind, paths in self.steps]
        begin = time.perf_counter_ns()
        for kind, paths in steps:
            self.step(kind, paths)
        return (time.perf_counter_ns() - begin) / 1e6

    def step(self, kind, paths):
        if kind == "snapshot":
            argv = ["btrfs", "subvolume", "snapshot", self.base, paths[0]]
            subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
        elif kind == "mkdir":
            os.makedirs(paths[0], exist_ok=True)
        elif kind == "rename":
            os.rename(*paths)
        elif kind == "write":
            with open(paths[0], "w") as file:
                file.write("x" * 400)
        else:
            file = os.open(paths[0], os.O_RDONLY)
            if kind == "sync":
                os.fsync(file)
            else:
                syncfs(file)
            os.close(file)


def syncfs(file):
    if libc.syncfs(file) != 0:
        raise Failed("syncfs fails")
