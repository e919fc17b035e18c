//! `sliverfs list`: all slivers, with what is wanted, recorded and actual.

use serde::Serialize;

use crate::alive::Views;
use crate::catalog::{Root, Sliver};
use crate::cli::Args;
use crate::cmd::Ctx;
use crate::config::Config;
use crate::error::Result;
use crate::kind::Kind;
use crate::lxc::Sockets;
use crate::mount::fuse;
use crate::name::Name;
use crate::out;
use crate::quota::held;
use crate::size::Size;
use crate::state::{Actual, Recorded, Wanted};
use crate::sys::memory;

/// A sliver, as `list --json` prints it: see docs/json.md.
#[derive(Serialize)]
struct Row {
    name: Name,
    wanted: Wanted,
    recorded: Recorded,
    actual: Actual,
    backend: Option<&'static str>,
    base: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    space: Option<u64>,
    /// Of the daemon that serves the view; only with `--space`.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<u64>,
}

/// Prints the table, or the JSON array.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let root = ctx.root()?;
    let config = ctx.config()?;
    let rows = rows(root, config, args.space)?;
    if args.json {
        return out::json(&rows);
    }
    if rows.is_empty() {
        crate::info!("no slivers in {}: `sliverfs create NAME --base BASE` makes one", root.path().display());
        return Ok(());
    }
    let headings = ["NAME", "WANTED", "RECORDED", "ACTUAL", "BACKEND", "BASE", "SPACE", "MEMORY"];
    let daemons = rows.iter().any(|row| row.memory.is_some());
    let shown = headings.len() - if daemons { 0 } else { 1 } - if args.space { 0 } else { 1 };
    let mut table = out::Table::new(headings.get(..shown).unwrap_or(&headings));
    for row in &rows {
        table.row(&[
            row.name.as_str(),
            row.wanted.word(),
            row.recorded.word(),
            row.actual.word(),
            row.backend.unwrap_or("-"),
            row.base.as_ref().map_or("-", Name::as_str),
            &size(row.space),
            &size(row.memory),
        ]);
    }
    table.print()
}

fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(String::new, |bytes| Size(bytes).to_string())
}

fn rows(root: &Root, config: &Config, space: bool) -> Result<Vec<Row>> {
    let views = Views::everywhere(root)?;
    let sockets = Sockets::read()?;
    let mut names = Sliver::names(root)?;
    for wanted in config.slivers.iter().filter(|sliver| sliver.enabled) {
        if let Err(at) = names.binary_search(&wanted.name) {
            names.insert(at, wanted.name);
        }
    }
    names.into_iter().map(|name| row(root, config, &views, &sockets, space, name)).collect()
}

fn row(
    root: &Root,
    config: &Config,
    views: &Views,
    sockets: &Sockets,
    space: bool,
    name: Name,
) -> Result<Row> {
    let (recorded, sliver) = match Sliver::find(root, &name) {
        Ok(None) => (Recorded::Missing, None),
        Ok(Some(sliver)) => (Recorded::Created, Some(sliver)),
        Err(err) => Recorded::of(Err(err))?,
    };
    let space = match space && recorded != Recorded::Missing {
        true => Some(held::space(root.store(&name))?),
        false => None,
    };
    let served =
        space.is_some() && sliver.as_ref().is_some_and(|sliver| sliver.backend == Kind::FuseOverlayfs);
    let daemon = if served { fuse::daemon(root.upper(&name)) } else { None };
    Ok(Row {
        memory: daemon.and_then(memory::of),
        wanted: Wanted::of(config, &name),
        recorded,
        actual: Actual::of(root, &name, views, sockets),
        backend: sliver.as_ref().map(|sliver| sliver.backend.name()),
        base: sliver.map(|sliver| sliver.base),
        space,
        name,
    })
}
