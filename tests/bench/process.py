"""Whole processes: how long one takes, and how much memory it takes at most."""

import ctypes
import os
import signal
import time

PTRACE_TRACEME, PTRACE_CONT, PTRACE_DETACH, PTRACE_SETOPTIONS = 0, 7, 17, 0x4200
PTRACE_O_EXITKILL, PTRACE_O_TRACEEXIT = 1 << 20, 1 << 6
# Of fork(2), vfork(2), clone(2) and exec(2).
PTRACE_O_FAMILY = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4
EXITING = signal.SIGTRAP | 6 << 8  # PTRACE_EVENT_EXIT
BECAME = signal.SIGTRAP | 4 << 8  # PTRACE_EVENT_EXEC
WALL = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


class Failed(Exception):
    """A command that had to succeed did not."""


def milliseconds(argv, out=None, err=None):
    """Starts a program, waits for its end, and tells how long that took.

    From just before the kernel is asked to start it to the moment its end is known: loading and linking are in it.
    """
    actions = [(os.POSIX_SPAWN_DUP2, file, number) for file, number in ((out, 1), (err, 2)) if file is not None]
    begin = time.perf_counter_ns()
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    end = time.perf_counter_ns()
    if status != 0:
        raise Failed("%s: status %d" % (" ".join(argv), os.waitstatus_to_exitcode(status)))
    return (end - begin) / 1e6


def peak_kib(argv, family=False):
    """Runs a program and tells the most memory that it had at once, in KiB; with `family`, that any process of it had, but no
    other program that it starts.

    Read from /proc when it is about to end, since the kernel counts in what wait4(2) tells what the parent had before
    exec(2): a Python. VmHWM may lag by some pages that each processor counts for itself; Rss is exact, but of the end.
    """
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            libc.ptrace(PTRACE_TRACEME, 0, None, None)
            os.execv(argv[0], argv)
        finally:
            os._exit(127)
    os.waitpid(pid, 0)  # stopped by its exec
    program = os.readlink("/proc/%d/exe" % pid)
    trace(PTRACE_SETOPTIONS, pid, PTRACE_O_EXITKILL | PTRACE_O_TRACEEXIT | (PTRACE_O_FAMILY if family else 0))
    trace(PTRACE_CONT, pid, None)
    peak, known = 0, {pid}
    while True:
        one, status = os.waitpid(-1 if family else pid, WALL)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if one != pid:
                continue
            if status != 0 or peak == 0:
                raise Failed("%s: status %d" % (" ".join(argv), os.waitstatus_to_exitcode(status)))
            return peak
        event = status >> 8
        if event == BECAME and os.readlink("/proc/%d/exe" % one) != program:
            trace(PTRACE_DETACH, one, None)
            continue
        if event == EXITING:
            peak = max(peak, field(one, "status", "VmHWM:"), field(one, "smaps_rollup", "Rss:"))
        passed_on = os.WSTOPSIG(status) if event in signal.valid_signals() and event != signal.SIGTRAP else None
        if one not in known:
            # A new one begins with a stop that is meant for its tracer.
            known.add(one)
            passed_on = None
        trace(PTRACE_CONT, one, passed_on)


def die_with_parent():
    """For a child before its exec: the kernel kills it when its parent is gone."""
    libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def trace(request, pid, data):
    if libc.ptrace(request, pid, None, data) == -1:
        raise OSError(ctypes.get_errno(), "ptrace")


def field(pid, file, name):
    """A field of a file in /proc/PID, in KiB."""
    with open("/proc/%d/%s" % (pid, file)) as lines:
        for line in lines:
            if line.startswith(name):
                return int(line.split()[1])
    raise Failed("/proc/PID/%s has no %s" % (file, name))
