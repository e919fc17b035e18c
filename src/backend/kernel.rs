//! The running kernel, for trials: everything happens below one folder, in the caller's private mount namespace.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::MsFlags;

use super::trial::{DiskName, Edit, Kernel, lists};
use crate::error::{Context, Error, Result, errno};
use crate::kind::Union;
use crate::mount::exec;
use crate::mount::mountinfo::MountInfo;
use crate::mount::options::Options;
use crate::mount::plan::MountCall;
use crate::stay::Below;
use crate::sys::file;
use crate::sys::mountpoint::mount;
use crate::sys::tool::{self, Stream};
use crate::sys::xattr;

/// mini_fo's record of a folder (its source: META_FILENAME).
const META: &str = "META_dAfFgHE39ktF3HD2sr";

/// The kernel that runs this program, and a folder to try things in.
pub struct Running {
    dir: &'static Path,
    disk: DiskName,
}

impl Running {
    /// Lays a small base, an empty store and a mount point out below `dir`, for one kind.
    pub fn lay_out(dir: &Path, disk: DiskName) -> Result<Self> {
        for sub in ["", "upper", "work", "view", "lower", "lower/folder"] {
            file::create_dir(&dir.join(sub))?;
        }
        for file in ["lower/changed", "lower/gone", "lower/old", "lower/folder/inner"] {
            let path = dir.join(file);
            file::write(&path, b"base\n").at("write", &path)?;
        }
        Ok(Self { dir: dir.stays(), disk })
    }

    fn view(&self, name: &str) -> &'static Path {
        self.dir.below("view").below(name)
    }
}

impl Kernel for Running {
    fn filesystems(&mut self) -> Result<String> {
        filesystems()
    }

    fn load_module(&mut self, fstype: &str) {
        load_module(fstype);
    }

    fn ask(&mut self, fstype: &str, options: &Options) -> nix::Result<()> {
        ask(fstype, options)
    }

    fn mount(&mut self, fstype: &'static str, options: &Options) -> Result<(), Errno> {
        let call = MountCall {
            fstype,
            source: "sliverfs:probe",
            options: options.clone(),
            from: self.dir,
            target: self.dir.below("view"),
        };
        exec::mount_union(&call).map_err(|err| err.errno().unwrap_or(Errno::EIO))
    }

    fn read_only(&mut self) -> Result<bool, Errno> {
        let info = MountInfo::of_self().map_err(|err| err.errno().unwrap_or(Errno::EIO))?;
        let read_only = info.at(self.dir.below("view")).map(|mount| mount.read_only());
        read_only.ok_or(Errno::EINVAL)
    }

    fn edit(&mut self, edit: Edit) -> Result<(), Errno> {
        let done: io::Result<()> = match edit {
            Edit::Create => file::write(self.view("new"), b"new\n"),
            Edit::Modify => file::open_as(self.view("changed"), OFlag::O_WRONLY | OFlag::O_APPEND, 0)
                .and_then(|mut file| file.write_all(b"changed\n")),
            Edit::List => file::names(self.dir.below("view")).map(drop),
            Edit::Delete => fs::remove_file(self.view("gone")),
            Edit::Rename => fs::rename(self.view("old"), self.view("renamed")),
            Edit::ReplaceFolder => fs::remove_file(self.view("folder/inner"))
                .and_then(|()| fs::remove_dir(self.view("folder")))
                .and_then(|()| file::make_dir(self.view("folder"), 0o777)),
        };
        done.map_err(errno)
    }

    fn unmount(&mut self) -> Result<(), Errno> {
        exec::unmount(self.dir.below("view")).map_err(|err| err.errno().unwrap_or(Errno::EBUSY))
    }

    fn holds_deletion(&mut self, union: Union) -> bool {
        let upper = self.dir.below("upper");
        let gone = upper.below("gone");
        match union {
            Union::Overlay => fs::symlink_metadata(gone)
                .is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0),
            Union::Overlayfs => {
                fs::symlink_metadata(gone).is_ok_and(|meta| meta.is_symlink())
                    && xattr::get(gone, c"trusted.overlay.whiteout").is_ok_and(|value| value == b"y")
            }
            Union::MiniFo => file::read(upper.below(META))
                .is_ok_and(|text| text.split(|b| *b == b'\n').any(|line| line == b"D gone")),
            Union::Aufs => upper.below(".wh.gone").exists(),
        }
    }

    fn disk(&self) -> &DiskName {
        &self.disk
    }
}

/// The text of /proc/filesystems.
pub fn filesystems() -> Result<String> {
    let path = Path::new("/proc/filesystems");
    file::text(path).at("read", path)
}

/// Loads a file system's module, under either name that kernels look for. Failure is no news: the caller looks at
/// /proc/filesystems, and a kernel without modules has no modprobe.
pub fn load_module(fstype: &str) {
    for name in [format!("fs-{fstype}"), fstype.to_owned()] {
        let started = tool::start("modprobe", &["-q".as_ref(), name.as_ref()], [Stream::Null; 3]);
        if started.and_then(|mut modprobe| modprobe.wait()) == Ok(None) {
            return;
        }
    }
}

/// Tries a mount that cannot succeed, since its layers do not exist; the mount point is never reached.
pub fn ask(fstype: &str, options: &Options) -> nix::Result<()> {
    mount(
        Some(Path::new("sliverfs:ask")),
        Path::new("/proc"),
        Some(fstype),
        MsFlags::empty(),
        Some(options.as_str()),
    )
}

/// Does the kernel offer a file system? Its module is loaded where it must be.
pub fn offers(fstype: &str) -> Result<bool> {
    if lists(&filesystems()?, fstype) {
        return Ok(true);
    }
    load_module(fstype);
    Ok(lists(&filesystems()?, fstype))
}

/// Makes sure that the kernel offers a kind's file system.
pub fn need(fstype: &str) -> Result<()> {
    if offers(fstype)? {
        return Ok(());
    }
    Err(Error::unsupported(format_args!("this kernel does not offer {fstype}"))
        .way_out("boot the kernel that the sliver was made on, or load its module"))
}
