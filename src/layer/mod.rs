//! What a sliver changed, whatever wrote its store: one model of change for every command.
//!
//! [`Changes`] reads a store beside its base, directory by directory, as a stream of [`Entry`]s in the order of the names;
//! [`Writer`] makes a store, or a tree, of such a stream. None of them follows a link or opens a device, and their memory
//! grows with the depth and the widest directory only. [`Layer`] makes an
//! OCI layer of it.

mod compact;
mod compare;
mod covered;
mod decode;
mod format;
mod judge;
mod level;
mod look;
mod mend;
mod merge;
mod origins;
mod records;
mod restore;
mod rewrite;
mod scratch;
mod tar;
mod walk;
mod write;

pub use compact::{Compact, Compacted};
pub use compare::{Aspects, differences};
pub(crate) use decode::{OPAQUE, TARGET, WH};
pub use format::Format;
pub use mend::mend;
pub use merge::{Action, Outcome, Prefer, merge};
pub use restore::{Restored, restore};
pub use rewrite::{Survey, Target, rewrite, survey};
pub use scratch::{Scratch, beside as scratch_beside, settle};
pub use tar::Layer;
pub use walk::{Changes, Show, Step, beside};
pub use write::{Writer, cannot};

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use crate::error::{Error, Result};
use crate::tree::{Dir, Stat, attr, shown};

/// What became of a name of the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Something other than a directory stands here now.
    Put,
    /// A directory is here, made or changed; what the base has in one of this name shows through.
    Meta,
    /// A directory is here that hides whatever the base has by this name.
    Opaque,
    /// What the base has by this name is gone.
    Delete,
    /// Nothing: the entry is no part of the view. Its [`Doubt`] says why it is told.
    Nothing,
}

/// What is wrong with an entry of a store. Its [`Change`] is what the kernel's driver would make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// overlayfs: a link to the whiteouts' target without their attribute.
    TornWhiteout,
    /// overlay: the attribute of a whiteout, in a folder that is not said to hold such ones.
    StrayWhiteout,
    /// aufs: a whiteout beside the entry that it hides.
    Both,
    /// A name that only the driver uses, for something that it never makes.
    Foreign,
    /// Left over by a crash.
    Garbage,
    /// aufs: the store was written with dirren, which is not read here.
    Dirren,
    /// mini_fo: a record that says nothing, or that more than one reading fits, or cut off.
    Record,
    /// What was moved here, or gives the content, is not in the base.
    Lost,
    /// Another file system is mounted here, or a subvolume of Btrfs begins.
    Mount,
}

impl Doubt {
    /// For a message: what it is.
    pub const fn words(self) -> &'static str {
        match self {
            Self::TornWhiteout => "a whiteout without its attribute: torn, or copied without attributes",
            Self::StrayWhiteout => "a whiteout by attribute in a folder that is not marked for it",
            Self::Both => "a whiteout beside what it hides",
            Self::Foreign => "a driver's name for what no driver makes",
            Self::Garbage => "left over by a crash",
            Self::Dirren => "written by aufs with dirren",
            Self::Record => "a record that cannot be read",
            Self::Lost => "its origin is not in the base",
            Self::Mount => "another file system or a subvolume is here",
        }
    }

    /// For who wants to write anew what has it.
    const fn way_out(self) -> &'static str {
        match self {
            Self::Mount => {
                "nothing was changed; it would be lost: copy what it holds into a plain folder in the view, and unmount or \
                 delete it (btrfs subvolume delete)"
            }
            _ => {
                "the store is not what its driver writes: `sliverfs diff` shows it; settle these entries first"
            }
        }
    }

    /// For JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TornWhiteout => "torn_whiteout",
            Self::StrayWhiteout => "stray_whiteout",
            Self::Both => "both",
            Self::Foreign => "foreign",
            Self::Garbage => "garbage",
            Self::Dirren => "dirren",
            Self::Record => "record",
            Self::Lost => "lost",
            Self::Mount => "mount",
        }
    }
}

/// What more of an entry is at hand already: nothing needs be looked up for that again.
#[derive(Debug, Default)]
pub struct More {
    /// It itself, where it is a directory that is open.
    pub dir: Option<Dir>,
    /// The same of a regular file.
    pub file: Option<File>,
    /// The names of its attributes, where they were listed.
    pub attrs: Option<Vec<CString>>,
}

impl More {
    /// Nothing.
    pub const NONE: &Self = {
        static NONE: More = More { dir: None, file: None, attrs: None };
        &NONE
    };

    /// It itself, where it is open.
    fn open(&self) -> Option<BorrowedFd<'_>> {
        self.dir.as_ref().map(Dir::as_fd).or(self.file.as_ref().map(File::as_fd))
    }
}

/// Where an entry lies: its directory, its name there and what it is.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The directory.
    pub dir: &'a Dir,
    /// The name in it.
    pub name: &'a CStr,
    /// What it is.
    pub stat: &'a Stat,
    /// What more is at hand.
    pub more: &'a More,
}

impl<'a> Side<'a> {
    /// Of which nothing more is known.
    pub fn new(dir: &'a Dir, name: &'a CStr, stat: &'a Stat) -> Self {
        Self { dir, name, stat, more: More::NONE }
    }

    /// The names of all its attributes.
    fn attr_names(&self) -> nix::Result<Vec<CString>> {
        match &self.more.attrs {
            Some(names) => Ok(names.clone()),
            None => attr::names_of(self.dir, self.name, self.more.open()),
        }
    }
}

/// A name of the view, and what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// What became of it.
    pub change: Change,
    /// What is wrong with it.
    pub doubt: Option<Doubt>,
    /// The name in the view; `.` for the root.
    pub name: &'a CStr,
    /// The path in the view, relative to the root; empty for it. It may be longer than the kernel takes.
    pub path: &'a [u8],
    /// What the view shows; none where it shows nothing.
    pub node: Option<Side<'a>>,
    /// Whether `node` lies in the store, and not in the base.
    pub stored: bool,
    /// The directory of the store that holds, or would hold, what it has by the name.
    pub here: &'a Dir,
    /// Where the content of a file lies, if not in `node`: overlay's metacopy.
    pub data: Option<Side<'a>>,
    /// What the base has: by this path, or by `from`.
    pub base: Option<Side<'a>>,
    /// Where the directory was moved from: a path in the base, as the store gives it.
    pub from: Option<&'a [u8]>,
    /// How `node` differs from `base`, where that had to be found out to see the change at all.
    pub differs: Option<Aspects>,
    /// Where the attributes lie, if not in `node`, and whether that is in the store.
    pub attrs: Option<(Side<'a>, bool)>,
}

impl Entry<'_> {
    /// Fails where something is wrong with it by which it would be missing in what is written anew. What a crash left may.
    fn refuse_doubt(&self) -> Result<()> {
        match self.doubt {
            None | Some(Doubt::Garbage) => Ok(()),
            Some(doubt) => {
                let path = shown(self.path);
                Err(Error::damaged(format_args!("{} ({})", path.display(), doubt.words()))
                    .way_out(doubt.way_out()))
            }
        }
    }
}
