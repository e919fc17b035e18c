//! What a file system calls a file, whatever its name.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

/// The longest handle (MAX_HANDLE_SZ, linux/exportfs.h).
const MAX: usize = 128;

/// `struct file_handle` with room for the longest one.
#[repr(C)]
struct Handle {
    length: libc::c_uint,
    kind: libc::c_int,
    bytes: [u8; MAX],
}

/// The kind and the bytes of a handle of a name: name_to_handle_at(2), Linux 2.6.39. ENOSYS before it, EOPNOTSUPP on a disk that has
/// none.
pub fn of(dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<(i32, Vec<u8>)> {
    let mut handle = Handle { length: 128, kind: 0, bytes: [0; MAX] };
    let mut mount: libc::c_int = 0;
    // By its number: not every C library of the targets has a function for it.
    // SAFETY: `name` ends in NUL; `handle` says itself how many bytes may be written; the mount's number has its place.
    let code = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir.as_raw_fd(),
            name.as_ptr(),
            &raw mut handle,
            &raw mut mount,
            0,
        )
    };
    Errno::result(code)?;
    let length = usize::try_from(handle.length).unwrap_or(0);
    Ok((handle.kind, handle.bytes.get(..length).unwrap_or_default().to_vec()))
}
