//! Commands that are cut, or find the disk full, at each of their calls: what they change is old or new, and they can be run again.

use super::node::Node;
use super::strace::{self, Point};
use super::tree::assert_same;

/// A command, and what it changes.
pub struct Trial<'a> {
    /// Where it runs.
    pub node: &'a Node,
    /// Its words.
    pub args: &'a [&'a str],
    /// Makes again what it starts from: after it was not run at all, or was run to its end.
    pub fresh: &'a dyn Fn(),
    /// All that must be as before or as after it.
    pub seen: &'a dyn Fn() -> String,
    /// What settles a crash. What is seen must be old or new then at the latest.
    pub settle: &'a dyn Fn(&str),
    /// Looks whether anything is left over, where the command ended: with an error, too.
    pub tidy: &'a dyn Fn(&str),
}

/// What is seen before and after.
struct Ends {
    old: String,
    new: String,
}

impl Trial<'_> {
    /// Tries all of it.
    pub fn run(&self) {
        self.run_each(1);
    }

    /// Tries one in so many of its calls; all of them where the environment has `SLIVERFS_FAULTS=all`.
    pub fn run_each(&self, step: usize) {
        let all = std::env::var("SLIVERFS_FAULTS").is_ok_and(|which| which == "all");
        let step = if all { 1 } else { step };
        (self.fresh)();
        let old = (self.seen)();
        let calls = strace::calls(self.node, self.args);
        let ends = Ends { old, new: (self.seen)() };
        (self.tidy)("not cut");
        let (points, writes) = (calls.points.len(), calls.writes.len());
        assert!(points > 5 && writes > 0, "{:?}: {points} {writes}", self.args);
        let mut met = 0;
        for point in calls.points.iter().step_by(step) {
            met += usize::from(self.killed(point, &ends));
        }
        // Some are not made each time: those by which the kernel's messages are kept from the console, and what is asked of a disk once.
        let tried = points.div_ceil(step);
        assert!(met > 0 && met + 1 + tried / 20 >= tried, "{:?}: {met} of {tried} calls were met", self.args);
        let mut failed = 0;
        for point in calls.writes.iter().step_by(step) {
            failed += usize::from(self.no_space(point, &ends));
        }
        assert!(failed > 0, "{:?}: {writes} calls without space were all passed over", self.args);
    }

    /// Was it killed there?
    fn killed(&self, point: &Point, ends: &Ends) -> bool {
        let what = format!("{:?} killed at {point:?}", self.args);
        (self.fresh)();
        strace::kill(self.node, point, self.args);
        let met = point.was_met(self.node);
        (self.settle)(&what);
        let now = (self.seen)();
        if now != ends.old {
            assert_same(&now, &ends.new, &what);
        }
        self.again(&now, ends, &what);
        met
    }

    /// Did the command fail?
    fn no_space(&self, point: &Point, ends: &Ends) -> bool {
        let what = format!("{:?} without space at {point:?}", self.args);
        (self.fresh)();
        let (code, said) = strace::no_space(self.node, point, self.args);
        let (failed, now) = (code != Some(0), (self.seen)());
        let trace = strace::traced(self.node);
        let lost =
            |write: &str| trace.lines().any(|line| line.contains(write) && line.contains("(INJECTED)"));
        if failed {
            assert_eq!(code, Some(1), "{what}: {said}");
            // But where it is the message itself that could not be written.
            assert!(lost(" write(2, ") || said.contains("No space left on device"), "{what}: {said}");
        }
        // All is in its place, and the disk could not be made to say that it stays there: told, and settled by the next command. Or
        // what came of it could not be printed.
        let unsure = failed && (point.call.contains("sync") || lost(" write(1, ")) && now == ends.new;
        if unsure {
            (self.settle)(&what);
        } else {
            assert_same(&now, if failed { &ends.old } else { &ends.new }, &format!("{what}: {said}"));
            (self.tidy)(&what);
        }
        self.again(&now, ends, &what);
        failed
    }

    fn again(&self, now: &str, ends: &Ends, what: &str) {
        let done = self.node.run(self.args);
        // What came to its end may find nothing to do any more, and say so.
        let ended = done.status.code() == Some(2) && now == ends.new;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() || ended, "{what}, then again: {said}");
        assert_same(&(self.seen)(), &ends.new, &format!("{what}, and again"));
        (self.tidy)(what);
    }
}
