//! Which disk a path lies on, as a person names it.

use std::path::{Path, PathBuf};

use super::mountinfo::MountInfo;
use crate::error::Result;

/// The mount that a path lies on.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The mount point.
    pub target: PathBuf,
    /// The file system's type.
    pub fstype: String,
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
            });
        }
    }
    best
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
