//! Which disk a path lies on, as a person names it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::mountinfo::MountInfo;
use crate::error::{Context, Result};
use crate::sys::btrfs;
use crate::tree;

/// The mount that a path lies on.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The mount point.
    pub target: PathBuf,
    /// The file system's type.
    pub fstype: String,
    /// Its source: a device, or a name that only the file system knows.
    pub source: String,
    /// Its device, as mountinfo shows it.
    pub device: Vec<u8>,
    /// The folder of the file system that is seen at the mount point.
    pub root: Vec<u8>,
}

impl Disk {
    /// The path of a folder on this disk, seen from the top of its file system.
    pub fn inside(&self, path: &Path) -> PathBuf {
        let top = Path::new(OsStr::from_bytes(&self.root));
        path.strip_prefix(&self.target).map_or_else(|_| top.to_owned(), |below| top.join(below))
    }
}

/// Finds the mount that carries `path`, which holds no links.
pub fn of(info: &MountInfo, path: &Path) -> Option<Disk> {
    // The longest mount point above the path; of several on one folder, the last one made.
    let mut best: Option<Disk> = None;
    for mount in info.mounts() {
        let target = mount.target();
        let longer =
            best.as_ref().is_none_or(|best| target.as_os_str().len() >= best.target.as_os_str().len());
        if longer && path.starts_with(&target) {
            best = Some(Disk {
                target: target.into_owned(),
                fstype: String::from_utf8_lossy(mount.fstype).into_owned(),
                source: String::from_utf8_lossy(&mount.source()).into_owned(),
                device: mount.device.to_vec(),
                root: mount.root().into_owned(),
            });
        }
    }
    best
}

/// Do two folders lie on one file system? Each subvolume of a Btrfs has a device of its own.
pub fn same(one: &Path, two: &Path) -> Result<bool> {
    let id = |path: &Path| -> Result<_> {
        let dir = tree::open(path)?;
        Ok((dir.stat().at("look at", path)?.id.0, btrfs::id(&dir).ok()))
    };
    let (one, two) = (id(one)?, id(two)?);
    Ok(one.0 == two.0 || one.1.is_some() && one.1 == two.1)
}

/// A sentence where `path` lies on what a firmware upgrade of OpenWrt erases: the flash's writable part.
pub fn erased_by_upgrade(path: &Path) -> Result<Option<String>> {
    if !Path::new("/etc/openwrt_release").exists() {
        return Ok(None);
    }
    let disk = of(&MountInfo::of_self()?, path);
    Ok(disk.filter(|disk| [Path::new("/overlay"), Path::new("/")].contains(&disk.target.as_path())).map(|disk| {
        format!(
            "{} lies on {} ({}), which a firmware upgrade erases: keep slivers that must outlive one on another disk",
            path.display(),
            disk.target.display(),
            disk.fstype
        )
    }))
}
