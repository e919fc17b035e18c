//! The limit of a store that is there: whoever keeps it is told of it, and asked what is used; and what the store had for that goes with it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;

use crate::catalog::{Root, Sliver, sweep};
use crate::error::Result;
use crate::mount::seed;
use crate::name::Name;
use crate::quota::{Limit, Means, does_not_fit, image, limit, project, qgroup, zfs};
use crate::stay::Below;
use crate::sum::Sum;
use crate::sys::file;
use crate::{tree, usage};

/// Tells whoever keeps a store to its limit what that is; a project may have the room for a mount, too, where `more`.
pub fn tell(store: &Path, limit: &Limit, more: bool) -> Result<()> {
    match limit.means {
        Means::Qgroup => qgroup::set(store.below("tree"), limit.bytes),
        Means::Project => project::disk_of(store, limit)?.limit(limit, more),
        Means::Zfs => zfs::limit(store, limit),
        Means::Image | Means::Seed | Means::Soft => Ok(()),
    }
}

/// Refuses a limit that is less than what the store uses already, by what is to be told of it.
pub fn refuse_less(name: &Name, store: &Path, limit: &Limit) -> Result<()> {
    let used = match limit.means {
        Means::Qgroup => {
            qgroup::need(store)?;
            match qgroup::used(store.below("tree")) {
                // Nothing counts it: it came from another disk.
                Err(err) if err.errno() == Some(Errno::ENOENT) => 0,
                used => used?,
            }
        }
        Means::Project => return project::disk_of(store, limit)?.refuse_more(name, limit, false),
        Means::Zfs => zfs::used_at_last(store, limit)?,
        Means::Image | Means::Seed | Means::Soft => 0,
    };
    if used > limit.bytes { Err(does_not_fit(name, limit, used)) } else { Ok(()) }
}

/// Removes a folder that may be a store, or half of one, with the qgroup, the project or the dataset that it had for itself: nothing else would
/// lead to that any more.
pub fn remove_store(dir: &Path) -> Result<()> {
    zfs::destroy(dir)?;
    // A failure is no reason to keep it.
    sweep::told(qgroup::forget(dir.below("tree")));
    let project = project::own(dir);
    tree::remove_path(dir)?;
    project::free(dir, project);
    Ok(())
}

/// Bytes that a store takes, with what lies in its dataset.
pub fn space(store: &Path) -> Result<u64> {
    tree::space(store).map(|space| space.plus(zfs::space(store)))
}

/// Bytes of its limit that a sliver uses; 0 where it has none. What the tables of an image take is counted, since the sliver cannot have it.
pub fn used(root: &Root, sliver: &Sliver) -> Result<u64> {
    let store = root.store(&sliver.name);
    let Some(limit) = limit(root, sliver) else { return Ok(0) };
    match limit.means {
        Means::Project => {
            let disk = project::disk_of(store, limit)?;
            Ok(disk.used(disk.counted(limit.project)?, limit))
        }
        Means::Zfs => zfs::used(store, limit),
        Means::Image => image::used(store),
        Means::Seed => {
            let path = store.below(seed::STORE);
            Ok(file::look_at(path)?.blocks().times(512))
        }
        Means::Qgroup => qgroup::used(store.below("tree")),
        // What it shares with its base or others it did not add.
        Means::Soft => Ok(usage::taken(root, sliver, None)?.exclusive),
    }
}
