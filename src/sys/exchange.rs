//! Two names that change places in one step.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

/// `RENAME_EXCHANGE` (linux/fs.h).
const EXCHANGE: libc::c_uint = 2;

/// Exchanges two names on one disk: renameat2(2), Linux 3.15. ENOSYS before it, EINVAL on a disk that cannot.
pub fn exchange(one: &Path, other: &Path) -> nix::Result<()> {
    let c_path = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL);
    let (one, other) = (c_path(one)?, c_path(other)?);
    // By its number: not every C library of the targets has a function for it.
    // SAFETY: both names end in NUL, and the kernel only reads them.
    let code = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            one.as_ptr(),
            libc::AT_FDCWD,
            other.as_ptr(),
            EXCHANGE,
        )
    };
    Errno::result(code).map(drop)
}
