//! What an entry carries besides its content, read from one tree and given to another.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use super::attr::{self, Attr};
use super::{Dir, Kind, Stat, Time, shown, sys};
use crate::error::{Error, Result};

/// Owner, mode, time and attributes of an entry.
#[derive(Clone, Debug, Default)]
pub struct Meta {
    /// The low 12 bits of the mode.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The time of the last change.
    pub mtime: Time,
    /// The kept attributes ([`attr::kept`]).
    pub attrs: Vec<Attr>,
}

impl Meta {
    /// Reads the rest of what `stat` began, of an entry that may be open already.
    ///
    /// Refuses what only a union file system may put into a tree: as a base it would hide or forge entries of the view. In a box, since
    /// it passes through many hands.
    pub fn read(
        dir: &Dir,
        name: &CStr,
        stat: &Stat,
        open: Option<BorrowedFd<'_>>,
        path: &[u8],
    ) -> Result<Box<Self>> {
        if stat.kind == Kind::Char && stat.device == (0, 0) {
            return Err(union_mark(path, "a whiteout (character device 0:0)"));
        }
        let names = attr::names_of(dir, name, open).map_err(sys("list the attributes of", path))?;
        if let Some(mark) = names.iter().find(|attr| attr::forged(attr.to_bytes())) {
            return Err(union_mark(
                path,
                &format!("marked by a union file system ({})", mark.to_string_lossy()),
            ));
        }
        let attrs = attr::read(dir, name, names).map_err(sys("read the attributes of", path))?;
        Ok(Box::new(Self { mode: stat.mode, uid: stat.uid, gid: stat.gid, mtime: stat.mtime, attrs }))
    }

    /// Gives everything to an entry.
    pub fn apply(&self, dir: &Dir, name: &CStr, kind: Kind, path: &[u8]) -> Result<()> {
        self.complete(dir, name, kind, None, path)
    }

    /// The same for an entry that was made just now, and looked at since (`made`): owner and mode that it has are not set again. The
    /// order matters: chown(2) clears set-id bits and capabilities.
    pub fn complete(
        &self,
        dir: &Dir,
        name: &CStr,
        kind: Kind,
        made: Option<&Stat>,
        path: &[u8],
    ) -> Result<()> {
        let owned = made.filter(|made| (made.uid, made.gid) == (self.uid, self.gid));
        if owned.is_none() {
            dir.chown(name, self.uid, self.gid).map_err(sys("set the owner of", path))?;
        }
        if kind != Kind::Link && owned.is_none_or(|made| made.mode != self.mode) {
            dir.chmod(name, self.mode).map_err(sys("set the mode of", path))?;
        }
        attr::write(dir, name, &self.attrs).map_err(sys("set the attributes of", path))?;
        dir.set_mtime(name, self.mtime).map_err(sys("set the time of", path))
    }
}

fn union_mark(path: &[u8], what: &str) -> Error {
    Error::failed(format_args!("{} is {what}", shown(path).display()))
        .way_out("this is the store of a union file system, not a root file system: take the merged view")
}
