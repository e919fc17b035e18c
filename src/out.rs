//! Results on standard output, progress on a terminal's standard error, and text that is safe to show.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::io::IsTerminal;
use std::path::Path;

use nix::errno::Errno;
use serde::Serialize;

use crate::error::{Context, Result};
use crate::size::Size;
use crate::sum::Sum;
use crate::sys::clock;
use crate::sys::file::say;

/// Prints a line. A reader that went away (`sliverfs list | head -1`) is no failure.
pub fn line(what: impl fmt::Display) -> Result<()> {
    write_line(&what)
}

fn write_line(what: &dyn fmt::Display) -> Result<()> {
    print(&format!("{what}\n"))
}

/// Prints a document as JSON on one line.
pub fn json(document: &impl Serialize) -> Result<()> {
    json_line(crate::json::write(document)?)
}

/// Prints JSON that is written already, as a line.
pub fn json_line(mut text: Vec<u8>) -> Result<()> {
    text.push(b'\n');
    bytes(&text)
}

/// Prints a text as it is.
pub fn print(text: &str) -> Result<()> {
    bytes(text.as_bytes())
}

/// Prints a part of a text.
pub fn bytes(text: &[u8]) -> Result<()> {
    match say(1, text) {
        Err(Errno::EPIPE) => Ok(()),
        done => done.at("write to", Path::new("standard output")),
    }
}

/// A table with a head line, its columns as wide as their widest cell.
pub struct Table {
    /// The widest cell of each column.
    widths: Vec<usize>,
    /// All cells, one after the other; where each ends, and its width.
    cells: String,
    ends: Vec<[usize; 2]>,
    /// The columns that are not printed, a bit for each.
    hidden: u32,
}

impl Table {
    /// Begins a table with the columns' heads.
    pub fn new(heads: &[&str]) -> Self {
        let mut table =
            Self { widths: vec![0; heads.len()], cells: String::new(), ends: Vec::new(), hidden: 0 };
        table.row(heads);
        table
    }

    /// Adds a line; missing cells stay empty.
    pub fn row(&mut self, cells: &[&str]) {
        for (column, widest) in self.widths.iter_mut().enumerate() {
            let cell = cells.get(column).copied().unwrap_or("");
            let width = cell.chars().count();
            *widest = width.max(*widest);
            self.cells.push_str(cell);
            self.ends.push([self.cells.len(), width]);
        }
    }

    /// Leaves a column out.
    pub fn hide(&mut self, column: usize) {
        self.hidden |= 1 << column;
    }

    /// Prints the table.
    pub fn print(&self) -> Result<()> {
        print(&self.text())
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut begin = 0;
        let mut column = 0;
        for [end, width] in &self.ends {
            let widest = self.widths.get(column).copied().unwrap_or(0);
            if self.hidden >> column & 1 == 0 {
                text.push_str(self.cells.get(begin..*end).unwrap_or(""));
                (*width..widest + 2).for_each(|_| text.push(' '));
            }
            (begin, column) = (*end, column + 1);
            if column == self.widths.len() {
                text.truncate(text.trim_end_matches(' ').len());
                text.push('\n');
                column = 0;
            }
        }
        text
    }
}

/// Bytes from anywhere as text that a terminal and a log can take: printable characters as they are, a backslash doubled,
/// everything else as `\xNN`. Different bytes give different texts.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' {
                text.push_str("\\\\");
            } else if c.is_control() || invisible(c) {
                let mut utf8 = [0; 4];
                hex(&mut text, c.encode_utf8(&mut utf8).as_bytes());
            } else {
                text.push(c);
            }
        }
        hex(&mut text, chunk.invalid());
    }
    text
}

/// The texts one after the other, with `between` between them. `join` would be one more for these beside that for `&str`.
pub fn joined(texts: &[String], between: &str) -> String {
    let mut all = String::new();
    for (at, text) in texts.iter().enumerate() {
        if at > 0 {
            all.push_str(between);
        }
        all.push_str(text);
    }
    all
}

fn hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _into_string = write!(text, "\\x{byte:02x}");
    }
}

/// Characters that show nothing, or turn the direction of what follows: a name must not look like another one.
fn invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

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
    fn columns_are_aligned() {
        let mut table = Table::new(&["NAME", "SIZE"]);
        table.row(&["a", "1 KiB"]);
        table.row(&["größer"]);
        assert_eq!(table.text(), "NAME    SIZE\na       1 KiB\ngrößer\n");
    }

    #[test]
    fn any_bytes_can_be_shown() {
        for (bytes, text) in [
            (&b"etc/passwd"[..], "etc/passwd"),
            (b"a\nb\x1b[2J", "a\\x0ab\\x1b[2J"),
            ("grün".as_bytes(), "grün"),
            (b"\xff\xc3", "\\xff\\xc3"),
            (b"a\\x0ab", "a\\\\x0ab"),
            ("a\u{202e}b".as_bytes(), "a\\xe2\\x80\\xaeb"),
        ] {
            assert_eq!(escape(bytes), text);
        }
    }

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
