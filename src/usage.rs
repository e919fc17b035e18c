//! What slivers take of a disk and of the memory, and what they share with their bases.

mod qgroup;

use std::fs::File;

use crate::catalog::base::Base;
use crate::catalog::{Root, Sliver};
use crate::error::Result;
use crate::form::Form;
use crate::kind::Kind;
use crate::layer::{Change, Changes, Format, Show, Side, Step, beside};
use crate::mount::mountinfo::MountInfo;
use crate::quota::{self, Means, project, zfs};
use crate::stay::Below;
use crate::sum::Sum;
use crate::sys::pagecache;
use crate::tree::{self, Dir, sys};
use qgroup::Groups;

/// What a store takes of the disk.
#[derive(Default)]
pub struct Taken {
    /// Bytes that it holds for itself alone.
    pub exclusive: u64,
    /// Bytes that others use, too: its base, other slivers.
    pub shared: u64,
    /// The base shows through, or may: what it shares beside that is not known before store and base are compared.
    pub through: bool,
    /// Its inodes, where that is known.
    pub inodes: Option<u64>,
    /// Bytes of its limit that it uses, where who counted knows that, too.
    pub used: Option<u64>,
    /// Who counted.
    pub by: &'static str,
}

/// What the disk of the stores counts by itself, once it was asked for.
#[derive(Default)]
pub struct Books {
    groups: Groups,
    projects: Option<Option<&'static project::Disk>>,
}

impl Books {
    /// What the disk has counted of a store, where it has.
    fn count(&mut self, root: &Root, sliver: &Sliver, record: &File, taken: &mut Taken) -> Result<bool> {
        let counted = if sliver.backend == Kind::BtrfsSnapshot {
            self.groups.count(&tree::open(root.store(&sliver.name).below("tree"))?, taken)
        } else {
            self.project(root, sliver, record, taken)
        };
        Ok(counted.is_some())
    }

    /// What a store has that is limited by a project, and what of its limit that is. `record` is a file of the store, and in the same
    /// project: of a store that came from elsewhere it is in none, and the number is somebody else's here.
    fn project(&mut self, root: &Root, sliver: &Sliver, record: &File, taken: &mut Taken) -> Option<()> {
        let limit = quota::by(sliver.quota, Means::Project).filter(|_| sliver.backend.reads_base())?;
        let disk = (*self.projects.get_or_insert_with(|| project::Disk::of(root.stores()).ok()))?;
        if crate::sys::project::of(record) != Ok(limit.project) {
            return None;
        }
        let has = disk.counted(limit.project).ok()?;
        taken.exclusive = has.bytes;
        taken.inodes = Some(has.inodes);
        taken.used = Some(disk.used(has, limit));
        (taken.through, taken.by) = (true, "project");
        Some(())
    }
}

/// Counts a sliver's store; with `books`, and its record's file, it is not walked where the disk has counted it already.
pub fn taken(root: &Root, sliver: &Sliver, books: Option<(&mut Books, &File)>) -> Result<&'static Taken> {
    let taken = Box::leak(Box::<Taken>::default());
    if let Some((books, record)) = books {
        if books.count(root, sliver, record, taken)? {
            return Ok(taken);
        }
    }
    let store = root.store(&sliver.name);
    if quota::by(sliver.quota, Means::Zfs).is_some() {
        (taken.exclusive, taken.by) = (zfs::taken(store)?, "zfs");
        return Ok(taken);
    }
    let space = tree::shares(store)?;
    taken.exclusive = space.bytes.minus(space.shared);
    taken.shared = space.shared;
    taken.through = sliver.backend.reads_base() || sliver.backend.grows_image();
    taken.by = "image";
    if !sliver.has_image() {
        // Those in an image are not seen here.
        (taken.inodes, taken.by) = (Some(space.inodes), "walk");
    }
    Ok(taken)
}

/// Bytes that a full copy of a base's tree would take. Of an image it is the content of the files: what their blocks and the folders
/// would take more depends on the disk.
pub fn copy_of(base: &Base) -> u64 {
    match base.form {
        Form::Directory => base.disk,
        Form::Squashfs | Form::Erofs | Form::Btrfs => base.bytes,
    }
}

/// Bytes of the base that do not show in the view, since the store has something in their place, or says that they are gone. A
/// file of several names is counted only where all of a folder is gone: by another name it may still show.
pub fn covered(format: Format, store: Dir, base: &Dir) -> Result<u64> {
    let mut sum = 0_u64;
    let mut changes = Changes::new(format, store, base, Show::Changes)?;
    while let Some(step) = changes.step()? {
        let Step::Entry(entry) = step else { continue };
        match entry.change {
            // Of a file with metacopy the content still comes from the base.
            Change::Put | Change::Opaque | Change::Delete if entry.data.is_none() => {
                if let Some(Side { dir, name, stat, .. }) = entry.base {
                    let bytes = match stat.kind {
                        tree::Kind::Dir => {
                            let below = dir.child(name).map_err(sys("open in the base", entry.path))?;
                            tree::count(below, entry.path, &mut |_| Ok(0))?.bytes
                        }
                        _ if stat.links > 1 => 0,
                        _ => stat.allocated,
                    };
                    sum = sum.plus(bytes);
                }
            }
            Change::Meta => match changes.enter() {
                Err(err) if beside(&err) => {}
                entered => entered?,
            },
            _ => {}
        }
    }
    Ok(sum)
}

/// Bytes of a base's files that lie in the page cache, once for all views that stand on it; none where nothing can: an image that is
/// not mounted.
pub fn cached(root: &Root, base: &Base, mounts: &MountInfo) -> Result<Option<u64>> {
    let path = match base.form {
        Form::Directory => base.content(root),
        _ => root.base_mount(&base.name),
    };
    if base.form != Form::Directory && mounts.at(path).is_none() {
        return Ok(None);
    }
    let space = tree::count_at(path, &mut |entry| {
        pagecache::cached(&entry.dir.open_file(entry.name, entry.stat)?, entry.stat.size)
    })?;
    Ok(Some(space.shared))
}
