//! Making what was written durable.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::errno::Errno;

use crate::error::{Context, Result};
use crate::sys::{file, zfs};

/// Makes the names in a folder durable.
pub fn dir(dir: &Path) -> Result<()> {
    file::open(dir)
        .and_then(|open| opened(&open, zfs::on_fuse(dir).is_some()))
        .at("write to the disk the folder", dir)
}

/// Makes a file or a folder durable that was opened after it was written, or before. On zfs-fuse its mode is set to what it is: that takes
/// fsync(2) for nothing where nothing was done while it was open (zil_commit() with a `z_last_itx` of 0, in ZFS's zil.c).
pub fn opened(file: &File, zfs_fuse: bool) -> io::Result<()> {
    if zfs_fuse {
        let _not_ours = file.metadata().and_then(|meta| file.set_permissions(meta.permissions()));
    }
    file.sync_all()
}

/// Writes all of a folder's disk to it: syncfs(2) where the kernel has it (2.6.39), else sync(2).
pub fn disk(dir: &Path) -> Result<()> {
    let open = file::open(dir).at("open", dir)?;
    match nix::unistd::syncfs(&open) {
        Err(Errno::ENOSYS) => {
            nix::unistd::sync();
            Ok(())
        }
        done => done.at("write to the disk of", dir),
    }
}
