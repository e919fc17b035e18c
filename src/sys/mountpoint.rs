//! Is something mounted on a folder? By statx(2), which does not read the table of mounts.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

/// The attribute of a folder on which something is mounted (include/uapi/linux/stat.h).
const MOUNT_ROOT: u64 = 0x2000;

/// Asks the kernel. None where it does not tell: before 5.8, or where the path cannot be looked at.
pub fn is_one(path: &Path) -> Option<bool> {
    let name = CString::new(path.as_os_str().as_bytes()).ok()?;
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `name` ends in NUL and outlives the call; `answer` has the size that the call writes.
    let code = unsafe { libc::statx(libc::AT_FDCWD, name.as_ptr(), flags, 0, answer.as_mut_ptr()) };
    match Errno::result(code) {
        Ok(_) => {}
        Err(Errno::ENOENT) => return Some(false),
        Err(_) => return None,
    }
    // SAFETY: every bit pattern is a legal statx, and it was zeroed before the kernel filled it.
    let answer = unsafe { answer.assume_init() };
    (answer.stx_attributes_mask & MOUNT_ROOT != 0).then_some(answer.stx_attributes & MOUNT_ROOT != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_one_and_a_folder_in_it_is_not() {
        for (path, expected) in [("/proc", true), ("/proc/self", false), ("/proc/none", false)] {
            assert!(is_one(Path::new(path)).is_none_or(|told| told == expected), "{path}");
        }
    }
}
