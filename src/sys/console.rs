//! The kernel's console, quiet for a moment.

use std::fs;
use std::path::Path;
use std::ptr;

use nix::libc::klogctl;

use crate::sys::file;

/// While it lives, what the kernel logs is not printed on its console, but for emergencies; the log has it all the same.
///
/// For a system call whose refusal is the answer that is wanted. Each refused mount is a line, and where the console is a serial
/// one, the call returns when it is printed: after 2 ms on a virtual machine, after 7 ms at 115,200 baud.
///
/// The kernel keeps the level that was (syslog(2), `SYSLOG_ACTION_CONSOLE_OFF`, since Linux 2.6.32), and a panic and an oops raise
/// it themselves. A process that is killed meanwhile leaves a quiet console and a mark, by which the next one knows whose silence it
/// has to end.
pub struct Quiet<'a> {
    /// None where nothing was done: a console that somebody else made quiet stays so.
    mark: Option<&'a Path>,
}

const CONSOLE_OFF: i32 = 6;
const CONSOLE_ON: i32 = 7;

impl<'a> Quiet<'a> {
    /// Begins; `mark` is a name in the folder of this boot. Without the right to (CAP_SYSLOG) the console prints as before.
    pub fn begin(mark: &'a Path) -> Self {
        // Its first number is the level (proc_sys_kernel(5)); what the kernel calls an error, 3, is printed below it.
        let levels = file::read(Path::new("/proc/sys/kernel/printk")).unwrap_or_default();
        let quiet = matches!(levels.as_slice(), [b'0'..=b'3', rest, ..] if !rest.is_ascii_digit());
        let skip = quiet && mark.symlink_metadata().is_err() || file::write(mark, b"").is_err();
        if !skip {
            // SAFETY: the action takes no buffer.
            unsafe { klogctl(CONSOLE_OFF, ptr::null_mut(), 0) };
        }
        Self { mark: Some(mark).filter(|_| !skip) }
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        if let Some(mark) = self.mark {
            // SAFETY: as above.
            unsafe { klogctl(CONSOLE_ON, ptr::null_mut(), 0) };
            let _gone_by_another = fs::remove_file(mark);
        }
    }
}
