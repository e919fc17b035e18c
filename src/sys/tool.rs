//! Installed programs, run so that they end with us.
//!
//! std's Command would do; with the map of the environment that it keeps, it weighs 12 KiB of the compressed MIPS binary.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, execvp, fork, pipe2};

use super::file::{self, read_some};
use crate::error::{Error, Result, errno};

/// Where one of a program's standard streams goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Nowhere.
    Null,
    /// Where our own goes.
    Ours,
    /// To us.
    Pipe,
}

/// A program that runs.
pub struct Child {
    pid: Pid,
    /// What it reads, where that is a pipe.
    pub stdin: Option<File>,
    /// What it writes, where that is a pipe.
    pub stdout: Option<File>,
    /// What it says on its standard error, where that is a pipe.
    pub stderr: Option<File>,
}

/// Starts a program, looked for in PATH. ENOENT where it is not installed.
///
/// Its arguments are absolute paths: the working folder is ours. The kernel kills it when this process dies, so that it
/// does not write into a folder that the next command already clears away.
pub fn start(program: &str, args: &[&OsStr], streams: [Stream; 3]) -> nix::Result<Child> {
    spawn(program, args, streams, &|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL))
}

/// As [`start`], for a program that reads from us and writes to a file of ours.
pub fn start_into(program: &str, args: &[&OsStr], to: &File) -> nix::Result<Child> {
    spawn(program, args, [Stream::Pipe, Stream::Null, Stream::Ours], &|| {
        // SAFETY: plain descriptors; dup2(2) leaves the copy open across exec.
        Errno::result(unsafe { libc::dup2(to.as_raw_fd(), 1) })?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
    })
}

/// The error of a program that could not be started, which comes with a package; `or` is what else there is to do, or what it is for.
pub fn absent(program: &str, package: &str, or: &str, errno: Errno) -> Error {
    match errno {
        Errno::ENOENT => Error::unsupported(format_args!("{program} is not installed"))
            .way_out(format_args!("install it (package {package}){or}")),
        _ => Error::sys("start", program.as_ref(), errno),
    }
}

/// Runs a program of a package on a file, with its errors where ours go; it may end like `well`, too. `or` is what [`absent`] says.
pub fn run_on(
    file: &Path,
    program: &str,
    options: &str,
    well: &str,
    (package, or): (&str, &str),
) -> Result<()> {
    let ended = start(program, &on(options, file), [Stream::Null, Stream::Null, Stream::Ours])
        .and_then(|mut child| child.wait())
        .map_err(|errno| absent(program, package, or, errno))?;
    match ended {
        Some(how) if how != well => {
            let file = crate::shell::path(file);
            Err(Error::failed(format_args!("{program} failed on {file} ({how})"))
                .way_out(format_args!("what it wrote above says why, or `{program} {file}`")))
        }
        _ => Ok(()),
    }
}

/// Options, with a blank between them, and the file that they are for, as a program's arguments.
pub fn on<'a>(options: &'a str, file: &'a Path) -> Vec<&'a OsStr> {
    let mut args: Vec<&OsStr> = Vec::new();
    for option in options.split(' ') {
        args.push(OsStr::new(option));
    }
    args.push(file.as_os_str());
    args
}

/// As [`start`], but the child does `before` instead of tying itself to this process; where that fails, it is not started.
pub(super) fn spawn(
    program: &str,
    args: &[&OsStr],
    streams: [Stream; 3],
    before: &dyn Fn() -> nix::Result<()>,
) -> nix::Result<Child> {
    let ended = |word: &OsStr| CString::new(word.as_bytes()).map_err(|_| Errno::EINVAL);
    let mut words = vec![ended(program.as_ref())?];
    for arg in args {
        words.push(ended(arg)?);
    }
    let [stdin, stdout, stderr] = streams;
    let null = file::open_as(Path::new("/dev/null"), OFlag::O_RDWR, 0).map_err(errno)?;
    let (from_us, to_it) = pipe_for(stdin)?;
    let (to_us, from_it) = pipe_for(stdout)?;
    let (its_errors, errors) = pipe_for(stderr)?;
    // It closes when the program starts, and else tells why it did not.
    let (failure, tell) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: this program has one thread, so the child may allocate and lock as if it had been started anew.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let errno = become_program(
                &words,
                [(stdin, from_us.as_ref()), (stdout, from_it.as_ref()), (stderr, errors.as_ref())],
                &null,
                before,
            );
            let _nobody_listens = nix::unistd::write(&tell, &(errno as i32).to_ne_bytes());
            // SAFETY: _exit(2) ends the child at once: the parent's buffers and exit handlers are not run twice.
            unsafe { libc::_exit(127) }
        }
        ForkResult::Parent { child } => {
            drop((tell, from_us, from_it, errors));
            let (stdin, stdout) = (to_it.map(File::from), to_us.map(File::from));
            let mut child = Child { pid: child, stdin, stdout, stderr: its_errors.map(File::from) };
            // Four bytes come in one piece through a pipe.
            let mut errno = [0; 4];
            match read_some(&failure, &mut errno) {
                Ok(4) => {
                    let _reaped = child.wait();
                    Err(Errno::from_raw(i32::from_ne_bytes(errno)))
                }
                _ => Ok(child),
            }
        }
    }
}

/// In the child: lays the streams out and becomes the program. Returns only with why it could not.
fn become_program(
    words: &[CString],
    streams: [(Stream, Option<&OwnedFd>); 3],
    null: &File,
    before: &dyn Fn() -> nix::Result<()>,
) -> Errno {
    for (number, (stream, pipe)) in (0..).zip(streams) {
        let from = match (stream, pipe) {
            (Stream::Ours, _) => continue,
            (_, Some(pipe)) => pipe.as_raw_fd(),
            (_, None) => null.as_raw_fd(),
        };
        // SAFETY: plain descriptors; dup2(2) leaves the copy open across exec.
        if let Err(errno) = Errno::result(unsafe { libc::dup2(from, number) }) {
            return errno;
        }
    }
    if let Err(errno) = before() {
        return errno;
    }
    let Some(program) = words.first() else { return Errno::EINVAL };
    execvp(program, words).err().unwrap_or(Errno::EINVAL)
}

fn pipe_for(stream: Stream) -> nix::Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    if stream != Stream::Pipe {
        return Ok((None, None));
    }
    pipe2(OFlag::O_CLOEXEC).map(|(read, write)| (Some(read), Some(write)))
}

impl Child {
    /// Its number.
    pub fn id(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Waits until it ends. None where it ended well, or else how it ended.
    pub fn wait(&mut self) -> nix::Result<Option<String>> {
        (self.stdin, self.stdout) = (None, None);
        loop {
            match waitpid(self.pid, None) {
                Err(Errno::EINTR) => {}
                status => return status.map(ended),
            }
        }
    }

    /// Has it ended? Then how, as [`Child::wait`] says it.
    pub fn try_wait(&mut self) -> nix::Result<Option<Option<String>>> {
        match waitpid(self.pid, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::StillAlive => Ok(None),
            status => Ok(Some(ended(status))),
        }
    }

    /// Ends it. How it ended, as [`Child::wait`] says it, where it did so before.
    pub fn kill(&mut self) -> Option<String> {
        let _already_dead = kill(self.pid, Signal::SIGKILL);
        self.wait().ok().flatten()
    }
}

/// How a process ended; None where it ended well.
pub fn ended(status: WaitStatus) -> Option<String> {
    match status {
        WaitStatus::Exited(_, 0) => None,
        WaitStatus::Exited(_, code) => Some(format!("exit code {code}")),
        WaitStatus::Signaled(_, signal, _) => Some(format!("killed by {signal}")),
        _ => Some("stopped".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::{Read, Write};

    fn args<'a>(words: &'a [&'a str]) -> Vec<&'a OsStr> {
        words.iter().map(OsStr::new).collect()
    }

    #[test]
    fn streams_and_ends() {
        let mut cat = start("cat", &[], [Stream::Pipe, Stream::Pipe, Stream::Ours]).unwrap();
        cat.stdin.take().unwrap().write_all(b"through").unwrap();
        let mut text = String::new();
        cat.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), cat.wait().unwrap()), ("through", None));
        let null = [Stream::Null; 3];
        let ended = |script| start("sh", &args(&["-c", script]), null).unwrap().wait().unwrap();
        assert_eq!(ended("exit 3").unwrap(), "exit code 3");
        assert_eq!(ended("kill -9 $$").unwrap(), "killed by SIGKILL");
        assert_eq!(start("no-such-program", &[], null).err(), Some(Errno::ENOENT));
        let mut sleeping = start("sleep", &args(&["60"]), null).unwrap();
        assert_eq!(sleeping.try_wait().unwrap(), None);
        sleeping.kill();
    }
}
