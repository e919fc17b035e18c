//! `sliverfs convert`: writes a sliver's store anew, for another backend.

mod bare;

use std::path::Path;

use serde::Serialize;

use crate::backend::features::Features;
use crate::backend::probe;
use crate::backend::store::{Ground, layer};
use crate::catalog::base::Base;
use crate::catalog::{Mounted, Root, Sliver, sweep};
use crate::cli::Args;
use crate::cmd::layers::Layers;
use crate::cmd::quota::limit as set_limit;
use crate::cmd::replace::{self, Keep};
use crate::cmd::{Ctx, create, offline, print_plan};
use crate::config::AUTO;
use crate::error::{Class, Error, Result};
use crate::json::{self, Json};
use crate::kind::{Choice, Kind};
use crate::layer::{self, Format, Survey, Target};
use crate::mount::mountinfo::MountInfo;
use crate::mount::plan::{Rewrite, Step};
use crate::mount::{exec, private, seed};
use crate::name::Name;
use crate::out;
use crate::quota::admission::{self, Policy};
use crate::quota::{self, Limit, Means, image};
use crate::size::Size;
use crate::stay::Below;
use crate::sum::Sum;
use crate::sys::statfs;
use crate::tree;
use crate::view;

/// What was done, as `convert --json` prints it: see docs/json.md.
#[derive(Serialize)]
struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Name>,
    from: &'static str,
    to: &'static str,
    state: &'static str,
    entries: u64,
    bytes: u64,
    told: Vec<String>,
    kept_store: Option<&'static Path>,
}

/// Converts the sliver, or the bare directories, that the command line names.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let layers = Layers::new(args)?;
    let out = args.out.path();
    let bare = layers.format.is_some() || layers.base.is_some() || layers.store.is_some() || out.is_some();
    let name = args.words.first().map(|_| args.name()).transpose()?;
    let report = match (&name, args.to.text(), args.undo) {
        (None, Some(to), false) if bare => bare::run(args, &layers, to)?,
        (Some(name), None, true) if !bare => undo(ctx, name, args.dry_run, args.json)?,
        (Some(name), Some(to), false) if !bare => {
            let (root, to) = (ctx.root()?, Choice::parse(to)?);
            let _lock = root.lock_sliver(name)?;
            let sliver = Sliver::load(root, name)?;
            let size = args.size.parse(Size::parse)?.map(|size| size.0);
            let means = args.means.parse(quota::parse_mode)?.flatten();
            let mut policy = Policy::default();
            // Else no more is promised than was.
            if size.is_some() || means.is_some() {
                let config = ctx.config()?;
                config.check_main()?;
                policy = config.main.policy;
            }
            convert(root, sliver, to, (size, means, policy), args.dry_run, args.json)?
        }
        _ => {
            return Err(Error::usage("say what to convert, and to what").way_out(
                "`SLIVER --to KIND`, `SLIVER --undo`, or --format, --base, --store, --to and --out for bare directories",
            ));
        }
    };
    if args.json {
        return out::json(&report);
    }
    tell(&report)?;
    match (&report.name, &report.kept_store, report.state) {
        (Some(name), Some(_), "converted") => replace::tell_kept(ctx.root()?, name),
        _ => Ok(()),
    }
}

fn tell(report: &Report) -> Result<()> {
    let what = report.name.as_ref().map_or_else(|| "the store".to_owned(), |name| format!("`{name}`"));
    let (from, to) = (report.from, report.to);
    match report.state {
        "unchanged" => out::line(&format!("{what} is kept as {to} already")),
        "undone" => out::line(&format!("{what} is kept as {to} again, as before it was converted")),
        "planned" => Ok(()),
        _ => out::line(&format!("{what} is converted from {from} to {to}")),
    }
}

/// What came of looking at the store, as a child tells it.
#[derive(Serialize)]
struct Looked {
    entries: u64,
    bytes: u64,
    told: Vec<String>,
}

impl Looked {
    fn of(survey: Survey) -> Self {
        Self { entries: survey.entries, bytes: survey.bytes, told: survey.told }
    }

    fn parse(text: &[u8]) -> Result<Self> {
        let json = Json::parse(text)?;
        let mut told = Vec::new();
        for line in json.list("told")? {
            if let Json::Text(line) = line {
                told.push((*line).to_owned());
            }
        }
        Ok(Self { entries: json.number("entries")?, bytes: json.number("bytes")?, told })
    }
}

/// Converts a sliver whose lock is held.
fn convert(
    root: &Root,
    sliver: &Sliver,
    to: Choice,
    (size, means, policy): (Option<u64>, Option<Means>, Policy),
    dry_run: bool,
    quiet: bool,
) -> Result<Report> {
    let name = &sliver.name;
    let base = Base::load(root, &sliver.base)?;
    view::check_base(sliver, base)?;
    let to = match to {
        Choice::Named(kind) => kind,
        Choice::Auto => create::choose(root, Choice::Auto, base, dry_run)?,
    };
    if means.is_some() && (size.is_some() || sliver.quota.is_none() || to == sliver.backend) {
        return Err(Error::usage(
            "--means is for a limit that goes to another kind of store, and there is none",
        )
        .way_out(format_args!("sliverfs quota {name} SIZE --means MEANS")));
    }
    let mut report = Report {
        name: Some(*name),
        from: sliver.backend.name(),
        to: to.name(),
        state: "unchanged",
        entries: 0,
        bytes: 0,
        told: Vec::new(),
        kept_store: None,
    };
    if to == sliver.backend {
        if !dry_run {
            sweep::new(root, name)?;
        }
        return Ok(report);
    }
    // The limit stays, by what its kind is kept to it; a size takes its place.
    let limit = match (size, sliver.quota) {
        (Some(bytes), _) => Some(Ok(Limit::of_seed(bytes))),
        (None, old) => old.map(|old| set_limit(root, name, to, (means, Some(old)), old.bytes)),
    };
    let limit = limit.transpose().map_err(|err| {
        err.way_out(format_args!(
            "take the limit off: sliverfs quota {name} none; or name what keeps it: --means"
        ))
    })?;
    admission::admit(root, policy, sliver.quota, limit, None)?;
    let size = size.or(quota::by(limit, Means::Seed).map(|limit| limit.bytes));
    create::check_kind(to, base, size)?;
    offline::refuse_to_read(root, sliver)?;
    statfs::refuse_read_only(root.stores())?;
    let kept = replace::kept(root, sliver)?;
    // The one that was mounted last stays the one that is kept.
    let keep = if kept.is_some() { Keep::Earlier } else { Keep::Own };
    let publish = replace::publish(root, name, keep);
    if dry_run && !quiet {
        let plan = Plan::new(root, sliver, base, to, (size, quota::renew(root, limit, (to, base), true)?))?;
        for steps in [&plan.look, &plan.make, &replace::last_steps(root, &plan.record)?, &publish] {
            print_plan(steps)?;
        }
    }
    if !dry_run {
        offline::settle(root, sliver)?;
        replace::prepare(root, name, kept.is_some())?;
        for kind in [sliver.backend, to] {
            view::free_seed(root, kind, &base.name)?;
        }
    }
    if !dry_run {
        quota::prepare(root, name, limit)?;
    }
    let looked = private::beside(root, name, &mut || {
        // Planned in there, too: nobody can let go of a base's image that this namespace has.
        let plan =
            Plan::new(root, sliver, base, to, (size, quota::renew(root, limit, (to, base), dry_run)?))?;
        exec::run(&plan.look)?;
        let looked = plan.survey()?;
        if !dry_run {
            exec::run(&plan.make)
                .and_then(|()| replace::finish(root, &plan.record))
                .map_err(|err| replace::full(&plan.record, err))?;
        }
        json::write(&looked)
    })
    .and_then(|text| Looked::parse(&text))
    .inspect_err(|_| replace::left_over(root, name, dry_run))?;
    for told in &looked.told {
        crate::warn!("{told}");
    }
    (report.entries, report.bytes, report.told) = (looked.entries, looked.bytes, looked.told);
    if matches!(to, Kind::Union(_)) && probe::features(root, to).is_err() {
        crate::warn!("this kernel does not offer {to}: the sliver can be mounted where one does");
    }
    if dry_run {
        report.state = "planned";
        if !quiet {
            let size = Size(report.bytes);
            crate::info!("{} changed names with {size} of files would be written", report.entries);
        }
        return Ok(report);
    }
    root.lock_catalog()
        .and_then(|catalog| {
            admission::admit(root, policy, sliver.quota, limit, Some(&catalog))?;
            exec::run(&publish)
        })
        .inspect_err(|_| replace::left_over(root, name, false))?;
    // What is noted of its last mount is none of the new store's.
    Mounted::forget(root, name)?;
    // The one between, where the sliver was converted twice without a mount.
    sweep::told(sweep::new(root, name));
    report.state = "converted";
    report.kept_store = Some(sweep::kept_store(root, name));
    Ok(report)
}

/// How the new store is made beside the old one.
struct Plan {
    /// What must be there to look at the old one; it changes nothing on the disk.
    look: Vec<Step>,
    make: Vec<Step>,
    /// The record of the new store, which ends it.
    record: Sliver,
    work: Rewrite,
    /// The layers can be looked at before the new store is begun.
    open: bool,
}

impl Plan {
    /// In a private mount namespace, where folders of the new store serve as mount points.
    fn new(
        root: &Root,
        sliver: &Sliver,
        base: &Base,
        to: Kind,
        (size, limit): (Option<u64>, Option<Limit>),
    ) -> Result<Self> {
        let name = &sliver.name;
        let (stored, stage) = (root.store(name), sweep::new_store(root, name));
        let ground = |kind, limit| Ground { root, base, kind, features: Features::default(), limit };
        let (old, new) = (ground(sliver.backend, sliver.quota), ground(to, limit));
        let grows = sliver.backend.grows_image() || to.grows_image();
        let mut look = Vec::new();
        if sliver.has_image() {
            look.extend(image::mount_steps(stored, Format::of(sliver.backend)));
        }
        let (mut make, inner) = new.begin(stage, image::shape(stored));
        let mut clear = Vec::new();
        let mut mount_point = |make: &mut Vec<Step>, name: &str| {
            let dir = stage.below(name);
            make.push(Step::CreateDir(dir));
            clear.extend([Step::Unmount(dir), Step::RemoveDir(dir)]);
            dir
        };
        let mut tree = old.tree();
        if grows {
            // The seed cannot be seen by itself while something that grew from it is mounted: one that nothing is written to can.
            tree = mount_point(&mut make, ".base");
            let (seed, store, target) = (base.content(root), stage.below(SCRATCH), tree);
            make.extend([
                Step::GrowSeed { seed, store, size: seed::LEAST, target },
                Step::MountSeed { seed, store, target },
            ]);
        } else {
            look.extend(old.image(&MountInfo::of_self()?));
        }
        let mut from = image::content(stored).below(layer(sliver.backend));
        if sliver.backend.grows_image() {
            from = mount_point(&mut make, ".from");
            make.extend(old.mount(name.as_str(), from)?);
        }
        let mut into = inner.below(layer(to));
        if to.grows_image() {
            into = mount_point(&mut make, ".into");
        }
        make.extend(new.make_of(tree, inner, size, into));
        if to.grows_image() {
            make.extend(new.mount(&format!(".new.{name}"), into)?);
        }
        let (from_format, to_format) = (Format::of(sliver.backend), Format::of(to));
        let work = Rewrite {
            from: from_format,
            store: from,
            base: tree,
            to: to_format,
            new: into,
            tree: if to_format.whole() { Target::Copy } else { Target::Store },
        };
        make.push(Step::Rewrite(Box::new(work.clone())));
        make.extend(clear);
        if grows {
            make.push(Step::RemoveFile(stage.below(SCRATCH)));
        }
        let record = Sliver { backend: to, converted: sliver.converted.plus(1), quota: limit, ..*sliver };
        Ok(Self { look, make, record, work, open: !grows })
    }

    fn survey(&self) -> Result<Looked> {
        let work = &self.work;
        // Two whole trees keep the same.
        if !self.open || work.from.whole() && work.to.whole() {
            return Ok(Looked::of(Survey::default()));
        }
        look_at(work.from, work.store, work.base, work.to)
    }
}

/// An image that grows from the seed to show it.
const SCRATCH: &str = ".base.raw";

fn look_at(from: Format, store: &Path, base: &Path, to: Format) -> Result<Looked> {
    let survey = layer::survey(from, &tree::open_store(store)?, &tree::open(base)?, to)?;
    survey.check(to)?;
    Ok(Looked::of(survey))
}

/// Brings the store back that was kept.
fn undo(ctx: &mut Ctx, name: &Name, dry_run: bool, quiet: bool) -> Result<Report> {
    let root = ctx.root()?;
    let _lock = root.lock_sliver(name)?;
    let sliver = Sliver::load(root, name)?;
    let to = match replace::kept(root, sliver)? {
        Some(kept) if kept.base == sliver.base => {
            replace::bring_back(ctx, (sliver, kept), dry_run, quiet)?;
            kept.backend
        }
        // Cut after the stores changed places, or before a conversion had done that: this is the old one.
        None if !dry_run && sweep::kept_store(root, name).exists() => {
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
    Ok(Report {
        name: Some(*name),
        from: sliver.backend.name(),
        to: to.name(),
        state: if dry_run { "planned" } else { "undone" },
        entries: 0,
        bytes: 0,
        told: Vec::new(),
        kept_store: None,
    })
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
    let report = convert(root, sliver, to, (None, None, Policy::default()), dry_run, quiet)?;
    if let Some(kept) = &report.kept_store {
        crate::info!("`{name}` is converted to {}; the old store is in {}", report.to, kept.display());
    }
    Ok(true)
}
