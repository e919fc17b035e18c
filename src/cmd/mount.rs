//! `sliverfs mount`: brings views up.

use crate::catalog::base::Base;
use crate::catalog::{Root, Sliver};
use crate::cli;
use crate::cmd::{chosen, for_each, print_plan};
use crate::error::Result;
use crate::name::Name;
use crate::view::{self, Outcome};

/// Mounts the slivers that were named.
pub fn run(root: &Root, args: &cli::Mount) -> Result<()> {
    for_each(&chosen(root, &args.names, args.all)?, |name| mount(root, name, args.dry_run).map(drop))
}

/// Mounts one sliver; one that is mounted and writable is left as it is.
pub fn mount(root: &Root, name: &Name, dry_run: bool) -> Result<Outcome> {
    let _lock = root.lock_sliver(name)?;
    let sliver = Sliver::load(root, name)?;
    let base = Base::load(root, &sliver.base)?;
    let _image = view::hold_image(root, &sliver, &base)?;
    let steps = view::plan_up(root, &sliver, &base)?;
    if dry_run {
        print_plan(&steps)?;
        return Ok(Outcome::Already);
    }
    view::up(root, &sliver, &steps)
}
