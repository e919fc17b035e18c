//! Btrfs subvolumes, by the descriptors of the folders that hold them, and devices (linux/btrfs.h).

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;

use super::file;

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
    fn new(fd: i64, name: &[u8]) -> nix::Result<Self> {
        let mut args = Self { fd, name: [0; NAME_MAX + 1] };
        args.name.get_mut(..name.len()).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(name);
        Ok(args)
    }
}

/// Makes an empty subvolume.
pub fn create(dir: impl AsFd, name: &CStr) -> nix::Result<()> {
    write(
        dir.as_fd(),
        nix::request_code_write!(TYPE, 14, size_of::<VolArgs>()),
        &VolArgs::new(0, name.to_bytes())?,
    )
}

/// Makes a writable snapshot of the subvolume `from`.
pub fn snapshot(dir: impl AsFd, name: &CStr, from: impl AsFd) -> nix::Result<()> {
    let args = VolArgs::new(from.as_fd().as_raw_fd().into(), name.to_bytes())?;
    write(dir.as_fd(), nix::request_code_write!(TYPE, 1, size_of::<VolArgs>()), &args)
}

/// Deletes a subvolume with all files in it, at once. ENOTEMPTY while it holds other subvolumes.
pub fn delete(dir: impl AsFd, name: &CStr) -> nix::Result<()> {
    write(
        dir.as_fd(),
        nix::request_code_write!(TYPE, 15, size_of::<VolArgs>()),
        &VolArgs::new(0, name.to_bytes())?,
    )
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

/// Makes a device known to the kernel, as a part of the file system that its superblock names. It takes the place of another
/// device with the same superblock, but for EEXIST: that one is mounted.
pub fn scan(device: &Path) -> nix::Result<()> {
    control(4, device)
}

/// Makes the kernel forget a device that it knows and has not mounted. Kernels before 5.4 do not: ENOTTY.
pub fn forget(device: &Path) -> nix::Result<()> {
    control(5, device)
}

fn control(number: u8, device: &Path) -> nix::Result<()> {
    let control = file::open_as(Path::new("/dev/btrfs-control"), OFlag::O_RDWR, 0);
    let control = control.map_err(|err| err.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    write(
        control.as_fd(),
        nix::request_code_write!(TYPE, number, size_of::<VolArgs>()),
        &VolArgs::new(0, device.as_os_str().as_bytes())?,
    )
}

/// Adds a device to the file system that `dir` lies in. To a seed that is the writable one; the file system is then another one,
/// still mounted read-only.
///
/// One of 24 MiB, added to a seed, was seen to hang Linux 6.18 for good: keep to what is surely enough.
pub fn add_device(dir: impl AsFd, device: &Path) -> nix::Result<()> {
    write(
        dir.as_fd(),
        nix::request_code_write!(TYPE, 10, size_of::<VolArgs>()),
        &VolArgs::new(0, device.as_os_str().as_bytes())?,
    )
}

/// `struct btrfs_ioctl_dev_info_args`: 4096 bytes.
#[repr(C)]
struct DevInfo {
    id: u64,
    uuid: [u8; 16],
    sizes: [u64; 2],
    unused: [u64; 379],
    path: [u8; 1024],
}

/// The path of a device of the file system that `dir` lies in, by the device's number in it. ENODEV where it has none such.
pub fn device(dir: impl AsFd, id: u64) -> nix::Result<PathBuf> {
    let mut info = DevInfo { id, uuid: [0; 16], sizes: [0; 2], unused: [0; 379], path: [0; 1024] };
    let request = nix::request_code_readwrite!(TYPE, 30, size_of::<DevInfo>());
    // SAFETY: BTRFS_IOC_DEV_INFO reads and writes one such structure, which outlives the call.
    Errno::result(unsafe { libc::ioctl(dir.as_fd().as_raw_fd(), request, &raw mut info) })?;
    let path = info.path.split(|b| *b == 0).next().unwrap_or_default();
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(path)))
}

/// The id of the file system that a folder lies on, the same for all its subvolumes. ENOTTY where it is no Btrfs.
pub fn id(dir: impl AsFd) -> nix::Result<(u64, u64)> {
    // `struct btrfs_ioctl_fs_info_args`: 1024 bytes, the id behind two counters of 64 bits.
    let mut info = [0u64; 128];
    let request = nix::request_code_read!(TYPE, 31, size_of_val(&info));
    // SAFETY: BTRFS_IOC_FS_INFO writes 1024 bytes, which outlive the call.
    Errno::result(unsafe { libc::ioctl(dir.as_fd().as_raw_fd(), request, &raw mut info) })?;
    let [_, _, one, two, ..] = info;
    Ok((one, two))
}

fn write<T>(fd: BorrowedFd<'_>, request: libc::Ioctl, args: &T) -> nix::Result<()> {
    // SAFETY: each caller passes the structure that the request reads, alive for the call.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_ref(args)) }).map(drop)
}
