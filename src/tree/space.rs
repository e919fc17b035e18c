//! The disk space that a tree takes.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::ids::Ids;
use super::{Entry, Kind, Step, Walk, open, sys};
use crate::error::Result;

/// Bytes allocated for everything below `path` and for itself, each inode once. Subvolumes are counted, what is mounted below
/// is not.
pub fn space(path: &Path) -> Result<u64> {
    let bytes = path.as_os_str().as_bytes();
    let root = open(path)?;
    let stat = root.stat().map_err(sys("look at", bytes))?;
    let mut sum = stat.allocated;
    let mut linked = Ids::default();
    let mut walk = Walk::new(root, bytes)?;
    while let Some(step) = walk.step()? {
        let Step::Entry(Entry { stat, .. }) = step else { continue };
        let counted = match stat.kind {
            Kind::Dir => walk.enter_unmounted()?,
            _ => stat.links <= 1 || linked.note(stat.id, 0).is_none(),
        };
        if counted {
            sum = sum.saturating_add(stat.allocated);
        }
    }
    Ok(sum)
}
