//! Of which file of the base overlay copied a file up: a mark that is only true while the base's does not show.

use nix::errno::Errno;

use super::{Change, Changes, Format, Show, Step};
use crate::error::Result;
use crate::sys::{sync, xattr};
use crate::tree::{Dir, SELF, again, c_name, sys};

/// Removes the mark from all files, before the base's show again.
///
/// A file that was copied up and then renamed or linked keeps it, and overlay takes two names with the same origin for one inode
/// (6.18): were the base's file to show by its old name, both names would have the content of the store's. Without the mark
/// nothing is lost but the inode's number.
pub(super) fn forget(format: Format, store: &Dir, base: &Dir) -> Result<()> {
    let prefixes = match format {
        Format::Overlay => &["trusted.overlay."][..],
        Format::OverlayUser => &["user.overlay."],
        Format::FuseOverlayfs => &["trusted.overlay.", "user.overlay.", "user.fuseoverlayfs."],
        Format::Overlayfs | Format::MiniFo | Format::Aufs | Format::Snapshot | Format::Tree => return Ok(()),
    };
    let mut changes = Changes::new(format, again(store)?, base, Show::Changes)?.without_leaves();
    let mut removed = false;
    while let Some(step) = changes.step()? {
        let Step::Entry(entry) = step else { continue };
        // Where the content is still the base's, the mark says whose.
        if let (Change::Put, Some(node), None) = (entry.change, entry.node, entry.data) {
            for prefix in prefixes {
                let mark = c_name(format!("{prefix}origin").as_bytes())?;
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
