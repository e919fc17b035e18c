//! The names in an open directory.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Whence, lseek64};

/// As much is read at once: some hundred names.
const AT_ONCE: usize = 1 << 13;
/// Where a record of getdents64(2) has its own length, and its name (`struct linux_dirent64`, linux/dirent.h).
const LENGTH: usize = 16;
const NAME: usize = 19;

/// Hands on each name of a directory, `.` and `..` too, in the kernel's order, from the first one; until `take` has enough, which it
/// says by false. The C library's way opens the directory a second time, and looks at it twice.
pub fn each(dir: BorrowedFd<'_>, take: &mut dyn FnMut(&CStr) -> nix::Result<bool>) -> nix::Result<()> {
    lseek64(dir, 0, Whence::SeekSet)?;
    // Zeros first would cost more than all that is done with the few names of most folders.
    let mut buffer = Vec::<u8>::with_capacity(AT_ONCE);
    loop {
        // SAFETY: `buffer` has room for as many bytes as the kernel is told.
        let got = unsafe {
            libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buffer.as_mut_ptr(), buffer.capacity())
        };
        let got = usize::try_from(Errno::result(got)?).unwrap_or(0);
        if got == 0 {
            return Ok(());
        }
        // SAFETY: so many bytes of it were written.
        unsafe { buffer.set_len(got) };
        let mut rest = buffer.as_slice();
        while let Some([low, high]) = rest.get(LENGTH..LENGTH + 2) {
            let length = usize::from(u16::from_ne_bytes([*low, *high])).max(NAME);
            let (record, more) = rest.split_at_checked(length).ok_or(Errno::EIO)?;
            let name = record.get(NAME..).map(CStr::from_bytes_until_nul);
            if !take(name.and_then(Result::ok).ok_or(Errno::EIO)?)? {
                return Ok(());
            }
            rest = more;
        }
    }
}
