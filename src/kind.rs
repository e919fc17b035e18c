//! The backends by name, and what each can do, as data.

use std::fmt;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::form::Form;
use crate::out::escape;

/// A union file system of the kernel: base and store are merged as they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Union {
    /// Mainline overlay, Linux 3.18 and later.
    Overlay,
    /// The out-of-tree overlayfs of OpenWrt's kernels 2.6.37 to 3.17.
    Overlayfs,
    /// mini_fo, OpenWrt's before 2.6.37.
    MiniFo,
    /// aufs, Debian's and Voyage's.
    Aufs,
}

/// What a union file system needs and what it keeps.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// The type that mount(2) and /proc/filesystems know it by, and its module's name.
    pub fstype: &'static str,
    /// What statfs(2) calls a view's file system; none where it answers for the base.
    pub magic: Option<u32>,
    /// It wants a work folder beside the upper folder.
    pub work_dir: bool,
    /// The store's disk must keep trusted extended attributes.
    pub trusted_xattrs: bool,
    /// A folder of the base can be removed and made anew in the view.
    pub replaces_folders: bool,
    /// The kernel can be asked whether a store is in use, even by a detached view ([`crate::alive`]).
    pub tells_in_use: bool,
}

/// A backend: the way in which base and store become the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A union of the kernel.
    Union(Union),
    /// The store is a writable snapshot of the base's subvolume.
    BtrfsSnapshot,
    /// The base is the image of a Btrfs seed; the store is an image that has what was changed.
    BtrfsSeed,
    /// The store is a copy of the base whose files share their extents.
    Reflink,
    /// The store is a full copy of the base; a disk that deduplicates shares it.
    Copy,
    /// A union in user space: fuse-overlayfs, a daemon for each view.
    FuseOverlayfs,
}

impl Union {
    /// All unions, the newest first.
    pub const ALL: [Self; 4] = [Self::Overlay, Self::Overlayfs, Self::MiniFo, Self::Aufs];

    /// What it needs and keeps.
    pub const fn caps(self) -> Caps {
        match self {
            Self::Overlay => Caps {
                fstype: "overlay",
                magic: Some(0x794c_7630),
                work_dir: true,
                trusted_xattrs: true,
                replaces_folders: true,
                tells_in_use: true,
            },
            Self::Overlayfs => Caps {
                fstype: "overlayfs",
                magic: Some(0x794c_764f),
                work_dir: true,
                trusted_xattrs: true,
                replaces_folders: true,
                tells_in_use: false,
            },
            // rmdir of any folder of the base is EINVAL (seen on 2.6.32).
            Self::MiniFo => Caps {
                fstype: "mini_fo",
                magic: None,
                work_dir: false,
                trusted_xattrs: false,
                replaces_folders: false,
                tells_in_use: false,
            },
            Self::Aufs => Caps {
                fstype: "aufs",
                magic: Some(0x6175_6673),
                work_dir: false,
                trusted_xattrs: false,
                replaces_folders: true,
                tells_in_use: false,
            },
        }
    }
}

impl Kind {
    /// All kinds, in the order in which `auto` takes them.
    pub const ALL: [Self; 9] = [
        Self::Union(Union::Overlay),
        Self::Union(Union::Overlayfs),
        Self::Union(Union::MiniFo),
        Self::Union(Union::Aufs),
        Self::BtrfsSnapshot,
        Self::BtrfsSeed,
        Self::Reflink,
        Self::Copy,
        Self::FuseOverlayfs,
    ];

    /// Does the view stand on the base's folder, which must then be there for as long as the view is? An image is mounted for it.
    pub const fn reads_base(self) -> bool {
        match self {
            Self::Union(_) | Self::FuseOverlayfs => true,
            Self::BtrfsSnapshot | Self::BtrfsSeed | Self::Reflink | Self::Copy => false,
        }
    }

    /// Does it want the base's image itself, and not what is mounted of it? The store is then an image, too, with a limit.
    pub const fn grows_image(self) -> bool {
        matches!(self, Self::BtrfsSeed)
    }

    /// Can a base of this form carry it?
    pub const fn takes(self, form: Form) -> bool {
        match self {
            Self::Union(_) | Self::Copy | Self::FuseOverlayfs => true,
            Self::BtrfsSnapshot | Self::Reflink => matches!(form, Form::Directory),
            Self::BtrfsSeed => matches!(form, Form::Btrfs),
        }
    }

    /// The name on the command line, in UCI and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Union(union) => union.caps().fstype,
            Self::BtrfsSnapshot => "btrfs-snapshot",
            Self::BtrfsSeed => "btrfs-seed",
            Self::Reflink => "reflink",
            Self::Copy => "copy",
            Self::FuseOverlayfs => "fuse-overlayfs",
        }
    }

    /// Takes a text as a kind.
    pub fn parse(text: &str) -> Result<Self> {
        let found = Self::ALL.iter().copied().find(|kind| kind.name() == text);
        found.ok_or_else(|| none_of(&Self::ALL.map(Self::name), text, "backend"))
    }
}

/// What to say of a text that is none of these names, nor `auto`; `what` it should be.
#[cold]
pub fn none_of(names: &[&str], text: &str, what: &str) -> Error {
    Error::usage(format_args!("`{}` is no {what}", escape(text.as_bytes())))
        .way_out(format_args!("take auto, {}", names.join(", ")))
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

impl fmt::Display for Union {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.caps().fstype)
    }
}

impl From<Union> for Kind {
    fn from(union: Union) -> Self {
        Self::Union(union)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What the user asks for: a kind by name, or the best that a trial proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The first of [`Kind::ALL`] that works on the store's disk.
    Auto,
    /// This one.
    Named(Kind),
}

impl Choice {
    /// Takes `auto` or a kind's name.
    pub fn parse(text: &str) -> Result<Self> {
        if text == "auto" { Ok(Self::Auto) } else { Kind::parse(text).map(Self::Named) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_name_everywhere() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.name()).unwrap(), kind);
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
        assert_eq!(Choice::parse("auto").unwrap(), Choice::Auto);
        assert!(Choice::parse("overlay,upperdir=/").is_err());
    }
}
