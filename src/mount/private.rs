//! Work in a mount namespace of its own: whatever happens to it, no mount of it stays.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, unshare};

use super::mountinfo::{Mount, MountInfo};
use crate::error::{Context, Result};
use crate::sys::mountpoint::mount;
use crate::sys::signals::LastWords;
use crate::sys::{child, loopdev};

/// Runs `work` in a child with a private mount namespace, and returns its answer. `keep` is the folder to work on.
pub fn run(keep: &Path, work: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    let mut work = Some(work);
    run_once(keep, &mut || work.take().map_or(Ok(Vec::new()), |work| work()))
}

/// As [`run`], for what makes a store beside a sliver's own: a signal that ends it leaves to say that the sliver is as it was.
pub fn beside(keep: &Path, work: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    let _words = LastWords::begin(true);
    run(keep, work)
}

/// Not generic: each piece of work would have it of its own.
fn run_once(keep: &Path, work: &mut dyn FnMut() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    child::answer(&mut || {
        let slash = Path::new("/");
        unshare(CloneFlags::CLONE_NEWNS).at("make a mount namespace from", slash)?;
        mount(None, slash, None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None).at("make private", slash)?;
        let_go_of_views(keep);
        work()
    })
}

/// A view, or the image that a store lies in. Of those, and of a view that grew from a seed, only the name of the image says so.
fn is_view(mount: &Mount<'_>) -> bool {
    let image = mount.loop_below().and_then(|device| loopdev::image_of(&device)).unwrap_or_default();
    mount.is_ours() || [&b"/store.raw\n"[..], b"/quota.img\n"].iter().any(|name| image.ends_with(name))
}

/// Takes the views down in this namespace, which has a copy of each: a sliver that is unmounted outside must not be found alive
/// in here. But for the view that `keep` itself lies in (a node in a sliver). What cannot be taken down stays for as long as the
/// work takes.
fn let_go_of_views(keep: &Path) {
    let Ok(info) = MountInfo::of_self() else { return };
    for mount in info.mounts().rev().filter(|mount| is_view(mount) && !keep.starts_with(mount.target())) {
        let _stays = umount2(&*mount.target(), MntFlags::MNT_DETACH);
    }
}
