//! The two signals that mean something to this program: a clock that ends a wait, and a word before an interrupted import dies.

use std::sync::atomic::{AtomicI32, Ordering};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::alarm;

extern "C" fn wake(_: libc::c_int) {}

/// Has a system call that still waits in a second end with EINTR. [`stop_clock`] takes it back.
pub fn wake_in_a_second() {
    on(Signal::SIGALRM, wake, SaFlags::empty());
    alarm::set(1);
}

/// Takes [`wake_in_a_second`] back.
pub fn stop_clock() {
    alarm::cancel();
}

/// What an import that a signal ends leaves to say.
const LAST_WORDS: &[u8] =
    b"\ninterrupted: nothing was added; the next `sliverfs base add` or `base remove` clears away what was imported so far\n";

/// The process that says it: its children get the same signal from the terminal.
static SPEAKER: AtomicI32 = AtomicI32::new(0);

extern "C" fn speak(signal: libc::c_int) {
    // SAFETY: getpid(2), write(2) and raise(3) may be called in a handler (signal-safety(7)). The handler is gone by now
    // (SA_RESETHAND): raised again, the signal ends the process as it should.
    unsafe {
        if libc::getpid() == SPEAKER.load(Ordering::Relaxed) {
            libc::write(2, LAST_WORDS.as_ptr().cast(), LAST_WORDS.len());
        }
        libc::raise(signal);
    }
}

/// Does an import with last words: Ctrl-C and the like say what is left before they end this process.
pub fn with_last_words<T>(import: impl FnOnce() -> T) -> T {
    SPEAKER.store(nix::unistd::getpid().as_raw(), Ordering::Relaxed);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        on(signal, speak, SaFlags::SA_RESETHAND);
    }
    let done = import();
    SPEAKER.store(0, Ordering::Relaxed);
    done
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
