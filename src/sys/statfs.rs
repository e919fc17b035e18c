//! What statfs(2) tells of a disk, with the file-system id that nix keeps closed.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

use crate::error::{Context, Error, Result};
use crate::sum::Sum;

/// The flags mean something (include/linux/statfs.h).
const ST_VALID: u32 = 0x20;
/// Mounted read-only (the same).
const ST_RDONLY: u32 = 1;

/// What it calls any file system in user space (linux/magic.h).
pub const FUSE: u32 = 0x6573_5546;

/// A disk as statfs(2) answers for a path on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The file system's magic number (linux/magic.h).
    pub magic: u32,
    /// The file system's id, the same for as long as it is the same file system.
    pub id: u64,
    /// Bytes that files can take.
    pub total: u64,
    /// Bytes that are free.
    pub free: u64,
    /// The bytes of a block.
    pub block: u64,
    /// Inodes that are free.
    pub free_inodes: u64,
    /// Bytes that are free to an unprivileged user.
    pub available: u64,
    /// Is the mount, or the file system below it, read-only? None on kernels that do not tell (before 2.6.36).
    pub read_only: Option<bool>,
}

/// Asks for the disk that `path` lies on.
pub fn of(path: &Path) -> Result<Disk> {
    const OP: &str = "look at the disk of";
    let name = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::usage(format_args!("`{}` holds a NUL", path.display())))?;
    let mut answer = MaybeUninit::<libc::statfs64>::zeroed();
    // SAFETY: `name` ends in NUL and outlives the call; `answer` has the size that the call writes.
    let code = unsafe { libc::statfs64(name.as_ptr(), answer.as_mut_ptr()) };
    Errno::result(code).at(OP, path)?;
    // SAFETY: every bit pattern is a legal statfs64, and it was zeroed before the kernel filled it.
    let answer = unsafe { answer.assume_init() };
    // SAFETY: fsid_t is two plain C ints on every Linux (posix_types.h), whose fields the libc crate hides.
    let id: [u8; 8] = unsafe { std::mem::transmute(answer.f_fsid) };
    let block = u64::try_from(answer.f_bsize).unwrap_or(0);
    // The magic is 32 bits wide; the field's sign and width are the architecture's.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let magic = answer.f_type as u32;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let flags = answer.f_flags as u32;
    let read_only = (flags & ST_VALID != 0).then_some(flags & ST_RDONLY != 0);
    Ok(Disk {
        read_only,
        magic,
        id: u64::from_ne_bytes(id),
        block,
        free_inodes: answer.f_ffree,
        total: block.times(answer.f_blocks),
        free: block.times(answer.f_bfree),
        available: block.times(answer.f_bavail),
    })
}

/// Refuses a folder whose disk nothing can be written to. A kernel before 2.6.36 does not tell; a folder that is not there
/// passes.
pub fn refuse_read_only(folder: &Path) -> Result<()> {
    match of(folder) {
        Ok(Disk { read_only: Some(true), .. }) => {
            Err(Error::sys("write to the disk of", folder, Errno::EROFS))
        }
        Err(err) if err.errno() != Some(Errno::ENOENT) => Err(err),
        _ => Ok(()),
    }
}
