//! What slivers take of a disk and of the memory, and what they share with their bases.

mod qgroup;

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::catalog::base::Base;
use crate::catalog::{Root, Sliver};
use crate::error::Result;
use crate::form::Form;
use crate::kind::Kind;
use crate::layer::{Change, Changes, Format, Show, Side, Step, beside};
use crate::mount::mountinfo::MountInfo;
use crate::quota::{self, Limit, Means, project, zfs};
use crate::stay::Below;
use crate::sum::Sum;
use crate::sys::pagecache;
use crate::sys::project::Amount;
use crate::tree::{self, Dir, sys};
use qgroup::{Counted, Groups};

/// What a store takes of the disk.
#[derive(Clone, Copy, Debug)]
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
    projects: Option<Option<project::Disk>>,
}

impl Books {
    /// What a store has that is limited by a project, and what of its limit that is. `record` is a file of the store, and in the same
    /// project: of a store that came from elsewhere it is in none, and the number is somebody else's here.
    fn project(&mut self, root: &Root, record: &File, limit: &Limit) -> Option<(Amount, u64)> {
        let disk = self.projects.get_or_insert_with(|| project::Disk::of(root.stores()).ok()).as_ref()?;
        if crate::sys::project::of(record) != Ok(limit.project) {
            return None;
        }
        let has = disk.counted(limit.project).ok()?;
        Some((has, disk.used(has, limit)))
    }
}

/// Counts a sliver's store; with `books`, and its record's file, it is not walked where the disk has counted it already.
pub fn taken(root: &Root, sliver: &Sliver, books: Option<(&mut Books, &File)>) -> Result<Taken> {
    if let Some((books, record)) = books {
        if sliver.backend == Kind::BtrfsSnapshot {
            if let Some(counted) = books.groups.of(&tree::open(root.store(&sliver.name).below("tree"))?) {
                let Counted { referenced, exclusive, used, simple } = counted;
                let shared = referenced.minus(exclusive);
                return Ok(Taken { exclusive, shared, through: simple, inodes: None, used, by: "qgroup" });
            }
        }
        let limit = quota::by(sliver.quota, Means::Project).filter(|_| sliver.backend.reads_base());
        if let Some((has, used)) = limit.and_then(|limit| books.project(root, record, limit)) {
            return Ok(Taken {
                exclusive: has.bytes,
                shared: 0,
                through: true,
                inodes: Some(has.inodes),
                used: Some(used),
                by: "project",
            });
        }
    }
    let store = root.store(&sliver.name);
    if quota::by(sliver.quota, Means::Zfs).is_some() {
        let exclusive = zfs::taken(store)?;
        return Ok(Taken { exclusive, shared: 0, through: false, inodes: None, used: None, by: "zfs" });
    }
    let space = tree::shares(store)?;
    Ok(Taken {
        exclusive: space.bytes.minus(space.shared),
        shared: space.shared,
        through: sliver.backend.reads_base() || sliver.backend.grows_image(),
        // Those in an image are not seen here.
        inodes: Some(space.inodes).filter(|_| !sliver.has_image()),
        used: None,
        by: if sliver.has_image() { "image" } else { "walk" },
    })
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
    let bytes = Path::as_os_str(path).as_bytes();
    let space = tree::count(tree::open(path)?, bytes, &mut |entry| {
        pagecache::cached(&entry.dir.open_file(entry.name, entry.stat)?, entry.stat.size)
    })?;
    Ok(Some(space.shared))
}
