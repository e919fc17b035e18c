//! A sliver whose store is made anew beside the old one, and takes its place.

use super::Done;
use super::plan::Plan;
use crate::backend::features::Features;
use crate::backend::probe;
use crate::backend::store::Ground;
use crate::catalog::{Root, Sliver, sweep};
use crate::cmd::quota::limit as set_limit;
use crate::cmd::replace::{self, Keep};
use crate::cmd::{create, offline, print_plan};
use crate::error::{Error, Result};
use crate::kind::{Choice, Kind};
use crate::mount::exec;
use crate::quota::admission::{self, Policy};
use crate::quota::{self, Limit, Means, anew};
use crate::size::Size;
use crate::sys::statfs;
use crate::view;

/// How a sliver is converted.
pub(super) struct How {
    to: Choice,
    /// The size of a store on a seed.
    pub(super) size: Option<u64>,
    /// What is to keep the limit.
    pub(super) means: Option<Means>,
    /// What may be promised.
    pub(super) policy: Policy,
    dry_run: bool,
    quiet: bool,
}

impl How {
    /// With the limit as it is. `quiet` prints no steps of a dry run.
    pub(super) fn new(to: Choice, dry_run: bool, quiet: bool) -> Self {
        Self { to, size: None, means: None, policy: Policy::default(), dry_run, quiet }
    }
}

/// Converts a sliver whose lock is held.
pub(super) fn convert<'a>(root: &Root, sliver: &'a Sliver, how: &How) -> Result<Done<'a>> {
    let name = &sliver.name;
    let base = view::base_of(root, sliver)?;
    let to = match how.to {
        Choice::Named(kind) => kind,
        Choice::Auto => create::choose(root, Choice::Auto, base, how.dry_run)?,
    };
    if how.means.is_some() && (how.size.is_some() || sliver.quota.is_none() || to == sliver.backend) {
        return Err(Error::usage(
            "--means is for a limit that goes to another kind of store, and there is none",
        )
        .way_out(format_args!("sliverfs quota {name} SIZE --means MEANS")));
    }
    let done = |state| Done::new(Some(name), sliver.backend.name(), to.name(), state);
    if to == sliver.backend {
        if let Some(size) = how.size.filter(|size| sliver.limit(root) != Some(*size)) {
            create::check_kind(to, base, Some(size))?;
            return Err(Error::usage(format_args!("`{name}` is kept as {to} already, of another size"))
                .way_out(format_args!("sliverfs quota {name} {} changes it", Size(size).typed())));
        }
        if !how.dry_run {
            sweep::new(root, name)?;
        }
        return done("unchanged").unseen();
    }
    let limit = limit(root, sliver, to, how)?;
    admission::admit(root, &how.policy, sliver.quota, limit, None)?;
    let size = how.size.or(quota::by(limit, Means::Seed).map(|limit| limit.bytes));
    create::check_kind(to, base, size)?;
    offline::refuse_to_read(root, sliver)?;
    statfs::refuse_read_only(root.stores())?;
    let kept = replace::kept(root, sliver)?.is_some();
    // The one that was mounted last stays the one that is kept.
    let publish = replace::publish(root, name, if kept { Keep::Earlier } else { Keep::Own });
    if !how.dry_run {
        view::free_seed(root, sliver.backend, &base.name)?;
        view::free_seed(root, to, &base.name)?;
        replace::prepare(root, sliver, kept, limit)?;
    }
    let mut done = done(if how.dry_run { "planned" } else { "converted" });
    let mut new = Ground { root, base, kind: to, features: Features::default(), limit };
    done.json = replace::beside(root, name, limit, how.dry_run, &mut || {
        // Planned in there: nobody can let go of a base's image that this namespace has.
        new.limit = anew::renew(root, limit, (to, base), how.dry_run)?;
        let plan = Plan::new(sliver, &new, size)?;
        let told = how.dry_run && !how.quiet;
        if told {
            let mut last = Vec::new();
            replace::last_steps(root, &plan.record, &mut last)?;
            for steps in [&plan.look, &plan.make, &last, &publish] {
                print_plan(steps)?;
            }
        }
        exec::run(&plan.look)?;
        let survey = plan.survey()?;
        if told {
            let size = Size(survey.bytes);
            crate::info!("{} changed names with {size} of files would be written", survey.entries);
        }
        if how.dry_run {
            return done.json(&survey, None);
        }
        exec::run(&plan.make).and_then(|()| replace::finish(root, &plan.record))?;
        done.json(&survey, Some(sweep::kept_store(root, name)))
    })?;
    if matches!(to, Kind::Union(_)) && probe::features(root, to).is_err() {
        crate::warn!("this kernel does not offer {to}: the sliver can be mounted where one does");
    }
    if how.dry_run {
        return Ok(done);
    }
    // What goes is the one between, where the sliver was converted twice without a mount.
    replace::put(root, name, &publish, &|catalog| {
        admission::admit(root, &how.policy, sliver.quota, limit, Some(catalog))
    })?;
    Ok(done)
}

/// The limit stays, by what its kind is kept to it; a size takes its place.
fn limit(root: &Root, sliver: &Sliver, to: Kind, how: &How) -> Result<Option<&'static Limit>> {
    let (None, Some(old)) = (how.size, sliver.quota) else { return Ok(how.size.map(Limit::of_seed)) };
    let name = &sliver.name;
    set_limit(root, name, to, (how.means, Some(old)), old.bytes).map(Some).map_err(|err| {
        err.way_out(format_args!(
            "take the limit off: sliverfs quota {name} none; or name what keeps it: --means"
        ))
    })
}
