//! A store's limit by a project quota of ext4, XFS or f2fs.
//!
//! The store's folder is put into a project of its own while it is empty, and all that is made in it is of that project: symbolic
//! links and devices, too, which no call puts into one later. So a store that was made without one is made anew for it.
//!
//! Measured on Linux 6.1: root without a user namespace gives his files another project, through overlay too, and is held by none.
//! Below one he cannot. Overlay writes to the store without CAP_SYS_RESOURCE, which ext4 and f2fs do not stop; a daemon has it.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::catalog::{Root, Sliver, sweep};
use crate::error::{Context, Error, Result};
use crate::name::Name;
use crate::quota::{Limit, Means, by, image};
use crate::size::Size;
use crate::stay::{Below, for_good};
use crate::sum::Sum;
use crate::sys::project::{self, Amount};
use crate::sys::{file, statfs};
use crate::tree;

/// A file system that keeps project quotas.
struct Keeper {
    magic: u32,
    name: &'static str,
    /// How to have it do so.
    on: &'static str,
    /// Bytes that an inode takes beside what is counted: f2fs counts no block for one, and XFS none for a full chunk of them;
    /// ext4's tables are there from the start.
    inode: u64,
}

const KEEPERS: [Keeper; 3] = [
    Keeper {
        magic: 0xef53,
        name: "ext4",
        on: "`tune2fs -O project -Q prjquota` on the unmounted disk, and mount it with prjquota",
        inode: 0,
    },
    Keeper {
        magic: 0x5846_5342,
        name: "XFS",
        on: "unmount it, and mount it with prjquota: a remount turns none on",
        inode: 512,
    },
    Keeper {
        magic: 0xf2f5_2010,
        name: "f2fs",
        on: "mkfs.f2fs -O extra_attr,project_quota,quota, and mount it with prjquota",
        inode: 4096,
    },
];

/// The first project that is taken, and the last one: XFS disks of before 2013 have only 16 bits for one.
const FIRST: u32 = 20_000;
const LAST: u32 = 65_535;

/// Projects that are somebody's else are passed over, but not more of them than that.
const OTHERS: u32 = 1000;

/// Bytes of a limit for each inode in it, as mkfs.ext4 makes one.
const PER_INODE: u64 = 16 << 10;

/// What a mount may take more than the limit for names and folders of its own, as may a command that works on a store that is
/// mounted nowhere: XFS stops root, too, and a view whose store has no room comes up read-only.
const ROOM: Amount = Amount { bytes: 256 << 10, inodes: 16 };

/// A disk that keeps project quotas.
pub struct Disk {
    at: project::Disk,
    /// As [`Keeper`] has it.
    inode: u64,
}

impl Disk {
    /// The disk of a folder. Refuses one that does not keep them, with the way to have it do so. Nothing is changed on it.
    pub fn of(folder: &Path) -> Result<&'static Self> {
        let magic = statfs::of(folder)?.magic;
        let Some(Keeper { name: fstype, on, inode, .. }) =
            KEEPERS.iter().find(|keeper| keeper.magic == magic)
        else {
            return Err(Error::unsupported("project quotas are of ext4, XFS and f2fs alone"));
        };
        let name = Path::new("/dev").join(file::disk_name(folder)?);
        let device = for_good(CString::new(name.as_os_str().as_bytes()).unwrap_or_default());
        let at = project::Disk(device, folder.stays());
        if project::kept(&at) == Ok(true) {
            return Ok(for_good(Self { at, inode: *inode }));
        }
        Err(Error::unsupported(format_args!(
            "the {fstype} of {} keeps no project quotas: they are off, or not in this kernel",
            folder.display()
        ))
        .way_out(format_args!("take the image, or {on}")))
    }

    /// What the kernel is told, so that blocks and inodes together are no more than the limit, and what is counted of the base.
    /// Where `more`, the room for a mount comes on top.
    fn most(&self, limit: &Limit, more: bool) -> Amount {
        let inodes = limit.bytes / PER_INODE;
        let bytes = limit.bytes.minus(inodes.times(self.inode));
        let room = if more { ROOM } else { Amount::default() };
        Amount {
            bytes: bytes.plus(limit.base).plus(room.bytes),
            inodes: inodes.plus(limit.inodes).plus(room.inodes),
        }
    }

    /// Limits a project, with the room for a mount where `more`.
    pub fn limit(&self, limit: &Limit, more: bool) -> Result<()> {
        self.tell(limit.project, &self.most(limit, more))
    }

    fn tell(&self, id: u32, most: &Amount) -> Result<()> {
        project::limit(&self.at, id, most).at("limit a project on", self.path())
    }

    fn path(&self) -> &Path {
        Path::new(std::ffi::OsStr::from_bytes(self.at.0.to_bytes()))
    }

    fn look(&self, id: u32, found: &mut [Amount; 2]) -> Result<()> {
        project::look(&self.at, id, found).at("ask for the quota of a project of", self.path())
    }

    /// What the kernel counts of a project.
    pub fn counted(&self, id: u32) -> Result<&'static Amount> {
        let found = Box::leak(Box::default());
        self.look(id, found)?;
        let [has, _] = found;
        Ok(has)
    }

    /// Bytes of its limit that a project uses, which has so much.
    pub fn used(&self, has: &Amount, limit: &Limit) -> u64 {
        let inodes = has.inodes.minus(limit.inodes).times(self.inode);
        has.bytes.minus(limit.base).plus(inodes)
    }

    /// Limits a new store, which may be as full as the old one was. Refuses it where root filled it with more.
    pub fn settle(&self, name: &Name, limit: &Limit) -> Result<()> {
        self.refuse_more(name, limit, true)?;
        self.limit(limit, false)
    }

    /// Refuses what has more already than the limit lets it have. Root went beyond it on ext4 and f2fs.
    pub fn refuse_more(&self, name: &Name, limit: &Limit, more: bool) -> Result<()> {
        let (has, most) = (self.counted(limit.project)?, self.most(limit, more));
        if has.bytes <= most.bytes && has.inodes <= most.inodes {
            return Ok(());
        }
        Err(super::does_not_fit(name, limit, self.used(has, limit)).way_out(format_args!(
            "give it more, or remove files: it may have {} in {} inodes",
            Size(most.bytes),
            most.inodes
        )))
    }
}

/// Says what does not hold.
pub fn warn() {
    crate::warn!(
        "a tenant who is root without a user namespace (lxc.idmap) leaves a project quota when he wants to: the image holds him"
    );
}

/// Takes a project that nobody has, and limits it: so no other call takes it meanwhile. There is room for what makes a full store
/// anew, until [`Disk::settle`]. A dry run only names it.
pub fn claim(root: &Root, limit: &Limit, dry_run: bool) -> Result<u32> {
    let disk = Disk::of(root.stores())?;
    let _lock = root.lock_catalog()?;
    // Ours are so many, or fewer, and mostly the first ones: the search begins behind as many, and passes over as many and those of
    // others. What a project has, or may have, the kernel knows.
    let taken = u32::try_from(Sliver::names(root)?.len()).unwrap_or(LAST);
    let first = FIRST.saturating_add(taken);
    let last = first.saturating_add(taken).saturating_add(OTHERS).min(LAST);
    let mut found = [Amount::default(); 2];
    for project in first..=last {
        disk.look(project, &mut found)?;
        if found == [Amount::default(); 2] {
            let limit = Limit { project, ..*limit };
            return if dry_run { Ok(project) } else { disk.limit(&limit, true).map(|()| project) };
        }
    }
    Err(Error::failed(format_args!("no project of {first} to {last} is free on {}", disk.path().display()))
        .way_out("`repquota -P`, or `xfs_quota -xc report`, says whose they are"))
}

/// The project that a store's folder has for itself; 0 where it has none, or what lies around it is in the same.
pub fn own(dir: &Path) -> u32 {
    let of = |path: &Path| tree::open(path).ok().and_then(|dir| project::of(&dir).ok()).unwrap_or(0);
    let id = of(dir);
    if id < FIRST || dir.parent().map(of) == Some(id) { 0 } else { id }
}

/// Gives back the project that [`own`] found, when the folder is gone and nothing is left in it, or will be soon.
pub fn free(dir: &Path, id: u32) {
    let Some(above) = dir.parent().filter(|_| id != 0) else { return };
    // A project that has a limit is not taken again.
    image::noted(Disk::of(above).and_then(|disk| disk.tell(id, &Amount::default())));
}

/// Refuses a store that is not in its project: it came from another disk, file by file.
pub fn disk_of(store: &Path, limit: &Limit) -> Result<&'static Disk> {
    if project::of(&tree::open(store)?) == Ok(limit.project) {
        return Disk::of(store);
    }
    Err(super::not_limited(store, format_args!("is not in its project {}", limit.project)))
}

/// Room for work on a store that is mounted nowhere, for as long as this lives. The sliver's lock is held.
pub struct Room(&'static Disk, &'static Limit);

impl Room {
    /// For a sliver with such a limit; else none is needed.
    pub fn make(root: &Root, sliver: &Sliver) -> Option<Self> {
        let limit = by(sliver.quota, Means::Project)?;
        let disk = disk_of(root.store(&sliver.name), limit).ok()?;
        disk.limit(limit, true).ok()?;
        Some(Self(disk, limit))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        sweep::told(self.0.limit(self.1, false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_inodes_are_no_more_than_the_limit() {
        for (keeper, bytes) in KEEPERS.iter().zip([64 << 20, 62 << 20, 48 << 20]) {
            let disk = Disk { at: project::Disk(c"", Path::new("/")), inode: keeper.inode };
            let of = |bytes| Limit::plain(bytes, Means::Project);
            let most = disk.most(&of(64 << 20), false);
            assert_eq!((most.bytes, most.inodes), (bytes, 4096));
            let most = disk.most(&Limit { base: 5 << 20, inodes: 70, ..of(64 << 20) }, false);
            assert_eq!((most.bytes, most.inodes), (bytes + (5 << 20), 4166));
            // Beyond what 32 bits hold.
            let most = disk.most(&of(6 << 40), false);
            assert_eq!(most.bytes + most.inodes * disk.inode, 6 << 40);
        }
    }

    #[test]
    fn a_disk_without_them_is_refused() {
        for folder in ["/proc", "/sys"] {
            assert!(Disk::of(Path::new(folder)).is_err(), "{folder}");
        }
    }
}
