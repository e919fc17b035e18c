//! Btrfs subvolumes (linux/btrfs.h), by the descriptors of the folders that hold them.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

/// The inode of each subvolume's root (BTRFS_FIRST_FREE_OBJECTID).
pub const ROOT_INODE: u64 = 256;

/// The file system's magic number (linux/magic.h).
pub const MAGIC: u32 = 0x9123_683e;

const TYPE: u8 = 0x94;
const NAME_MAX: usize = 4087;
const SUBVOL_RDONLY: u64 = 2;

/// `struct btrfs_ioctl_vol_args`: 4096 bytes.
#[repr(C)]
struct VolArgs {
    fd: i64,
    name: [u8; NAME_MAX + 1],
}

impl VolArgs {
    fn new(fd: i64, name: &CStr) -> nix::Result<Self> {
        let mut args = Self { fd, name: [0; NAME_MAX + 1] };
        let bytes = name.to_bytes();
        args.name.get_mut(..bytes.len()).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(bytes);
        Ok(args)
    }
}

/// Makes an empty subvolume.
pub fn create(dir: impl AsFd, name: &CStr) -> nix::Result<()> {
    write(dir.as_fd(), nix::request_code_write!(TYPE, 14, size_of::<VolArgs>()), &VolArgs::new(0, name)?)
}

/// Makes a writable snapshot of the subvolume `from`.
pub fn snapshot(dir: impl AsFd, name: &CStr, from: impl AsFd) -> nix::Result<()> {
    let args = VolArgs::new(from.as_fd().as_raw_fd().into(), name)?;
    write(dir.as_fd(), nix::request_code_write!(TYPE, 1, size_of::<VolArgs>()), &args)
}

/// Deletes a subvolume with all files in it, at once. ENOTEMPTY while it holds other subvolumes.
pub fn delete(dir: impl AsFd, name: &CStr) -> nix::Result<()> {
    write(dir.as_fd(), nix::request_code_write!(TYPE, 15, size_of::<VolArgs>()), &VolArgs::new(0, name)?)
}

/// Is the subvolume read-only?
pub fn read_only(subvolume: impl AsFd) -> nix::Result<bool> {
    let mut flags = 0u64;
    let request = nix::request_code_read!(TYPE, 25, size_of::<u64>());
    // SAFETY: BTRFS_IOC_SUBVOL_GETFLAGS writes one u64, which outlives the call.
    Errno::result(unsafe { libc::ioctl(subvolume.as_fd().as_raw_fd(), request, &raw mut flags) })?;
    Ok(flags & SUBVOL_RDONLY != 0)
}

/// Makes a subvolume read-only, or writable again.
pub fn set_read_only(subvolume: impl AsFd, read_only: bool) -> nix::Result<()> {
    let flags = if read_only { SUBVOL_RDONLY } else { 0 };
    write(subvolume.as_fd(), nix::request_code_write!(TYPE, 26, size_of::<u64>()), &flags)
}

fn write<T>(fd: BorrowedFd<'_>, request: libc::Ioctl, args: &T) -> nix::Result<()> {
    // SAFETY: each caller passes the structure that the request reads, alive for the call.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_ref(args)) }).map(drop)
}
