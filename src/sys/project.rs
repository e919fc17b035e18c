//! Project quotas: the project of an inode by ioctl(2), what a project has and may have by quotactl(2) (linux/fs.h,
//! linux/dqblk_xfs.h). The calls that came from XFS are answered by ext4 and f2fs, too.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

use super::file;
use crate::error::errno;
use crate::sum::Sum;

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent: u32,
    extents: u32,
    project: u32,
    cow_extent: u32,
    pad: [u32; 2],
}

/// What is made in a folder is of the folder's project (FS_XFLAG_PROJINHERIT).
const INHERIT: u32 = 0x200;

/// `struct fs_disk_quota`.
#[repr(C)]
#[derive(Default)]
struct DiskQuota {
    version: i8,
    flags: i8,
    fields: u16,
    id: u32,
    /// Limits of blocks, hard and soft; of inodes, hard and soft; what there is of both.
    numbers: [u64; 6],
    timers: [u32; 4],
    realtime: [u64; 3],
    rest: [u32; 4],
}

/// The hard limits are what is set (FS_DQ_IHARD, FS_DQ_BHARD).
const HARD: u16 = 2 | 8;

/// Project quotas are counted, and kept (FS_QUOTA_PDQ_ACCT, FS_QUOTA_PDQ_ENFD).
const KEPT: u16 = 1 << 4 | 1 << 5;

/// The calls about them: what there is, a limit, and whether they are kept (Q_XGETQUOTA, Q_XSETQLIM, Q_XGETQSTAT).
const GET: i32 = 3;
const SET: i32 = 4;
const STATE: i32 = 5;

/// The bytes of what XFS calls a basic block.
const BLOCK: u64 = 512;

/// What a project has, or may have. As a limit 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes of blocks.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

fn attributes(dir: BorrowedFd<'_>) -> nix::Result<Attributes> {
    let mut found = Attributes::default();
    let request = nix::request_code_read!(b'X', 31, size_of::<Attributes>());
    // SAFETY: FS_IOC_FSGETXATTR writes one such structure, which outlives the call.
    Errno::result(unsafe { libc::ioctl(dir.as_raw_fd(), request, &raw mut found) })?;
    Ok(found)
}

/// The project of an open file or folder. ENOTTY or EOPNOTSUPP where there is no such thing.
pub fn of(dir: &impl AsFd) -> nix::Result<u32> {
    attributes(dir.as_fd()).map(|found| found.project)
}

/// Puts an empty folder into a project, with all that will be made in it.
pub fn join(dir: &impl AsFd, project: u32) -> nix::Result<()> {
    let now = attributes(dir.as_fd())?;
    let new = Attributes { project, flags: now.flags | INHERIT, ..now };
    let request = nix::request_code_write!(b'X', 32, size_of::<Attributes>());
    // SAFETY: FS_IOC_FSSETXATTR reads one such structure, which outlives the call.
    Errno::result(unsafe { libc::ioctl(dir.as_fd().as_raw_fd(), request, &raw const new) }).map(drop)
}

/// A disk: its device, and a folder on it.
pub struct Disk(pub &'static CStr, pub &'static Path);

/// A call about projects (PRJQUOTA) to a file system: by the folder, or by the device, for which the kernel looks at each disk that it
/// has.
#[inline(never)]
fn call(Disk(device, folder): &Disk, command: i32, id: u32, what: *mut libc::c_char) -> nix::Result<()> {
    // The macro QCMD of sys/quota.h; the id is C's int, with its bits as they are.
    let command = (i32::from(b'X') << 8 | command) << 8 | 2;
    let id = i32::from_ne_bytes(id.to_ne_bytes());
    let folder = file::open(folder).map_err(errno)?;
    // SAFETY: each caller passes the structure that its command reads or writes.
    let mut code = unsafe { libc::syscall(libc::SYS_quotactl_fd, folder.as_raw_fd(), command, id, what) };
    // Before Linux 5.14; a filter of system calls that is older than that has other words for it.
    if code < 0 {
        // SAFETY: the same; `device` ends in NUL.
        code = unsafe { libc::quotactl(command, device.as_ptr(), id, what) }.into();
    }
    Errno::result(code).map(drop)
}

/// Are project quotas kept there? An error where they are off, or the kernel or the file system has none.
pub fn kept(disk: &Disk) -> nix::Result<bool> {
    // `struct fs_quota_stat`: 80 bytes, or some more, with the flags behind two bytes.
    let mut state = [0u16; 64];
    call(disk, STATE, 0, (&raw mut state).cast())?;
    let [_, flags, ..] = state;
    Ok(flags & KEPT == KEPT)
}

/// Puts what a project has, and may have, into `amounts`.
pub fn look(disk: &Disk, project: u32, amounts: &mut [Amount; 2]) -> nix::Result<()> {
    let mut found = DiskQuota::default();
    match call(disk, GET, project, (&raw mut found).cast()) {
        // XFS has nothing about a project that was never used.
        Ok(()) | Err(Errno::ENOENT) => {}
        failed => failed?,
    }
    let [most, _, most_inodes, _, blocks, inodes] = found.numbers;
    *amounts = [
        Amount { bytes: blocks.times(BLOCK), inodes },
        Amount { bytes: most.times(BLOCK), inodes: most_inodes },
    ];
    Ok(())
}

/// Limits a project.
pub fn limit(disk: &Disk, project: u32, most: &Amount) -> nix::Result<()> {
    let mut wanted = DiskQuota {
        version: 1,
        flags: 2,
        fields: HARD,
        id: project,
        numbers: [most.bytes / BLOCK, 0, most.inodes, 0, 0, 0],
        ..DiskQuota::default()
    };
    call(disk, SET, project, (&raw mut wanted).cast())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn structures_are_laid_out_as_the_kernel_has_them() {
        assert_eq!((size_of::<Attributes>(), offset_of!(Attributes, project)), (28, 12));
        assert_eq!(size_of::<DiskQuota>(), 112);
        let at = [
            offset_of!(DiskQuota, fields),
            offset_of!(DiskQuota, id),
            offset_of!(DiskQuota, numbers),
            offset_of!(DiskQuota, timers),
            offset_of!(DiskQuota, realtime),
            offset_of!(DiskQuota, rest),
        ];
        // d_fieldmask, d_id, d_blk_hardlimit, d_itimer, d_rtb_hardlimit, d_rtbtimer.
        assert_eq!(at, [2, 4, 8, 56, 72, 96]);
    }

    #[test]
    fn what_is_no_disk_has_no_project() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(of(&null).is_err() && join(&null, 1).is_err());
        let disk = &Disk(c"/dev/null", Path::new("/dev/null"));
        assert!(kept(disk).is_err() && look(disk, 1, &mut Default::default()).is_err());
        assert!(limit(disk, 1, &Amount::default()).is_err());
    }
}
