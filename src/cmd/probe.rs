//! `sliverfs probe`: what this kernel and this disk can do, and why not.

use serde::Serialize;

use crate::backend::probe::probe;
use crate::backend::verdict::Verdict;
use crate::catalog::Root;
use crate::cli::Args;
use crate::error::{Error, Result};
use crate::json;
use crate::mount::disk;
use crate::out;
use crate::quota::{Means, choice, image};

/// Probes, prints, and fails where nothing works.
pub fn run(root: &Root, args: &Args) -> Result<()> {
    warn_of_upgrade(root)?;
    let verdicts = probe(root, args.fresh)?;
    let image = image::trial(root);
    if args.json {
        // One object more in each.
        let mut text = Vec::new();
        for verdict in &verdicts {
            let (means, reason) = choice::offer(root, verdict.kind, &image);
            text.push(if text.is_empty() { b'[' } else { b',' });
            text.extend(json::write(verdict)?);
            text.pop();
            text.extend(b",\"limit\":");
            text.extend(json::write(&Limit { means, reason })?);
            text.push(b'}');
        }
        text.push(b']');
        out::json_line(text)?;
    } else {
        let best = verdicts.iter().find(|verdict| verdict.auto).map(|verdict| verdict.kind);
        let mut table = out::Table::new(&["BACKEND", "WORKS", "WHY"]);
        for verdict in &verdicts {
            let works = if verdict.works { "yes" } else { "no" };
            let why = match &verdict.reason {
                Some(reason) => (*reason).to_owned(),
                None => known(verdict),
            };
            let taken = if best == Some(verdict.kind) { " (auto takes it)" } else { "" };
            table.row(&[verdict.kind.name(), works, &format!("{why}{taken}")]);
        }
        table.print()?;
        limits(root, &verdicts, &image)?;
    }
    if verdicts.iter().any(|verdict| verdict.auto) {
        return Ok(());
    }
    // What may pass keeps more from working than what will stay.
    let passing = verdicts.iter().find(|verdict| !verdict.lasting).and_then(|verdict| verdict.reason);
    Err(match passing {
        Some(reason) => Error::unsupported(format_args!("no backend could be tried: {reason}")),
        None => Error::unsupported(format_args!("no backend works on {}", root.path().display()))
            .way_out("use another disk, or a kernel with a union file system"),
    })
}

/// What keeps a store to a limit, as `probe --json` prints it.
#[derive(Serialize)]
struct Limit {
    means: Option<Means>,
    reason: Option<String>,
}

/// Prints what keeps the stores of what works here to a limit.
fn limits(root: &Root, verdicts: &[Verdict], image: &Result<()>) -> Result<()> {
    if !verdicts.iter().any(|verdict| verdict.works) {
        return Ok(());
    }
    out::line("")?;
    let mut table = out::Table::new(&["BACKEND", "LIMIT BY", "WHY"]);
    for verdict in verdicts.iter().filter(|verdict| verdict.works) {
        let (means, reason) = choice::offer(root, verdict.kind, image);
        let why = reason.as_deref().unwrap_or("holds a tenant who is root, too");
        table.row(&[verdict.kind.name(), means.map_or("-", Means::name), why]);
    }
    table.print()
}

/// The optional features, in a line.
fn known(verdict: &Verdict) -> String {
    let features = &verdict.features;
    let names: Vec<&str> = [
        (features.redirect_dir, "redirect_dir"),
        (features.metacopy, "metacopy"),
        (features.index, "index"),
        (features.xino, "xino"),
    ]
    .into_iter()
    .filter_map(|(known, name)| known.then_some(name))
    .collect();
    if names.is_empty() {
        "tried on this disk".to_owned()
    } else {
        format!("tried on this disk; off: {}", names.join(" "))
    }
}

/// Says so where a firmware upgrade would erase the slivers.
pub fn warn_of_upgrade(root: &Root) -> Result<()> {
    if let Some(warning) = disk::erased_by_upgrade(root.path())? {
        crate::warn!("{warning}");
    }
    Ok(())
}
