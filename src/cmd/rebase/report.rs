//! What a rebase tells, in lines or as JSON: it may be more than memory holds, and waits in a file until all is done.

use std::fs::File;
use std::io::Write;
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
use crate::tree::{Dir, Spill, sys};

/// What was done, as `rebase --json` prints it, with two arrays and one more field behind it: see docs/json.md.
#[derive(Serialize)]
pub(super) struct Head {
    name: Name,
    from: Name,
    onto: Name,
    state: &'static str,
    kept: u64,
    taken: u64,
    merged: u64,
}

impl Head {
    pub(super) fn new(sliver: &Sliver, onto: &Name, state: &'static str) -> Self {
        let (name, from) = (sliver.name, sliver.base);
        Self { name, from, onto: *onto, state, kept: 0, taken: 0, merged: 0 }
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

/// What was done, as it is told.
pub(super) struct Report {
    head: Head,
    pub(super) conflicts: Lines,
    changes: Lines,
    /// The first conflicts, for an error.
    pub(super) named: Vec<String>,
    pub(super) kept_store: Option<&'static Path>,
    json: bool,
}

/// As many conflicts stand in an error.
const NAMED: usize = 20;

/// Lines or JSON objects as they will be printed: a store may have millions of them.
pub(super) struct Lines {
    text: Box<Spill>,
    pub(super) count: u64,
}

impl Lines {
    fn new(disk: &Dir) -> Result<Self> {
        Ok(Self { text: Spill::new(disk).map_err(sys("open again", b"."))?, count: 0 })
    }

    fn add(&mut self, line: &Line, json: bool) -> Result<()> {
        if json {
            self.text.push(if self.count == 0 { b"" } else { b"," });
            self.text.push(&json::write(line)?);
        } else {
            self.text.push(line.text().as_bytes());
            self.text.push(b"\n");
        }
        self.count = self.count.plus(1);
        Ok(())
    }

    fn copy(&self, to: &mut Spool) -> Result<()> {
        let (mut at, mut buffer) = (0, [0; 4 << 10]);
        loop {
            let got = self.text.read(at, &mut buffer).map_err(sys("read", b"the report"))?;
            if got == 0 {
                return Ok(());
            }
            to.push(buffer.get(..got).unwrap_or_default())?;
            at = at.plus(got as u64);
        }
    }
}

/// What is to be printed when all is done: written by a child, and printed by this process.
pub(super) struct Spool(File);

impl Spool {
    pub(super) fn new(disk: &Dir) -> Result<Self> {
        disk.unnamed().map(Self).map_err(sys("make a file for the report on", b"the disk of the stores"))
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).at("write", Path::new("the report"))
    }

    pub(super) fn print(&self) -> Result<()> {
        let (mut at, mut buffer) = (0, [0; 4 << 10]);
        loop {
            let got = self.0.read_at(&mut buffer, at).at("read", Path::new("the report"))?;
            if got == 0 {
                return Ok(());
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

    fn text(&self) -> String {
        let mut text = format!("{} {}", self.action, self.path);
        if !self.why.is_empty() {
            text = format!("{text}: {}", self.why);
        }
        if let Some(beside) = &self.beside {
            text = format!("{text}; the new base's is put in as {beside}");
        }
        if let Some(manager) = self.database {
            text = format!(
                "{text}; it is the package database of {manager}: install the sliver's packages again after"
            );
        }
        text
    }
}

impl Report {
    pub(super) fn new(
        sliver: &Sliver,
        onto: &Name,
        state: &'static str,
        json: bool,
        disk: &Dir,
    ) -> Result<Self> {
        Ok(Self {
            head: Head::new(sliver, onto, state),
            conflicts: Lines::new(disk)?,
            changes: Lines::new(disk)?,
            named: Vec::new(),
            kept_store: None,
            json,
        })
    }

    pub(super) fn count(&mut self, outcome: &Outcome<'_>, plan: bool) -> Result<()> {
        let conflict = outcome.action == Action::Conflict;
        match outcome.action {
            Action::Keep => self.head.kept += 1,
            Action::Take => self.head.taken += 1,
            Action::Merge => self.head.merged += 1,
            Action::Conflict => {}
        }
        if !conflict && !plan {
            return Ok(());
        }
        let line = Line::of(outcome);
        if conflict {
            self.conflicts.add(&line, self.json)?;
            if self.named.len() < NAMED {
                self.named.push(line.text());
            }
        }
        if plan { self.changes.add(&line, self.json) } else { Ok(()) }
    }

    /// What is printed in the end.
    pub(super) fn write(&self, to: &mut Spool) -> Result<()> {
        let conflicts = self.conflicts.count;
        if self.json {
            to.push(&self.head.open()?)?;
            self.conflicts.copy(to)?;
            if self.changes.count > 0 {
                to.push(b"],\"changes\":[")?;
                self.changes.copy(to)?;
            }
            to.push(b"],\"kept_store\":")?;
            to.push(&json::write(&self.kept_store)?)?;
            return to.push(b"}\n");
        }
        let planned = self.kept_store.is_none();
        let lines = if planned { &self.changes } else { &self.conflicts };
        lines.copy(to)?;
        let Head { name, from, onto, kept, taken, merged, .. } = &self.head;
        let verb = if planned { "would go" } else { "went" };
        to.push(format!(
            "`{name}` {verb} from `{from}` to `{onto}`: {kept} changes kept, {merged} merged, {taken} that the new base has or had the last word in, {conflicts} conflicts\n"
        ).as_bytes())?;
        if planned {
            return Ok(());
        }
        to.push(format!(
            "the old store is kept: `sliverfs rebase {name} --undo` brings it back, `--commit` removes it\n"
        ).as_bytes())
    }
}
