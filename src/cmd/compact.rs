//! `sliverfs compact`: drops from a store what the base has again.

use serde::Serialize;

use crate::catalog::Sliver;
use crate::cli::Args;
use crate::cmd::Ctx;
use crate::cmd::layers::Layers;
use crate::cmd::quota::remake;
use crate::error::{Error, Result};
use crate::layer::{Aspects, Compact, Compacted, Format, survey};
use crate::mount::seed;
use crate::out::{self, escape};
use crate::progress::Progress;
use crate::quota::{admission::Policy, held};
use crate::size::Size;
use crate::sum::Sum;
use crate::tree;

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
    let mut layers = Layers::new(args)?;
    let sliver = layers.hold(ctx)?;
    if let Some(sliver) = sliver.filter(|sliver| sliver.backend.grows_image()) {
        return anew(ctx, &layers, sliver, args);
    }
    if let Some(format) = layers.format.or(sliver.map(|sliver| Format::of(sliver.backend))) {
        refuse_whole(format)?;
    }
    layers.with(ctx, &mut |format, base, store, words| {
        if !words.is_empty() {
            return Err(Error::usage("one sliver at a time"));
        }
        let scratch = layers.scratch(format, store, args.dry_run)?;
        let progress = Progress::new("comparing", None);
        let mut tell = |what: &str, path: &[u8]| {
            let shown = args.dry_run && !args.json;
            if !shown && !args.verbose {
                return Ok(());
            }
            let path = escape(if path.is_empty() { b"." } else { path });
            if shown {
                return out::line(format_args!("{path}: {what}"));
            }
            crate::debug!("{path}: {what}");
            Ok(())
        };
        let ignore = if args.ignore_times { Aspects::TIME } else { Aspects::NONE };
        let mut compared = |bytes| progress.add(bytes);
        let compact = Compact::new(format, &scratch, ignore, args.dry_run, &mut tell, &mut compared);
        let done = compact.run(tree::again(store)?, base)?;
        drop(progress);
        print(&Sheet { format: format.name(), dry_run: args.dry_run, done }, args.json)
    })
}

/// Of a store on a seed no part can go by itself: it is written anew beside the old one, without what equals the base's.
fn anew(ctx: &mut Ctx, layers: &Layers<'_>, sliver: &Sliver, args: &Args) -> Result<()> {
    if layers.words.len() > 1 || args.ignore_times {
        return Err(Error::usage("a store on a seed is written anew, one at a time, with all its times")
            .way_out("name one sliver, without --ignore-times"));
    }
    let root = ctx.root()?;
    let before = held::used(root, sliver)?;
    let tell = |format: Format, left: u64, how: &str| {
        let done = Compacted { bytes: before.minus(left), ..Compacted::default() };
        if args.json {
            return out::json(&Sheet { format: format.name(), dry_run: args.dry_run, done });
        }
        out::line(format_args!("the store {how}{} given back", Size(done.bytes)))
    };
    if args.dry_run {
        return layers.with(ctx, &mut |format, base, store, _| {
            let survey = survey(format, store, base, format)?;
            survey.check(format)?;
            tell(format, survey.space.plus(seed::EMPTY), "would be written anew: about ")
        });
    }
    remake(root, sliver, sliver, &Policy::default())?;
    tell(Format::of(sliver.backend), held::used(root, sliver)?, "is written anew: ")
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
    } else if done.files | done.directories | done.whiteouts | done.marks | done.garbage == 0
        && done.bytes == 0
    {
        out::line("nothing to drop")?;
    } else {
        let verb = if sheet.dry_run { "would be" } else { "are" };
        out::line(format_args!(
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
