//! An entry is put in place of what a store has by its name, or that is taken out: in one step, or noted in the journal.

use std::ffi::{CStr, CString};

use nix::errno::Errno;

use super::{DROP, NEW, OLD, PUT, RECORDS, Scratch, told};
use crate::error::Result;
use crate::layer::decode::WH;
use crate::layer::{Format, records, walk};
use crate::tree::{Dir, Kind, SELF, sync_tree, sys};

impl Scratch {
    /// Puts the entry `name` out of the fresh folder to where it belongs, `dir`, in place of what is there: in one step, or noted
    /// in the journal. `path` is its path in the store. What fails is taken back, and the rest cleared.
    pub(in crate::layer) fn publish(
        &self,
        format: Format,
        dir: &Dir,
        name: &CStr,
        path: &[u8],
    ) -> Result<()> {
        let done = self.put(format, dir, name, path);
        if done.is_err() && self.begun() {
            let new = self.new_entry();
            let unpublished = new.is_ok_and(|new| new.stat_at(name).is_ok());
            if !(unpublished && self.take_back(dir, name)) {
                // The next command ends it.
                return done;
            }
        }
        let cleared = self.clear();
        done.map(|()| told(cleared))
    }

    /// The folder of the new entry.
    fn new_entry(&self) -> nix::Result<Dir> {
        self.place()?.child(NEW)
    }

    fn put(&self, format: Format, dir: &Dir, name: &CStr, path: &[u8]) -> Result<()> {
        let look = || sys("look at", path);
        let from = self.new_entry().map_err(look())?;
        // What is named later must be whole on the disk before.
        sync_tree(&from.proc_path(SELF))?;
        let new = from.stat_at(name).map_err(look())?;
        let old = walk::stat(dir, name).map_err(look())?;
        if self.is_room(dir, name) {
            return Err(look()(Errno::EEXIST));
        }
        let whiteout = aufs_whiteout(format, name).map_err(look())?;
        let whited = whiteout.is_some_and(|whiteout| dir.stat_at(&whiteout).is_ok());
        if !whited && old.is_none_or(|old| old.kind != Kind::Dir && new.kind != Kind::Dir) {
            let moved = from.rename(name, dir, name);
            return moved.and_then(|()| dir.sync()).map_err(sys("put in place", path));
        }
        self.begin(PUT, path)?;
        self.exchange(format, dir, name, path)?;
        self.end()
    }

    /// Is it the room that the base has a name for? Nothing but chance gives it one.
    fn is_room(&self, dir: &Dir, name: &CStr) -> bool {
        let same =
            |root: &Dir| matches!((root.stat(), dir.stat()), (Ok(one), Ok(other)) if one.id == other.id);
        self.room.as_deref() == Some(name) && self.root.as_ref().is_some_and(|(root, _)| same(root))
    }

    /// After a failure: what was moved away is put back where it was, and the journal ends. False where it cannot be.
    fn take_back(&self, dir: &Dir, name: &CStr) -> bool {
        let back = || self.place().and_then(|place| place.rename(OLD, dir, name));
        let there = dir.stat_at(name).is_ok() || removed(back()).is_ok();
        there && self.end().is_ok()
    }

    /// Can be cut and begun again anywhere.
    pub(super) fn exchange(&self, format: Format, dir: &Dir, name: &CStr, path: &[u8]) -> Result<()> {
        let failed = || sys("put in place", path);
        let new = match self.new_entry() {
            Err(Errno::ENOENT) => None,
            new => Some(new.map_err(failed())?),
        };
        if let Some(new) = new.filter(|new| new.stat_at(name).is_ok()) {
            let place = self.place().map_err(failed())?;
            removed(dir.rename(name, &place, OLD)).map_err(failed())?;
            new.rename(name, dir, name).map_err(failed())?;
        }
        unwhite(format, dir, name).and_then(|()| dir.sync()).map_err(failed())
    }

    /// Removes what the store has by a name, so that the base's shows again. `path` is its path in the store.
    pub(in crate::layer) fn uncover(
        &self,
        format: Format,
        dir: &Dir,
        name: &CStr,
        path: &[u8],
    ) -> Result<()> {
        let failed = || sys("remove", path);
        if format == Format::MiniFo && recorded(dir, name).map_err(failed())? {
            let there = walk::stat(dir, name).map_err(failed())?;
            if there.is_some_and(|there| there.kind == Kind::Dir) {
                self.begin(DROP, path)?;
                if let Err(err) = self.drop_recorded(dir, name, path) {
                    // Otherwise the next command ends it.
                    if recorded(dir, name) == Ok(true) {
                        self.take_back(dir, name);
                    }
                    return Err(err);
                }
                self.end()?;
            } else {
                // A file hides the base's without the record, too.
                self.unrecord(dir, name, path)?;
                self.take_out(dir, name).and_then(|()| dir.sync()).map_err(failed())?;
            }
        } else {
            // Beside a whiteout of aufs's it is hidden, and goes first.
            let done = self.take_out(dir, name).and_then(|()| unwhite(format, dir, name));
            done.and_then(|()| dir.sync()).map_err(failed())?;
        }
        told(self.clear());
        Ok(())
    }

    pub(super) fn drop_recorded(&self, dir: &Dir, name: &CStr, path: &[u8]) -> Result<()> {
        self.take_out(dir, name).map_err(sys("remove", path))?;
        self.unrecord(dir, name, path)
    }

    fn unrecord(&self, dir: &Dir, name: &CStr, path: &[u8]) -> Result<()> {
        let rewritten = removed(self.dir.unlink(RECORDS)).and_then(|()| {
            records::rewrite(dir, self, &mut |line| records::gone(line) != Some(name.to_bytes()))
        });
        rewritten.and_then(|_| dir.sync()).map_err(sys("rewrite the records beside", path))
    }

    /// Removes a name in one step: a directory is moved here, to be cleared.
    pub(in crate::layer) fn take_out(&self, dir: &Dir, name: &CStr) -> nix::Result<()> {
        match walk::stat(dir, name)? {
            None => Ok(()),
            Some(stat) if stat.kind == Kind::Dir => dir.rename(name, &self.place()?, OLD),
            Some(_) => removed(dir.unlink(name)),
        }
    }
}

/// Does mini_fo have a record of the name?
fn recorded(dir: &Dir, name: &CStr) -> nix::Result<bool> {
    match records::read(dir) {
        Err(Errno::ENOENT) => Ok(false),
        read => Ok(read?.gone.iter().any(|gone| gone.as_c_str() == name)),
    }
}

/// The name of aufs's whiteout of a name, which fuse-overlayfs obeys, too; none with other formats.
fn aufs_whiteout(format: Format, name: &CStr) -> nix::Result<Option<CString>> {
    if !matches!(format, Format::Aufs | Format::FuseOverlayfs) {
        return Ok(None);
    }
    CString::new([WH, name.to_bytes()].concat()).map(Some).map_err(|_| Errno::EINVAL)
}

/// Removes that whiteout, where there is one.
pub(in crate::layer) fn unwhite(format: Format, dir: &Dir, name: &CStr) -> nix::Result<()> {
    match aufs_whiteout(format, name)? {
        Some(whiteout) => removed(dir.unlink(&whiteout)),
        None => Ok(()),
    }
}

/// What is not there is as good as removed.
pub(in crate::layer) fn removed(done: nix::Result<()>) -> nix::Result<()> {
    match done {
        Err(Errno::ENOENT) => Ok(()),
        done => done,
    }
}
