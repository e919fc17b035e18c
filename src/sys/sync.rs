//! Making what was written durable.

use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::error::{Context, Result};
use crate::sys::file;

/// Makes the names in a folder durable.
pub fn dir(dir: &Path) -> Result<()> {
    file::open(dir).and_then(|dir| dir.sync_all()).at("write to the disk the folder", dir)
}

/// So many bytes are worth a child: it takes a tenth of a millisecond.
const WORTH: u64 = 1 << 20;

/// Has the disk begin with what was written while the caller goes on, by a child that waits for it: whoever waits for [`disk`] then waits
/// for less.
#[derive(Default)]
pub struct Ahead {
    bytes: u64,
    child: Option<Pid>,
}

impl Ahead {
    /// So many bytes more were written on the disk of `dir`. An error is one of what was written before.
    pub fn wrote(&mut self, dir: BorrowedFd<'_>, bytes: u64) -> nix::Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes < WORTH || !self.ended(WaitPidFlag::WNOHANG)? {
            return Ok(());
        }
        self.bytes = 0;
        // SAFETY: this program has one thread, and the child only makes two system calls.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                let code = match nix::unistd::syncfs(dir) {
                    Ok(()) | Err(Errno::ENOSYS) => 0,
                    Err(errno) => errno as i32,
                };
                // SAFETY: _exit(2) ends the child at once: the parent's buffers and exit handlers are not run twice.
                unsafe { libc::_exit(code) }
            }
            Ok(ForkResult::Parent { child }) => self.child = Some(child),
            // Then who waits for the disk waits for all of it.
            Err(_) => {}
        }
        Ok(())
    }

    /// Waits for what was begun.
    pub fn end(&mut self) -> nix::Result<()> {
        self.ended(WaitPidFlag::empty()).map(drop)
    }

    fn ended(&mut self, how: WaitPidFlag) -> nix::Result<bool> {
        let Some(child) = self.child else { return Ok(true) };
        let status = waitpid(child, Some(how))?;
        if status == WaitStatus::StillAlive {
            return Ok(false);
        }
        self.child = None;
        match status {
            WaitStatus::Exited(_, 0) => Ok(true),
            WaitStatus::Exited(_, code) => Err(Errno::from_raw(code)),
            // It would have told an error, which the disk tells no one after.
            _ => Err(Errno::EIO),
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let _told_elsewhere = self.end();
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::fd::AsFd;

    use nix::fcntl::OFlag;

    use super::*;

    #[test]
    fn the_child_tells_an_error() {
        let temp = std::env::temp_dir();
        let dir = file::open(&temp).unwrap();
        let mut ahead = Ahead::default();
        ahead.wrote(dir.as_fd(), WORTH - 1).unwrap();
        assert!(ahead.child.is_none());
        ahead.wrote(dir.as_fd(), 1).unwrap();
        assert!(ahead.child.is_some());
        ahead.end().unwrap();
        // syncfs(2) refuses it.
        let dir = file::open_as(&temp, OFlag::O_PATH, 0).unwrap();
        ahead.wrote(dir.as_fd(), WORTH).unwrap();
        assert_eq!(ahead.end(), Err(Errno::EBADF));
        ahead.end().unwrap();
    }
}
