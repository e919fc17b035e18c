//! The signals that mean something to this program: a clock that ends a wait, and a word before interrupted work dies.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::alarm;

extern "C" fn wake(_: libc::c_int) {}

/// Lets the ends of children be known, though who started us throws away those of his, which is inherited.
pub fn hear_of_children() {
    // SAFETY: no handler is set, and nobody relies on another one.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Has a system call that still waits in a second end with EINTR. [`stop_clock`] takes it back.
pub fn wake_in_a_second() {
    on(Signal::SIGALRM, wake, SaFlags::empty());
    alarm::set(1);
}

/// Takes [`wake_in_a_second`] back.
pub fn stop_clock() {
    alarm::cancel();
}

/// What the import of a base leaves to say.
const OF_BASE: &[u8] =
    b"\ninterrupted: nothing was added; the next `sliverfs base add` or `base remove` clears away what was imported so far\n";

/// What is said where a store is made beside a sliver's own.
const OF_SLIVER: &[u8] = b"\ninterrupted: the sliver is as it was; the same command begins anew\n";

/// Which of the two.
static SLIVER: AtomicBool = AtomicBool::new(false);

/// The process that says it: its children get the same signal from the terminal.
static SPEAKER: AtomicI32 = AtomicI32::new(0);

extern "C" fn speak(signal: libc::c_int) {
    // SAFETY: getpid(2), write(2) and raise(3) may be called in a handler (signal-safety(7)). The handler is gone by now
    // (SA_RESETHAND): raised again, the signal ends the process as it should.
    unsafe {
        if libc::getpid() == SPEAKER.load(Ordering::Relaxed) {
            let words = if SLIVER.load(Ordering::Relaxed) { OF_SLIVER } else { OF_BASE };
            libc::write(2, words.as_ptr().cast(), words.len());
        }
        libc::raise(signal);
    }
}

/// Until it is dropped, Ctrl-C and the like say what is left before they end this process.
pub struct LastWords(());

impl LastWords {
    /// Of work beside a sliver's store, or else of the import of a base.
    pub fn begin(sliver: bool) -> Self {
        SLIVER.store(sliver, Ordering::Relaxed);
        SPEAKER.store(nix::unistd::getpid().as_raw(), Ordering::Relaxed);
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            on(signal, speak, SaFlags::SA_RESETHAND);
        }
        Self(())
    }
}

impl Drop for LastWords {
    fn drop(&mut self) {
        SPEAKER.store(0, Ordering::Relaxed);
    }
}

fn on(signal: Signal, handler: extern "C" fn(libc::c_int), flags: SaFlags) {
    let action = SigAction::new(SigHandler::Handler(handler), flags, SigSet::empty());
    // SAFETY: both handlers do nothing that a handler may not do, and what is put back was there before.
    unsafe {
        if let Ok(before) = sigaction(signal, &action) {
            // Who started us wants it to pass by (nohup(1)).
            if matches!(before.handler(), SigHandler::SigIgn) {
                let _as_before = sigaction(signal, &before);
            }
        }
    }
}
