//! Locks that last as long as a process: flock(2) on files of the run folder, which is on a tmpfs.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::error::{Context, Result};
use crate::flock;
use crate::sys::file;

/// A held lock, let go when dropped or when the process ends in any way.
pub struct Lock {
    path: PathBuf,
    held: Flock<File>,
}

impl Lock {
    /// Waits until the lock at `path` is ours.
    pub fn take(path: &Path) -> Result<Self> {
        loop {
            if let Some(lock) = Self::if_current(path, flock::take(open(path)?, path)?)? {
                return Ok(lock);
            }
        }
    }

    /// Takes the lock only when nobody holds it.
    pub fn try_take(path: &Path) -> Result<Option<Self>> {
        match Flock::lock(open(path)?, FlockArg::LockExclusiveNonblock) {
            Ok(held) => Self::if_current(path, held),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno).at("lock", path),
        }
    }

    /// The lock, unless its file was removed or replaced while we waited for it ([`Lock::remove`]).
    fn if_current(path: &Path, held: Flock<File>) -> Result<Option<Self>> {
        let ours = held.metadata().at("look at the lock", path)?;
        match fs::symlink_metadata(path) {
            Ok(now) if now.ino() == ours.ino() && now.dev() == ours.dev() => {
                Ok(Some(Self { path: path.to_owned(), held }))
            }
            _ => Ok(None),
        }
    }

    /// Removes the lock's file with its object: who waits for it finds it gone and starts anew.
    pub fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).at("remove the lock", &self.path)?;
        drop(self.held);
        Ok(())
    }
}

fn open(path: &Path) -> Result<File> {
    // Who could open it could hold it.
    file::open_as(path, OFlag::O_RDWR | OFlag::O_CREAT, 0o600).at("open the lock", path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn held_once_and_free_after() {
        let path = std::env::temp_dir().join(format!("lock-{}", std::process::id()));
        let lock = Lock::take(&path).unwrap();
        assert!(Lock::try_take(&path).unwrap().is_none());
        lock.remove().unwrap();
        let again = Lock::try_take(&path).unwrap().unwrap();
        drop(again);
        Lock::take(&path).unwrap().remove().unwrap();
        assert!(!path.exists());
    }
}
