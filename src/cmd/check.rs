//! `sliverfs check`: what a crash left, and what is damaged.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::Serialize;

use crate::alive::{Views, holders};
use crate::backend::store::layer;
use crate::catalog::{Mounted, Root, Sliver, staging, sweep};
use crate::cli::Args;
use crate::cmd::layers::Layers;
use crate::cmd::{Ctx, offline};
use crate::error::{Class, Context, Error, Result};
use crate::json;
use crate::layer::{Format, Scratch, mend};
use crate::name::Name;
use crate::out::{self, escape};
use crate::quota::{Limit, admission, held::remove_store, image};
use crate::stay::{Below, for_good, stay};
use crate::tree::{self, Dir, Kind};

/// Something that is not as it should be, as `check --json` prints it: see docs/json.md.
#[derive(Serialize)]
struct Finding<'a> {
    what: &'a str,
    path: String,
    repaired: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Tells the findings as they come: there may be many.
struct Report {
    json: bool,
    repair: bool,
    /// What stands before the next sliver, and before the next finding.
    before: &'static str,
    comma: &'static str,
    /// What was found and is still there.
    left: usize,
    /// How much of that could not be put right, though it was tried.
    failed: usize,
}

impl Report {
    /// `words` say what `what` means, and `done` whether it was put right.
    fn tell(&mut self, what: &str, words: &str, path: &[u8], done: Result<bool>) -> Result<()> {
        let (repaired, error) = match done {
            Ok(repaired) => (repaired, None),
            Err(err) => (false, Some(err.to_string())),
        };
        self.left += usize::from(!repaired);
        self.failed += usize::from(error.is_some());
        let path = escape(if path.is_empty() { b"." } else { path });
        if !self.json {
            let done = match &error {
                Some(err) => format!(": not put right: {err}"),
                None if repaired => ": put right".to_owned(),
                None => String::new(),
            };
            return out::line(format_args!("{path}: {words}{done}"));
        }
        out::print(std::mem::replace(&mut self.comma, ","))?;
        let text = json::write(&Finding { what, path, repaired, error })?;
        out::print(&String::from_utf8_lossy(&text))
    }

    /// Something at `path` that `mend` puts right, where that is asked for.
    fn found(
        &mut self,
        what: &str,
        words: &str,
        path: &Path,
        mend: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let done = if self.repair { mend().map(|()| true) } else { Ok(false) };
        self.tell(what, words, path.as_os_str().as_bytes(), done)
    }

    /// What a crash left at `path`, which `remove` removes.
    fn left_over(&mut self, path: &Path, remove: fn(&Path) -> Result<()>) -> Result<()> {
        self.found("left_over", "left over by a crash", path, &mut || remove(path))
    }

    /// What a crash left where a store is changed from, by these names, and what came of settling it.
    fn settled(&mut self, scratch: &Scratch, left: Vec<&CStr>, mut done: Result<()>) -> Result<()> {
        let still = scratch.left();
        for name in left {
            let gone = match still.contains(&name) {
                // Told once: with the first that is still there.
                true => std::mem::replace(&mut done, Ok(())).map(|()| false),
                false => Ok(true),
            };
            self.tell("left_over", "left over by a crash", name.to_bytes(), gone)?;
        }
        done
    }

    /// What it comes to: an error where something is left.
    fn end_of_all(&mut self) -> Result<()> {
        match (std::mem::take(&mut self.left), std::mem::take(&mut self.failed)) {
            (0, _) => Ok(()),
            (left, 0) => {
                Err(Error::damaged(format_args!("{left} findings are left")).way_out(if self.repair {
                    "what could be lost by a repair is not repaired: look at it"
                } else {
                    "`sliverfs check --repair` puts right what it can without losing anything"
                }))
            }
            (left, failed) => Err(Error::failed(format_args!(
                "{left} findings are left, of which {failed} could not be put right"
            ))
            .way_out("each is told with its reason")),
        }
    }

    /// The findings of one sliver, or of the node, stand between these two.
    fn begin(&mut self, name: Option<&Name>) -> Result<()> {
        self.comma = "";
        if !self.json {
            return Ok(());
        }
        let (quote, name) = name.map_or(("", "null"), |name| ("\"", name.as_str()));
        let before = std::mem::replace(&mut self.before, ",");
        out::print(&format!("{before}{{\"name\":{quote}{name}{quote},\"findings\":["))
    }

    fn end(&self, in_use: bool, done: &Result<()>) -> Result<()> {
        if !self.json {
            return Ok(());
        }
        let error = json::write(&done.as_ref().err().map(Error::to_string))?;
        out::print(&format!("],\"in_use\":{in_use},\"error\":{}}}", String::from_utf8_lossy(&error)))
    }
}

/// Looks at the slivers that are named, or at all and at what else a crash left. Damage that stays makes the command fail.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let root = ctx.root()?;
    let all = args.words.is_empty();
    let (json, repair) = (args.json, args.repair);
    let mut report = Report { json, repair, before: "[", comma: "", left: 0, failed: 0 };
    let mut failed = None;
    if all {
        part(ctx, None, true, &mut report, &mut failed)?;
    }
    let names = if all { Sliver::names(root)? } else { args.names()? };
    for name in &names {
        part(ctx, Some(name), all, &mut report, &mut failed)?;
    }
    if args.json {
        out::print("]\n")?;
    }
    match failed {
        Some(class) => Err(Error::new(class, "not all is well")),
        None => Ok(()),
    }
}

/// Looks at one sliver, of `all` or by its name, or at the node. What fails is told, and the first of it kept.
fn part(
    ctx: &mut Ctx,
    name: Option<&Name>,
    all: bool,
    report: &mut Report,
    failed: &mut Option<Class>,
) -> Result<()> {
    let root = ctx.root()?;
    report.begin(name)?;
    let done = match name {
        Some(name) => sliver(ctx, root, name, report),
        None => node(root, report),
    }
    .and_then(|()| report.end_of_all());
    // A child may have counted them.
    (report.left, report.failed) = (0, 0);
    let in_use = name.is_some() && done.as_ref().is_err_and(|err| err.class() == Class::InUse);
    report.end(in_use, &done)?;
    let Err(err) = done else { return Ok(()) };
    match name {
        // Of all slivers, those that are in use are passed over.
        Some(name) if in_use && all => {
            crate::info!("{name} is not looked into: {err}");
            return Ok(());
        }
        // Another process destroyed it meanwhile.
        Some(name) if all && root.store(name).symlink_metadata().is_err() => return Ok(()),
        Some(name) => log::error!("{name}: {err}"),
        None => log::error!("{err}"),
    }
    failed.get_or_insert(err.class());
    Ok(())
}

/// What interrupted commands left of bases, and of slivers that there may be no more.
fn node(root: &Root, report: &mut Report) -> Result<()> {
    let repair = report.repair;
    {
        let _catalog = root.lock_catalog()?;
        // A store may have been put there by hand.
        admission::forget(root.stores());
    }
    staging::each_left(root, &mut |path| report.left_over(path, remove_store))?;
    for name in sweep::names(root)? {
        let _lock = root.lock_sliver(&name)?;
        left(root, &name, report)?;
        if repair && !root.store(&name).exists() {
            Mounted::forget(root, &name)?;
        }
    }
    Ok(())
}

/// What an interrupted command left, without the store that `convert` kept to be taken back. Of a sliver whose store alone is missing it
/// may be all that there is.
fn left(root: &Root, name: &Name, report: &mut Report) -> Result<()> {
    let known = root.store(name).exists() || root.container(name).exists();
    let kept = sweep::kept_store(root, name);
    for path in sweep::left(root, name) {
        if !known || path != kept {
            // What is removed here is hidden from every other command already.
            report.left_over(path, remove_store)?;
        }
    }
    Ok(())
}

fn sliver(ctx: &mut Ctx, root: &Root, name: &Name, report: &mut Report) -> Result<()> {
    let words = [name.as_str().to_owned()];
    let mut layers = Layers::of(&words);
    let Some(sliver) = layers.hold(ctx)? else { return Ok(()) };
    let folder = root.store(name);
    left(root, name, report)?;
    let noted = root.mounted(name);
    if noted.exists()
        && Views::everywhere(root)?.of(root, name).next().is_none()
        && holders(root, name)?.is_empty()
    {
        let words = "noted as mounted, which it is not";
        report.found("note", words, noted, &mut || Mounted::forget(root, name))?;
    }
    let record = folder.below(".sliver.json.new");
    if record.exists() {
        report.left_over(record, tree::remove_path)?;
    }
    if sliver.backend.grows_image() {
        // What is in it is told by its own tools.
        let scratch = Scratch::beside(tree::open(folder)?);
        let left = scratch.left();
        let mut work = || {
            let store = tree::open(folder.below(layer(sliver.backend)))?;
            layers.scratch(Format::of(sliver.backend), &store, false).map(|_| &[][..])
        };
        let repair = report.repair && !left.is_empty();
        let settled = if repair { offline::grown(root, sliver, &mut work).map(drop) } else { Ok(()) };
        return report.settled(&scratch, left, settled);
    }
    check_limit(root, sliver, folder, report)?;
    layers.with(ctx, &mut |format, base, store, _| {
        // In here an image is mounted.
        for path in stale_work(image::content(folder))? {
            report.left_over(path, tree::remove_path)?;
        }
        let scratch = layers.scratch(format, store, true)?;
        let left = scratch.left();
        let settled = if report.repair { scratch.settle(format, store) } else { Ok(()) };
        report.settled(&scratch, left, settled)?;
        let empty = |tree: &Dir| tree.some_names(0).is_ok_and(|names| names.is_empty());
        if format.whole() {
            // As after a repair of the disk, or where another one was mounted.
            if empty(store) && !empty(base) {
                report.tell("empty", "has lost its content, or all of it was deleted", b"", Ok(false))?;
            }
        } else {
            let repair = report.repair;
            let mut tell = |doubt: crate::layer::Doubt, path: &[u8], done| {
                report.tell(doubt.name(), doubt.words(), path, done)
            };
            mend(format, base, tree::again(store)?, &scratch, repair, &mut tell)?;
        }
        // Counted here, for this may be a child of its own.
        report.end_of_all()
    })
}

/// A limit that was about to grow when that was cut is recorded, and its image has the size of before.
fn check_limit(root: &Root, sliver: &Sliver, folder: &Path, report: &mut Report) -> Result<()> {
    let Some(limit) = sliver.quota.filter(|_| sliver.has_image()) else { return Ok(()) };
    let path = folder.below(image::FILE);
    let bytes = fs::metadata(path).at("look at", path)?.len();
    if bytes == limit.bytes {
        return Ok(());
    }
    let as_it_is = sliver.limited(Some(for_good(Limit { bytes, ..*limit })));
    let _catalog = root.lock_catalog()?;
    admission::forget(root.stores());
    let words = "not as large as the limit that is recorded";
    report.found("limit", words, path, &mut || as_it_is.write(folder))
}

/// What a driver left in overlay's work folder when it was cut: half-made copies. The kernel clears it with the next mount. The
/// whiteout that others are links of stays there after each unmount.
fn stale_work(folder: &Path) -> Result<Vec<&'static Path>> {
    let work = folder.below("work/work");
    let mut stale = Vec::new();
    let dir = match tree::open(work) {
        Err(err) if err.errno() == Some(nix::errno::Errno::ENOENT) => return Ok(stale),
        opened => opened?,
    };
    for name in dir.names().map_err(tree::sys("list", work.as_os_str().as_bytes()))? {
        if dir.stat_at(&name).is_ok_and(|stat| stat.kind != Kind::Char) {
            stale.push(stay(work.join(OsStr::from_bytes(name.to_bytes()))));
        }
    }
    Ok(stale)
}
