//! Children that only read, so that a slow disk has more than one thing to do at a time.

use nix::libc;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

/// They end, and are waited for, with the value.
#[derive(Default)]
pub struct Helpers(Vec<Pid>);

impl Helpers {
    /// Starts one more, which takes the processor only when nobody else wants it. Where it cannot be made, there is none.
    pub fn start(&mut self, work: &mut dyn FnMut()) {
        // SAFETY: this program has one thread, so the child may allocate and lock as if it had been started anew.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { child }) => self.0.push(child),
            Ok(ForkResult::Child) => {
                if set_pdeathsig(Signal::SIGKILL).is_ok() {
                    // SAFETY: plain numbers.
                    unsafe { libc::nice(19) };
                    work();
                }
                // SAFETY: _exit(2) ends the child at once: the parent's buffers and exit handlers are not run twice.
                unsafe { libc::_exit(0) }
            }
            Err(_) => {}
        }
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        for child in &self.0 {
            let _ended = kill(*child, Signal::SIGKILL);
        }
        for child in &self.0 {
            let _reaped = waitpid(*child, None);
        }
    }
}

/// What this process had to read from disks until now, in blocks of 512 bytes; 0 where the kernel does not count that.
pub fn blocks_read() -> i64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel writes one `rusage`, of which all zeros are one as well.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    #[allow(clippy::useless_conversion)] // the width is the architecture's
    i64::from(usage.ru_inblock)
}
