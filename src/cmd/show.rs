//! `sliverfs show`: one sliver, with all there is to know.

use std::path::Path;

use serde::Serialize;

use crate::alive::{self, Place, Views};
use crate::backend::probe;
use crate::catalog::{Sliver, sweep};
use crate::cli::Args;
use crate::cmd::Ctx;
use crate::error::Result;
use crate::kind::Kind;
use crate::lxc::Sockets;
use crate::mount::fuse;
use crate::name::Name;
use crate::out;
use crate::quota::{self, Limit, Means, held};
use crate::size::Size;
use crate::state::{Actual, Wanted};
use crate::sys::memory;

/// A sliver, as `show --json` prints it: see docs/json.md.
#[derive(Serialize)]
struct Sheet {
    name: Name,
    wanted: Wanted,
    actual: Actual,
    backend: Kind,
    base: Name,
    base_digest: &'static str,
    created: u64,
    store: &'static Path,
    view: &'static Path,
    space: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    /// What keeps it to that.
    #[serde(skip_serializing_if = "Option::is_none")]
    means: Option<Means>,
    /// Bytes of its base that are counted beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_base: Option<u64>,
    /// What it uses of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    /// From before the sliver was converted, until it is mounted.
    kept_store: Option<&'static Path>,
    mounted_at: Vec<String>,
    held_by: Vec<String>,
    daemon: Option<Daemon>,
}

/// The process that serves the view, where the backend has one.
#[derive(Serialize)]
struct Daemon {
    pid: u32,
    memory: Option<u64>,
}

/// Prints the sheet.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let root = ctx.root()?;
    let name = &args.name()?;
    let sliver = Sliver::load(root, name)?;
    let views = Views::everywhere(root)?;
    let mounted_at: Vec<String> = views.of(root, name).map(Place::words).collect();
    let pid = if sliver.backend == Kind::FuseOverlayfs { fuse::daemon(root.upper(name)) } else { None };
    // A view that is mounted nowhere may still be held: then the next mount is refused, and here stands by whom.
    let mut held_by = Vec::new();
    if mounted_at.is_empty() {
        let features = probe::features(root, sliver.backend).unwrap_or_default();
        held_by = alive::holders(root, name)?;
        if let Some(pid) = pid {
            held_by.push(format!("its daemon, process {pid}"));
        } else if held_by.is_empty() && alive::in_use(root, name, sliver.backend, features)? == Some(true) {
            held_by.push("a process that this one cannot name".to_owned());
        }
    }
    let limit = quota::limit(root, sliver);
    let sheet = Sheet {
        daemon: pid.map(|pid| Daemon { pid, memory: memory::of(pid) }),
        wanted: Wanted::of(ctx.config()?, name),
        actual: Actual::of(root, name, &views, &Sockets::read()?),
        limit: limit.map(|limit| limit.bytes),
        means: limit.map(|limit| limit.means),
        limit_base: limit.map(|limit| limit.base).filter(|base| *base != 0),
        // A sheet is shown though nothing counts any more: the next mount says so.
        used: limit.and_then(|_| held::used(root, sliver).ok()),
        backend: sliver.backend,
        base_digest: sliver.digest,
        created: sliver.created,
        space: held::space(root.store(name))?,
        store: root.store(name),
        kept_store: Some(sweep::kept_store(root, name)).filter(|kept| kept.exists()),
        view: root.view(name),
        mounted_at,
        held_by,
        base: sliver.base,
        name: sliver.name,
    };
    if args.json { out::json(&sheet) } else { print(&sheet) }
}

fn print(sheet: &Sheet) -> Result<()> {
    let mut table = out::Table::new(&["name", sheet.name.as_str()]);
    let space = Size(sheet.space).to_string();
    let (store, view) = (sheet.store.to_string_lossy(), sheet.view.to_string_lossy());
    for (label, value) in [
        ("wanted", sheet.wanted.word()),
        ("actual", sheet.actual.word()),
        ("backend", sheet.backend.name()),
        ("base", sheet.base.as_str()),
        ("digest of base", sheet.base_digest),
        ("space", &space),
        ("store", &store),
        ("view", &view),
    ] {
        table.row(&[label, value]);
    }
    if let (Some(bytes), Some(means), Some(used)) = (sheet.limit, sheet.means, sheet.used) {
        let limit = Limit { base: sheet.limit_base.unwrap_or(0), ..Limit::plain(bytes, means) };
        table.row(&["limit", &limit.words(used)]);
    }
    if let Some(Daemon { pid, memory }) = sheet.daemon {
        let memory = memory.map_or_else(|| "unknown".to_owned(), |bytes| Size(bytes).to_string());
        table.row(&["daemon", &format!("process {pid}, {memory} of memory")]);
    }
    if sheet.actual == Actual::Dead {
        table.row(&[
            "daemon",
            &format!("it ended, and with it the view: `sliverfs mount {}` brings it back", sheet.name),
        ]);
    }
    if let Some(kept) = &sheet.kept_store {
        table.row(&["kept store", &kept.to_string_lossy()]);
    }
    for place in &sheet.mounted_at {
        table.row(&["mounted at", place]);
    }
    for holder in &sheet.held_by {
        table.row(&["held by", holder]);
    }
    table.print()
}
