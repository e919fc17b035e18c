//! A fresh tree, made durable.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Kind, Step, Walk, open, sys};
use crate::error::{Context, Result};
use crate::sys::{statfs, sync, zfs};

/// So many names are told one by one: what LXC's folder of a sliver holds, or the folder of a store whose tree lies in a dataset.
const FEW: u32 = 2;

/// Writes the disk of a folder to it, and with it all of the folder.
///
/// The kernel does not hand syncfs(2) on to a file system in user space (fs/fuse/inode.c: but for virtiofs). ZFS then may bring a
/// rename back after a power cut, and not the content of the files, nor a mode or a time: its pool is waited for. Where it cannot be asked,
/// the disk is told of each file.
pub fn sync_tree(path: &Path) -> Result<()> {
    sync::disk(path)?;
    if statfs::of(path)?.magic != statfs::FUSE {
        return Ok(());
    }
    let mut walk = Walk::new(open(path)?, path.as_os_str().as_bytes())?;
    let dataset = zfs::on_fuse(path);
    let mut names = 0;
    while let Some(step) = walk.step()? {
        let Step::Entry(entry) = step else { continue };
        names += 1;
        if names == FEW + 1 && dataset.as_ref().is_some_and(|dataset| zfs::settle(dataset).is_ok()) {
            return Ok(());
        }
        match entry.stat.kind {
            Kind::File => {
                let file = entry.dir.open_file(entry.name, entry.stat).map_err(sys("open", entry.path))?;
                sync::opened(&file, dataset.is_some()).at("write to the disk", &super::shown(entry.path))?;
            }
            Kind::Dir => walk.enter()?,
            _ => {}
        }
    }
    Ok(())
}
