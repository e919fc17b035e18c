//! `sliverfs rebase`: a sliver's store for another base.

mod report;

use std::fmt::Write;

use self::report::{Head, NAMED, Report};
use crate::backend::features::Features;
use crate::backend::store::{Ground, layer, take_down};
use crate::catalog::base::Base;
use crate::catalog::{Root, Sliver, sweep};
use crate::cli::Args;
use crate::cmd::replace::{self, Keep, kept, left_over};
use crate::cmd::{Ctx, create, for_each, offline, print_plan};
use crate::error::{Class, Error, Result};
use crate::kind::Kind;
use crate::layer::{self, Format, Outcome, Prefer};
use crate::mount::plan::Step;
use crate::mount::{exec, private, seed};
use crate::name::Name;
use crate::progress::Progress;
use crate::quota::{anew, image, zfs};
use crate::stay::Below;
use crate::sys::child::Answer;
use crate::sys::signals::LastWords;
use crate::sys::statfs;
use crate::sys::writeback::Writeback;
use crate::tree;
use crate::view;

/// What the command line says besides which sliver.
struct How {
    prefer: Prefer,
    fail: bool,
    plan: bool,
    json: bool,
}

/// Rebases the sliver that the command line names, or all of a base.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let prefer = match (args.ours, args.theirs, args.fail) {
        (false, false, _) => Prefer::Both,
        (true, false, false) => Prefer::Ours,
        (false, true, false) => Prefer::Theirs,
        _ => return Err(Error::usage("take one of --ours, --theirs and --fail")),
    };
    let plan = args.plan || args.dry_run;
    let how = How { prefer, fail: args.fail, plan, json: args.json };
    let name = args.words.first().map(|_| args.name()).transpose()?;
    let (onto, from) = (args.onto.parse(Name::parse)?, args.from.parse(Name::parse)?);
    let root = ctx.root()?;
    match (&name, &onto, args.all, &from, args.undo, args.commit) {
        (Some(name), Some(onto), false, None, false, false) => rebase(root, name, onto, &how),
        (None, Some(onto), true, Some(from), false, false) => {
            let mut names = Sliver::names(root)?;
            // A record that cannot be read fails in its turn.
            names.retain(|name| Sliver::load(root, name).map_or(true, |sliver| sliver.base == *from));
            if names.is_empty() {
                crate::info!("no sliver stands on `{from}`");
            }
            for_each(&names, |name| rebase(root, name, onto, &how))
        }
        (Some(name), None, false, None, true, false) => undo(ctx, name, &how),
        (Some(name), None, false, None, false, true) => commit(root, name, &how),
        _ => Err(Error::usage("say what to rebase, and onto what").way_out(
            "`SLIVER --onto BASE`, `--all --from BASE --onto BASE`, `SLIVER --undo` or `SLIVER --commit`",
        )),
    }
}

/// Rebases one sliver; one that stands on the base already is left as it is.
fn rebase(root: &Root, name: &Name, onto: &Name, how: &How) -> Result<()> {
    let _lock = root.lock_sliver(name)?;
    let sliver = Sliver::load(root, name)?;
    let new = Base::load(root, onto)?;
    if sliver.base == *onto {
        view::check_base(sliver, new)?;
        if !how.plan {
            sweep::new(root, name)?;
        }
        let head = Head::new(sliver, onto, "unchanged");
        return head.say(how.json, &format!("`{name}` stands on `{onto}` already"));
    }
    let old = view::base_of(root, sliver)?;
    new.present(root)?;
    let disk = tree::open(root.stores())?;
    create::check_kind(sliver.backend, new, None)?;
    zfs::refuse_unmounted(root.store(name))?;
    // Its store and both seeds are mounted for a plan, too, by images beside it that go with that.
    let grown = sliver.backend.grows_image();
    if grown {
        offline::refuse_to_read(root, sliver)?;
        view::free_seed(root, sliver.backend, onto)?;
        sweep::new(root, name)?;
    }
    let before = kept(root, sliver)?;
    if !how.plan {
        if before.as_ref().is_some_and(|before| before.base == sliver.base) {
            return Err(Error::failed(format_args!(
                "`{name}` was converted or synced, and not mounted since"
            ))
            .way_out(format_args!(
                "see whether it works: sliverfs mount {name}; or sliverfs convert {name} --undo"
            )));
        }
        offline::refuse(root, name, Some(sliver.backend))?;
        statfs::refuse_read_only(root.stores())?;
        replace::prepare(root, sliver, before.is_some(), sliver.quota)?;
    }
    let mut report = Report::new(sliver, onto, how.plan, how.json, &disk)?;
    let mut work = || {
        make(root, sliver, (old, new), how, &mut report).map_err(|err| replace::full(name, sliver.quota, err))
    };
    let made = if old.image(root).is_none() && new.image(root).is_none() && !sliver.has_image() {
        // Nothing is mounted for it.
        let _words = LastWords::begin(true);
        work()
    } else {
        private::beside(root, name, &mut work)
    };
    if grown && how.plan || made.is_err() {
        left_over(root, name, how.plan && !grown);
    }
    let end = made?;
    if !how.plan {
        publish(root, name, new, before.is_some())?;
    }
    report.print(end, Some(sweep::kept_store(root, name)).filter(|_| !how.plan))
}

/// In a private mount namespace: makes the new store beside the old one, or plans it. What there is to print goes into the report.
fn make(
    root: &Root,
    sliver: &Sliver,
    (old, new): (&Base, &Base),
    how: &How,
    report: &mut Report<'_>,
) -> Answer {
    let (name, format) = (&sliver.name, Format::of(sliver.backend));
    let (stored, stage) = (root.store(name), sweep::new_store(root, name));
    let limit = if how.plan { None } else { anew::renew(root, sliver.quota, (sliver.backend, new), false)? };
    let ground = |base| Ground { root, base, kind: sliver.backend, features: Features::default(), limit };
    let (before, after) = (ground(old), ground(new));
    let (mut inner, mut steps, mut down) = (stage, Vec::new(), Vec::new());
    after.image(&mut steps)?;
    before.open(sliver, &mut steps)?;
    if sliver.backend.grows_image() {
        steps.push(Step::CreateDir(stage));
        before.show(stage, &mut steps, &mut down);
        after.show(stage, &mut steps, &mut down);
        before.hang(stored, None, &mut steps);
        take_down(stored, &mut down);
        if !how.plan {
            after.hang(stage, sliver.limit(root), &mut steps);
            down.push(Step::SyncDisk(stage.below("tree")));
            take_down(stage, &mut down);
        }
    } else if !how.plan {
        inner = after.begin(stage, image::shape(stored), &mut steps);
        after.make(inner, None, inner, &mut steps);
    }
    exec::run(&steps)?;
    let folder = layer(sliver.backend);
    let store = tree::open(&image::content(stored).join(folder))?;
    let bases = (tree::open(before.tree())?, tree::open(after.tree())?);
    let mut tell = |outcome: &Outcome<'_>| report.count(outcome);
    let both = (&bases.0, &bases.1);
    let mut files = Writeback::default();
    let merged = if how.plan {
        layer::merge(format, store, both, None, how.prefer, &mut tell)
    } else {
        let progress = Progress::new("rebasing", None);
        let into = tree::open(&inner.join(folder))?;
        // Nothing else is written to the disk of the stores for a union's.
        if matches!(sliver.backend, Kind::Union(_)) && !sliver.has_image() {
            files = Writeback::on(root.stores());
        }
        let mut count = |bytes| progress.add(bytes);
        layer::merge(format, store, both, Some((&into, &mut files, &mut count)), how.prefer, &mut tell)
    };
    drop(bases);
    let done = merged.and(exec::run(&down));
    done.map_err(|err| if sliver.backend.grows_image() { seed::torn(err, stage) } else { err })?;
    if how.fail && report.conflicts.count > 0 {
        let more = report.conflicts.count.saturating_sub(NAMED);
        if more > 0 {
            let _into_string = write!(report.named, "\nand {more} more, which --plan shows");
        }
        let paths = report.named.trim_start_matches('\n');
        return Err(Error::failed(format_args!("`{name}` is left on `{}`: {paths}", old.name))
            .way_out("--ours, --theirs, or none of them, which keeps both versions"));
    }
    if !how.plan {
        let mut record = sliver.anew(limit);
        (record.base, record.digest) = (new.name, new.digest);
        replace::finish_apart(root, &record, &mut files)?;
    }
    report.end()
}

/// Puts the new store in the old one's place, which is kept instead of one from an earlier rebase.
fn publish(root: &Root, name: &Name, new: &Base, kept: bool) -> Result<()> {
    let keep = if kept { Keep::Instead } else { Keep::Own };
    if kept {
        sweep::removed(root, name).inspect_err(|_| left_over(root, name, false))?;
    }
    replace::put(root, name, &replace::publish(root, name, keep), &|_| {
        // Another process may have removed the base meanwhile, and added another of its name.
        create::same_base(new, Base::load(root, &new.name)?)
    })?;
    sweep::told(sweep::removed(root, name));
    Ok(())
}

/// The store from before the rebase.
fn kept_by_rebase(root: &Root, sliver: &Sliver) -> Result<&'static Sliver> {
    let name = &sliver.name;
    match kept(root, sliver)? {
        Some(kept) if kept.base != sliver.base => Ok(kept),
        _ => {
            Err(Error::new(Class::Usage, format_args!("there is no store of `{name}` from before a rebase"))
                .way_out("it is kept from a rebase to its --commit or the next one only"))
        }
    }
}

/// Brings the store back that was kept.
fn undo(ctx: &mut Ctx, name: &Name, how: &How) -> Result<()> {
    let root = ctx.root()?;
    let plan = how.plan;
    let _lock = root.lock_sliver(name)?;
    let sliver = Sliver::load(root, name)?;
    if !plan && kept(root, sliver)?.is_none() && sweep::kept_store(root, name).exists() {
        // Cut after the stores changed places, or before a rebase had done that: this is the old one.
        sweep::drop_kept(root, name)?;
        let line = format!("`{name}` stands on `{}` already, as before it was rebased", sliver.base);
        return Head::new(sliver, &sliver.base, "unchanged").say(how.json, &line);
    }
    let kept = kept_by_rebase(root, sliver)?;
    view::check_base(kept, Base::load(root, &kept.base)?)?;
    let report = |state| Head::new(sliver, &kept.base, state);
    replace::bring_back(ctx, (sliver, kept), plan, how.json)?;
    if plan {
        return if how.json { report("planned").json() } else { Ok(()) };
    }
    report("undone")
        .say(how.json, &format!("`{name}` stands on `{}` again, as before it was rebased", kept.base))
}

/// Removes the store that was kept, whether the sliver is mounted or not: it was alive nowhere when the new one took its place, and no
/// command has mounted it since.
fn commit(root: &Root, name: &Name, how: &How) -> Result<()> {
    let plan = how.plan;
    let _lock = root.lock_sliver(name)?;
    let sliver = Sliver::load(root, name)?;
    if !plan {
        // What a commit that was cut left.
        sweep::removed(root, name)?;
    }
    let kept = kept_by_rebase(root, sliver)?;
    let report = |state| Head::new(kept, &sliver.base, state);
    if plan && how.json {
        return report("planned").json();
    }
    if plan {
        return print_plan(&[Step::RemoveTree(sweep::kept_store(root, name))]);
    }
    sweep::drop_kept(root, name)?;
    let line = format!("`{name}` stays on `{}`; its store for `{}` is removed", sliver.base, kept.base);
    report("committed").say(how.json, &line)
}
