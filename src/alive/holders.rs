//! Which processes hold a view that is mounted nowhere any more.

use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::catalog::{Mounted, Root};
use crate::error::{Context, Result};
use crate::name::Name;
use crate::sys::mountpoint::look;
use crate::tree::Dir;

/// Processes that stand in the sliver's view or hold folders of it open.
///
/// A union and a snapshot have a device of their own, which was noted when they were mounted; a tree that lies on the disk
/// like any other is known by the way up from where a process stands, which ends at a detached mount's root.
pub fn holders(root: &Root, name: &Name) -> Result<Vec<String>> {
    let stores = root.stores();
    let disk = look(&stores).ok_or(Errno::ENOENT).at("look at", &stores)?.device;
    let tree = look(&root.store(name).join("tree")).map(|seen| (seen.device, seen.inode));
    let noted = Mounted::find(root, name).map(|noted| noted.device);
    let device = noted.or(tree.map(|(device, _)| device)).filter(|device| *device != disk);
    if device.is_none() && tree.is_none() {
        return Ok(Vec::new());
    }
    // A process may hold what a daemon of its tenant serves, which answers when it likes.
    let held = |path: &Path| {
        look(path).is_some_and(|seen| {
            Some(seen.device) == device
                || tree.is_some_and(|tree| seen.device == tree.0 && seen.dir && stands_below(path, tree))
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
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .map_or_else(|_| "ended".to_owned(), |name| name.trim().to_owned())
}
