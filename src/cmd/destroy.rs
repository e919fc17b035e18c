//! `sliverfs destroy`: removes a sliver with all it changed.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::catalog::sliver::FILE;
use crate::catalog::{Mounted, Root, Sliver, record, sweep};
use crate::cli::Args;
use crate::cmd::{create, offline, print_plan};
use crate::error::{Class, Error, Result};
use crate::kind::{Kind, Union};
use crate::mount::mountinfo::MountInfo;
use crate::mount::plan::Step;
use crate::mount::{exec, seed};
use crate::name::Name;
use crate::out::{self, escape};
use crate::quota::{image, zfs};
use crate::stay::Below;
use crate::sys::statfs;

/// Destroys a sliver that is alive nowhere. It is hidden by a rename before anything of it is removed.
pub fn run(root: &Root, args: &Args) -> Result<()> {
    let name = &args.name()?;
    let lock = root.lock_sliver(name)?;
    let store = backend(root, name)?;
    let container = create::is_ours(root, name)?;
    if store.is_none() && !container {
        // Or there was one, and a crash or an entry that cannot be removed cut its creation or removal short.
        let left = sweep::left(root, name);
        if left.is_empty() {
            crate::warn!("there is no sliver `{name}` in {}: nothing is destroyed", root.path().display());
            return lock.remove();
        }
        refuse_mounts_in(&left)?;
        if args.dry_run {
            tell_datasets(&left)?;
            return print_plan(&left.into_iter().map(Step::RemoveTree).collect::<Vec<_>>());
        }
        sweep::all(root, name)?;
        Mounted::forget(root, name)?;
        return lock.remove();
    }
    offline::refuse(root, name, store)?;
    refuse_mounts_in(&[root.store(name), root.container(name), sweep::new_store(root, name)])?;
    statfs::refuse_read_only(root.stores())?;
    let kept = sweep::kept_store(root, name);
    for store in [root.store(name), kept, sweep::new_store(root, name)] {
        zfs::refuse_kept(store)?;
    }
    let (hide, mut remove) = steps(root, name, store.is_some(), container);
    if kept.symlink_metadata().is_ok() {
        remove.push(Step::RemoveTree(kept));
    }
    if args.dry_run {
        print_plan(&hide)?;
        tell_datasets(&[root.store(name), kept])?;
        return print_plan(&remove);
    }
    // What a crash left of a sliver of this name would be in the way.
    sweep::removed(root, name)?;
    {
        let _catalog = root.lock_catalog()?;
        exec::run(&hide)?;
    }
    Mounted::forget(root, name)?;
    exec::run(&remove)?;
    // A store that was kept from before a conversion, and one that came to nothing.
    sweep::all(root, name)?;
    lock.remove()?;
    out::line(format_args!("`{name}` is destroyed"))
}

/// Says which datasets go with stores.
fn tell_datasets(stores: &[&Path]) -> Result<()> {
    stores
        .iter()
        .filter_map(|store| zfs::name(store))
        .try_for_each(|name| out::line(format_args!("zfs destroy {name}")))
}

/// The backend of a store; none where there is no store. A damaged record does not keep the store from being destroyed; a good one
/// of another sliver or of a newer version does.
fn backend(root: &Root, name: &Name) -> Result<Option<Kind>> {
    let err = match Sliver::find(root, name) {
        Ok(sliver) => return Ok(sliver.map(|sliver| sliver.backend)),
        Err(err) => err,
    };
    let store = root.store(name);
    let whole = record::read::<Sliver>(store.below(FILE)).is_ok();
    if err.class() != Class::Damaged || whole {
        return Err(err);
    }
    crate::warn!(
        "the record of `{name}` is damaged or missing: what lies in {} is destroyed all the same, if it is alive nowhere",
        store.display()
    );
    // Of the unions only overlay can be asked whether it is in use; the trees are all alike.
    let lies = |what: &str| store.join(what).exists();
    Ok(Some(match Mounted::find(root, name) {
        Some(noted) => noted.backend,
        None if lies("upper") => Union::Overlay.into(),
        None if lies(image::FILE) => Union::Overlay.into(),
        None if lies(seed::STORE) => Kind::BtrfsSeed,
        None => Kind::Copy,
    }))
}

/// Refuses where something of anybody's is mounted in a folder that is to be removed.
fn refuse_mounts_in(dirs: &[&'static Path]) -> Result<()> {
    let info = MountInfo::of_self()?;
    let inside = info
        .mounts()
        .map(|mount| mount.target().into_owned())
        .find(|target| dirs.iter().any(|dir| target.starts_with(dir)));
    match inside {
        None => Ok(()),
        Some(target) => Err(Error::in_use(format_args!(
            "something is mounted on {}",
            escape(target.as_os_str().as_bytes())
        ))
        .way_out("unmount it first")),
    }
}

/// The renames that make it go, and the removals after them.
fn steps(root: &Root, name: &Name, store: bool, container: bool) -> (Vec<Step>, Vec<Step>) {
    let mut hide = Vec::new();
    let mut remove = Vec::new();
    for (there, from, to) in [
        (store, root.store(name), sweep::removed_store(root, name)),
        (container, root.container(name), sweep::removed_container(root, name)),
    ] {
        if there {
            hide.push(Step::Rename(from, to));
            remove.push(Step::RemoveTree(to));
        }
    }
    // A creation that was cut leaves a store that has no name yet beside LXC's folder.
    let new = sweep::new_store(root, name);
    if new.symlink_metadata().is_ok() {
        remove.push(Step::RemoveTree(new));
    }
    (hide, remove)
}
