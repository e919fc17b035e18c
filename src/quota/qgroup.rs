//! A snapshot's limit by simple quotas of Btrfs (Linux 6.7).
//!
//! They count an extent for the subvolume that wrote it: of a snapshot, what it added to the base, and its own metadata. Each limited
//! subvolume lies in a qgroup of its own, 1/NUMBER, which has the limit; the kernel puts what a tenant makes below it into the same
//! one. Full qgroups do not do that: there a subvolume of his own is a tenant's way out, and they are not taken.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;

use crate::error::{Context, Error, Result};
use crate::sys::btrfs;
use crate::tree;

/// The flag of simple quotas (linux/btrfs_tree.h).
const SIMPLE: u64 = 1 << 3;

/// Refuses a disk without simple quotas.
pub fn need(folder: &Path) -> Result<()> {
    let why = match btrfs::quota_flags(tree::open(folder)?) {
        Ok(flags) if flags & SIMPLE != 0 => return Ok(()),
        Ok(_) => "it has full qgroups, which a tenant leaves by making a subvolume",
        Err(Errno::ENOENT) => "quotas are off on it",
        Err(_) => return Err(Error::unsupported("qgroups are of Btrfs alone")),
    };
    Err(Error::unsupported(format_args!("the Btrfs of {} has no simple quotas: {why}", folder.display())).way_out(
        "`sliverfs quota --enable` turns simple ones on, for good: kernels before 6.7 do not mount it then",
    ))
}

/// Turns simple quotas on.
pub fn enable(folder: &Path) -> Result<()> {
    if need(folder).is_ok() {
        return Ok(());
    }
    btrfs::enable_quotas(tree::open(folder)?).at("turn on simple quotas of", folder).map_err(
        |err| match err.errno() {
            Some(Errno::EINVAL | Errno::ENOTTY) => err.way_out("it wants Btrfs and Linux 6.7"),
            _ => err,
        },
    )?;
    // It is no error where there are others already.
    need(folder).map_err(|err| err.way_out("turn those off first: btrfs quota disable"))
}

/// The number of the qgroup that has the limit of a subvolume.
pub const fn limited(subvolume: u64) -> u64 {
    1 << 48 | subvolume
}

/// The number of a subvolume, and of the qgroup that has its limit.
fn ids(subvolume: &Path) -> Result<(u64, u64)> {
    let id = btrfs::subvolume(tree::open(subvolume)?).at("look at the subvolume", subvolume)?;
    Ok((id, limited(id)))
}

/// Limits a subvolume with all that is made below it.
pub fn set(subvolume: &Path, bytes: u64) -> Result<()> {
    let (dir, (own, group)) = (tree::open(subvolume)?, ids(subvolume)?);
    let there = |done: nix::Result<()>| if done == Err(Errno::EEXIST) { Ok(()) } else { done };
    there(btrfs::make_qgroup(&dir, group, true))
        // Before it has a member: what is there already must not be more than the limit.
        .and_then(|()| btrfs::limit_qgroup(&dir, group, bytes))
        .and_then(|()| there(btrfs::assign_qgroup(&dir, own, group, true)))
        .at("limit the subvolume", subvolume)
}

/// Takes the limit off. What a tenant made below keeps its group, with no limit in it.
pub fn clear(subvolume: &Path) -> Result<()> {
    let (dir, (own, group)) = (tree::open(subvolume)?, ids(subvolume)?);
    let gone = |done: nix::Result<()>| if done == Err(Errno::ENOENT) { Ok(()) } else { done };
    let done = gone(btrfs::limit_qgroup(&dir, group, u64::MAX))
        .and_then(|()| gone(btrfs::assign_qgroup(&dir, own, group, false)));
    let _kept_by_members = btrfs::make_qgroup(&dir, group, false);
    done.at("take the limit off the subvolume", subvolume)
}

/// Takes the limit off what is about to be removed, where there may be one. A failure is no reason to keep it. A link, or a folder
/// that is no subvolume, leads to what is another's.
pub fn forget(subvolume: &Path) {
    let own = subvolume.symlink_metadata().is_ok_and(|meta| meta.is_dir() && meta.ino() == btrfs::ROOT_INODE);
    if !own || need(subvolume).is_err() {
        return;
    }
    if let Err(err) = clear(subvolume) {
        crate::debug!("{err}");
    }
}

/// Bytes that a limited subvolume added, with all that was made below it.
pub fn used(subvolume: &Path) -> Result<u64> {
    let (_, group) = ids(subvolume)?;
    btrfs::qgroup_bytes(tree::open(subvolume)?, group).at("ask for what is counted of", subvolume)
}
