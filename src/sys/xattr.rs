//! Extended attributes (xattr(7)), by path without following a final link.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

/// The longest value (XATTR_SIZE_MAX) and the longest list of names (XATTR_LIST_MAX), in bytes.
const MAX: usize = 65536;

/// The value of an attribute. ENODATA where it is not set, EOPNOTSUPP where the disk has none.
pub fn get(path: &Path, name: &CStr) -> nix::Result<Vec<u8>> {
    let path = c_path(path)?;
    read_whole(&mut |buffer, size| {
        // SAFETY: both names end in NUL; `buffer` has `size` writable bytes.
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.cast(), size) }
    })
}

/// The names of all attributes that are visible to the caller, in the kernel's order.
pub fn list(path: &Path) -> nix::Result<Vec<CString>> {
    let path = c_path(path)?;
    read_whole(&mut |buffer, size| {
        // SAFETY: `path` ends in NUL; `buffer` has `size` writable bytes.
        unsafe { libc::llistxattr(path.as_ptr(), buffer.cast(), size) }
    })
    .map(split)
}

/// The same of an open directory, which takes the kernel a fifth of the time.
pub fn list_of(open: BorrowedFd<'_>) -> nix::Result<Vec<CString>> {
    read_whole(&mut |buffer, size| {
        // SAFETY: `buffer` has `size` writable bytes.
        unsafe { libc::flistxattr(open.as_raw_fd(), buffer.cast(), size) }
    })
    .map(split)
}

fn split(bytes: Vec<u8>) -> Vec<CString> {
    bytes
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| CString::new(name).ok())
        .collect()
}

/// Sets an attribute, new or not.
pub fn set(path: &Path, name: &CStr, value: &[u8]) -> nix::Result<()> {
    let path = c_path(path)?;
    // SAFETY: both names end in NUL; `value` has the length passed.
    let code =
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(code).map(drop)
}

/// Removes an attribute. ENODATA where it is not set, EOPNOTSUPP where the disk has none.
pub fn remove(path: &Path, name: &CStr) -> nix::Result<()> {
    let path = c_path(path)?;
    // SAFETY: both names end in NUL.
    Errno::result(unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) }).map(drop)
}

fn c_path(path: &Path) -> nix::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

/// Asks for the bytes, which mostly are few; where they are not, for the length before, and again when the value grew in between.
fn read_whole(call: &mut dyn FnMut(*mut u8, libc::size_t) -> libc::ssize_t) -> nix::Result<Vec<u8>> {
    let mut few = [0_u8; 256];
    match Errno::result(call(few.as_mut_ptr(), few.len())) {
        Err(Errno::ERANGE) => {}
        got => {
            let got = usize::try_from(got?).unwrap_or(0);
            return Ok(few.get(..got).unwrap_or_default().to_vec());
        }
    }
    loop {
        let wanted = Errno::result(call(std::ptr::null_mut(), 0))?;
        let wanted = usize::try_from(wanted).unwrap_or(0).min(MAX);
        if wanted == 0 {
            return Ok(Vec::new());
        }
        let mut bytes = vec![0; wanted];
        match Errno::result(call(bytes.as_mut_ptr(), wanted)) {
            Ok(got) => {
                bytes.truncate(usize::try_from(got).unwrap_or(0));
                return Ok(bytes);
            }
            Err(Errno::ERANGE) => continue,
            Err(errno) => return Err(errno),
        }
    }
}
