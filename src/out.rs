//! Results on standard output, progress on a terminal's standard error, and text that is safe to show.

use std::fmt::{self, Write as _};
use std::path::Path;

use nix::errno::Errno;
use serde::Serialize;

use crate::error::{Context, Result};
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
}
