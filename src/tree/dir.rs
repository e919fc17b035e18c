//! An open directory, and the calls on the names in it. Bare errnos: the callers know the path.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat, renameat};
use nix::libc;
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstat, fstatat, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};

use crate::error::errno;
use crate::sum::Sum;
use crate::sys::{env, file, names, sync, zfs};

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// A point in time: seconds since 1970, negative before it, and nanoseconds after those seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Whole seconds.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// What lstat(2) tells, with the same widths on every target.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// The type.
    pub kind: Kind,
    /// The low 12 bits of the mode: permissions, set-id and sticky.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The file system's device and the inode: the same for hard links.
    pub id: (u64, u64),
    /// Names of the inode.
    pub links: u64,
    /// Major and minor number of a device.
    pub device: (u64, u64),
    /// Bytes as read.
    pub size: u64,
    /// Bytes as allocated on the disk.
    pub allocated: u64,
    /// Time of the last change of the content.
    pub mtime: Time,
    /// Time of the last change of anything: only the kernel's clock sets it.
    pub ctime: Time,
}

impl Stat {
    /// Looks at what is open.
    pub fn of(open: BorrowedFd<'_>) -> nix::Result<Self> {
        fstat(open).map(Self::from)
    }
}

/// An open directory.
#[derive(Debug)]
pub struct Dir(OwnedFd);

fn flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC
}

#[allow(clippy::useless_conversion)] // mode_t is narrower elsewhere
fn permissions(mode: u32) -> Mode {
    Mode::from_bits_truncate(mode.into())
}

impl Dir {
    /// Opens a folder by its path; links are followed.
    pub fn open(path: &Path) -> nix::Result<Self> {
        open(path, flags(), Mode::empty()).map(Self)
    }

    /// Opens a directory in this one; a link is refused (ELOOP or ENOTDIR, by the kernel's version).
    pub fn child(&self, name: &CStr) -> nix::Result<Self> {
        openat(&self.0, name, flags() | OFlag::O_NOFOLLOW, Mode::empty()).map(Self)
    }

    /// Opens the directory above. The caller checks that it is the one that it came from.
    pub fn parent(&self) -> nix::Result<Self> {
        openat(&self.0, c"..", flags(), Mode::empty()).map(Self)
    }

    /// Opens the directory that a path below this one ends in, through no link, and its last name there. EINVAL where a name is empty
    /// or leads upwards.
    pub fn reach(&self, path: &[u8]) -> nix::Result<(Self, CString)> {
        let mut dir = self.again()?;
        let mut parts = path.split(|b| *b == b'/');
        let mut name = parts.next();
        while let Some(part) = name.filter(|part| !matches!(*part, b"" | b"." | b"..")) {
            let part = CString::new(part).map_err(|_| Errno::EINVAL)?;
            name = parts.next();
            if name.is_none() {
                return Ok((dir, part));
            }
            dir = dir.child(&part)?;
        }
        Err(Errno::EINVAL)
    }

    /// A second handle of the same open directory.
    pub fn again(&self) -> nix::Result<Self> {
        self.0.try_clone().map(Self).map_err(errno)
    }

    /// All names but `.` and `..`, sorted by their bytes: of a directory that cannot have many.
    pub fn names(&self) -> nix::Result<Vec<CString>> {
        self.some_names(usize::MAX)
    }

    /// As [`Dir::names`], but of more than `most` names no more than one too many is read.
    pub fn some_names(&self, most: usize) -> nix::Result<Vec<CString>> {
        let mut names = Vec::new();
        self.each_name(&mut |name| {
            names.push(name.to_owned());
            Ok(names.len() <= most)
        })?;
        names.sort_unstable();
        Ok(names)
    }

    /// Gives `each` all names but `.` and `..`, as the disk has them, until it says that it has enough.
    pub fn each_name(&self, each: &mut dyn FnMut(&CStr) -> nix::Result<bool>) -> nix::Result<()> {
        names::each(self.0.as_fd(), &mut |name| {
            if name == c"." || name == c".." { Ok(true) } else { each(name) }
        })
    }

    /// A file to read and write that has no name, on this disk; where that cannot be (before Linux 3.11, on a disk that is
    /// read-only), among the temporary files.
    pub fn unnamed(&self) -> nix::Result<File> {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let how = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_LARGEFILE;
        if let Ok(file) = openat(&self.0, c".", how | OFlag::O_TMPFILE, mode) {
            return Ok(File::from(file));
        }
        let temp = Self::open(&env::var(c"TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from))?;
        let mut number = std::process::id();
        loop {
            let name = CString::new(format!(".sliverfs-{number}")).map_err(|_| Errno::EINVAL)?;
            match openat(&temp.0, &*name, how | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW, mode) {
                // Left by a crash, or another's.
                Err(Errno::EEXIST) => number = number.wrapping_add(0x1_0001),
                made => {
                    let file = File::from(made?);
                    return temp.unlink(&name).map(|()| file);
                }
            }
        }
    }

    /// Looks at the directory itself.
    pub fn stat(&self) -> nix::Result<Stat> {
        Stat::of(self.0.as_fd())
    }

    /// Looks at a name, without following a link.
    pub fn stat_at(&self, name: &CStr) -> nix::Result<Stat> {
        fstatat(&self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW).map(Stat::from)
    }

    /// Opens a regular file to read. `seen` is what [`Dir::stat_at`] said: anything else by that name now is ESTALE,
    /// and O_NONBLOCK keeps a FIFO that was put there in between from holding us up.
    pub fn open_file(&self, name: &CStr, seen: &Stat) -> nix::Result<File> {
        let how = OFlag::O_RDONLY
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_NOCTTY
            | OFlag::O_CLOEXEC
            | OFlag::O_LARGEFILE;
        let file = openat(&self.0, name, how, Mode::empty())?;
        let now = Stat::of(file.as_fd())?;
        if now.kind != Kind::File || now.id != seen.id { Err(Errno::ESTALE) } else { Ok(File::from(file)) }
    }

    /// Creates a regular file to write, for root only until its mode is set. EEXIST where the name is taken.
    pub fn create_file(&self, name: &CStr) -> nix::Result<File> {
        self.create_file_as(name, 0o600)
    }

    /// The same with permissions, of which the umask takes some away.
    pub fn create_file_as(&self, name: &CStr, mode: u32) -> nix::Result<File> {
        let how = OFlag::O_WRONLY
            | OFlag::O_CREAT
            | OFlag::O_EXCL
            | OFlag::O_NOFOLLOW
            | OFlag::O_CLOEXEC
            | OFlag::O_LARGEFILE;
        openat(&self.0, name, how, permissions(mode)).map(File::from)
    }

    /// Makes a directory, for root only until its mode is set.
    pub fn make_dir(&self, name: &CStr) -> nix::Result<()> {
        self.make_dir_as(name, 0o700)
    }

    /// The same with permissions, of which the umask takes some away.
    pub fn make_dir_as(&self, name: &CStr, mode: u32) -> nix::Result<()> {
        mkdirat(&self.0, name, permissions(mode))
    }

    /// Makes a symbolic link with any target.
    pub fn make_link(&self, name: &CStr, target: &[u8]) -> nix::Result<()> {
        symlinkat(target, &self.0, name)
    }

    /// Makes a device, a FIFO or a socket's name. EINVAL for any other kind and for numbers that Linux cannot hold:
    /// mknod(2) would cut them off, and 4096:0 would become 0:0, a whiteout.
    pub fn make_node(&self, name: &CStr, kind: Kind, device: (u64, u64)) -> nix::Result<()> {
        let (kind, device) = match (kind, device) {
            (Kind::Fifo, _) => (SFlag::S_IFIFO, 0),
            (Kind::Socket, _) => (SFlag::S_IFSOCK, 0),
            (Kind::Char | Kind::Block, (major, minor)) if major < 1 << 12 && minor < 1 << 20 => (
                if kind == Kind::Char { SFlag::S_IFCHR } else { SFlag::S_IFBLK },
                nix::sys::stat::makedev(major, minor),
            ),
            _ => return Err(Errno::EINVAL),
        };
        mknodat(&self.0, name, kind, Mode::S_IRUSR | Mode::S_IWUSR, device)
    }

    /// Gives an entry of `from` a second name here; a symbolic link is linked itself.
    pub fn hard_link(&self, name: &CStr, from: &Dir, target: &CStr) -> nix::Result<()> {
        linkat(&from.0, target, &self.0, name, AtFlags::empty())
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, name: &CStr) -> nix::Result<Vec<u8>> {
        readlinkat(&self.0, name).map(OsStringExt::into_vec)
    }

    /// Removes a name that is not a directory.
    pub fn unlink(&self, name: &CStr) -> nix::Result<()> {
        unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir)
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, name: &CStr) -> nix::Result<()> {
        unlinkat(&self.0, name, UnlinkatFlags::RemoveDir)
    }

    /// Moves a name to another directory of the same disk; what stands there and is no directory goes.
    pub fn rename(&self, name: &CStr, to: &Dir, new: &CStr) -> nix::Result<()> {
        renameat(&self.0, name, &to.0, new)
    }

    /// Sets owner and group, of a link itself too.
    pub fn chown(&self, name: &CStr, uid: u32, gid: u32) -> nix::Result<()> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        fchownat(&self.0, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// Sets the mode. Not for symbolic links: Linux has no mode for them, and would follow.
    pub fn chmod(&self, name: &CStr, mode: u32) -> nix::Result<()> {
        fchmodat(&self.0, name, permissions(mode), FchmodatFlags::FollowSymlink)
    }

    /// Sets the time of the last change, of a link itself too; the time of the last read stays.
    pub fn set_mtime(&self, name: &CStr, time: Time) -> nix::Result<()> {
        // Where time_t has 32 bits, the seconds wrap, as they do when such a kernel shows them: the digest takes them
        // modulo 2^32 and stays the same.
        #[allow(
            deprecated,
            clippy::cast_possible_truncation,
            clippy::useless_conversion,
            clippy::unnecessary_cast
        )]
        let time = TimeSpec::new(time.seconds as libc::time_t, i64::from(time.nanos) as _);
        utimensat(&self.0, name, &TimeSpec::UTIME_OMIT, &time, UtimensatFlags::NoFollowSymlink)
    }

    /// The path by which the xattr calls reach a name in this directory: only the last component is not followed.
    pub fn proc_path(&self, name: &CStr) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        let mut path = PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
        path.push(std::ffi::OsStr::from_bytes(name.to_bytes()));
        path
    }

    /// The number of the mount that the directory was reached by (Linux 3.15; proc(5), fdinfo).
    pub fn mount_id(&self) -> Option<u64> {
        let text = file::text(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd())).ok()?;
        text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
    }

    /// Writes the names in this directory to the disk.
    pub fn sync(&self) -> nix::Result<()> {
        if zfs::on_fuse(&self.proc_path(super::SELF)).is_some() {
            return self.0.try_clone().and_then(|dir| sync::opened(&dir.into(), true)).map_err(errno);
        }
        nix::unistd::fsync(&self.0)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Dir> for OwnedFd {
    fn from(dir: Dir) -> Self {
        dir.0
    }
}

// The fields' widths and signs are the architecture's; none of these conversions loses a bit that Linux uses.
#[allow(
    clippy::useless_conversion,
    clippy::unnecessary_cast,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unnecessary_fallible_conversions
)]
impl From<FileStat> for Stat {
    fn from(stat: FileStat) -> Self {
        let kind = match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => Kind::Dir,
            libc::S_IFLNK => Kind::Link,
            libc::S_IFCHR => Kind::Char,
            libc::S_IFBLK => Kind::Block,
            libc::S_IFIFO => Kind::Fifo,
            libc::S_IFSOCK => Kind::Socket,
            _ => Kind::File,
        };
        let device = stat.st_rdev;
        Self {
            kind,
            mode: u32::from(stat.st_mode) & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            id: (stat.st_dev as u64, stat.st_ino as u64),
            links: stat.st_nlink as u64,
            device: (nix::sys::stat::major(device), nix::sys::stat::minor(device)),
            size: stat.st_size as u64,
            allocated: (stat.st_blocks as u64).times(512),
            mtime: Time {
                seconds: i64::from(stat.st_mtime),
                nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
            ctime: Time {
                seconds: i64::from(stat.st_ctime),
                nanos: u32::try_from(stat.st_ctime_nsec).unwrap_or(0),
            },
        }
    }
}
