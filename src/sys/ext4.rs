//! What ext4 and Btrfs are asked by ioctl(2) alone (linux/fs.h, fs/ext4/ext4.h).

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;

/// Files that Btrfs writes in place, as a disk is written.
static NOCOW: libc::c_long = 0x0080_0000;

/// Lets a mounted ext4 grow to that many blocks. Kernels before 3.3 do not: ENOTTY.
pub fn grow(dir: impl AsFd, blocks: u64) -> nix::Result<()> {
    let request = nix::request_code_write!(b'f', 16, size_of::<u64>());
    // SAFETY: EXT4_IOC_RESIZE_FS reads one u64, which outlives the call.
    Errno::result(unsafe { libc::ioctl(dir.as_fd().as_raw_fd(), request, &raw const blocks) }).map(drop)
}

/// Has Btrfs write a file in place, which is empty yet. What no other file system knows is refused by it.
pub fn in_place(file: impl AsFd) -> nix::Result<()> {
    let request = nix::request_code_write!(b'f', 2, size_of::<libc::c_long>());
    // SAFETY: FS_IOC_SETFLAGS reads no more than one long, which outlives the call.
    Errno::result(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), request, &raw const NOCOW) }).map(drop)
}
