//! Names that share one file: no step drops two names, but one drops a directory with all that is in it.

use nix::errno::Errno;

use super::{Compact, Level, Way};
use crate::error::Result;
use crate::layer::{Entry, Format, Side};
use crate::sum::Sum;
use crate::tree::{Stat, Time, sys};

/// As many names are held back at most, in a directory and below it; those that come after stay.
const MOST: usize = 512;

/// A name that is as the base's.
struct Name {
    store: (u64, u64),
    base: (u64, u64),
    /// How many names the file has, in the store as in the base.
    links: u64,
    allocated: u64,
    path: Vec<u8>,
}

/// What a directory holds that is as the base's, and goes with the directory or stays.
#[derive(Default)]
pub(super) struct Held {
    names: Vec<Name>,
    /// The directories below that hold nothing else, and their bytes.
    directories: usize,
    bytes: u64,
    /// How many of all these lie in the directory itself.
    direct: usize,
}

impl Held {
    /// Holds a name back. False where it stays in any case: the file has more or fewer names than in the base, or too many are held.
    fn hold(&mut self, node: &Stat, base: &Stat, path: &[u8]) -> bool {
        if node.links != base.links || self.names.len() >= MOST {
            return false;
        }
        let (links, allocated) = (node.links, node.allocated);
        self.names.push(Name { store: node.id, base: base.id, links, allocated, path: path.to_vec() });
        self.direct = self.direct.saturating_add(1);
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Are these all names of each of the files, in the store as in the base? Only then nobody sees whose they are.
    fn is_whole(&self) -> bool {
        self.names.iter().all(|name| {
            let same = |other: &&Name| (other.store, other.base) == (name.store, name.base);
            u64::try_from(self.names.iter().filter(same).count()) == Ok(name.links)
        })
    }

    /// What the disk gets back.
    fn allocated(&self) -> u64 {
        let first =
            |at: usize, name: &Name| !self.names.iter().take(at).any(|other| other.store == name.store);
        let files = self.names.iter().enumerate().filter(|(at, name)| first(*at, name));
        files.fold(self.bytes, |sum, (_, name)| sum.plus(name.allocated))
    }
}

impl Compact<'_> {
    /// A file with other names stays until it is known whether a directory goes with all of them.
    pub(super) fn hold(&mut self, entry: &Entry<'_>, node: Side<'_>, base: Side<'_>) -> Result<Way> {
        // fuse-overlayfs cannot copy such a file up: it was copied when the store was made.
        let may = self.format != Format::FuseOverlayfs && !self.is_fixed(node, node.stat.mtime);
        let level = self.levels.last_mut().filter(|level| may && !level.kept);
        if level.is_some_and(|level| level.held.hold(node.stat, base.stat, entry.path)) {
            return Ok(Way::Past);
        }
        self.linked(entry.path)?;
        self.keep()
    }

    /// Is it immutable? Then its time cannot be set, either, though it has that already.
    fn is_fixed(&self, node: Side<'_>, time: Time) -> bool {
        !self.dry_run && node.dir.set_mtime(node.name, time) == Err(Errno::EPERM)
    }

    fn linked(&mut self, path: &[u8]) -> Result<()> {
        self.done.linked += 1;
        (self.tell)("as in the base, but has other names: kept", path)
    }

    /// The directory stays, and what it holds.
    pub(super) fn stay(&mut self, held: Held) -> Result<()> {
        for name in &held.names {
            self.linked(&name.path)?;
        }
        self.keep().map(drop)
    }

    /// A directory that is as the base's and holds nothing but names that were held back: it goes with them, or waits for the one above.
    pub(super) fn whole(&mut self, entry: &Entry<'_>, node: Side<'_>, level: Level) -> Result<()> {
        let mut held = level.held;
        if !self.dry_run {
            let names = node.dir.child(node.name).and_then(|dir| dir.some_names(held.direct));
            if names.map_err(sys("list", entry.path))?.len() != held.direct || self.is_fixed(node, level.time)
            {
                return self.stay(held);
            }
        }
        held.directories += 1;
        held.bytes = held.bytes.plus(node.stat.allocated);
        if !held.is_whole() {
            return match self.levels.last_mut() {
                Some(above) if !above.kept && above.held.names.len() + held.names.len() <= MOST => {
                    let to = &mut above.held;
                    to.names.append(&mut held.names);
                    to.directories += held.directories;
                    to.bytes = to.bytes.plus(held.bytes);
                    to.direct = to.direct.saturating_add(1);
                    Ok(())
                }
                _ => self.stay(held),
            };
        }
        if !self.dry_run {
            self.forget()?;
            match self.scratch.take_out(node.dir, node.name) {
                Err(Errno::EPERM | Errno::ENOSPC | Errno::EDQUOT) => return self.stay(held),
                done => {
                    done.and_then(|()| node.dir.sync()).map_err(sys("remove the directory", entry.path))?
                }
            }
            self.scratch.clear()?;
        }
        self.done.files += held.names.len();
        self.done.directories += held.directories;
        self.done.bytes = self.done.bytes.plus(held.allocated());
        for name in &held.names {
            (self.tell)("as in the base: dropped", &name.path)?;
        }
        (self.tell)("as in the base, with all names of what is in it: dropped", entry.path)
    }
}
