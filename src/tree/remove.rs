//! Recursive removal that never leaves the disk it started on.

use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

use super::{Dir, Kind, Stat, Step, Walk, sys};
use crate::error::{Error, Result};
use crate::sys::btrfs;

/// Removes `name` in `parent` with everything below it; `path` is its path for messages. A missing name is fine, and so
/// is another process that removes at the same time. Whatever is mounted below is refused when it is come upon.
pub fn remove(parent: &Dir, name: &CStr, path: &Path) -> Result<()> {
    let path = path.as_os_str().as_bytes();
    let stat = match parent.stat_at(name) {
        Err(Errno::ENOENT) => return Ok(()),
        seen => seen.map_err(sys("look at", path))?,
    };
    if stat.kind != Kind::Dir {
        return gone(parent.unlink(name), path);
    }
    if delete_subvolume(parent, name, &stat) {
        return Ok(());
    }
    let subvolume = stat.id.1 == btrfs::ROOT_INODE;
    if !subvolume && parent.stat().map_err(sys("look at the folder of", path))?.id.0 != stat.id.0 {
        return Err(Error::failed(format_args!("{} is another file system", super::shown(path).display()))
            .way_out("unmount it first"));
    }
    let root = match parent.child(name) {
        Err(Errno::ENOENT) => return Ok(()),
        opened => opened.map_err(sys("open", path))?,
    };
    let mut walk = Walk::new(root, path)?;
    while let Some(step) = walk.step()? {
        match step {
            Step::Entry(entry) if entry.stat.kind == Kind::Dir => {
                if !delete_subvolume(entry.dir, entry.name, entry.stat) {
                    walk.enter_subvolume()?;
                }
            }
            Step::Entry(entry) => gone(entry.dir.unlink(entry.name), entry.path)?,
            Step::Leave { dir, name, path } => gone(remove_dir(dir, name), path)?,
        }
    }
    gone(remove_dir(parent, name), path)
}

/// Deletes what is a Btrfs subvolume in one call. False where it is none, or holds others: then it is walked like a folder.
///
/// One that is read-only is made writable before that: nothing could be removed in it, nor it in a folder above.
fn delete_subvolume(dir: &Dir, name: &CStr, stat: &Stat) -> bool {
    if stat.kind != Kind::Dir || stat.id.1 != btrfs::ROOT_INODE {
        return false;
    }
    if btrfs::delete(dir, name).is_ok() {
        return true;
    }
    // No subvolume at all, or something is mounted on it: the walk says what is wrong.
    let _no_subvolume = dir.child(name).and_then(|subvolume| btrfs::set_read_only(&subvolume, false));
    false
}

/// Removes an empty folder; before Linux 4.18 an empty subvolume is none.
fn remove_dir(dir: &Dir, name: &CStr) -> nix::Result<()> {
    match dir.remove_dir(name) {
        Err(Errno::EPERM) => btrfs::delete(dir, name).map_err(|_| Errno::EPERM),
        done => done,
    }
}

/// The same for a path that the program itself made up; its last component is not followed.
pub fn remove_path(path: &Path) -> Result<()> {
    match super::above(path) {
        Err(err) if err.errno() == Some(Errno::ENOENT) => Ok(()),
        opened => opened.and_then(|(parent, name)| remove(&parent, &name, path)),
    }
}

fn gone(removed: nix::Result<()>, path: &[u8]) -> Result<()> {
    match removed {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(Errno::EPERM) => Err(sys("remove", path)(Errno::EPERM).way_out(
            "root may be missing the right, or the entry is immutable or append-only: `chattr -ia` it",
        )),
        Err(errno) => Err(sys("remove", path)(errno)),
    }
}
