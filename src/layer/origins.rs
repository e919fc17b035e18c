//! Of which file of the base overlay copied a file up: a mark that is only true while the base's does not show.

use std::os::fd::AsFd;

use nix::errno::Errno;

use super::{Change, Changes, Format, Show, Side, Step};
use crate::error::Result;
use crate::sys::{handle, sync, xattr};
use crate::tree::{Dir, SELF, again, c_name, sys};

/// What overlay's mark begins with: its version, a magic number, the length of all, flags and the kind of the handle; then the 16
/// bytes of the disk's UUID and the handle (`struct ovl_fb`, fs/overlayfs/overlayfs.h).
const HEAD: usize = 5 + 16;
const MAGIC: u8 = 0xfb;
/// The handle is not one of the base's.
const OF_UPPER: u8 = 1 << 2;

/// Was the store's file copied up from just this one of the base, as its own mark says? Then no other file of the store has that mark:
/// overlay copies a file up once, while the base's shows. It may show again, and the other marks stay true.
pub(super) fn is_own(format: Format, node: Side<'_>, base: Side<'_>) -> nix::Result<bool> {
    match format {
        Format::Overlay | Format::OverlayUser => {}
        // There are no such marks.
        Format::Overlayfs | Format::MiniFo | Format::Aufs | Format::Snapshot | Format::Tree => {
            return Ok(true);
        }
        Format::FuseOverlayfs => return Ok(false),
    }
    let mark = match xattr::get(&node.dir.proc_path(node.name), &format.attr(b"origin")?) {
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => return Ok(false),
        got => got?,
    };
    let [0, MAGIC, _, flags, kind, ..] = *mark.as_slice() else { return Ok(false) };
    match handle::of(base.dir.as_fd(), base.name) {
        Ok((of, bytes)) => {
            Ok(flags & OF_UPPER == 0 && of == i32::from(kind) && mark.get(HEAD..) == Some(&*bytes))
        }
        Err(_) => Ok(false),
    }
}

/// Removes the mark from all files, before the base's show again.
///
/// A file that was copied up and then renamed or linked keeps it, and overlay takes two names with the same origin for one inode
/// (6.18): were the base's file to show by its old name, both names would have the content of the store's. Without the mark
/// nothing is lost but the inode's number.
pub(super) fn forget(format: Format, store: &Dir, base: &Dir) -> Result<()> {
    match format {
        Format::Overlay | Format::OverlayUser | Format::FuseOverlayfs => {}
        Format::Overlayfs | Format::MiniFo | Format::Aufs | Format::Snapshot | Format::Tree => return Ok(()),
    }
    let mut changes = Changes::new(format, again(store)?, base, Show::Changes)?.without_leaves();
    let mut removed = false;
    while let Some(step) = changes.step()? {
        let Step::Entry(entry) = step else { continue };
        // Where the content is still the base's, the mark says whose.
        if let (Change::Put, Some(node), None) = (entry.change, entry.node, entry.data) {
            for prefix in format.prefixes() {
                let mark = c_name(&[prefix.as_bytes(), b"origin"].concat())?;
                match xattr::remove(&node.dir.proc_path(node.name), &mark) {
                    Ok(()) => removed = true,
                    Err(Errno::ENODATA | Errno::EOPNOTSUPP | Errno::EPERM | Errno::ENOENT) => {}
                    Err(errno) => return Err(sys("remove the mark of the origin of", entry.path)(errno)),
                }
            }
        }
        changes.enter()?;
    }
    // It is on the disk before anything shows.
    if removed { sync::disk(&store.proc_path(SELF)) } else { Ok(()) }
}
