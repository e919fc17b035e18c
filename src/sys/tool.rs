//! Installed programs, run so that they end with us.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;

/// A program, looked for in PATH, with a working folder that never changes its meaning: its arguments are absolute paths.
///
/// The kernel kills it when this process dies, so that it does not write into a folder that the next command already
/// clears away.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    // SAFETY: prctl(2) is a bare system call: the child allocates nothing and takes no lock between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    command
}
