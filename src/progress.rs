//! Long work, shown to who waits for it.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::IsTerminal;

use crate::size::Size;
use crate::sum::Sum;
use crate::sys::clock;
use crate::sys::file::say;

/// A running count of bytes on standard error, where that is a terminal; silent everywhere else.
pub struct Progress {
    what: String,
    total: Option<u64>,
    done: Cell<u64>,
    /// In milliseconds, as [`clock::millis`] tells them.
    started: u64,
    shown: Cell<Option<u64>>,
    terminal: bool,
}

impl Progress {
    /// Begins a count. `what` names the work, `total` is the number of bytes where it is known.
    pub fn new(what: &str, total: Option<u64>) -> Self {
        Self {
            what: what.to_owned(),
            total,
            done: Cell::new(0),
            started: clock::millis(),
            shown: Cell::new(None),
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Does anybody see it?
    pub fn visible(&self) -> bool {
        self.terminal
    }

    /// Counts bytes, and shows the count at most four times a second.
    pub fn add(&self, bytes: u64) {
        self.done.set(self.done.get().plus(bytes));
        if !self.terminal {
            return;
        }
        let now = clock::millis();
        let last = self.shown.get().unwrap_or(self.started);
        if now.minus(last) >= 250 {
            self.shown.set(Some(now));
            let text = words(self.done.get(), self.total, now.minus(self.started));
            // The line is only for the eye: a terminal that is gone is no reason to stop.
            let _unseen = say(2, format!("\r\x1b[K{}: {text}", self.what).as_bytes());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.get().is_some() {
            let _unseen = say(2, b"\r\x1b[K");
        }
    }
}

/// `1.5 MiB of 3 MiB, 512 KiB/s, 3 s left`.
fn words(done: u64, total: Option<u64>, millis: u64) -> String {
    let millis = millis.max(1);
    // Whichever way round does not overflow. Division of 128 bits is a large function on a router.
    let rate = done.product(1000).map_or((done / millis).times(1000), |done| done / millis);
    let mut text = Size(done).to_string();
    if let Some(total) = total {
        let _into_string = write!(text, " of {}", Size(total));
    }
    let _into_string = write!(text, ", {}/s", Size(rate));
    if let Some(left) = total.and_then(|total| total.checked_sub(done)?.checked_div(rate)) {
        let _into_string = match left {
            0..100 => write!(text, ", {left} s left"),
            100..6000 => write!(text, ", {} min left", left / 60),
            _ => write!(text, ", {} h left", left / 3600),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_in_words() {
        let second = 1000;
        assert_eq!(words(1 << 20, Some(3 << 20), second), "1 MiB of 3 MiB, 1 MiB/s, 2 s left");
        assert_eq!(words(0, None, second), "0 B, 0 B/s");
        assert_eq!(words(0, Some(10), second), "0 B of 10 B, 0 B/s");
        assert_eq!(words(20, Some(10), second), "20 B of 10 B, 20 B/s");
        assert_eq!(words(1, Some(100_000), second * 10), "1 B of 98 KiB, 0 B/s");
        assert_eq!(words(100, Some(1_000_000), second), "100 B of 977 KiB, 100 B/s, 2 h left");
    }
}
