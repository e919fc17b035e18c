//! Making what was written durable.

use std::path::Path;

use nix::errno::Errno;

use crate::error::{Context, Result};
use crate::sys::file;

/// Makes the names in a folder durable.
pub fn dir(dir: &Path) -> Result<()> {
    file::open(dir).and_then(|dir| dir.sync_all()).at("write to the disk the folder", dir)
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
