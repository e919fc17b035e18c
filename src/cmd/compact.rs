//! `sliverfs compact`: drops from a store what the base has again.

use serde::Serialize;

use crate::cli::Args;
use crate::cmd::layers::Layers;
use crate::cmd::{Ctx, offline};
use crate::error::{Error, Result};
use crate::layer::{Aspects, Compact, Compacted, Format};
use crate::out::{self, Progress, escape};
use crate::size::Size;

/// What `compact --json` prints: see docs/json.md.
#[derive(Serialize)]
struct Sheet {
    format: &'static str,
    dry_run: bool,
    #[serde(flatten)]
    done: Compacted,
}

/// Compacts a sliver that is mounted nowhere, or bare directories.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let layers = Layers::new(args)?;
    let held = offline::hold(ctx, &layers)?;
    if let Some(format) = layers.format.or(held.as_ref().map(|held| held.format)) {
        refuse_whole(format)?;
    }
    layers.with(ctx, &mut |format, base, store, words| {
        if !words.is_empty() {
            return Err(Error::usage("one sliver at a time"));
        }
        let scratch = offline::scratch(held.as_ref(), format, &store, args.dry_run)?;
        let progress = Progress::new("comparing", None);
        let mut tell = |what: &str, path: &[u8]| {
            let shown = args.dry_run && !args.json;
            if !shown && !args.verbose {
                return Ok(());
            }
            let path = if path.is_empty() { ".".to_owned() } else { escape(path) };
            if shown {
                return out::line(&format!("{path}: {what}"));
            }
            crate::debug!("{path}: {what}");
            Ok(())
        };
        let ignore = if args.ignore_times { Aspects::TIME } else { Aspects::NONE };
        let mut compared = |bytes| progress.add(bytes);
        let compact = Compact::new(format, &scratch, ignore, args.dry_run, &mut tell, &mut compared);
        let done = compact.run(store, &base)?;
        drop(progress);
        print(&Sheet { format: format.name(), dry_run: args.dry_run, done }, args.json)
    })
}

fn refuse_whole(format: Format) -> Result<()> {
    if format.whole() {
        return Err(Error::unsupported(
            "a store that is a whole tree has nothing to drop: all of it is the view",
        )
        .way_out("`sliverfs dedupe` makes it share its content with the base again"));
    }
    Ok(())
}

fn print(sheet: &Sheet, json: bool) -> Result<()> {
    let done = &sheet.done;
    if json {
        out::json(sheet)?;
    } else if done.files + done.directories + done.whiteouts + done.marks + done.garbage + done.bytes == 0 {
        out::line("nothing to drop")?;
    } else {
        let verb = if sheet.dry_run { "would be" } else { "are" };
        out::line(&format!(
            "{} files, {} directories, {} whiteouts, {} opaque marks and {} left-overs {verb} dropped: {} given back",
            done.files,
            done.directories,
            done.whiteouts,
            done.marks,
            done.garbage,
            Size(done.bytes)
        ))?;
    }
    if done.linked > 0 {
        crate::warn!(
            "{} names are as in the base, but are kept: they share their content with other names",
            done.linked
        );
    }
    if done.stuck > 0 {
        crate::warn!(
            "{} could not be dropped: they are immutable, or the disk is full: run it again",
            done.stuck
        );
    }
    if done.unclear > 0 {
        crate::warn!(
            "{} entries are not what the format explains, and were left alone: `sliverfs check`",
            done.unclear
        );
    }
    Ok(())
}
