//! A snapshot's limit by simple quotas of Btrfs (Linux 6.7).
//!
//! They count an extent for the subvolume that wrote it: of a snapshot, what it added to the base, and its own metadata. Each limited
//! subvolume lies in a qgroup of its own, 1/NUMBER, which has the limit; the kernel puts what a tenant makes below it into the same
//! one. Full qgroups do not do that: there a subvolume of his own is a tenant's way out, and they are not taken.
//!
//! But whoever makes a subvolume may say by BTRFS_IOC_SUBVOL_CREATE_V2 which groups it is in: none (flag BTRFS_SUBVOL_QGROUP_INHERIT
//! and an empty list; tried on Linux 6.18, as a user without any privilege). So it holds only where the container may call no ioctl of
//! Btrfs ([`lxc::is_closed`]), whatever user namespace it has. The same closes what is not counted at all: the records of clones.
//!
//! Nor is it counted what the trees of extents, checksums and free space hold for all. So the kernel is told less than the limit
//! ([`told`]), and of what it counts more is said to be used ([`with_records`]): a sliver that the kernel stops is at its limit.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;

use crate::catalog::sweep;
use crate::error::{Context, Error, Result};
use crate::lxc;
use crate::name::Name;
use crate::sum::Sum;
use crate::sys::btrfs;
use crate::tree::{self, Dir};

/// The flag of simple quotas (linux/btrfs_tree.h).
const SIMPLE: u64 = 1 << 3;

/// What is counted for each byte of records that are not, at least. Of a limit of 128 MiB they took, on Linux 6.18 with nodes of 16 KiB
/// and 4 bytes of checksum for a block: 2.2 % where all lies in extents of 4 KiB (each is 87 bytes, and its checksum; the nodes are
/// full); 3.2 % where each other one was deleted again, and the holes are too small for the larger extents that came after; and as
/// much with sha256's 32 bytes as 4.1 %.
const COUNTED: u64 = 24;

/// Up to that many bytes the records are less than the MiB that a sliver may take beyond its limit.
const FREE: u64 = COUNTED << 20;

/// The bytes at which the kernel is to stop what is limited, so that it takes no more than the limit and 1 MiB of the disk.
fn told(limit: u64) -> u64 {
    // Rounded up.
    limit - limit.minus(FREE).plus(COUNTED) / (COUNTED + 1)
}

/// Bytes of a limit that are used where the kernel has counted so many: all of it where they are those that it was [`told`].
pub fn with_records(counted: u64) -> u64 {
    counted.plus(counted.minus(FREE) / COUNTED)
}

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

/// What does not hold, and what would.
pub fn open() -> &'static str {
    let profile = lxc::profile().unwrap_or_default();
    format!(
        "a tenant leaves a qgroup by ioctls of Btrfs, unless his container's configuration says: lxc.seccomp.profile = {}",
        profile.display()
    )
    .leak()
}

/// Says that of this sliver.
pub fn warn(name: &Name) {
    crate::warn!("`{name}`: {}", open());
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

/// The folder that a subvolume lies in. A call by that wants no room in the subvolume, which may have none (EDQUOT).
fn around(subvolume: &Path) -> Result<Dir> {
    tree::open(subvolume.parent().unwrap_or(subvolume))
}

/// What failed since it was done already is well.
fn well(done: nix::Result<()>, already: Errno) -> nix::Result<()> {
    if done == Err(already) { Ok(()) } else { done }
}

/// Limits a subvolume with all that is made below it, and their records. A failure leaves it no group that it had not yet.
pub fn set(subvolume: &Path, bytes: u64) -> Result<()> {
    let (dir, (own, group)) = (around(subvolume)?, ids(subvolume)?);
    let made = btrfs::make_qgroup(&dir, group, true);
    let done = well(made, Errno::EEXIST)
        // Before it has a member: what is there already must not be more than the limit.
        .and_then(|()| btrfs::limit_qgroup(&dir, group, told(bytes)))
        .and_then(|()| well(btrfs::assign_qgroup(&dir, own, group, true), Errno::EEXIST));
    if done.is_err() && made.is_ok() {
        sweep::told(clear(subvolume));
    }
    done.at("limit the subvolume", subvolume)
}

/// Takes the limit off. What a tenant made below keeps its group, with no limit in it.
fn clear(subvolume: &Path) -> Result<()> {
    let (dir, (own, group)) = (around(subvolume)?, ids(subvolume)?);
    let done = well(btrfs::limit_qgroup(&dir, group, u64::MAX), Errno::ENOENT)
        .and_then(|()| well(btrfs::assign_qgroup(&dir, own, group, false), Errno::ENOENT));
    let _kept_by_members = btrfs::make_qgroup(&dir, group, false);
    done.at("take the limit off the subvolume", subvolume)
}

/// Takes the limit off a subvolume, where there may be one. A link, or a folder that is no subvolume, leads to what is another's.
pub fn forget(subvolume: &Path) -> Result<()> {
    let own = subvolume.symlink_metadata().is_ok_and(|meta| meta.is_dir() && meta.ino() == btrfs::ROOT_INODE);
    if own && need(subvolume).is_ok() { clear(subvolume) } else { Ok(()) }
}

/// Bytes that a limited subvolume added, with all that was made below it and their records. Of one that has no limit (yet) only what is
/// its own is known.
pub fn used(subvolume: &Path) -> Result<u64> {
    let (dir, (own, group)) = (tree::open(subvolume)?, ids(subvolume)?);
    let bytes = |id| btrfs::qgroup_bytes(&dir, id);
    let missing = |err| if err == Errno::ENOENT { bytes(own) } else { Err(err) };
    bytes(group).or_else(missing).map(with_records).at("ask for what is counted of", subvolume)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_stopped_is_at_the_limit() {
        const MIB: u64 = 1 << 20;
        for limit in [0, 4096, 16 * MIB, FREE, FREE + 1, 64 * MIB + 7, 192 * MIB, 6 << 30, u64::MAX >> 1] {
            for limit in limit..limit.plus(2 * COUNTED) {
                let (told, used) = (told(limit), with_records(told(limit)));
                assert!((limit.minus(1)..=limit).contains(&used), "{limit}: {told}, {used}");
                // Records of one byte in COUNTED.
                assert!(told.plus(told / COUNTED) <= limit.plus(MIB), "{limit}: {told}");
            }
        }
        assert_eq!((told(24 * MIB), told(224 * MIB)), (24 * MIB, 216 * MIB));
    }
}
