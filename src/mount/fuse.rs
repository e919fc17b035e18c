//! Views that a daemon serves: fuse-overlayfs, by FUSE.
//!
//! The mount is our own call of mount(2), whose source carries the store's name in every namespace: the program makes up a source
//! of its own (and takes no other: 1.10 ignores `fsname`). It gets the open /dev/fuse by its number, as libfuse takes it since 3.3.
//! For as long as it lives it holds a lock on the upper folder. So whether it is alive, and its number, is asked of the kernel,
//! never of the view, which would hang with it.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::mount::MsFlags;

use super::disk;
use super::exec::{standing_in, unmount};
use super::mountinfo::MountInfo;
use super::options::Options;
use crate::error::{Context, Error, Result};
use crate::proc;
use crate::shell::{path, quote};
use crate::stay::Below;
use crate::sys::mountpoint::mount;
use crate::sys::tool::{self, Child};
use crate::sys::{daemon, file};

/// The type that mountinfo shows. statfs(2) says the same of every FUSE.
pub const FSTYPE: &str = "fuse.fuse-overlayfs";

/// The program, and Debian's package that has it.
const PROGRAM: &str = "fuse-overlayfs";

const DEVICE: &str = "/dev/fuse";

/// What the kernel is told. It checks permissions itself, for all users, as it does on a disk; set-id programs and devices work,
/// since neither `nosuid` nor `nodev` is a flag of the mount.
const KERNEL: &str = "rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other";

/// A mount with its daemon.
#[derive(Clone, Debug)]
pub struct Call {
    /// What mountinfo will show as the source.
    pub source: &'static str,
    /// The layers, as names relative to `from`.
    pub layers: Options,
    /// The upper folder, relative to `from`.
    pub upper: &'static str,
    /// The folder to stand in while the daemon opens its layers.
    pub from: &'static Path,
    /// The mount point.
    pub target: &'static Path,
    /// The daemon ends with this process: a view in a private mount namespace would keep it, and it the namespace, for ever.
    pub ends_with_us: bool,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "( cd {} && exec 3<>{DEVICE} 4<{} && flock -n 4 && mount -i -t {FSTYPE} -o noatime,fd=3,{KERNEL} {} {} && {PROGRAM} -o {} \
             /dev/fd/3 )",
            path(self.from),
            path(Path::new(self.upper)),
            quote(self.source),
            path(self.target),
            quote(self.layers.as_str()),
        )
    }
}

/// Mounts the view and starts its daemon; returns when that answers.
pub fn serve(call: &Call) -> Result<Child> {
    // It makes the upper folder's name an absolute one, and then takes that apart (1.10).
    if call.from.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b':' | b'\\')) {
        return Err(Error::unsupported(format_args!(
            "{PROGRAM} takes no path with `:` or `\\`: {}",
            call.from.display()
        ))
        .way_out("use another folder, or another backend"));
    }
    let device = file::open_as(Path::new(DEVICE), OFlag::O_RDWR, 0).at("open", Path::new(DEVICE));
    let device = device.map_err(|err| match err.errno() {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => {
            err.way_out("this kernel has no FUSE: load its module fuse")
        }
        _ => err,
    })?;
    let options = format!("fd={},{KERNEL}", device.as_raw_fd());
    mount(
        Some(Path::new(call.source)),
        call.target,
        Some(FSTYPE),
        MsFlags::MS_NOATIME,
        Some(options.as_str()),
    )
    .at("mount fuse-overlayfs on", call.target)?;
    // The daemon has the device now, and nobody else: with its end the connection ends.
    start(call, device).inspect_err(|_| {
        if let Err(err) = unmount(call.target) {
            crate::warn!("{err}");
        }
    })
}

fn start(call: &Call, device: File) -> Result<Child> {
    let upper = call.from.below(call.upper);
    let locked = file::open(upper).at("open", upper)?;
    let number = format!("/dev/fd/{}", device.as_raw_fd());
    let args: [&OsStr; 4] = ["-f".as_ref(), "-o".as_ref(), call.layers.as_str().as_ref(), number.as_ref()];
    let mut started = Err(Errno::EIO);
    standing_in(call.from, &mut || {
        started = daemon::start(PROGRAM, &args, &device, &locked, call.ends_with_us);
    })?;
    drop((device, locked));
    let mut child = started.map_err(|errno| match errno {
        Errno::EWOULDBLOCK => Error::in_use(format_args!("another daemon works on {}", upper.display()))
            .way_out("`sliverfs show` names it"),
        _ => tool::absent(PROGRAM, PROGRAM, "", errno),
    })?;
    // The kernel's first question waits until the daemon answers, and fails when that ends.
    match fs::metadata(call.target) {
        Ok(_) => {
            child.stderr = None;
            Ok(child)
        }
        Err(err) => Err(Error::failed(format_args!(
            "{PROGRAM} does not serve {}: {}",
            call.target.display(),
            last_words(child).unwrap_or_else(|| err.to_string())
        ))
        .way_out("`sliverfs probe --fresh` tries it on this disk")),
    }
}

/// Ends a daemon that failed. The last line that it wrote, but for what it always writes, or how it ended.
fn last_words(mut child: Child) -> Option<String> {
    let mut words = child.kill();
    let errors = child.stderr.and_then(|errors| file::read_all(errors, usize::MAX).ok());
    for line in errors.unwrap_or_default().split(|byte| *byte == b'\n') {
        if !line.trim_ascii().is_empty() && !line.starts_with(b"unknown argument ignored") {
            words = Some(crate::out::escape(line));
        }
    }
    words
}

/// Does a daemon work on the store with this upper folder? In whichever namespace, and whether or not its view can still be seen.
pub fn serves(upper: &Path) -> Result<bool> {
    let open = match file::open(upper) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        opened => opened.at("open", upper)?,
    };
    // Shared: two that look at the same time must not take each other for the daemon.
    match Flock::lock(open, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(false),
        Err((_, Errno::EWOULDBLOCK)) => Ok(true),
        Err((_, errno)) => Err(errno).at("look at the lock of", upper),
    }
}

/// The number of the daemon that works on the store with this upper folder.
pub fn daemon(upper: &Path) -> Option<u32> {
    let upper = fs::canonicalize(upper).ok()?;
    let inode = fs::metadata(&upper).ok()?.ino();
    // Of a Btrfs subvolume stat(2) tells another device than the kernel's tables.
    let disk = disk::of(&MountInfo::of_self().ok()?, &upper)?;
    let (major, minor) = std::str::from_utf8(&disk.device).ok()?.split_once(':')?;
    proc::holder(major.parse().ok()?, minor.parse().ok()?, inode)
}
