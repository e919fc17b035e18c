//! The disk space that a tree takes.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::dedupe::is_gone;
use super::ids::Ids;
use super::{Dir, Entry, Kind, Stat, Step, Walk, open, sys};
use crate::error::Result;
use crate::sum::Sum;
use crate::sys::extents::Map;
use crate::sys::{btrfs, statfs};

/// XFS and bcachefs (linux/magic.h, fs/bcachefs/bcachefs_format.h): with Btrfs, the disks whose files are known to share extents.
const XFS: u32 = 0x5846_5342;
const BCACHEFS: u32 = 0xca45_1a4e;

/// What a tree takes, each inode counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes that are allocated for it, as du(1) counts them.
    pub bytes: u64,
    /// Those of them that other files use, too, by FIEMAP.
    pub shared: u64,
    /// Inodes, its root among them.
    pub inodes: u64,
}

/// Bytes allocated for everything below `path` and for itself, each inode once. Subvolumes are counted, what is mounted below
/// is not.
pub fn space(path: &Path) -> Result<u64> {
    count_at(path, &mut |_| Ok(0)).map(|space| space.bytes)
}

/// The same, and how much of it is shared, where the disk can share at all: then each file is opened and asked.
pub fn shares(path: &Path) -> Result<Space> {
    match statfs::of(path)?.magic {
        btrfs::MAGIC | XFS | BCACHEFS => count_at(path, &mut shared),
        _ => count_at(path, &mut |_| Ok(0)),
    }
}

/// As [`count`], by the path of the tree.
#[inline(never)]
pub fn count_at(path: &Path, file: &mut dyn FnMut(&Entry<'_>) -> nix::Result<u64>) -> Result<Space> {
    count(open(path)?, path.as_os_str().as_bytes(), file)
}

/// Goes through a tree (shown as `path`) that its tenant may be changing: what is removed before it is looked at does not count.
/// Each regular file is given to `file`, which answers with how much of it is to be counted as shared.
pub fn count(root: Dir, path: &[u8], file: &mut dyn FnMut(&Entry<'_>) -> nix::Result<u64>) -> Result<Space> {
    let stat = root.stat().map_err(sys("look at", path))?;
    let mut space = Space { bytes: stat.allocated, shared: 0, inodes: 1 };
    let mut linked = Ids::beside(&root).map_err(sys("look at", path))?;
    let mut walk = Walk::new(root, path)?;
    while let Some(step) = walk.step()? {
        let Step::Entry(entry) = step else { continue };
        let Stat { kind, links, id, allocated, .. } = *entry.stat;
        let mut shared = 0;
        let counted = match kind {
            Kind::Dir => match walk.enter_unmounted() {
                Err(err) if err.errno().is_some_and(is_gone) => false,
                entered => entered?,
            },
            _ if links > 1 && linked.note(id, 0).map_err(sys("note", entry.path))?.is_some() => false,
            Kind::File => {
                // One that is gone, or cannot be asked, shares nothing that is known.
                shared = file(&entry).unwrap_or(0);
                true
            }
            _ => true,
        };
        if counted {
            space.bytes = space.bytes.plus(allocated);
            space.shared = space.shared.plus(shared);
            space.inodes = space.inodes.plus(1);
        }
    }
    Ok(space)
}

/// Bytes of a file that another one, or another place in it, uses too.
fn shared(entry: &Entry<'_>) -> nix::Result<u64> {
    if entry.stat.allocated == 0 {
        return Ok(0);
    }
    let file = entry.dir.open_file(entry.name, entry.stat)?;
    let (mut at, mut sum, mut map) = (0, 0_u64, Map::default());
    loop {
        let (begin, mut last) = (at, true);
        for extent in map.read(&file, at, u64::MAX)? {
            if extent.is_shared() {
                sum = sum.plus(extent.length);
            }
            (at, last) = (extent.end(), extent.is_last());
        }
        if last || at <= begin {
            // The last extent ends with its block.
            return Ok(sum.min(entry.stat.allocated));
        }
    }
}
