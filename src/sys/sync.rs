//! Making what was written durable.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

use crate::error::{Context, Result};
use crate::sys::file;

/// Makes the names in a folder durable.
pub fn dir(dir: &Path) -> Result<()> {
    file::open(dir).and_then(|dir| dir.sync_all()).at("write to the disk the folder", dir)
}

/// Lets the disk begin with what was written to a file while the caller goes on: whoever waits for [`disk`] then waits for less. A hint
/// (Linux 2.6.17), which promises nothing.
pub fn begin(file: &File) {
    // SAFETY: it takes numbers alone.
    let _a_hint = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
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
