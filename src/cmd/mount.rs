//! `sliverfs mount`: brings views up.

use crate::catalog::base::Base;
use crate::catalog::{Root, Sliver, sweep};
use crate::cli::Args;
use crate::cmd::{Ctx, chosen, convert, for_each, offline, print_plan, replace};
use crate::error::{Class, Result};
use crate::mount::plan::Step;
use crate::name::Name;
use crate::quota::{self, Means, zfs};
use crate::view;

/// Mounts the slivers that were named.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let root = ctx.root()?;
    for_each(&chosen(root, args)?, |name| {
        let steps = mount(ctx, root, name, args.dry_run)?;
        if args.dry_run { print_plan(&steps) } else { Ok(()) }
    })
}

/// Mounts one sliver; one that is mounted and writable is left as it is. A store that this kernel cannot show at all is converted
/// first where the configuration says so. Returns the steps that were taken, or would be.
pub fn mount(ctx: &mut Ctx, root: &Root, name: &Name, dry_run: bool) -> Result<Vec<Step>> {
    let refused = match mount_as_it_is(root, name, dry_run) {
        Err(err) if err.class() == Class::Unsupported => err,
        done => return done,
    };
    // The configuration is read only here: one that is broken is no reason not to mount.
    let config = ctx.config()?;
    let wanted = config.slivers.iter().find(|sliver| sliver.name == *name);
    let backend = wanted.map_or(&config.main.backend, |sliver| &sliver.backend);
    match convert::settle(root, name, config.main.convert, backend, dry_run, false)? {
        true if dry_run => Ok(Vec::new()),
        true => mount_as_it_is(root, name, false),
        false => Err(refused),
    }
}

/// As [`mount`], without converting anything.
pub fn mount_as_it_is(root: &Root, name: &Name, dry_run: bool) -> Result<Vec<Step>> {
    let _lock = root.lock_sliver(name)?;
    let sliver = Sliver::load(root, name)?;
    let base = Base::load(root, &sliver.base)?;
    let _image = view::hold_image(root, sliver, base)?;
    if quota::by(sliver.quota, Means::Zfs).is_some() {
        // Where it is mounted is known when it is.
        match zfs::refuse_unmounted(root.store(name)) {
            Err(err) if dry_run && err.class() == Class::Failed => {
                crate::warn!("{err}; what comes then is not known before");
                return Ok(Vec::new());
            }
            _ => zfs::mount(root.store(name))?,
        }
    }
    let steps = view::plan_up(root, sliver, base)?;
    if !dry_run {
        if !steps.is_empty() {
            // What a command that was cut began must not be seen half done.
            offline::settle(root, sliver)?;
        }
        view::up(root, sliver, &steps)?;
        // The view came up: what was kept from before a conversion has done its duty. What a rebase kept stays until its --commit.
        let done = replace::kept(root, sliver).and_then(|kept| match kept {
            Some(kept) if kept.base != sliver.base => Ok(()),
            _ => sweep::drop_kept(root, name),
        });
        if let Err(err) = done {
            crate::warn!("{err}");
        }
    }
    Ok(steps)
}
