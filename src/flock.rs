//! flock(2): waits of which the user hears.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{major, minor};

use crate::error::{Context, Result};
use crate::proc;
use crate::sys::signals;
use crate::tree::Stat;

/// Waits until nobody else has the lock of this file, which was opened by `path`. What takes longer than a second is told.
pub fn take(mut file: File, path: &Path) -> Result<Flock<File>> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => return Ok(held),
        Err((again, _)) => file = again,
    }
    signals::wake_in_a_second();
    let held = loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Err((again, Errno::EINTR)) => {
                crate::info!("waiting for {}, which holds {}", holder(&again), path.display());
                file = again;
            }
            Err((_, errno)) => break Err(errno).at("lock", path),
            Ok(held) => break Ok(held),
        }
    };
    signals::stop_clock();
    held
}

/// Who holds the lock, for messages.
fn holder(file: &File) -> String {
    let seen = Stat::of(file.as_fd()).ok();
    let pid = seen.and_then(|seen| {
        let (device, inode) = seen.id;
        let number = |number: u64| u32::try_from(number).ok();
        proc::holder(number(major(device))?, number(minor(device))?, inode)
    });
    pid.map_or_else(|| "another process".to_owned(), proc::words)
}
