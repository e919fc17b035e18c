//! `sliverfs restore`: gives back the base's version of paths.

use serde::Serialize;

use crate::catalog::sweep;
use crate::cli::Args;
use crate::cmd::Ctx;
use crate::cmd::diff::{inside, is_at};
use crate::cmd::layers::Layers;
use crate::error::{Error, Result};
use crate::layer::{self, Changes, Format, Restored, Show, Step};
use crate::out::{self, escape};
use crate::progress::Progress;
use crate::tree::{self, Dir, c_name};

/// A path, as `restore --json` prints it: see docs/json.md.
#[derive(Serialize)]
struct Row {
    path: &'static str,
    done: Restored,
    own: usize,
}

/// Restores paths of a sliver that is mounted nowhere, or of bare directories: one after the other, each as a whole.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let mut layers = Layers::new(args)?;
    layers.hold(ctx)?;
    layers.with(ctx, &mut |format, base, store, words| {
        if words.is_empty() {
            return Err(Error::usage("name the paths to restore"));
        }
        let scratch = layers.scratch(format, store, args.dry_run)?;
        let progress = Progress::new("copying", None);
        let mut copied = |bytes| progress.add(bytes);
        let mut rows = Vec::new();
        for word in words {
            let path = inside(word)?;
            if path.is_empty() {
                return Err(Error::usage("the whole sliver cannot be restored")
                    .way_out("destroy it and create it again, or name what is in it"));
            }
            // No more than told: a store in which it cannot be counted is restored all the same.
            let own = own(format, base, store, &path).map_err(|err| sweep::told(Err(err))).unwrap_or(0);
            let again = tree::again(store)?;
            let done = layer::restore(format, base, again, &scratch, &path, args.dry_run, &mut copied)?;
            let path = &*escape(&path).leak();
            if !args.json {
                let would = if args.dry_run { "would be " } else { "" };
                let how = match done {
                    Restored::Already => "is the base's already",
                    Restored::Uncovered => "the base's again",
                    Restored::Copied => "copied from the base",
                };
                let would = if done == Restored::Already { "" } else { would };
                let lost = match own {
                    0 => String::new(),
                    own => format!(", without {own} names that only the sliver had"),
                };
                out::line(format_args!("{path}: {would}{how}{lost}"))?;
            }
            rows.push(Row { path, done, own });
        }
        if args.json { out::json(&rows) } else { Ok(()) }
    })
}

/// How many names below a path only the sliver has: they go with what it has there.
fn own(format: Format, base: &Dir, store: &Dir, path: &[u8]) -> Result<usize> {
    let show = if format.whole() { Show::View } else { Show::Changes };
    let mut changes = Changes::new(format, tree::again(store)?, base, show)?.without_leaves();
    changes.step()?;
    for part in path.split(|byte| *byte == b'/') {
        changes.enter()?;
        if changes.find(&c_name(part)?)?.is_none() {
            return Ok(0);
        }
    }
    changes.enter()?;
    let mut own = 0;
    while let Some(Step::Entry(entry)) = changes.step()? {
        // What follows the last one lies beside the path.
        if !entry.path.strip_prefix(path).is_some_and(|below| below.starts_with(b"/")) {
            break;
        }
        let moved = entry.from.is_some_and(|from| !is_at(from, &entry));
        own += usize::from(entry.node.is_some() && (moved || entry.base.is_none()));
        changes.enter()?;
    }
    Ok(own)
}
