//! Which processes hold a view that is mounted nowhere any more.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

use crate::catalog::{Mounted, Root};
use crate::error::{Context, Result};
use crate::name::Name;
use crate::proc::{processes, tasks, words};
use crate::quota::image;
use crate::sys::file;
use crate::sys::mountpoint::look;
use crate::tree::{Dir, c_name};

/// Processes that stand in the sliver's view, run a program of it, or have a file of it open or mapped.
///
/// A union and a snapshot have a device of their own, which was noted when they were mounted. Of a tree that lies on the disk
/// like any other, a folder is known by the way up from it, which ends at a detached mount's root, and a file by its path.
/// Each thing that a process holds is looked at once: an open file that was deleted is passed over, since its path is gone.
pub fn holders(root: &Root, name: &Name) -> Result<Vec<String>> {
    let stores = root.stores();
    let disk = look(stores).ok_or(Errno::ENOENT).at("look at", stores)?.device;
    let top = image::content(root.store(name)).join("tree");
    let tree = look(&top).map(|seen| (seen.device, seen.inode));
    let noted = Mounted::find(root, name).map(|noted| noted.device);
    let device = noted.or(tree.map(|(device, _)| device)).filter(|device| *device != disk);
    if device.is_none() && tree.is_none() {
        return Ok(Vec::new());
    }
    let view = root.view(name);
    // A process may hold what a daemon of its tenant serves, which answers when it likes.
    let held = |path: &Path| {
        let Some(seen) = look(path) else { return false };
        let id = (seen.device, seen.inode);
        let in_tree = |tree: (u64, u64)| {
            id.0 == tree.0 && if seen.dir { stands_below(path, tree) } else { lies_in(&top, view, path, id) }
        };
        Some(id.0) == device || tree.is_some_and(in_tree)
    };
    let any = |folder: &Path| {
        file::names(folder).is_ok_and(|names| names.iter().any(|name| held(&folder.join(name))))
    };
    let stands = |task: &Path| held(&task.join("cwd")) || held(&task.join("root"));
    // What is mapped and neither runs nor is open stands in map_files alone (for root since Linux 4.3).
    let has = |task: &Path| held(&task.join("exe")) || any(&task.join("fd")) || any(&task.join("map_files"));
    let mut found = Vec::new();
    for pid in processes()? {
        let mut tasks = tasks(pid).into_iter().map(|task| Path::new("/proc").join(task));
        let Some(first) = tasks.next() else { continue };
        // Threads have their files in common, and the first one shows them until it ends.
        let ended = file::names(&first.join("fd")).map_or(true, |open| open.is_empty());
        if stands(&first) || has(&first) || tasks.any(|task| stands(&task) || ended && has(&task)) {
            found.push(words(pid));
        }
    }
    Ok(found)
}

/// Is a file that a process holds one of the tree `top`? `link` tells its path from where its mount begins, or from our root
/// while the view is mounted. No link in the tree is followed: one to `/` would make every process a holder.
fn lies_in(top: &Path, view: &Path, link: &Path, id: (u64, u64)) -> bool {
    let Ok(path) = link.read_link() else { return false };
    let mut names = path.strip_prefix(view).or_else(|_| path.strip_prefix("/")).unwrap_or(&path).iter();
    let (Ok(mut dir), Some(last)) = (Dir::open(top), names.next_back()) else { return false };
    for name in names {
        match c_name(name.as_bytes()).map(|name| dir.child(&name)) {
            Ok(Ok(child)) => dir = child,
            _ => return false,
        }
    }
    c_name(last.as_bytes()).is_ok_and(|name| dir.stat_at(&name).is_ok_and(|stat| stat.id == id))
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
