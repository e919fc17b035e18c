//! The ways in which stores are written.

use std::ffi::{CStr, CString};

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::kind::{Kind, Union};
use crate::layer::Aspects;
use crate::out::escape;

/// overlay puts this behind its prefix to keep what only looks like its own.
const NESTED: &[u8] = b"overlay.";

/// How a store says what was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Mainline overlay.
    Overlay,
    /// Mainline overlay, mounted with `userxattr`: its marks are `user.overlay.*`.
    OverlayUser,
    /// The out-of-tree overlayfs.
    Overlayfs,
    /// mini_fo.
    MiniFo,
    /// aufs.
    Aufs,
    /// fuse-overlayfs: overlay's marks, and some of aufs's.
    FuseOverlayfs,
    /// A whole tree, which shares inodes and their times with the base: what has both as in the base is untouched.
    Snapshot,
    /// A whole tree, copied from the base: only comparing tells.
    Tree,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Overlay,
        Self::OverlayUser,
        Self::Overlayfs,
        Self::MiniFo,
        Self::Aufs,
        Self::FuseOverlayfs,
        Self::Snapshot,
        Self::Tree,
    ];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::OverlayUser => "overlay-userxattr",
            Self::Overlayfs => "overlayfs",
            Self::MiniFo => "mini_fo",
            Self::Aufs => "aufs",
            Self::FuseOverlayfs => "fuse-overlayfs",
            Self::Snapshot => "snapshot",
            Self::Tree => "tree",
        }
    }

    /// Takes a text as a format.
    pub fn parse(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|format| format.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|format| format.name()).collect();
            Error::usage(format_args!("`{}` is no format of a store", escape(text.as_bytes())))
                .way_out(format_args!("take {}", names.join(", ")))
        })
    }

    /// The format that a backend writes.
    pub const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Union(Union::Overlay) => Self::Overlay,
            Kind::Union(Union::Overlayfs) => Self::Overlayfs,
            Kind::Union(Union::MiniFo) => Self::MiniFo,
            Kind::Union(Union::Aufs) => Self::Aufs,
            // What grew from a seed has the inodes of the seed.
            Kind::BtrfsSnapshot | Kind::BtrfsSeed => Self::Snapshot,
            Kind::Reflink | Kind::Copy => Self::Tree,
            Kind::FuseOverlayfs => Self::FuseOverlayfs,
        }
    }

    /// Does the store hold the whole tree?
    pub const fn whole(self) -> bool {
        match self {
            Self::Snapshot | Self::Tree => true,
            Self::Overlay
            | Self::OverlayUser
            | Self::Overlayfs
            | Self::MiniFo
            | Self::Aufs
            | Self::FuseOverlayfs => false,
        }
    }

    /// What the names of the attributes begin with that are the driver's own: what it writes, then what it obeys as well.
    pub(super) const fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Overlay | Self::Overlayfs => &["trusted.overlay."],
            Self::OverlayUser => &["user.overlay."],
            Self::FuseOverlayfs => &["trusted.overlay.", "user.overlay.", "user.fuseoverlayfs."],
            Self::MiniFo | Self::Aufs | Self::Snapshot | Self::Tree => &[],
        }
    }

    /// What stands behind the prefix of an attribute that is the driver's own, and then no part of the view; none of all others.
    pub(super) fn own(self, attr: &CStr) -> Option<&[u8]> {
        self.prefixes().iter().find_map(|prefix| attr.to_bytes().strip_prefix(prefix.as_bytes()))
    }

    /// The name of one of the driver's attributes.
    pub(super) fn attr(self, rest: &[u8]) -> nix::Result<CString> {
        let prefix = self.prefixes().first().copied().unwrap_or_default();
        CString::new([prefix.as_bytes(), rest].concat()).map_err(|_| Errno::EINVAL)
    }

    /// The name by which the view shows an attribute that overlay keeps under another one (Linux 6.7): an overlay in the view has its
    /// own marks. None for all others.
    pub(super) fn shown(self, attr: &CStr) -> Option<CString> {
        self.attr(self.nested(attr)?.strip_prefix(NESTED)?).ok()
    }

    /// The name by which overlay keeps an attribute that would be its own; none where the driver keeps no such ones.
    pub(super) fn hidden(self, attr: &CStr) -> Option<CString> {
        self.attr(&[NESTED, self.nested(attr)?].concat()).ok()
    }

    /// As [`Self::own`], of a driver that keeps what only looks like its own.
    fn nested(self, attr: &CStr) -> Option<&[u8]> {
        self.own(attr).filter(|_| matches!(self, Self::Overlay | Self::OverlayUser))
    }

    /// What the driver itself loses when it copies an entry of the base up: where only these differ, nobody changed the entry,
    /// though the view shows them changed.
    pub const fn loses(self) -> Aspects {
        match self {
            Self::MiniFo => Aspects::OWNER.and(Aspects::TIME).and(Aspects::ATTRS),
            Self::Overlay
            | Self::OverlayUser
            | Self::Overlayfs
            | Self::Aufs
            | Self::FuseOverlayfs
            | Self::Snapshot
            | Self::Tree => Aspects::NONE,
        }
    }
}
