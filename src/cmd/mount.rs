//! `sliverfs mount`: brings views up.

use crate::catalog::base::Base;
use crate::catalog::{Root, Sliver};
use crate::cli;
use crate::cmd::{chosen, for_each, print_plan};
use crate::error::Result;
use crate::mount::plan::Step;
use crate::name::Name;
use crate::view;

/// Mounts the slivers that were named.
pub fn run(root: &Root, args: &cli::Mount) -> Result<()> {
    for_each(&chosen(root, &args.names, args.all)?, |name| {
        let steps = mount(root, name, args.dry_run)?;
        if args.dry_run { print_plan(&steps) } else { Ok(()) }
    })
}

/// Mounts one sliver; one that is mounted and writable is left as it is. Returns the steps that were taken, or would be.
pub fn mount(root: &Root, name: &Name, dry_run: bool) -> Result<Vec<Step>> {
    let _lock = root.lock_sliver(name)?;
    let sliver = Sliver::load(root, name)?;
    let base = Base::load(root, &sliver.base)?;
    let _image = view::hold_image(root, &sliver, &base)?;
    let steps = view::plan_up(root, &sliver, &base)?;
    if !dry_run {
        view::up(root, &sliver, &steps)?;
    }
    Ok(steps)
}
