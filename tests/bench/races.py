"""Commands that are timed in turn, so that what else the machine does hits all of them, and what is held against what."""

import os
import statistics

from measures import drop_caches
from process import milliseconds


class Runner:
    """A command, what makes everything ready for it, and how long it took each time."""

    def __init__(self, title, argv, ready=lambda: None, ours=True, often=1, out=None):
        self.title, self.argv, self.ready, self.ours, self.often = title, argv, ready, ours, often
        # A file that it writes, from its beginning; None is nowhere.
        self.out = out
        self.times = []

    def run(self, cold):
        self.ready()
        if cold:
            drop_caches()
        with open(self.out or os.devnull, "wb") as out:
            self.times.append(milliseconds(self.argv, out.fileno()))

    def median(self):
        return statistics.median(self.times)


class Race:
    """Runners in turn, as often as it takes to see a figure reached, but no more than some rounds: the last one counts."""

    def __init__(self, title, runners, turns, cold=False):
        self.title, self.runners, self.turns, self.cold = title, runners, turns, cold
        self.rounds = 0

    def run(self, limits, most):
        """`limits` are (what, one, other, least, most): what the median of one runner is to be of another's."""
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        for self.rounds in range(1, most + 1):
            self.round()
            if all(reached(*limit[1:]) for limit in limits):
                break
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        for runner in self.runners:
            print("  %s: %s, %s of %d" % (self.title, runner.title, took(runner.median()), len(runner.times)), flush=True)
        return self

    def round(self):
        for runner in self.runners:
            if not self.cold:
                runner.run(False)
            runner.times = []
        for turn in range(self.turns):
            for runner in self.runners if turn % 2 == 0 else reversed(self.runners):
                for _ in range(runner.often):
                    runner.run(self.cold)

    def tell(self, figures, limits):
        """Adds a figure for each limit."""
        again = "" if self.rounds == 1 else " (in round %d)" % self.rounds
        for what, one, other, least, most in limits:
            mine, theirs = one.median(), other.median()
            if least:
                measured, wanted = "%.0f times faster" % (theirs / mine), "at least %d times" % least
            else:
                measured, wanted = "ratio %.2f" % (mine / theirs), "ratio at most %.2f" % most if most else None
            figures.add(
                "%s, %s, medians of %d and %d" % (what, self.title, len(one.times), len(other.times)),
                "%s, %s: %s%s" % (took(mine), took(theirs), measured, again),
                wanted,
                reached(one, other, least, most),
            )


def reached(one, other, least, most):
    mine, theirs = one.median(), other.median()
    return not (least and mine * least > theirs or most and mine > theirs * most)


def took(milliseconds):
    if milliseconds >= 1000:
        return "%.2f s" % (milliseconds / 1000)
    return "%.*f ms" % (0 if milliseconds >= 100 else 1, milliseconds)
