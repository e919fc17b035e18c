//! `sliverfs rebase`: a sliver's store for another base.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::backend::features::Features;
use crate::backend::store::{Ground, layer};
use crate::catalog::base::Base;
use crate::catalog::{Mounted, Root, Sliver, record, sliver, sweep};
use crate::cli::Args;
use crate::cmd::replace::{self, Keep, kept, left_over};
use crate::cmd::{Ctx, create, for_each, offline, print_plan};
use crate::error::{Class, Context, Error, Result};
use crate::json;
use crate::layer::{self, Action, Format, Outcome, Prefer};
use crate::mount::mountinfo::MountInfo;
use crate::mount::plan::Step;
use crate::mount::{exec, private};
use crate::name::Name;
use crate::out::{self, Progress, escape};
use crate::quota;
use crate::sys::signals::LastWords;
use crate::sys::statfs;
use crate::tree::{self, Dir, Spill, sys};
use crate::view;

/// What was done, as `rebase --json` prints it, with two arrays and one more field behind it: see docs/json.md.
#[derive(Serialize)]
struct Head {
    name: Name,
    from: Name,
    onto: Name,
    state: &'static str,
    kept: u64,
    taken: u64,
    merged: u64,
}

impl Head {
    fn new(sliver: &Sliver, onto: &Name, state: &'static str) -> Self {
        let (name, from) = (sliver.name.clone(), sliver.base.clone());
        Self { name, from, onto: onto.clone(), state, kept: 0, taken: 0, merged: 0 }
    }

    /// All of it as JSON, but for what stands behind it.
    fn open(&self) -> Result<Vec<u8>> {
        let mut text = json::write(self)?;
        text.pop();
        text.extend_from_slice(b",\"conflicts\":[");
        Ok(text)
    }

    /// Prints itself as JSON, where nothing was looked at.
    fn json(&self) -> Result<()> {
        let mut text = self.open()?;
        text.extend_from_slice(b"],\"kept_store\":null}\n");
        out::bytes(&text)
    }

    /// Prints itself, or the line that says the same.
    fn say(&self, how: &How, line: &str) -> Result<()> {
        if how.json { self.json() } else { out::line(line) }
    }
}

/// What was done, as it is told.
struct Report {
    head: Head,
    conflicts: Lines,
    changes: Lines,
    /// The first conflicts, for an error.
    named: Vec<String>,
    kept_store: Option<PathBuf>,
    json: bool,
}

/// As many conflicts stand in an error.
const NAMED: usize = 20;

/// Lines or JSON objects as they will be printed: a store may have millions of them.
struct Lines {
    text: Spill,
    count: u64,
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
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    fn copy(&self, to: &mut Spool) -> Result<()> {
        let (mut at, mut buffer) = (0, vec![0; 16 << 10]);
        loop {
            let got = self.text.read(at, &mut buffer).map_err(sys("read", b"the report"))?;
            if got == 0 {
                return Ok(());
            }
            to.push(buffer.get(..got).unwrap_or_default())?;
            at = at.saturating_add(got as u64);
        }
    }
}

/// What is to be printed when all is done: written by a child, and printed by this process.
struct Spool(File);

impl Spool {
    fn new(disk: &Dir) -> Result<Self> {
        disk.unnamed().map(Self).map_err(sys("make a file for the report on", b"the disk of the stores"))
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).at("write", Path::new("the report"))
    }

    fn print(&self) -> Result<()> {
        let (mut at, mut buffer) = (0, vec![0; 16 << 10]);
        loop {
            let got = self.0.read_at(&mut buffer, at).at("read", Path::new("the report"))?;
            if got == 0 {
                return Ok(());
            }
            out::bytes(buffer.get(..got).unwrap_or_default())?;
            at = at.saturating_add(got as u64);
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

/// What the command line says besides which sliver.
struct How {
    prefer: Prefer,
    fail: bool,
    plan: bool,
    json: bool,
}

/// Rebases the sliver that the command line names, or all of a base.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let prefer = match (args.ours, args.theirs, args.fail) {
        (false, false, _) => Prefer::Both,
        (true, false, false) => Prefer::Ours,
        (false, true, false) => Prefer::Theirs,
        _ => return Err(Error::usage("take one of --ours, --theirs and --fail")),
    };
    let plan = args.plan || args.dry_run;
    let how = How { prefer, fail: args.fail, plan, json: args.json };
    let name = args.words.first().map(|_| args.name()).transpose()?;
    let (onto, from) = (args.onto.parse(Name::parse)?, args.from.parse(Name::parse)?);
    let root = ctx.root()?;
    match (&name, &onto, args.all, &from, args.undo, args.commit) {
        (Some(name), Some(onto), false, None, false, false) => rebase(&root, name, onto, &how),
        (None, Some(onto), true, Some(from), false, false) => {
            let mut names = Sliver::names(&root)?;
            // A record that cannot be read fails in its turn.
            names.retain(|name| Sliver::load(&root, name).map_or(true, |sliver| sliver.base == *from));
            if names.is_empty() {
                log::info!("no sliver stands on `{from}`");
            }
            for_each(&names, |name| rebase(&root, name, onto, &how))
        }
        (Some(name), None, false, None, true, false) => undo(&root, name, &how),
        (Some(name), None, false, None, false, true) => commit(&root, name, &how),
        _ => Err(Error::usage("say what to rebase, and onto what").way_out(
            "`SLIVER --onto BASE`, `--all --from BASE --onto BASE`, `SLIVER --undo` or `SLIVER --commit`",
        )),
    }
}

/// Rebases one sliver; one that stands on the base already is left as it is.
fn rebase(root: &Root, name: &Name, onto: &Name, how: &How) -> Result<()> {
    let _lock = root.lock_sliver(name)?;
    let sliver = Sliver::load(root, name)?;
    let new = Base::load(root, onto)?;
    if sliver.base == *onto {
        view::check_base(&sliver, &new)?;
        if !how.plan {
            sweep::new(root, name)?;
        }
        let head = Head::new(&sliver, onto, "unchanged");
        return head.say(how, &format!("`{name}` stands on `{onto}` already"));
    }
    let old = Base::load(root, &sliver.base)?;
    view::check_base(&sliver, &old)?;
    let disk = tree::open(&root.stores())?;
    if sliver.backend.grows_image() {
        return Err(Error::unsupported(format!(
            "the store of `{name}` grew from its seed, and cannot be put on another"
        ))
        .way_out(format!(
            "convert it first: sliverfs convert {name} --to overlay (or what `sliverfs probe` lists)"
        )));
    }
    quota::refuse_limited(&sliver)?;
    create::check_kind(sliver.backend, &new, None)?;
    let before = kept(root, &sliver)?;
    if !how.plan {
        if before.as_ref().is_some_and(|before| before.base == sliver.base) {
            return Err(Error::failed(format!("`{name}` was converted or synced, and not mounted since"))
                .way_out(format!(
                    "see whether it works: sliverfs mount {name}; or sliverfs convert {name} --undo"
                )));
        }
        offline::refuse(root, name, Some(sliver.backend))?;
        statfs::refuse_read_only(&root.stores())?;
        offline::settle(root, &sliver)?;
        replace::prepare(root, name, before.is_some())?;
    }
    let mut spool = Spool::new(&disk)?;
    let mut work = || make(root, &sliver, (&old, &new), how, (&disk, &mut spool));
    let made = if old.image(root).is_none() && new.image(root).is_none() {
        // Nothing is mounted for it.
        let _words = LastWords::begin(true);
        work()
    } else {
        private::beside(root.path(), || work().map(|()| Vec::new())).map(drop)
    };
    made.inspect_err(|_| left_over(root, name, how.plan))?;
    if !how.plan {
        publish(root, name, &new, before.is_some()).inspect_err(|_| left_over(root, name, false))?;
        // What is noted of its last mount is none of the new store's.
        Mounted::forget(root, name)?;
        sweep::told(sweep::removed(root, name));
    }
    spool.print()
}

impl Report {
    fn new(sliver: &Sliver, onto: &Name, state: &'static str, how: &How, disk: &Dir) -> Result<Self> {
        Ok(Self {
            head: Head::new(sliver, onto, state),
            conflicts: Lines::new(disk)?,
            changes: Lines::new(disk)?,
            named: Vec::new(),
            kept_store: None,
            json: how.json,
        })
    }

    fn count(&mut self, outcome: &Outcome<'_>, plan: bool) -> Result<()> {
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
    fn write(&self, to: &mut Spool) -> Result<()> {
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

/// In a private mount namespace: makes the new store beside the old one, or plans it. What there is to print goes into the spool.
fn make(
    root: &Root,
    sliver: &Sliver,
    (old, new): (&Base, &Base),
    how: &How,
    (disk, spool): (&Dir, &mut Spool),
) -> Result<()> {
    let name = &sliver.name;
    let stage = sweep::new_store(root, name);
    let ground =
        |base| Ground { root, base, kind: sliver.backend, features: Features::default(), image: false };
    let (before, after) = (ground(old), ground(new));
    exec::run(&before.image(&MountInfo::of_self()?))?;
    exec::run(&after.image(&MountInfo::of_self()?))?;
    if !how.plan {
        let mut steps = vec![Step::CreateDir(stage.clone())];
        steps.extend(after.make(&stage, None, &stage));
        exec::run(&steps)?;
    }
    let folder = layer(sliver.backend);
    let store = tree::open(&root.store(name).join(folder))?;
    let bases = (&tree::open(&before.tree())?, &tree::open(&after.tree())?);
    let state = if how.plan { "planned" } else { "rebased" };
    let mut report = Report::new(sliver, &new.name, state, how, disk)?;
    let mut tell = |outcome: &Outcome<'_>| report.count(outcome, how.plan);
    let format = Format::of(sliver.backend);
    if how.plan {
        layer::merge(format, store, bases, None, how.prefer, &mut tell)?;
    } else {
        let progress = Progress::new("rebasing", None);
        let into = tree::open(&stage.join(folder))?;
        let mut count = |bytes| progress.add(bytes);
        layer::merge(format, store, bases, Some((&into, &mut count)), how.prefer, &mut tell)?;
    }
    if how.fail && report.conflicts.count > 0 {
        let mut paths = report.named.join("\n");
        let more = report.conflicts.count.saturating_sub(report.named.len() as u64);
        if more > 0 {
            paths = format!("{paths}\nand {more} more, which --plan shows");
        }
        return Err(Error::failed(format!("`{name}` is left on `{}`: {paths}", old.name))
            .way_out("--ours, --theirs, or none of them, which keeps both versions"));
    }
    if !how.plan {
        let record = Sliver {
            base: new.name.clone(),
            digest: new.digest.clone(),
            converted: sliver.converted.saturating_add(1),
            ..sliver.clone()
        };
        exec::run(&[
            Step::WriteFile(stage.join(sliver::FILE), record::to_text(&stage, &record)?),
            Step::SyncDisk(stage),
        ])?;
        report.kept_store = Some(sweep::kept_store(root, name));
    }
    report.write(spool)
}

/// Puts the new store in the old one's place, which is kept instead of one from an earlier rebase.
fn publish(root: &Root, name: &Name, new: &Base, kept: bool) -> Result<()> {
    let keep = if kept { Keep::Instead } else { Keep::Own };
    if kept {
        sweep::removed(root, name)?;
    }
    let _catalog = root.lock_catalog()?;
    // Another process may have removed the base meanwhile, and added another of its name.
    create::same_base(new, &Base::load(root, &new.name)?)?;
    exec::run(&replace::publish(root, name, keep))
}

/// The store from before the rebase.
fn kept_by_rebase(root: &Root, sliver: &Sliver) -> Result<Sliver> {
    let name = &sliver.name;
    match kept(root, sliver)? {
        Some(kept) if kept.base != sliver.base => Ok(kept),
        _ => Err(Error::new(Class::Usage, format!("there is no store of `{name}` from before a rebase"))
            .way_out("it is kept from a rebase to its --commit or the next one only")),
    }
}

/// Brings the store back that was kept.
fn undo(root: &Root, name: &Name, how: &How) -> Result<()> {
    let plan = how.plan;
    let _lock = root.lock_sliver(name)?;
    let sliver = Sliver::load(root, name)?;
    if !plan && kept(root, &sliver)?.is_none() && sweep::kept_store(root, name).exists() {
        // Cut after the stores changed places, or before a rebase had done that: this is the old one.
        sweep::drop_kept(root, name)?;
        let line = format!("`{name}` stands on `{}` already, as before it was rebased", sliver.base);
        return Head::new(&sliver, &sliver.base, "unchanged").say(how, &line);
    }
    let kept = kept_by_rebase(root, &sliver)?;
    view::check_base(&kept, &Base::load(root, &kept.base)?)?;
    let report = |state| Head::new(&sliver, &kept.base, state);
    replace::bring_back(root, &sliver, plan, how.json)?;
    if plan {
        return if how.json { report("planned").json() } else { Ok(()) };
    }
    report("undone").say(how, &format!("`{name}` stands on `{}` again, as before it was rebased", kept.base))
}

/// Removes the store that was kept.
fn commit(root: &Root, name: &Name, how: &How) -> Result<()> {
    let plan = how.plan;
    let _lock = root.lock_sliver(name)?;
    let sliver = Sliver::load(root, name)?;
    if !plan {
        // What a commit that was cut left.
        sweep::removed(root, name)?;
    }
    let kept = kept_by_rebase(root, &sliver)?;
    let report = |state| Head::new(&kept, &sliver.base, state);
    if plan && how.json {
        return report("planned").json();
    }
    if plan {
        return print_plan(&[Step::RemoveTree(sweep::kept_store(root, name))]);
    }
    sweep::drop_kept(root, name)?;
    let line = format!("`{name}` stays on `{}`; its store for `{}` is removed", sliver.base, kept.base);
    report("committed").say(how, &line)
}
