//! What of a file lies in the page cache (mincore(2)).

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr;

use nix::errno::Errno;
use nix::libc;

use crate::sum::Sum;

/// As many pages are looked at in one step.
const PAGES: usize = 1024;

/// How many of the first `size` bytes of a file lie in the page cache, in whole pages. None is read for it. Since Linux 5.2 only of
/// files that the caller owns or may write; root may all.
pub fn cached(file: &File, size: u64) -> nix::Result<u64> {
    // SAFETY: sysconf(3) touches no memory of ours.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).map_err(|_| Errno::EINVAL)?;
    let window = page.checked_mul(PAGES).ok_or(Errno::EINVAL)?;
    let (mut at, mut pages) = (0, 0_u64);
    while at < size {
        let offset = i64::try_from(at).map_err(|_| Errno::EFBIG)?;
        let mut there = [0_u8; PAGES];
        // SAFETY: a new mapping that is read by nobody, and is gone two lines on; the kernel writes one byte for each of its
        // `PAGES` pages. Behind the end of the file none is there.
        unsafe {
            let map = libc::mmap64(
                ptr::null_mut(),
                window,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                offset,
            );
            if map == libc::MAP_FAILED {
                return Err(Errno::last());
            }
            let asked = Errno::result(libc::mincore(map, window, there.as_mut_ptr().cast()));
            libc::munmap(map, window);
            asked?;
        }
        pages = there.iter().fold(pages, |sum, state| sum.plus(u64::from(state & 1)));
        at = at.plus(window as u64);
    }
    Ok(pages.times(page as u64))
}
