//! `sliverfs restore`: gives back the base's version of paths.

use serde::Serialize;

use crate::cli::Args;
use crate::cmd::Ctx;
use crate::cmd::diff::inside;
use crate::cmd::layers::Layers;
use crate::error::{Error, Result};
use crate::layer::{self, Restored};
use crate::out::{self, escape};
use crate::progress::Progress;
use crate::tree;

/// A path, as `restore --json` prints it: see docs/json.md.
#[derive(Serialize)]
struct Row {
    path: &'static str,
    done: Restored,
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
            let again = tree::again(store)?;
            let done = layer::restore(format, base, again, &scratch, &path, args.dry_run, &mut copied)?;
            let path = &*escape(&path).leak();
            if !args.json {
                let would = if args.dry_run { "would be " } else { "" };
                out::line(&match done {
                    Restored::Already => format!("{path}: is the base's already"),
                    Restored::Uncovered => format!("{path}: {would}the base's again"),
                    Restored::Copied => format!("{path}: {would}copied from the base"),
                })?;
            }
            rows.push(Row { path, done });
        }
        if args.json { out::json(&rows) } else { Ok(()) }
    })
}
