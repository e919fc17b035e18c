//! Files that share their extents on the disk (ioctl_ficlone(2), ioctl_fideduperange(2), linux/fiemap.h).

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr;

use nix::errno::Errno;
use nix::libc;

use crate::sum::Sum;

/// Makes all of `to` share the extents of `from`. EOPNOTSUPP, ENOTTY or EINVAL where the disk cannot, EXDEV on two disks.
pub fn share(from: &File, to: &File) -> nix::Result<()> {
    let request = nix::request_code_write!(0x94, 9, size_of::<libc::c_int>());
    // SAFETY: FICLONE takes a file descriptor by value, and touches no memory of ours.
    Errno::result(unsafe { libc::ioctl(to.as_raw_fd(), request, from.as_raw_fd()) }).map(drop)
}

/// `struct file_dedupe_range` with one `struct file_dedupe_range_info`.
#[repr(C)]
struct Dedupe {
    from_offset: u64,
    length: u64,
    count: u16,
    reserved: [u16; 3],
    to: i64,
    to_offset: u64,
    done: u64,
    status: i32,
    reserved_too: u32,
}

/// What the request counts: the structure without the array at its end.
const DEDUPE_HEAD: usize = 24;
const DIFFERS: i32 = 1;

/// Lets `length` bytes of `to` from `at` on share the extents of `from`, where the kernel finds the same bytes in both. It
/// compares under the locks of both files, so they may be in use; `to` needs no right to write (root's call).
///
/// Returns how many bytes share now, from `at` on; 0 where they differ. With a length of 0 nothing is compared: it asks
/// whether the disk can. EOPNOTSUPP or ENOTTY where it cannot (Btrfs: Linux 3.12, XFS: 4.16 with reflink=1).
pub fn share_equal(from: &File, to: &File, at: u64, length: u64) -> nix::Result<u64> {
    let mut range = Dedupe {
        from_offset: at,
        length,
        count: 1,
        reserved: [0; 3],
        to: i64::from(to.as_raw_fd()),
        to_offset: at,
        done: 0,
        status: 0,
        reserved_too: 0,
    };
    let request = nix::request_code_readwrite!(0x94, 54, DEDUPE_HEAD);
    // SAFETY: FIDEDUPERANGE reads the structure and the one element that `count` promises, and writes back into it.
    Errno::result(unsafe { libc::ioctl(from.as_raw_fd(), request, &raw mut range) })?;
    match range.status {
        0 => Ok(range.done),
        DIFFERS => Ok(0),
        status => Err(Errno::from_raw(status.wrapping_neg())),
    }
}

/// An extent of a file: `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Extent {
    /// Where it begins in the file, in bytes.
    pub logical: u64,
    /// Where it begins on the disk, in bytes.
    pub physical: u64,
    /// Its length in the file, in bytes.
    pub length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_too: [u32; 3],
}

const LAST: u32 = 0x1;
/// Delayed allocation: it has no place on the disk yet.
const UNKNOWN: u32 = 0x2;
/// Compressed: `physical` is where the whole extent begins.
const ENCODED: u32 = 0x8;
/// Kept in the inode or in a block of several files (INLINE, TAIL, NOT_ALIGNED), or reserved and not written: nothing to share.
const NONE_OF_ITS_OWN: u32 = 0x100 | 0x200 | 0x400 | 0x800;
const SHARED: u32 = 0x2000;

impl Extent {
    /// The end in the file.
    pub fn end(&self) -> u64 {
        self.logical.plus(self.length)
    }

    /// Does another file, or another place in this one, use it too?
    pub fn is_shared(&self) -> bool {
        self.flags & SHARED != 0
    }

    /// Is it something that files can share?
    pub fn can_be_shared(&self) -> bool {
        self.flags & NONE_OF_ITS_OWN == 0
    }

    /// Is it the file's last one?
    pub fn is_last(&self) -> bool {
        self.flags & LAST != 0
    }

    /// Do both lie in the same place on the disk, where both have the same bytes of their files? False where that is not known.
    pub fn lies_with(&self, other: &Self) -> bool {
        let origin = |extent: &Self| match extent.flags & ENCODED {
            0 => extent.physical.wrapping_sub(extent.logical),
            _ => extent.physical,
        };
        (self.flags | other.flags) & UNKNOWN == 0
            && (self.flags ^ other.flags) & ENCODED == 0
            && origin(self) == origin(other)
    }
}

/// How many extents are asked for at a time.
const EXTENTS: usize = COUNT as usize;
const COUNT: u32 = 32;

/// `struct fiemap` with its extents.
#[repr(C)]
pub struct Map {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Extent; EXTENTS],
}

/// What the request counts: the structure without the array at its end.
const MAP_HEAD: usize = 32;

impl Map {
    /// Asks for the next extents of a file between `start` and `end`, as many as fit. EOPNOTSUPP or ENOTTY where the disk does not
    /// tell.
    pub fn read(&mut self, file: &File, start: u64, end: u64) -> nix::Result<&[Extent]> {
        (self.start, self.length) = (start, end.minus(start));
        let request = nix::request_code_readwrite!(b'f', 11, MAP_HEAD);
        // SAFETY: FS_IOC_FIEMAP reads the head, and writes it and at most `count` extents, which are there.
        Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), request, ptr::from_mut(self)) })?;
        Ok(self.extents.get(..self.mapped as usize).unwrap_or_default())
    }
}

impl Default for Map {
    fn default() -> Self {
        let extents = [Extent::default(); EXTENTS];
        Self { start: 0, length: 0, flags: 0, mapped: 0, count: COUNT, reserved: 0, extents }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_kernel_lays_them_out() {
        assert_eq!(size_of::<Extent>(), 56);
        assert_eq!(size_of::<Map>(), MAP_HEAD + EXTENTS * 56);
        assert_eq!(size_of::<Dedupe>(), DEDUPE_HEAD + 32);
    }
}
