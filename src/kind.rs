//! The backends by name, and what each can do, as data.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A backend. What it can do is data ([`Kind::caps`]); code asks that, and never the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Mainline overlay, Linux 3.18 and later.
    Overlay,
    /// The out-of-tree overlayfs of OpenWrt's kernels 2.6.37 to 3.17.
    Overlayfs,
    /// mini_fo, OpenWrt's before 2.6.37.
    #[serde(rename = "mini_fo")]
    MiniFo,
    /// aufs, Debian's and Voyage's.
    Aufs,
}

/// What a backend needs and what it keeps.
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

impl Kind {
    /// All kinds, in the order in which `auto` takes them.
    pub const ALL: [Self; 4] = [Self::Overlay, Self::Overlayfs, Self::MiniFo, Self::Aufs];

    /// What the kind needs and keeps.
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

    /// The name on the command line, in UCI and in records.
    pub const fn name(self) -> &'static str {
        self.caps().fstype
    }

    /// Takes a text as a kind.
    pub fn parse(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            Error::usage(format!("`{}` is no backend", text.escape_debug()))
                .way_out("take auto, overlay, overlayfs, mini_fo or aufs")
        })
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

impl argh::FromArgValue for Choice {
    fn from_arg_value(value: &str) -> std::result::Result<Self, String> {
        Self::parse(value).map_err(|err| err.to_string())
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
