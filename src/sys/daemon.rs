//! A program that stays when this one ends: of what is ours it gets one descriptor and one lock, and nothing else.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::tool::{self, Child, Stream};
use super::{file, pause};
use crate::error::errno;

/// Starts a daemon in a session of its own; what it says at its start is the child's `stderr`.
///
/// It gets `given` by the number that it has here, and holds an exclusive flock(2) on `locked` for as long as it lives. No other
/// descriptor of this process reaches it, also none that our own caller let us inherit: who waits for the end of that pipe would
/// wait for the daemon. ENOENT where it is not installed, EWOULDBLOCK where another one holds the lock.
///
/// With `ends_with_us` the kernel kills it when this process ends.
pub fn start(
    program: &str,
    args: &[&OsStr],
    given: &File,
    locked: &File,
    ends_with_us: bool,
) -> nix::Result<Child> {
    tool::spawn(program, args, [Stream::Null, Stream::Null, Stream::Pipe], &|| {
        nix::unistd::setsid()?;
        if ends_with_us {
            set_pdeathsig(Signal::SIGKILL)?;
        }
        // By the process that the program becomes: /proc/locks then tells its number.
        lock(locked)?;
        close_on_exec()?;
        fcntl(given, FcntlArg::F_SETFD(FdFlag::empty()))?;
        // A high number, since they are closed in order: the lock is let go of after everything else.
        fcntl(locked, FcntlArg::F_DUPFD(HIGH)).map(drop)
    })
}

/// More than a daemon that has just started has open, and less than any limit.
const HIGH: RawFd = 200;

/// How often a lock that somebody else has is asked for again, a [`pause`] apart: who only looks whether it is held has it, too.
const PATIENCE: u32 = 20;

fn lock(file: &File) -> nix::Result<()> {
    let mut tries = 0;
    loop {
        // SAFETY: a plain descriptor, open for as long as `file` is.
        let code = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
        match Errno::result(code) {
            Err(Errno::EWOULDBLOCK) if tries < PATIENCE => {
                tries += 1;
                pause();
            }
            done => return done.map(drop),
        }
    }
}

/// Marks every descriptor but the standard streams to be closed by execve(2).
fn close_on_exec() -> nix::Result<()> {
    let open = file::names("/proc/self/fd".as_ref()).map_err(errno)?;
    for name in open {
        // Not as i32, which would be one more kind of number that is read.
        let number = name.to_str().and_then(|name| name.parse::<u32>().ok());
        let number = number.and_then(|number| RawFd::try_from(number).ok());
        if let Some(number) = number.filter(|number| *number > 2) {
            // SAFETY: a number that was just listed. The listing's own is closed by now.
            let open = unsafe { BorrowedFd::borrow_raw(number) };
            let _closed_meanwhile = fcntl(open, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
        }
    }
    Ok(())
}
