//! `sliverfs check`: what a crash left, and what is damaged.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::alive::{Views, holders};
use crate::catalog::{Mounted, Root, Sliver, staging, sweep};
use crate::cli::Args;
use crate::cmd::layers::Layers;
use crate::cmd::offline::Held;
use crate::cmd::{Ctx, offline};
use crate::error::{Class, Error, Result};
use crate::json;
use crate::layer::{Format, mend};
use crate::name::Name;
use crate::out::{self, escape};
use crate::tree::{self, Kind};

/// Something that is not as it should be, as `check --json` prints it: see docs/json.md.
#[derive(Serialize)]
struct Finding<'a> {
    what: &'a str,
    path: String,
    repaired: bool,
}

/// Tells the findings as they come: there may be many.
struct Report {
    json: bool,
    repair: bool,
    comma: &'static str,
    /// What was found and is still there.
    left: u64,
}

impl Report {
    /// `words` say what `what` means.
    fn tell(&mut self, what: &str, words: &str, path: &[u8], repaired: bool) -> Result<()> {
        if !repaired {
            self.left = self.left.saturating_add(1);
        }
        let path = if path.is_empty() { ".".to_owned() } else { escape(path) };
        if !self.json {
            return out::line(&format!("{path}: {words}{}", if repaired { ": put right" } else { "" }));
        }
        out::print(std::mem::replace(&mut self.comma, ","))?;
        let text = json::write(&Finding { what, path, repaired })?;
        out::print(&String::from_utf8_lossy(&text))
    }

    /// What a crash left at `path`; `remove` takes it away.
    fn left_over(&mut self, path: &Path, remove: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
        if self.repair {
            remove(path)?;
        }
        self.tell("left_over", "left over by a crash", path.as_os_str().as_bytes(), self.repair)
    }

    /// The findings of one sliver, or of the node, stand between these two.
    fn begin(&mut self, name: Option<&Name>, before: &'static str) -> Result<()> {
        self.comma = "";
        if !self.json {
            return Ok(());
        }
        let name = name.map_or_else(|| "null".to_owned(), |name| format!("\"{name}\""));
        out::print(&format!("{before}{{\"name\":{name},\"findings\":["))
    }

    fn end(&self, in_use: bool) -> Result<()> {
        if self.json { out::print(&format!("],\"in_use\":{in_use}}}")) } else { Ok(()) }
    }
}

/// Looks at the slivers that are named, or at all and at what else a crash left. Damage that stays makes the command fail.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let root = ctx.root()?;
    let all = args.words.is_empty();
    let mut report = Report { json: args.json, repair: args.repair, comma: "", left: 0 };
    let mut failed: Option<Error> = None;
    let mut before = "[";
    if all {
        report.begin(None, before)?;
        node(&root, &mut report)?;
        report.end(false)?;
        before = ",";
    }
    let names = if all { Sliver::names(&root)? } else { args.names()? };
    for name in &names {
        report.begin(Some(name), before)?;
        before = ",";
        let done = sliver(ctx, &root, name, &mut report);
        let in_use = done.as_ref().is_err_and(|err| err.class() == Class::InUse);
        report.end(in_use)?;
        match done {
            // Of all slivers, those that are in use are passed over.
            Err(err) if in_use && all => log::info!("{name} is not looked into: {err}"),
            Err(err) => {
                log::error!("{name}: {err}");
                failed = failed.or(Some(err));
            }
            Ok(()) => {}
        }
    }
    if args.json {
        out::print("]\n")?;
    }
    match failed {
        Some(err) => Err(Error::new(err.class(), "not all is well")),
        None if report.left == 0 => Ok(()),
        None => Err(Error::damaged(format!("{} findings are left", report.left)).way_out(if args.repair {
            "what could be lost by a repair is not repaired: look at it"
        } else {
            "`sliverfs check --repair` puts right what it can without losing anything"
        })),
    }
}

/// What interrupted commands left of bases, and of slivers that there may be no more.
fn node(root: &Root, report: &mut Report) -> Result<()> {
    let repair = report.repair;
    staging::each_left(root, &mut |path| report.left_over(path, &mut |path| tree::remove_path(path)))?;
    for name in sweep::names(root)? {
        let _lock = root.lock_sliver(&name)?;
        for path in left(root, &name) {
            // What is removed here is hidden from every other command already.
            report.left_over(&path, &mut |path| tree::remove_path(path))?;
        }
        if repair && !root.store(&name).exists() {
            Mounted::forget(root, &name)?;
        }
    }
    Ok(())
}

/// What an interrupted command left, without the store that `convert` kept to be taken back.
fn left(root: &Root, name: &Name) -> Vec<PathBuf> {
    let kept = sweep::kept_store(root, name);
    sweep::left(root, name).into_iter().filter(|path| *path != kept).collect()
}

fn sliver(ctx: &mut Ctx, root: &Root, name: &Name, report: &mut Report) -> Result<()> {
    let words = [name.as_str().to_owned()];
    let layers = Layers { words: &words, format: None, base: None, store: None };
    let (held, sliver) = Held::take(root, name)?;
    let folder = root.store(name);
    for path in left(root, name) {
        report.left_over(&path, &mut |path| tree::remove_path(path))?;
    }
    let noted = root.mounted(name);
    if noted.exists()
        && Views::everywhere(root)?.of(root, name).next().is_none()
        && holders(root, name)?.is_empty()
    {
        if report.repair {
            Mounted::forget(root, name)?;
        }
        let path = noted.as_os_str().as_bytes();
        report.tell("note", "noted as mounted, which it is not", path, report.repair)?;
    }
    let record = folder.join(".sliver.json.new");
    for path in stale_work(&folder)?.into_iter().chain(record.exists().then_some(record)) {
        report.left_over(&path, &mut |path| tree::remove_path(path))?;
    }
    if sliver.backend.grows_image() {
        return Ok(());
    }
    layers.with(ctx, &mut |format, base, store, _| {
        let scratch = offline::scratch(Some(&held), format, &store, true)?;
        let left = scratch.left();
        if report.repair {
            scratch.settle(format, &store)?;
        }
        for name in left {
            report.tell("left_over", "left over by a crash", name.to_bytes(), report.repair)?;
        }
        let whole = matches!(format, Format::Snapshot | Format::Tree);
        if !whole {
            let repair = report.repair;
            let mut tell = |doubt: crate::layer::Doubt, path: &[u8], done| {
                report.tell(doubt.name(), doubt.words(), path, done)
            };
            mend(format, &base, store, &scratch, repair, &mut tell)?;
        }
        // Counted here, for this may be a child of its own.
        match std::mem::take(&mut report.left) {
            0 => Ok(()),
            left => Err(Error::damaged(format!("{left} findings are left"))
                .way_out("`sliverfs check --repair` puts right what it can without losing anything")),
        }
    })
}

/// What a driver left in overlay's work folder when it was cut: half-made copies. The kernel clears it with the next mount. The
/// whiteout that others are links of stays there after each unmount.
fn stale_work(folder: &Path) -> Result<Vec<PathBuf>> {
    let work = folder.join("work/work");
    let dir = match tree::open(&work) {
        Err(err) if err.errno() == Some(nix::errno::Errno::ENOENT) => return Ok(Vec::new()),
        opened => opened?,
    };
    let mut names = dir.names().map_err(tree::sys("list", work.as_os_str().as_bytes()))?;
    names.retain(|name| dir.stat_at(name).is_ok_and(|stat| stat.kind != Kind::Char));
    Ok(names.iter().map(|name| work.join(std::ffi::OsStr::from_bytes(name.to_bytes()))).collect())
}
