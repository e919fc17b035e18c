//! A forked child that does one thing and answers in bytes: what a private mount namespace needs, since a process that
//! left its namespace comes back only on kernels with setns(2) for mount namespaces (3.8).

use std::fs::File;
use std::io::Write;
use std::path::Path;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, pipe};

use super::file::read_all;
use super::tool::ended;
use crate::error::{Class, Context, Error, Result};

/// What a child answers. A command has few of them: they stay.
pub type Answer = Result<&'static [u8]>;

/// Runs `work` in a child process and returns the bytes that it answers, or its error.
///
/// Whatever the child opened or mounted in a namespace of its own ends with it, and it ends with this process. Fails when the child
/// cannot be made or dies before it answered.
pub fn answer(work: &mut dyn FnMut() -> Answer) -> Answer {
    given(work).map(|bytes| &*bytes.leak())
}

/// As [`answer`], for what may be asked many times.
pub fn given(work: &mut dyn FnMut() -> Answer) -> Result<Vec<u8>> {
    let this = Path::new("a child process");
    let (from, to) = pipe().at("open a pipe to", this)?;
    // SAFETY: this program has one thread, so the child may allocate and lock as if it had been started anew.
    match unsafe { fork() }.at("fork", this)? {
        ForkResult::Child => {
            drop(from);
            let answer =
                set_pdeathsig(Signal::SIGKILL).at("ask for a signal for", this).and_then(|()| work());
            let done = tell(File::from(to), answer).is_ok();
            // SAFETY: _exit(2) ends the child at once: the parent's buffers and exit handlers are not run twice.
            unsafe { nix::libc::_exit(if done { 0 } else { 1 }) }
        }
        ForkResult::Parent { child } => {
            drop(to);
            let bytes = read_all(from, usize::MAX);
            let status = waitpid(child, None).at("wait for", this)?;
            let bytes = bytes.at("read the answer of", this)?;
            match status {
                WaitStatus::Exited(_, 0) => unpack(bytes),
                other => Err(Error::failed(format_args!(
                    "the child process died: {}",
                    ended(other).unwrap_or_default()
                ))),
            }
        }
    }
}

/// Writes the answer on the pipe: 0 and the bytes, or the error's class and its words.
fn tell(mut to: File, answer: Answer) -> std::io::Result<()> {
    let (class, body) = match answer {
        Ok(body) => (0, body),
        Err(err) => (err.class() as u8, err.to_string().leak().as_bytes()),
    };
    to.write_all(&[class])?;
    to.write_all(body)
}

fn unpack(mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    if bytes.is_empty() {
        return Err(Error::failed("the child process gave no answer"));
    }
    let class = bytes.remove(0);
    let classes = [Class::Failed, Class::Usage, Class::Unsupported, Class::InUse, Class::Damaged];
    match classes.into_iter().find(|known| *known as u8 == class) {
        None => Ok(bytes),
        Some(class) => Err(Error::new(class, String::from_utf8_lossy(&bytes))),
    }
}
