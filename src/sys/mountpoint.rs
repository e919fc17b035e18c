//! What the kernel knows of a path, without a question to the daemon of a FUSE mount: a dead one fails, a stuck one hangs whoever
//! asks it. By statx(2), which does not read the table of mounts either.

use std::ffi::CString;
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::mount::MsFlags;
use nix::sys::stat::makedev;

/// The attribute of a folder on which something is mounted (include/uapi/linux/stat.h).
const MOUNT_ROOT: u64 = 0x2000;

/// What is at a path.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Its file system's device.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// It is a folder.
    pub dir: bool,
}

/// Calls mount(2). nix's is generic over four kinds of path: each mix of them would be there on its own, and each path that has
/// no end of its own yet brings a buffer for it.
pub fn mount(
    source: Option<&Path>,
    target: &Path,
    fstype: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) -> nix::Result<()> {
    let source = source.map(|source| ended(source.as_os_str().as_bytes())).transpose()?;
    let target = ended(target.as_os_str().as_bytes())?;
    let fstype = fstype.map(|fstype| ended(fstype.as_bytes())).transpose()?;
    let options = options.map(|options| ended(options.as_bytes())).transpose()?;
    nix::mount::mount(source.as_deref(), &*target, fstype.as_deref(), flags, options.as_deref())
}

fn ended(text: &[u8]) -> nix::Result<CString> {
    CString::new(text).map_err(|_| Errno::EINVAL)
}

/// Is something mounted on a folder? None where the kernel does not tell: before 5.8, or where the path cannot be looked at.
pub fn is_one(path: &Path) -> Option<bool> {
    match statx(path, libc::AT_SYMLINK_NOFOLLOW) {
        Ok(seen) => {
            (seen.stx_attributes_mask & MOUNT_ROOT != 0).then_some(seen.stx_attributes & MOUNT_ROOT != 0)
        }
        Err(Errno::ENOENT) => Some(false),
        Err(_) => None,
    }
}

/// Looks at a path; links are followed, also those of /proc. Before Linux 4.20 a daemon may be asked all the same.
pub fn look(path: &Path) -> Option<Seen> {
    if let Ok(seen) = statx(path, 0) {
        let dir = u32::from(seen.stx_mode) & libc::S_IFMT == libc::S_IFDIR;
        let device = makedev(seen.stx_dev_major.into(), seen.stx_dev_minor.into());
        return Some(Seen { device, inode: seen.stx_ino, dir });
    }
    // Before 4.11, or a path that is not there.
    let seen = fs::metadata(path).ok()?;
    Some(Seen { device: seen.dev(), inode: seen.ino(), dir: seen.is_dir() })
}

fn statx(path: &Path, flags: libc::c_int) -> nix::Result<libc::statx> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let flags = flags | libc::AT_NO_AUTOMOUNT | libc::AT_STATX_DONT_SYNC;
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `name` ends in NUL and outlives the call; `answer` has the size that the call writes.
    let code = unsafe {
        libc::statx(libc::AT_FDCWD, name.as_ptr(), flags, libc::STATX_BASIC_STATS, answer.as_mut_ptr())
    };
    Errno::result(code)?;
    // SAFETY: every bit pattern is a legal statx, and it was zeroed before the kernel filled it.
    Ok(unsafe { answer.assume_init() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn proc_is_one_and_a_folder_in_it_is_not() {
        for (path, expected) in [("/proc", true), ("/proc/self", false), ("/proc/none", false)] {
            assert!(is_one(Path::new(path)).is_none_or(|told| told == expected), "{path}");
        }
    }

    #[test]
    fn as_stat_sees_it() {
        for path in ["/", "/proc/self/exe", "/proc/self/cwd"] {
            let (seen, plain) = (look(Path::new(path)).unwrap(), fs::metadata(path).unwrap());
            assert_eq!(
                (seen.device, seen.inode, seen.dir),
                (plain.dev(), plain.ino(), plain.is_dir()),
                "{path}"
            );
        }
        assert!(look(Path::new("/proc/none")).is_none());
    }
}
