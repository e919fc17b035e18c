//! Layers that lie anywhere, written anew beside themselves.

use std::ffi::OsString;
use std::path::Path;

use super::{Done, look_at};
use crate::cli::Args;
use crate::cmd::layers::{Layers, refuse_within};
use crate::cmd::print_plan;
use crate::error::{Context, Error, Result};
use crate::layer::{Format, Target};
use crate::mount::exec;
use crate::mount::plan::{Rewrite, Step};
use crate::stay::{Below, for_good, stay};
use crate::tree;

/// The store that a bare folder is written into before it has its name.
const NEW: &str = ".sliverfs-new.";

/// Converts layers that lie anywhere: of a disk that was taken out of a node.
pub(super) fn run(args: &Args, layers: &Layers<'_>, to: &str) -> Result<Done<'static>> {
    let to = Format::parse(to)?;
    let (Some(from), Some(base), Some(store), Some(out)) =
        (layers.format, layers.base, layers.store, args.out.path())
    else {
        return Err(Error::usage("bare directories want all of --format, --base, --store, --to and --out"));
    };
    let (Some(name), Ok(above)) = (out.file_name(), parent(out)) else {
        return Err(Error::usage(format_args!("{} cannot be made", out.display())));
    };
    if out.symlink_metadata().is_ok() {
        return Err(Error::usage(format_args!("{} is there already", out.display()))
            .way_out("name a folder that is not there yet"));
    }
    for (one, other) in [(store, base), (base, store), (above, store), (above, base)] {
        refuse_within(one, other)?;
    }
    let mut new = OsString::from(NEW);
    new.push(name);
    let new = stay(above.join(new));
    let survey = look_at(from, store, base, to)?;
    let work = for_good(Rewrite {
        from,
        store: store.stays(),
        base: base.stays(),
        to,
        new,
        tree: if to.whole() { Target::Whole } else { Target::Store },
    });
    let steps = [
        Step::CreateDir(new),
        Step::Rewrite(work),
        Step::SyncDisk(new),
        Step::Rename(new, stay(above.join(name))),
    ];
    if args.dry_run {
        if !args.json {
            print_plan(&steps)?;
        }
    } else {
        tree::remove_path(new)?;
        exec::run(&steps)?;
    }
    let state = if args.dry_run { "planned" } else { "converted" };
    let done = Done::new(None, from.name(), to.name(), state);
    Ok(Done { json: done.json(&survey, None)?, ..done })
}

/// The folder that a path lies in.
fn parent(path: &Path) -> Result<&'static Path> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::canonicalize(above).at("open", above).map(stay)
}
