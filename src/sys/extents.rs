//! Files that share their extents on the disk (ioctl_ficlone(2)).

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;

/// Makes all of `to` share the extents of `from`. EOPNOTSUPP, ENOTTY or EINVAL where the disk cannot, EXDEV on two disks.
pub fn share(from: &File, to: &File) -> nix::Result<()> {
    let request = nix::request_code_write!(0x94, 9, size_of::<libc::c_int>());
    // SAFETY: FICLONE takes a file descriptor by value, and touches no memory of ours.
    Errno::result(unsafe { libc::ioctl(to.as_raw_fd(), request, from.as_raw_fd()) }).map(drop)
}
