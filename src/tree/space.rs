//! The disk space that a tree takes.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::ids::Ids;
use super::{Kind, Step, Walk, open, sys};
use crate::error::Result;

/// Bytes allocated for everything below `path` and for itself, each inode once. What is mounted below is not counted.
pub fn space(path: &Path) -> Result<u64> {
    let bytes = path.as_os_str().as_bytes();
    let root = open(path)?;
    let stat = root.stat().map_err(sys("look at", bytes))?;
    let mut sum = stat.allocated;
    let mut linked = Ids::default();
    let mut walk = Walk::new(root, bytes)?;
    while let Some(step) = walk.step()? {
        let Step::Entry(entry) = step else { continue };
        let directory = entry.stat.kind == Kind::Dir;
        let (below, id) = (!directory || entry.stat.id.0 == stat.id.0, entry.stat.id);
        if below && (directory || entry.stat.links <= 1 || linked.note(id, 0).is_none()) {
            sum = sum.saturating_add(entry.stat.allocated);
        }
        if directory && below {
            walk.enter()?;
        }
    }
    Ok(sum)
}
