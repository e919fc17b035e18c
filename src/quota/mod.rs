//! The limit of a sliver: the bytes that it may add to its base, and what keeps it to them.
//!
//! A means is data, as a backend is: what it needs, whether it holds against a tenant who is root in the container, and how it is
//! set, read and taken away. There is no trait: each question is one `match` that the compiler checks. Which means it is to be is
//! asked in [`choice`], what a store that is made needs for its limit in [`anew`], and what is done about that of one that is there
//! in [`held`].
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
pub mod anew;
pub mod choice;
pub mod held;
pub mod image;
pub mod project;
pub mod qgroup;
pub mod zfs;

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::catalog::{Root, Sliver};
use crate::config::AUTO;
use crate::error::{Error, Result};
use crate::json::{FromJson, Json};
use crate::kind::{Kind, Union, none_of};
use crate::name::Name;
use crate::size::Size;
use crate::stay::for_good;

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

/// Is a store of this kind a copy of the base, of which a project counts all?
const fn is_copy(kind: Kind) -> bool {
    matches!(kind, Kind::Reflink | Kind::Copy)
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
