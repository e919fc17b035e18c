//! Work in a mount namespace of its own: whatever happens to it, no mount of it stays.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, unshare};

use super::mountinfo::{Mount, MountInfo};
use crate::catalog::{Root, sweep};
use crate::error::Context;
use crate::name::Name;
use crate::quota::zfs;
use crate::sys::child::{self, Answer};
use crate::sys::loopdev;
use crate::sys::mountpoint::mount;
use crate::sys::signals::LastWords;

/// What is done there, once.
type Work<'a> = &'a mut dyn FnMut() -> Answer;

/// Runs `work` in a child with a private mount namespace, and returns its answer. `keep` is the folder to work on.
pub fn run(keep: &Path, work: Work<'_>) -> Answer {
    run_holding(keep, &[], work)
}

/// As [`run`], for what makes a store, and may take long: no other's dataset is held.
pub fn make(root: &Root, name: &Name, work: Work<'_>) -> Answer {
    let own = [zfs::content(root.store(name)), zfs::content(sweep::new_store(root, name))];
    run_holding(root.path(), &own, work)
}

/// As [`make`], beside the sliver's own store: a signal that ends it leaves to say that the sliver is as it was.
pub fn beside(root: &Root, name: &Name, work: Work<'_>) -> Answer {
    let _words = LastWords::begin(true);
    make(root, name, work)
}

fn run_holding(keep: &Path, own: &[Option<&Path>], work: Work<'_>) -> Answer {
    child::answer(&mut || {
        let slash = Path::new("/");
        unshare(CloneFlags::CLONE_NEWNS).at("make a mount namespace from", slash)?;
        mount(None, slash, None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None).at("make private", slash)?;
        let_go_of_views(keep, own);
        work()
    })
}

/// A view, or the image that a store lies in. Of those, and of a view that grew from a seed, only the name of the image says so. And a
/// dataset that is mounted at none of the `own` places, where there may be some: ZFS destroys none that any namespace has mounted.
fn is_view(mount: &Mount<'_>, own: &[Option<&Path>]) -> bool {
    let image = mount.loop_below().and_then(|device| loopdev::image_of(&device)).unwrap_or_default();
    mount.is_ours()
        || [&b"/store.raw\n"[..], b"/quota.img\n"].iter().any(|name| image.ends_with(name))
        || mount.is_dataset() && !own.is_empty() && !own.contains(&Some(&mount.target()))
}

/// Takes the views down in this namespace, which has a copy of each: a sliver that is unmounted outside must not be found alive
/// in here. But for the view that `keep` itself lies in (a node in a sliver). What cannot be taken down stays for as long as the
/// work takes.
fn let_go_of_views(keep: &Path, own: &[Option<&Path>]) {
    let Ok(info) = MountInfo::of_self() else { return };
    for mount in info.mounts().rev().filter(|mount| is_view(mount, own) && !keep.starts_with(mount.target()))
    {
        let _stays = umount2(&*mount.target(), MntFlags::MNT_DETACH);
    }
}
