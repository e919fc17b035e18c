//! Which processes hold a view that is mounted nowhere any more.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::catalog::{Mounted, Root};
use crate::error::{Context, Result};
use crate::name::Name;
use crate::sys::file;
use crate::tree::Dir;

/// Processes that stand in the sliver's view or hold folders of it open.
///
/// A union and a snapshot have a device of their own, which was noted when they were mounted; a tree that lies on the disk
/// like any other is known by the way up from where a process stands, which ends at a detached mount's root.
pub fn holders(root: &Root, name: &Name) -> Result<Vec<String>> {
    let disk = fs::metadata(root.stores()).at("look at", &root.stores())?.dev();
    let tree = fs::metadata(root.store(name).join("tree")).ok().map(|meta| (meta.dev(), meta.ino()));
    let noted = Mounted::find(root, name).map(|noted| noted.device);
    let device = noted.or(tree.map(|(device, _)| device)).filter(|device| *device != disk);
    if device.is_none() && tree.is_none() {
        return Ok(Vec::new());
    }
    let held = |path: &Path| {
        fs::metadata(path).is_ok_and(|meta| {
            Some(meta.dev()) == device
                || tree.is_some_and(|tree| meta.dev() == tree.0 && meta.is_dir() && stands_below(path, tree))
        })
    };
    let mut found = Vec::new();
    for pid in processes()? {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let open = || {
            fs::read_dir(proc.join("fd"))
                .is_ok_and(|mut fds| fds.any(|fd| fd.is_ok_and(|fd| held(&fd.path()))))
        };
        if held(&proc.join("cwd")) || held(&proc.join("root")) || held(&proc.join("exe")) || open() {
            found.push(format!("process {pid} ({})", command(pid)));
        }
    }
    Ok(found)
}

/// Does the way up from a folder pass the folder `top`?
fn stands_below(path: &Path, top: (u64, u64)) -> bool {
    let Ok(mut dir) = Dir::open(path) else { return false };
    let mut last = (0, 0);
    while let Ok(stat) = dir.stat() {
        if stat.id == top || stat.id == last {
            return stat.id == top;
        }
        last = stat.id;
        match dir.parent() {
            Ok(parent) => dir = parent,
            Err(_) => return false,
        }
    }
    false
}

/// The process numbers in /proc.
pub fn processes() -> Result<impl Iterator<Item = u32>> {
    let proc = Path::new("/proc");
    let entries = fs::read_dir(proc).at("list", proc)?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// The command name of a process, for messages.
pub fn command(pid: u32) -> String {
    file::text(format!("/proc/{pid}/comm")).map_or_else(|_| "ended".to_owned(), |name| name.trim().to_owned())
}
