//! `sliverfs list`: all slivers, with what is wanted, recorded and actual.

use serde::Serialize;

use crate::alive::Views;
use crate::catalog::{Root, Sliver};
use crate::cli;
use crate::cmd::Ctx;
use crate::config::Config;
use crate::error::Result;
use crate::lxc::Sockets;
use crate::name::Name;
use crate::out;
use crate::size::Size;
use crate::state::{Actual, Recorded, Wanted};
use crate::tree;

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
}

/// Prints the table, or the JSON array.
pub fn run(ctx: &mut Ctx, args: &cli::List) -> Result<()> {
    let root = ctx.root()?;
    let config = ctx.config()?;
    let rows = rows(&root, config, args.space)?;
    if args.json {
        return out::json(&rows);
    }
    if rows.is_empty() {
        log::info!("no slivers in {}: `sliverfs create NAME --base BASE` makes one", root.path().display());
        return Ok(());
    }
    let headings = ["NAME", "WANTED", "RECORDED", "ACTUAL", "BACKEND", "BASE", "SPACE"];
    let shown = if args.space { headings.len() } else { headings.len() - 1 };
    let mut table = out::Table::new(headings.get(..shown).unwrap_or(&headings));
    for row in &rows {
        table.row(&[
            row.name.as_str(),
            row.wanted.word(),
            row.recorded.word(),
            row.actual.word(),
            row.backend.unwrap_or("-"),
            row.base.as_ref().map_or("-", Name::as_str),
            &row.space.map_or_else(String::new, |space| Size(space).to_string()),
        ]);
    }
    table.print()
}

fn rows(root: &Root, config: &Config, space: bool) -> Result<Vec<Row>> {
    let views = Views::everywhere(root)?;
    let sockets = Sockets::read()?;
    let mut names = Sliver::names(root)?;
    for wanted in config.slivers.iter().filter(|sliver| sliver.enabled) {
        if let Err(at) = names.binary_search(&wanted.name) {
            names.insert(at, wanted.name.clone());
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
        true => Some(tree::space(&root.store(&name))?),
        false => None,
    };
    Ok(Row {
        wanted: Wanted::of(config, &name),
        recorded,
        actual: Actual::of(root, &name, views, sockets),
        backend: sliver.as_ref().map(|sliver| sliver.backend.name()),
        base: sliver.map(|sliver| sliver.base),
        space,
        name,
    })
}
