//! `sliverfs umount`: takes views down.

use crate::catalog::{Root, Sliver};
use crate::cli::Args;
use crate::cmd::{chosen, for_each, print_plan};
use crate::error::Result;
use crate::lxc::Sockets;
use crate::name::Name;
use crate::view;

/// Unmounts the slivers that were named.
pub fn run(root: &Root, args: &Args) -> Result<()> {
    for_each(&chosen(root, args)?, |name| umount(root, name, args.dry_run))
}

fn umount(root: &Root, name: &Name, dry_run: bool) -> Result<()> {
    let _lock = root.lock_sliver(name)?;
    Sliver::load(root, name)?;
    let steps = view::plan_down(root, name, &Sockets::read()?)?;
    if dry_run {
        return print_plan(&steps);
    }
    view::down(root, name, &steps).map(drop)
}
