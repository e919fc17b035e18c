//! A fresh tree, made durable.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Kind, Step, Walk, open, sys};
use crate::error::{Context, Result};
use crate::sys::{statfs, sync};

/// Writes the disk of a folder to it, and with it all of the folder.
///
/// The kernel does not hand syncfs(2) on to a file system in user space (fs/fuse/inode.c: but for virtiofs). ZFS then may bring a
/// rename back after a power cut, and not the content of the files: it is told of each of them.
pub fn sync_tree(path: &Path) -> Result<()> {
    sync::disk(path)?;
    if statfs::of(path)?.magic != statfs::FUSE {
        return Ok(());
    }
    let mut walk = Walk::new(open(path)?, path.as_os_str().as_bytes())?;
    while let Some(step) = walk.step()? {
        let Step::Entry(entry) = step else { continue };
        match entry.stat.kind {
            Kind::File => {
                let file = entry.dir.open_file(entry.name, &entry.stat).map_err(sys("open", entry.path))?;
                file.sync_all().at("write to the disk", &super::shown(entry.path))?;
            }
            Kind::Dir => walk.enter()?,
            _ => {}
        }
    }
    Ok(())
}
