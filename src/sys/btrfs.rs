//! Btrfs subvolumes, by the descriptors of the folders that hold them, and devices (linux/btrfs.h).

use std::ffi::{CStr, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;

use super::file;
use crate::error::errno;

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

/// A request that takes a name, and perhaps a descriptor.
fn named(dir: BorrowedFd<'_>, number: u8, fd: i64, name: &[u8]) -> nix::Result<()> {
    let mut args = VolArgs { fd, name: [0; NAME_MAX + 1] };
    args.name.get_mut(..name.len()).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(name);
    write(dir, nix::request_code_write!(TYPE, number, size_of::<VolArgs>()), &args)
}

/// Makes an empty subvolume.
pub fn create(dir: impl AsFd, name: &CStr) -> nix::Result<()> {
    named(dir.as_fd(), 14, 0, name.to_bytes())
}

/// Makes a writable snapshot of the subvolume `from`.
pub fn snapshot(dir: impl AsFd, name: &CStr, from: impl AsFd) -> nix::Result<()> {
    named(dir.as_fd(), 1, from.as_fd().as_raw_fd().into(), name.to_bytes())
}

/// Deletes a subvolume with all files in it, at once. ENOTEMPTY while it holds other subvolumes.
pub fn delete(dir: impl AsFd, name: &CStr) -> nix::Result<()> {
    named(dir.as_fd(), 15, 0, name.to_bytes())
}

/// Is the subvolume read-only?
pub fn read_only(subvolume: impl AsFd) -> nix::Result<bool> {
    let mut flags = 0u64;
    let request = nix::request_code_read!(TYPE, 25, size_of::<u64>());
    // BTRFS_IOC_SUBVOL_GETFLAGS writes one u64.
    ask(subvolume.as_fd(), request, (&raw mut flags).cast())?;
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
    let control = control.map_err(errno)?;
    named(control.as_fd(), number, 0, device.as_os_str().as_bytes())
}

/// Adds a device to the file system that `dir` lies in. To a seed that is the writable one; the file system is then another one,
/// still mounted read-only.
///
/// One of 24 MiB, added to a seed, was seen to hang Linux 6.18 for good: keep to what is surely enough.
pub fn add_device(dir: impl AsFd, device: &Path) -> nix::Result<()> {
    named(dir.as_fd(), 10, 0, device.as_os_str().as_bytes())
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
    // BTRFS_IOC_DEV_INFO reads and writes one such structure.
    ask(dir.as_fd(), request, (&raw mut info).cast())?;
    let path = info.path.split(|b| *b == 0).next().unwrap_or_default();
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(path)))
}

/// The id of the file system that a folder lies on, the same for all its subvolumes. ENOTTY where it is no Btrfs.
pub fn id(dir: impl AsFd) -> nix::Result<(u64, u64)> {
    // `struct btrfs_ioctl_fs_info_args`: 1024 bytes, the id behind two counters of 64 bits.
    let mut info = [0u64; 128];
    let request = nix::request_code_read!(TYPE, 31, size_of_val(&info));
    // BTRFS_IOC_FS_INFO writes 1024 bytes.
    ask(dir.as_fd(), request, (&raw mut info).cast())?;
    let [_, _, one, two, ..] = info;
    Ok((one, two))
}

fn write<T>(fd: BorrowedFd<'_>, request: libc::Ioctl, args: &T) -> nix::Result<()> {
    ask(fd, request, ptr::from_ref(args).cast_mut().cast())
}

/// Each caller passes the structure that the request reads, or writes.
fn ask(fd: BorrowedFd<'_>, request: libc::Ioctl, args: *mut c_void) -> nix::Result<()> {
    // SAFETY: what the callers pass is alive for the call, and theirs to change where the request writes.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request, args) }).map(drop)
}

/// What QUOTA_CTL is told to turn simple quotas on (Linux 6.7).
const ENABLE_SIMPLE: u64 = 4;

/// The tree that quotas are kept in (BTRFS_QUOTA_TREE_OBJECTID).
const QUOTA_TREE: u64 = 8;

/// The key of the item with the flags, and of those with what is counted (linux/btrfs_tree.h).
const QGROUP_STATUS: u32 = 240;
const QGROUP_INFO: u32 = 242;

/// Turns simple quotas on. EINVAL before Linux 6.7.
pub fn enable_quotas(dir: impl AsFd) -> nix::Result<()> {
    let request = nix::request_code_readwrite!(TYPE, 40, size_of::<[u64; 2]>());
    write(dir.as_fd(), request, &[ENABLE_SIMPLE, 0])
}

/// Makes an empty qgroup, or removes one without members.
pub fn make_qgroup(dir: impl AsFd, id: u64, make: bool) -> nix::Result<()> {
    write(dir.as_fd(), nix::request_code_write!(TYPE, 42, size_of::<[u64; 2]>()), &[u64::from(make), id])
}

/// Puts the qgroup of a subvolume into another one, or takes it out.
pub fn assign_qgroup(dir: impl AsFd, subvolume: u64, to: u64, assign: bool) -> nix::Result<()> {
    let request = nix::request_code_write!(TYPE, 41, size_of::<[u64; 3]>());
    write(dir.as_fd(), request, &[u64::from(assign), subvolume, to])
}

/// Limits what all members of a qgroup reference.
pub fn limit_qgroup(dir: impl AsFd, id: u64, bytes: u64) -> nix::Result<()> {
    // BTRFS_QGROUP_LIMIT_MAX_RFER and its value; the other limits stay off. The kernel writes nothing, whatever the number says.
    let request = nix::request_code_read!(TYPE, 43, size_of::<[u64; 6]>());
    write(dir.as_fd(), request, &[id, 1, bytes, 0, 0, 0])
}

/// The number of the subvolume that `dir` is the root of.
pub fn subvolume(dir: impl AsFd) -> nix::Result<u64> {
    // `struct btrfs_ioctl_ino_lookup_args`: the tree, the object, and a path that is not looked at.
    let mut args = [0u64; 512];
    let [_, object, ..] = &mut args;
    *object = ROOT_INODE;
    let request = nix::request_code_readwrite!(TYPE, 18, size_of_val(&args));
    // BTRFS_IOC_INO_LOOKUP reads and writes 4096 bytes.
    ask(dir.as_fd(), request, (&raw mut args).cast())?;
    let [tree, ..] = args;
    Ok(tree)
}

/// The flags of the quotas. ENOENT where they are off.
pub fn quota_flags(dir: impl AsFd) -> nix::Result<u64> {
    quota_item(dir.as_fd(), QGROUP_STATUS, 0, 16)
}

/// The bytes that a qgroup references.
pub fn qgroup_bytes(dir: impl AsFd, id: u64) -> nix::Result<u64> {
    quota_item(dir.as_fd(), QGROUP_INFO, id, 8)
}

/// Hands on each qgroup's number with the bytes that it references, and those of them that no other one references; with simple quotas
/// the same. The numbers ascend.
pub fn qgroups(dir: impl AsFd, take: &mut dyn FnMut(u64, [u64; 2])) -> nix::Result<()> {
    quota_items(dir.as_fd(), QGROUP_INFO, 0, u64::MAX, &mut |id, item| {
        take(id, [number(item, 8).unwrap_or(0), number(item, 24).unwrap_or(0)]);
    })
}

/// Are there subvolumes in the one that `dir` lies in? ENOTTY before Linux 4.18.
pub fn has_subvolumes(dir: impl AsFd) -> nix::Result<bool> {
    // `struct btrfs_ioctl_get_subvol_rootref_args`: 4096 bytes, a count in the first byte of the last eight.
    let mut args = [0u64; 512];
    let request = nix::request_code_readwrite!(TYPE, 61, size_of_val(&args));
    // BTRFS_IOC_GET_SUBVOL_ROOTREF reads and writes 4096 bytes.
    match ask(dir.as_fd(), request, (&raw mut args).cast()) {
        // More than fit.
        Err(Errno::EOVERFLOW) => Ok(true),
        done => done.map(|()| args.last().is_some_and(|count| *count != 0)),
    }
}

/// A number in an item of the quota tree.
fn quota_item(dir: BorrowedFd<'_>, kind: u32, id: u64, at: usize) -> nix::Result<u64> {
    let mut found = None;
    quota_items(dir, kind, id, id, &mut |_, item| found = number(item, at))?;
    found.ok_or(Errno::ENOENT)
}

/// What lies on the disk is little endian.
#[inline(never)]
fn number(item: &[u8], at: usize) -> Option<u64> {
    item.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Hands on the items of a kind in the quota tree with their numbers, which ascend: as many with each call as 4096 bytes hold.
fn quota_items(
    dir: BorrowedFd<'_>,
    kind: u32,
    mut first: u64,
    last: u64,
    take: &mut dyn FnMut(u64, &[u8]),
) -> nix::Result<()> {
    // `struct btrfs_ioctl_search_args`: 4096 bytes, a key of 104 before what is found: a header of 32 for each, and the item.
    let mut args = [0u8; 4096];
    loop {
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(to) = args.get_mut(at..at + bytes.len()) {
                to.copy_from_slice(bytes);
            }
        };
        put(0, &QUOTA_TREE.to_ne_bytes());
        put(24, &first.to_ne_bytes());
        put(32, &last.to_ne_bytes());
        put(48, &u64::MAX.to_ne_bytes());
        put(56, &kind.to_ne_bytes());
        put(60, &kind.to_ne_bytes());
        put(64, &u32::MAX.to_ne_bytes());
        let request = nix::request_code_readwrite!(TYPE, 17, size_of_val(&args));
        // BTRFS_IOC_TREE_SEARCH reads and writes 4096 bytes.
        ask(dir, request, (&raw mut args).cast())?;
        let here = |at: usize| args.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        let found = here(64).unwrap_or(0);
        let (mut at, mut more) = (104, found > 0);
        for _ in 0..found {
            let id = args.get(at + 16..).and_then(|bytes| bytes.first_chunk());
            let (Some(id), Some(length)) = (id, here(at + 28)) else { return Err(Errno::EIO) };
            let (id, begin) = (u64::from_ne_bytes(*id), at + 32);
            at = begin + length as usize;
            take(id, args.get(begin..at).ok_or(Errno::EIO)?);
            (first, more) = (id.wrapping_add(1), id < last);
        }
        if !more {
            return Ok(());
        }
    }
}
