//! `sliverfs convert`: writes a sliver's store anew, for another backend.

mod anew;
mod bare;
mod plan;

use std::path::Path;

use serde::Serialize;

use anew::{How, convert};

use crate::backend::probe;
use crate::catalog::{Root, Sliver, sweep};
use crate::cli::Args;
use crate::cmd::layers::Layers;
use crate::cmd::{Ctx, replace};
use crate::config::AUTO;
use crate::error::{Class, Error, Result};
use crate::json;
use crate::kind::Choice;
use crate::layer::{self, Format, Survey};
use crate::name::Name;
use crate::out;
use crate::quota;
use crate::size::Size;
use crate::sys::child::Answer;
use crate::tree;

/// What was done.
struct Done<'a> {
    /// None for bare directories.
    name: Option<&'a Name>,
    from: &'static str,
    to: &'static str,
    state: &'static str,
    /// All of it, as `convert --json` prints it.
    json: &'static [u8],
}

/// What `convert --json` prints: see docs/json.md.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a Name>,
    from: &'static str,
    to: &'static str,
    state: &'static str,
    entries: u64,
    bytes: u64,
    told: &'a [String],
    kept_store: Option<&'static Path>,
}

impl<'a> Done<'a> {
    fn new(name: Option<&'a Name>, from: &'static str, to: &'static str, state: &'static str) -> Self {
        Self { name, from, to, state, json: &[] }
    }

    /// As JSON, with what a look at the store came to.
    fn json(&self, survey: &Survey, kept_store: Option<&'static Path>) -> Answer {
        let report = Report {
            name: self.name,
            from: self.from,
            to: self.to,
            state: self.state,
            entries: survey.entries,
            bytes: survey.bytes,
            told: &survey.told,
            kept_store,
        };
        Ok(json::write(&report)?.leak())
    }

    /// Where nothing was looked at.
    fn unseen(mut self) -> Result<Self> {
        self.json = self.json(&Survey::default(), None)?;
        Ok(self)
    }

    fn tell(&self) -> Result<()> {
        let Self { from, to, .. } = self;
        let what = self.name.map_or_else(|| "the store".to_owned(), |name| format!("`{name}`"));
        let end = match self.state {
            "planned" => return Ok(()),
            "unchanged" => "already",
            "undone" => "again, as before it was converted",
            _ => return out::line(format_args!("{what} is converted from {from} to {to}")),
        };
        out::line(format_args!("{what} is kept as {to} {end}"))
    }
}

/// Converts the sliver, or the bare directories, that the command line names.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let layers = Layers::new(args)?;
    let out = args.out.path();
    let bare = layers.format.is_some() || layers.base.is_some() || layers.store.is_some() || out.is_some();
    let name = args.words.first().map(|_| args.name()).transpose()?;
    let done = match (&name, args.to.text(), args.undo) {
        (None, Some(to), false) if bare => bare::run(args, &layers, to)?,
        (Some(name), None, true) if !bare => undo(ctx, name, args)?,
        (Some(name), Some(to), false) if !bare => {
            let root = ctx.root()?;
            let mut how = How::new(Choice::parse(to)?, args.dry_run, args.json);
            let _lock = root.lock_sliver(name)?;
            let sliver = Sliver::load(root, name)?;
            how.size = args.size.parse(Size::parse)?.map(|size| size.0);
            how.means = args.means.parse(quota::parse_mode)?.flatten();
            // Else no more is promised than was.
            if how.size.is_some() || how.means.is_some() {
                let config = ctx.config()?;
                config.check_main()?;
                how.policy = config.main.policy;
            }
            convert(root, sliver, &how)?
        }
        _ => {
            return Err(Error::usage("say what to convert, and to what").way_out(
                "`SLIVER --to KIND`, `SLIVER --undo`, or --format, --base, --store, --to and --out for bare directories",
            ));
        }
    };
    if args.json {
        return out::json_line(done.json.to_vec());
    }
    done.tell()?;
    match &name {
        Some(name) if done.state == "converted" => replace::tell_kept(ctx.root()?, name),
        _ => Ok(()),
    }
}

/// What a conversion of a store would come to; fails where something in it cannot be kept, and warns of what changes.
fn look_at(from: Format, store: &Path, base: &Path, to: Format) -> Result<Survey> {
    let survey = layer::survey(from, &tree::open_store(store)?, &tree::open(base)?, to)?;
    survey.check(to)?;
    for told in &survey.told {
        crate::warn!("{told}");
    }
    Ok(survey)
}

/// Brings the store back that was kept.
fn undo<'a>(ctx: &mut Ctx, name: &'a Name, args: &Args) -> Result<Done<'a>> {
    let root = ctx.root()?;
    let _lock = root.lock_sliver(name)?;
    let sliver = Sliver::load(root, name)?;
    let to = match replace::kept(root, sliver)? {
        Some(kept) if kept.base == sliver.base => {
            replace::bring_back(ctx, (sliver, kept), args.dry_run, args.json)?;
            kept.backend
        }
        // Cut after the stores changed places, or before a conversion had done that: this is the old one.
        None if !args.dry_run && sweep::kept_store(root, name).exists() => {
            sweep::drop_kept(root, name)?;
            sliver.backend
        }
        kept => {
            let err = Error::usage(format_args!("there is no store of `{name}` from before a conversion"));
            return Err(match kept {
                None => err.way_out("it is kept from a conversion to the next mount only: convert it back"),
                // What a rebase kept has another base.
                Some(_) => err.way_out(format_args!(
                    "`sliverfs rebase {name} --undo` brings back what it was before it was rebased"
                )),
            });
        }
    };
    let state = if args.dry_run { "planned" } else { "undone" };
    Done::new(Some(name), sliver.backend.name(), to.name(), state).unseen()
}

/// Where this kernel cannot show the store of a sliver at all, converts it (`auto`), or says how. False where it can. `wanted` is
/// the backend that the configuration names; `quiet` prints no steps of a dry run.
pub fn settle(
    root: &Root,
    name: &Name,
    auto: bool,
    wanted: &str,
    dry_run: bool,
    quiet: bool,
) -> Result<bool> {
    let _lock = root.lock_sliver(name)?;
    let Some(sliver) = Sliver::find(root, name)? else { return Ok(false) };
    match probe::features(root, sliver.backend) {
        Err(err) if err.class() == Class::Unsupported => {}
        _ => return Ok(false),
    }
    let lacks =
        format!("the store of `{name}` is one of {}, which this kernel does not offer", sliver.backend);
    if !auto {
        return Err(Error::unsupported(lacks).way_out(format_args!(
            "write it anew for this kernel: sliverfs convert {name} --to {AUTO}; with option convert '{AUTO}' in UCI's section \
             main this is done by itself"
        )));
    }
    let to = match Choice::parse(wanted)? {
        Choice::Named(kind) if kind != sliver.backend => Choice::Named(kind),
        _ => Choice::Auto,
    };
    crate::warn!("{lacks}: it is converted");
    let done = convert(root, sliver, &How::new(to, dry_run, quiet))?;
    if done.state == "converted" {
        let kept = sweep::kept_store(root, name).display();
        crate::info!("`{name}` is converted to {}; the old store is in {kept}", done.to);
    }
    Ok(true)
}
