//! What a rebase tells, in lines or as JSON: it may be more than memory holds, and waits in files until all is done.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::Serialize;

use crate::catalog::Sliver;
use crate::error::{Context, Result};
use crate::json;
use crate::layer::{Action, Outcome};
use crate::name::Name;
use crate::out::{self, escape};
use crate::sum::Sum;
use crate::sys::child::Answer;
use crate::tree::{Dir, sys};

/// What was done, as `rebase --json` prints it, with two arrays and one more field behind it: see docs/json.md.
#[derive(Serialize)]
pub(super) struct Head<'a> {
    name: &'a Name,
    from: &'a Name,
    onto: &'a Name,
    state: &'static str,
    kept: usize,
    taken: usize,
    merged: usize,
}

impl<'a> Head<'a> {
    #[inline(never)]
    pub(super) fn new(sliver: &'a Sliver, onto: &'a Name, state: &'static str) -> Self {
        Self { name: &sliver.name, from: &sliver.base, onto, state, kept: 0, taken: 0, merged: 0 }
    }

    /// All of it as JSON, but for what stands behind it.
    fn open(&self) -> Result<Vec<u8>> {
        let mut text = json::write(self)?;
        text.pop();
        text.extend_from_slice(b",\"conflicts\":[");
        Ok(text)
    }

    /// Prints itself as JSON, where nothing was looked at.
    pub(super) fn json(&self) -> Result<()> {
        let mut text = self.open()?;
        text.extend_from_slice(b"],\"kept_store\":null}\n");
        out::bytes(&text)
    }

    /// Prints itself, or the line that says the same.
    pub(super) fn say(&self, json: bool, line: &str) -> Result<()> {
        if json { self.json() } else { out::line(line) }
    }
}

/// What was done, as it is told: a child may write it down, and this process prints it when all is done.
pub(super) struct Report<'a> {
    head: Head<'a>,
    pub(super) conflicts: Lines,
    changes: Lines,
    /// The first conflicts, for an error: each behind the end of a line.
    pub(super) named: String,
    json: bool,
    plan: bool,
}

/// As many conflicts stand in an error.
pub(super) const NAMED: usize = 20;

/// So many bytes are written at once.
const AT_ONCE: usize = 16 << 10;

/// Lines or JSON objects as they will be printed: a store may have millions of them. They lie in a file without a name.
pub(super) struct Lines {
    file: File,
    /// What is to be written next.
    waiting: Vec<u8>,
    pub(super) count: usize,
}

impl Lines {
    fn new(disk: &Dir) -> Result<Self> {
        let file = disk.unnamed().map_err(sys("make a file for the report on", b"the disk of the stores"))?;
        Ok(Self { file, waiting: Vec::new(), count: 0 })
    }

    fn add(&mut self, line: &Line, json: bool) -> Result<()> {
        let before: &[u8] = if json && self.count > 0 { b"," } else { b"" };
        let (text, end) =
            if json { (json::write(line)?, &b""[..]) } else { (line.text(true).into(), &b"\n"[..]) };
        for part in [before, &text, end] {
            self.waiting.extend_from_slice(part);
        }
        self.count += 1;
        if self.waiting.len() < AT_ONCE { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_all(&self.waiting).at("write", Path::new("the report"))?;
        self.waiting.clear();
        Ok(())
    }

    /// Prints them, with this before the first.
    fn print(&self, before: &str) -> Result<()> {
        let (mut at, mut buffer) = (0, [0; 4 << 10]);
        loop {
            let got = self.file.read_at(&mut buffer, at).at("read", Path::new("the report"))?;
            if got == 0 {
                return Ok(());
            }
            if at == 0 {
                out::print(before)?;
            }
            out::bytes(buffer.get(..got).unwrap_or_default())?;
            at = at.plus(got as u64);
        }
    }
}

/// A name and what becomes of it.
#[derive(Serialize)]
struct Line {
    path: String,
    action: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    why: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    beside: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<&'static str>,
}

/// Where package managers note what is installed: of two versions neither knows all packages of the view.
const DATABASES: [(&[u8], &str); 7] = [
    (b"var/lib/dpkg/status", "dpkg"),
    (b"usr/lib/opkg/status", "opkg"),
    (b"var/lib/opkg/status", "opkg"),
    (b"var/opkg/status", "opkg"),
    (b"opt/lib/opkg/status", "opkg"),
    (b"lib/apk/db/installed", "apk"),
    (b"usr/lib/apk/db/installed", "apk"),
];

impl Line {
    fn of(outcome: &Outcome<'_>) -> Self {
        let known = DATABASES.iter().find(|(path, _)| *path == outcome.path);
        let conflict = outcome.action == Action::Conflict;
        let path = if outcome.path.is_empty() { b"." } else { outcome.path };
        Self {
            path: escape(path),
            action: outcome.action.name(),
            why: outcome.why,
            beside: outcome.beside.map(|name| escape(name.to_bytes())),
            database: known.map(|(_, manager)| *manager).filter(|_| conflict),
        }
    }

    /// The line for people; `beside` tells where the new base's version goes.
    fn text(&self, beside: bool) -> String {
        let mut text = format!("{} {}", self.action, self.path);
        if !self.why.is_empty() {
            let _into_string = write!(text, ": {}", self.why);
        }
        if let Some(beside) = self.beside.as_ref().filter(|_| beside) {
            let _into_string = write!(text, "; the new base's is put in as {beside}");
        }
        if let Some(manager) = self.database {
            let _into_string = write!(
                text,
                "; it is the package database of {manager}: install the sliver's packages again after"
            );
        }
        text
    }
}

impl<'a> Report<'a> {
    pub(super) fn new(
        sliver: &'a Sliver,
        onto: &'a Name,
        plan: bool,
        json: bool,
        disk: &Dir,
    ) -> Result<Self> {
        Ok(Self {
            head: Head::new(sliver, onto, if plan { "planned" } else { "rebased" }),
            conflicts: Lines::new(disk)?,
            changes: Lines::new(disk)?,
            named: String::new(),
            json,
            plan,
        })
    }

    pub(super) fn count(&mut self, outcome: &Outcome<'_>) -> Result<()> {
        let conflict = outcome.action == Action::Conflict;
        match outcome.action {
            Action::Keep => self.head.kept += 1,
            Action::Take => self.head.taken += 1,
            Action::Merge => self.head.merged += 1,
            Action::Conflict => {}
        }
        if !conflict && !self.plan {
            return Ok(());
        }
        let line = Line::of(outcome);
        if conflict {
            if self.conflicts.count < NAMED {
                self.named.push('\n');
                // Nothing is put in where they are what keeps the sliver from being rebased.
                self.named.push_str(&line.text(false));
            }
            self.conflicts.add(&line, self.json)?;
        }
        if self.plan { self.changes.add(&line, self.json) } else { Ok(()) }
    }

    /// Ends the lines; what is printed in front of them as JSON, and else behind them.
    pub(super) fn end(&mut self) -> Answer {
        self.conflicts.flush()?;
        self.changes.flush()?;
        if self.json {
            return Ok(self.head.open()?.leak());
        }
        let (Head { name, from, onto, kept, taken, merged, .. }, conflicts) =
            (&self.head, self.conflicts.count);
        let verb = if self.plan { "would go" } else { "went" };
        let mut text = format!(
            "`{name}` {verb} from `{from}` to `{onto}`: {kept} changes kept, {merged} merged, {taken} that the new base has or had the last word in, {conflicts} conflicts\n"
        );
        if !self.plan {
            let _into_string = writeln!(
                text,
                "the old store is kept: `sliverfs rebase {name} --undo` brings it back, `--commit` removes it"
            );
        }
        Ok(text.leak().as_bytes())
    }

    /// Prints all of it, with what it ended in, and where the old store is kept.
    pub(super) fn print(&self, end: &[u8], kept_store: Option<&Path>) -> Result<()> {
        if !self.json {
            let lines = if self.plan { &self.changes } else { &self.conflicts };
            lines.print("")?;
            return out::bytes(end);
        }
        out::bytes(end)?;
        self.conflicts.print("")?;
        self.changes.print("],\"changes\":[")?;
        out::print("],\"kept_store\":")?;
        out::bytes(&json::write(&kept_store)?)?;
        out::print("}\n")
    }
}
