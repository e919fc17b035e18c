"""What the figures were measured on, and the document that tells them."""

import datetime
import os
import platform
import subprocess


def machine(node, count=None):
    """Lines about the machine: what a figure depends on. `count` is that of processes and mounts, where it matters."""
    lines = [
        "machine: %s, %d processors, %d MiB of memory" % (model(), os.cpu_count(), memory_mib()),
        "system: %s, Linux %s" % (distribution(), platform.release()),
        "at work: %sload %.1f" % ("%d processes, %d mounts, " % count if count else "", os.getloadavg()[0]),
        "kernel's console: %s" % console(),
        "against: %s" % first_line(["mount", "--version"]),
        "program: %s, %s" % (node.ok("version").strip(), linked(node.program)),
    ]
    return "\n".join(lines)


def model():
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith(("model name", "cpu model", "Processor")):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def memory_mib():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20


def distribution():
    try:
        with open("/etc/os-release") as lines:
            for line in lines:
                if line.startswith("PRETTY_NAME="):
                    return line.split("=", 1)[1].strip().strip('"')
    except OSError:
        pass
    return "Linux"


def console():
    """A mount logs a line of the kernel, and whoever logs waits for a slow console."""
    with open("/proc/consoles") as lines:
        names = [line.split()[0] for line in lines]
    with open("/proc/sys/kernel/printk") as line:
        level = line.read().split()[0]
    return "%s, shows what is below level %s" % (", ".join(names) or "none", level)


def linked(program):
    with open(program, "rb") as file:
        text = file.read()
    return "%d bytes, %s" % (len(text), "dynamic" if b"/ld-linux" in text[:4096] else "static")


def first_line(argv):
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[0]


def write(path, about, rows):
    """The document, as a whole or not at all."""
    today = datetime.date.today().isoformat()
    lines = ["# Figures", "", "Written by `make bench` on %s; `make bench BENCH=quick` measures without writing." % today, ""]
    lines += ["- " + line for line in about.splitlines()]
    lines += ["", "| figure | measured | to reach | |", "|---|---|---|---|"]
    lines += ["| %s |" % " | ".join(row) for row in rows]
    lines += ["", TEXT]
    with open(path + ".new", "w") as file:
        file.write("\n".join(lines))
    os.rename(path + ".new", path)


TEXT = """## How it is measured
- The disk is an ext4 of 4 KiB blocks in a file, alone in its use. "By statfs" is the difference of the free blocks after a sync.
- Times are of whole processes, from the call that starts one to the moment its end is known; the two mounts are made in turn,
  the same mount as mountinfo shows it, and unmounted outside the time. The ratio is of the medians of one run.
- `sliverfs mount` asks the kernel whether the store is in use anywhere, by a mount that is refused. For each refusal the kernel
  logs a line, and where its console is a serial line that shows errors, printing it takes longer than all the rest.
- What a limit adds to `create` is the difference of the medians of both, run in turn after a sync; of an image without the time of
  mkfs.ext4 with the same words on a file of the same size. The calls of `zfs` that a dataset takes, each of which waits for
  the pool, are measured by themselves. `usage` and `btrfs qgroup show` both print to nowhere as they would for a person.
- The sizes of the packages and their budgets are those of `make size`. What a part of the roadmap takes of one is the sum of what
  each byte of it costs, as the packer knows it (`cross/weigh`). The parts were promised a growth, and were written in turns with what
  made the first part smaller: their sum as a growth is one figure, what each weighs in the program of today another.
- Peak memory is VmHWM of /proc when the process is about to end.
- The page that the project comes from measured lessfs, which deduplicates and compresses in user space: 230 of 410 MiB for the
  first copy (a ratio of 0.56), 12 MiB for each other one, with more than 700 MiB of memory and 80 % of a processor while in use.
"""
