//! What a walk remembers: the directories that it is in, with the names that are to come, and the entry that it came upon.

use std::ffi::{CStr, CString};

use super::decode::Names;
use super::{Aspects, Change, Doubt, More};
use crate::tree::{self, Dir, Shelf, Stat};

/// An entry of the base that stands somewhere else.
pub(super) struct Far {
    pub(super) dir: Dir,
    pub(super) name: CString,
    pub(super) stat: Stat,
}

/// Where a directory was moved from, or where a file's content lies.
pub(super) struct Origin {
    /// What the base has there; none where it has nothing.
    pub(super) far: Option<Box<Far>>,
    /// What the store says; empty where it says nothing.
    pub(super) from: Vec<u8>,
}

/// An [`Entry`] without its directories.
pub(super) struct Seen {
    pub(super) name: CString,
    pub(super) change: Change,
    pub(super) doubt: Option<Doubt>,
    pub(super) node: Option<Stat>,
    pub(super) stored: bool,
    pub(super) base: Option<Stat>,
    pub(super) origin: Option<Box<Origin>>,
    pub(super) differs: Option<Aspects>,
    /// A directory that may hold whiteouts by attribute.
    pub(super) whiteouts: bool,
    /// Of `node`, where that lies in the store, and of `base`.
    pub(super) inside: More,
    pub(super) below: More,
}

impl Seen {
    /// Something by a name that means nothing, as far as is known.
    pub(super) fn new(name: CString, stored: bool, doubt: Option<Doubt>) -> Box<Self> {
        Box::new(Self {
            name,
            change: Change::Nothing,
            doubt,
            node: None,
            stored,
            base: None,
            origin: None,
            differs: None,
            whiteouts: false,
            inside: More::default(),
            below: More::default(),
        })
    }

    pub(super) fn delete(&mut self) {
        self.change = Change::Delete;
        self.node = None;
    }
}

/// How the base's directory for a level was reached.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Below {
    None,
    Down,
    Moved,
}

/// A directory that was entered. Kept small: a tenant can make a hundred thousand of them in one another.
pub(super) struct Level {
    pub(super) names: Names,
    /// The base's names, where they count.
    pub(super) below: tree::Names,
    /// Where the names begin on the shelf.
    pub(super) mark: u64,
    /// The length of this directory's own path.
    pub(super) path: usize,
    pub(super) name: CString,
    pub(super) origin: Option<Box<Origin>>,
    pub(super) change: Change,
    pub(super) doubt: Option<Doubt>,
    /// It lies in the store.
    pub(super) stored: bool,
    pub(super) base: Below,
    /// The base's names are shown, too.
    pub(super) flat: bool,
    /// The base's directory is not the one by this path: a directory above was moved.
    pub(super) strange: bool,
    /// It may hold whiteouts by attribute.
    pub(super) whiteouts: bool,
}

/// A name of a directory, and who has it: the store, a whiteout of it, the base.
pub(super) struct Found {
    pub(super) name: CString,
    pub(super) here: bool,
    pub(super) gone: bool,
    pub(super) below: bool,
    pub(super) doubt: Option<Doubt>,
}

impl Level {
    /// The next name of the directory, in their order; none behind the last.
    pub(super) fn next(&mut self, shelf: &mut Shelf) -> nix::Result<Option<Found>> {
        if let Some((name, doubt)) = self.names.rare.as_mut().and_then(|rare| rare.odd.pop()) {
            return Ok(Some(Found { name, here: true, gone: false, below: false, doubt: Some(doubt) }));
        }
        let mut least: Option<&CStr> = None;
        for list in [&mut self.names.here, &mut self.names.gone, &mut self.below] {
            least = match (least, list.head(shelf)?) {
                (Some(least), Some(head)) => Some(least.min(head)),
                (least, head) => least.or(head),
            };
        }
        let Some(name) = least.map(CStr::to_owned) else { return Ok(None) };
        let here = self.names.here.take(&name, shelf)?;
        let gone = self.names.gone.take(&name, shelf)?;
        let below = self.below.take(&name, shelf)?;
        Ok(Some(Found { name, here, gone, below, doubt: None }))
    }

    /// Before another directory is gone into.
    pub(super) fn rest(&mut self, shelf: &mut Shelf) {
        for list in [&mut self.names.here, &mut self.names.gone, &mut self.below] {
            list.rest(shelf);
        }
    }
}
