//! The limit of a sliver: the bytes that it may add to its base, and what keeps it to them.
//!
//! A means is data, as a backend is: what it needs, whether it holds against a tenant who is root in the container, and how it is
//! set, read and taken away. There is no trait: each question is one `match` that the compiler checks.
//!
//! - `image` ([`image`]): the store's layers lie in an ext4 in the file `quota.img`, whose size is the limit. It needs mkfs.ext4 and
//!   a loop device, and holds against anybody: nothing in it reaches the disk outside of it. All of it is taken from the disk when
//!   it is made, since a disk that is full later would be EIO in there; only where the operator overcommits it is laid out sparse.
//! - `seed`: the store is a writable image as it is ([`crate::mount::seed`]), and its size is the limit. It is a promise where it was
//!   asked for; the size of a store that nobody gave one promises no more than a store without a limit has.
//! - `qgroup` ([`qgroup`]): of a snapshot, on a Btrfs with simple quotas, which nothing but a command of their own turns on. Any
//!   tenant leaves it by an ioctl, so it is taken by name only, or where LXC refuses those to the container.
//! - `project` ([`project`]): the store lies in a project of its own, on a disk that is mounted with project quotas. Root without a user
//!   namespace leaves it by an ioctl, so it is taken by name only, or where the container has `lxc.idmap`. Of a store that is a whole tree the kernel counts
//!   what came from the base, shared or not: it is stopped at base and limit together.
//! - `zfs` ([`zfs`]): a copy's tree lies in a dataset of its own with a `refquota`. It holds against anybody who has no /dev/zfs.
//! - `soft`: no more than a number beside what is measured; it is never called a quota.
//!
//! An image lies mounted on the folder `quota` of its store while anybody works on it: before the view, and gone after it. Nothing
//! makes the folders in there but the one step that formats it, so that an image that is not mounted is an error and never a
//! way onto the plain disk.

pub mod admission;
pub mod image;
pub mod project;
pub mod qgroup;
pub mod zfs;

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use serde::Serialize;

use crate::catalog::base::Base;
use crate::catalog::{Root, Sliver, record, sliver, sweep};
use crate::config::AUTO;
use crate::error::{Error, Result};
use crate::form::Form;
use crate::json::{FromJson, Json};
use crate::kind::{Kind, Union, none_of};
use crate::lxc;
use crate::mount::plan::Step;
use crate::mount::{exec, seed};
use crate::name::Name;
use crate::size::Size;
use crate::stay::{Below, for_good};
use crate::sum::Sum;
use crate::sys::file;
use crate::{tree, usage};

/// The backend whose stores a project quota holds: its driver writes to them without root's privilege to pass one.
pub const OVERLAY: Kind = Kind::Union(Union::Overlay);

/// What keeps a sliver to its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// The layers lie in an image of that size.
    Image,
    /// The store is an image by its backend.
    Seed,
    /// The store is a subvolume in a qgroup of simple quotas.
    Qgroup,
    /// The store lies in a project of its own.
    Project,
    /// The tree lies in a dataset of its own.
    Zfs,
    /// Nothing: what is taken is measured and told.
    Soft,
}

impl Means {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Image, Self::Seed, Self::Qgroup, Self::Project, Self::Zfs, Self::Soft];

    /// The name on the command line, in UCI and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Seed => "seed",
            Self::Qgroup => "qgroup",
            Self::Project => "project",
            Self::Zfs => "zfs",
            Self::Soft => "soft",
        }
    }

    /// Takes a text as a means.
    pub fn parse(text: &str) -> Result<Self> {
        for means in Self::ALL {
            if means.name() == text {
                return Ok(means);
            }
        }
        Err(none_of(&Self::ALL.map(Self::name), text, "means of a limit"))
    }

    /// Can it keep a store of this kind to a limit?
    pub fn keeps(self, kind: Kind) -> bool {
        match self {
            Self::Image => kind.reads_base(),
            Self::Seed => kind.grows_image(),
            Self::Qgroup => kind == Kind::BtrfsSnapshot,
            Self::Project => kind == OVERLAY || is_copy(kind),
            Self::Zfs => kind == Kind::Copy,
            Self::Soft => true,
        }
    }

    /// Does anything stop the sliver at its limit?
    pub const fn is_hard(self) -> bool {
        !matches!(self, Self::Soft)
    }

    /// Must the kernel, or ZFS, be told of the limit?
    pub const fn is_told(self) -> bool {
        matches!(self, Self::Qgroup | Self::Project | Self::Zfs)
    }
}

impl Serialize for Means {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

/// A limit, as it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// The bytes.
    pub bytes: u64,
    /// What keeps the sliver to them.
    pub means: Means,
    /// The project of its store; 0 where that has none.
    #[serde(skip_serializing_if = "is_none")]
    pub project: u32,
    /// Bytes of the base that are counted in the project, too.
    #[serde(skip_serializing_if = "is_none")]
    pub base: u64,
    /// Inodes of the base that are.
    #[serde(skip_serializing_if = "is_none")]
    pub inodes: u64,
}

fn is_none<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

impl Limit {
    /// The size of a store on a seed, which somebody asked for.
    pub fn of_seed(bytes: u64) -> &'static Self {
        for_good(Self::plain(bytes, Means::Seed))
    }

    /// A new limit for a store of this kind, by the means that is named, or else by what holds the `tenant`.
    pub fn new(
        root: &Root,
        kind: Kind,
        means: Option<Means>,
        tenant: Tenant,
        bytes: u64,
    ) -> Result<&'static Self> {
        let means = match means {
            Some(means) => means,
            None => means_for(root, kind, tenant)?,
        };
        if !means.keeps(kind) {
            return Err(Error::usage(format_args!("{} keeps no store of {kind} to a limit", means.name()))
                .way_out("leave the means out, or take soft, which only measures"));
        }
        if matches!(means, Means::Image | Means::Project | Means::Zfs) && bytes < image::LEAST {
            return Err(Error::usage(format_args!("{} is too small for a limit", Size(bytes)))
                .way_out("give 4 MiB or more: the tables of a file system come out of it"));
        }
        Ok(for_good(Self::plain(bytes, means)))
    }

    /// A limit without what is found out when its store is made.
    pub const fn plain(bytes: u64, means: Means) -> Self {
        Self { bytes, means, project: 0, base: 0, inodes: 0 }
    }

    /// The limit and what of it is used, as a person reads it.
    pub fn words(&self, used: u64) -> String {
        let (bytes, used, means) = (Size(self.bytes), Size(used), self.means.name());
        let base = match self.base {
            0 => "",
            base => format!(" beside its base's {}", Size(base)).leak(),
        };
        match self.means.is_hard() {
            true => format!("limited to {bytes}{base} by {means}, {used} used"),
            false => format!("{used} used of {bytes} that it should take ({means}: measured only)"),
        }
    }
}

/// What is known of who is to be held.
#[derive(Clone, Copy)]
pub struct Tenant {
    /// His root is nobody special outside the container.
    pub mapped: bool,
    /// He may call no ioctl of Btrfs.
    pub closed: bool,
}

/// What holds a tenant to a limit here whose store is of this kind.
fn means_for(root: &Root, kind: Kind, tenant: Tenant) -> Result<Means> {
    if kind == Kind::BtrfsSnapshot {
        return match tenant.closed {
            true => Ok(Means::Qgroup),
            false => Err(Error::unsupported(format_args!(
                "a store of btrfs-snapshot is limited by a qgroup: {}",
                qgroup::open()
            ))
            .way_out("--means qgroup takes it all the same")),
        };
    }
    if tenant.mapped && Means::Project.keeps(kind) && project::Disk::of(root.stores()).is_ok() {
        return Ok(Means::Project);
    }
    if kind.reads_base() {
        return Ok(Means::Image);
    }
    if kind.grows_image() {
        return Ok(Means::Seed);
    }
    if kind == Kind::Copy && zfs::need(root.stores()).is_ok() {
        return Ok(Means::Zfs);
    }
    Err(Error::unsupported(format_args!("nothing keeps a store of {kind} to a limit here")).way_out(
        "take overlay; or name what only a container with lxc.idmap is held by: --means project; or soft, which only measures",
    ))
}

/// What keeps a store of this kind to a limit here, or why nothing does; `image` is what came of the trial of one.
pub fn offer(root: &Root, kind: Kind, image: &Result<()>) -> (Option<Means>, Option<String>) {
    let offered = || -> Result<Means> {
        if kind == Kind::BtrfsSnapshot {
            qgroup::need(root.stores())?;
        }
        let closed = lxc::profile().is_ok_and(|path| path.exists());
        let means = means_for(root, kind, Tenant { mapped: false, closed })?;
        if means == Means::Zfs {
            zfs::trial(root)?;
        }
        Ok(means)
    };
    let both =
        "holds a tenant who is root, too; project quotas are on, and taken where a container has lxc.idmap";
    match (offered(), image) {
        (Err(err), _) => (None, Some(err.to_string())),
        (Ok(Means::Image), Err(err)) => (None, Some(err.to_string())),
        (Ok(means), _) if kind == OVERLAY && project::Disk::of(root.stores()).is_ok() => {
            (Some(means), Some(both.to_owned()))
        }
        (Ok(means), _) => (Some(means), None),
    }
}

/// Takes `auto`, which is none, or the name of a means.
pub fn parse_mode(text: &str) -> Result<Option<Means>> {
    if text == AUTO { Ok(None) } else { Means::parse(text).map(Some) }
}

impl FromJson for Limit {
    fn from_json(json: &Json) -> Result<Self> {
        let (means, project) = (Means::parse(json.text("means")?)?, json.count("project"));
        match u32::try_from(project) {
            Ok(project) if (project != 0) == (means == Means::Project) => {
                let (base, inodes) = (json.count("base"), json.count("inodes"));
                Ok(Self { bytes: json.number("bytes")?, means, project, base, inodes })
            }
            _ => Err(Error::damaged("the limit has a project without a number, or a number without one")),
        }
    }
}

/// The limit of a sliver, where it has one: the recorded one, or the size of a store that is an image by its backend.
pub fn limit(root: &Root, sliver: &Sliver) -> Option<&'static Limit> {
    sliver.quota.or_else(|| sliver.limit(root).map(Limit::of_seed))
}

/// A limit, where it is one by this means.
#[inline(never)]
pub fn by(limit: Option<&'static Limit>, means: Means) -> Option<&'static Limit> {
    limit.filter(|limit| limit.means == means)
}

/// The limit for a store of this kind that is made anew of the base: the store of a project gets one that nobody has. A dry run takes
/// none.
pub fn renew(
    root: &Root,
    limit: Option<&'static Limit>,
    (kind, base): (Kind, &Base),
    dry_run: bool,
) -> Result<Option<&'static Limit>> {
    let Some(limit) = limit else { return Ok(None) };
    let mut limit = Limit::plain(limit.bytes, limit.means);
    match limit.means {
        Means::Qgroup => qgroup::need(root.stores())?,
        Means::Project => {
            if is_copy(kind) {
                limit.inodes = base.entries.plus(1);
                limit.base = match base.form {
                    Form::Directory => base.disk,
                    // What an image holds ends in the middle of blocks, and its folders take some.
                    _ => base.bytes.plus(limit.inodes.times(BLOCK)),
                };
            }
            limit.project = project::claim(root, &limit, dry_run)?;
        }
        Means::Zfs => {
            zfs::need(root.stores())?;
            limit.base = base.bytes;
        }
        Means::Image | Means::Seed | Means::Soft => {}
    }
    Ok(Some(for_good(limit)))
}

/// A block of most disks.
const BLOCK: u64 = 4096;

/// Is a store of this kind a copy of the base, of which a project counts all?
const fn is_copy(kind: Kind) -> bool {
    matches!(kind, Kind::Reflink | Kind::Copy)
}

/// Limits a new store that is filled. Refuses one that root filled with more than its project may have.
pub fn settle(root: &Root, name: &Name, limit: Option<&'static Limit>) -> Result<()> {
    match limit {
        Some(limit) if limit.means == Means::Project => project::Disk::of(root.stores())?.settle(name, limit),
        Some(limit) if limit.means == Means::Zfs => {
            let (store, stage) = (root.store(name), sweep::new_store(root, name));
            let old = record::read::<Sliver>(store.below(sliver::FILE)).ok();
            let had = old.and_then(|old| by(old.quota, Means::Zfs)).map(|old| zfs::used(store, old));
            zfs::settle(stage, limit, had.transpose()?.unwrap_or(u64::MAX))
        }
        _ => Ok(()),
    }
}

/// Makes what the tree of a new store is to lie in where that cannot be done in a private mount namespace: a dataset. Before it nothing is
/// in the new store's place.
pub fn prepare(root: &Root, name: &Name, limit: Option<&'static Limit>) -> Result<()> {
    if by(limit, Means::Zfs).is_none() {
        return Ok(());
    }
    let stage = sweep::new_store(root, name);
    exec::run(&[Step::CreateDir(stage), Step::MakeDataset(stage)])
        .inspect_err(|_| sweep::told(sweep::new(root, name)))
}

/// Tells whoever keeps a store to its limit what that is; a project may have the room for a mount, too, where `more`.
pub fn tell(store: &Path, limit: &Limit, more: bool) -> Result<()> {
    match limit.means {
        Means::Qgroup => qgroup::set(store.below("tree"), limit.bytes),
        Means::Project => project::disk_of(store, limit)?.limit(limit, more),
        Means::Zfs => zfs::limit(store, limit),
        Means::Image | Means::Seed | Means::Soft => Ok(()),
    }
}

/// Refuses a limit that is less than what the store uses already, by what is to be told of it.
pub fn refuse_less(name: &Name, store: &Path, limit: &Limit) -> Result<()> {
    let used = match limit.means {
        Means::Qgroup => {
            qgroup::need(store)?;
            match qgroup::used(store.below("tree")) {
                // Nothing counts it: it came from another disk.
                Err(err) if err.errno() == Some(Errno::ENOENT) => 0,
                used => used?,
            }
        }
        Means::Project => return project::disk_of(store, limit)?.refuse_more(name, limit, false),
        Means::Zfs => zfs::used_at_last(store, limit)?,
        Means::Image | Means::Seed | Means::Soft => 0,
    };
    if used > limit.bytes { Err(does_not_fit(name, limit, used)) } else { Ok(()) }
}

/// What a sliver has is more than a limit.
pub fn does_not_fit(name: &Name, limit: &Limit, space: u64) -> Error {
    Error::failed(format_args!(
        "`{name}` uses {}, which does not fit into {}",
        Size(space),
        Size(limit.bytes)
    ))
    .way_out("give it more, or remove files in its view")
}

/// A store is not where its limit holds, as one that was copied file by file is.
fn not_limited(store: &Path, why: fmt::Arguments<'_>) -> Error {
    Error::damaged(format_args!("the store {} {why}, and is limited by nothing", store.display()))
        .way_out("take its limit off, and give it again: sliverfs quota SLIVER none")
}

/// Removes a folder that may be a store, or half of one, with the qgroup, the project or the dataset that it had for itself: nothing else would
/// lead to that any more.
pub fn remove_store(dir: &Path) -> Result<()> {
    zfs::destroy(dir)?;
    // A failure is no reason to keep it.
    sweep::told(qgroup::forget(dir.below("tree")));
    let project = project::own(dir);
    tree::remove_path(dir)?;
    project::free(dir, project);
    Ok(())
}

/// Bytes that a store takes, with what lies in its dataset.
pub fn space(store: &Path) -> Result<u64> {
    tree::space(store).map(|space| space.plus(zfs::space(store)))
}

/// Bytes of its limit that a sliver uses; 0 where it has none. What the tables of an image take is counted, since the sliver cannot have it.
pub fn used(root: &Root, sliver: &Sliver) -> Result<u64> {
    let store = root.store(&sliver.name);
    let Some(limit) = limit(root, sliver) else { return Ok(0) };
    match limit.means {
        Means::Project => {
            let disk = project::disk_of(store, limit)?;
            Ok(disk.used(disk.counted(limit.project)?, limit))
        }
        Means::Zfs => zfs::used(store, limit),
        Means::Image => image::used(store),
        Means::Seed => {
            let path = store.below(seed::STORE);
            Ok(file::look_at(path)?.blocks().times(512))
        }
        Means::Qgroup => qgroup::used(store.below("tree")),
        // What it shares with its base or others it did not add.
        Means::Soft => Ok(usage::taken(root, sliver, None)?.exclusive),
    }
}
