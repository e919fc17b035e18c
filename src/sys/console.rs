//! The kernel's console, quiet for a moment.

use std::path::Path;
use std::ptr;

use nix::libc::klogctl;

use crate::sys::file;

/// While it lives, what the kernel logs is not printed on its console, but for emergencies; the log has it all the same.
///
/// For a system call whose refusal is the answer that is wanted. Each refused mount is a line, and where the console is a serial
/// one, the call returns when it is printed: after 2 ms on a virtual machine, after 7 ms at 115,200 baud.
///
/// The kernel keeps the level that was (syslog(2), `SYSLOG_ACTION_CONSOLE_OFF`, since Linux 2.6.32). A process that is killed
/// meanwhile leaves a quiet console, as `dmesg -D` does, and `dmesg -E` ends it; a panic and an oops raise the level themselves.
pub struct Quiet {
    /// Whether it was us: a console that somebody made quiet stays so.
    ours: bool,
}

const CONSOLE_OFF: i32 = 6;
const CONSOLE_ON: i32 = 7;

impl Quiet {
    /// Begins. Without the right to (CAP_SYSLOG) the console prints as before.
    pub fn begin() -> Self {
        // Its first number is the level (proc_sys_kernel(5)); what the kernel calls an error, 3, is printed below it.
        let levels = file::read(Path::new("/proc/sys/kernel/printk")).unwrap_or_default();
        let quiet = matches!(levels.as_slice(), [b'0'..=b'3', rest, ..] if !rest.is_ascii_digit());
        // SAFETY: the action takes no buffer.
        Self { ours: !quiet && unsafe { klogctl(CONSOLE_OFF, ptr::null_mut(), 0) } == 0 }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if self.ours {
            // SAFETY: as above.
            unsafe { klogctl(CONSOLE_ON, ptr::null_mut(), 0) };
        }
    }
}
