//! Where a store is changed from: what is being made, what is being thrown away, and a journal where two steps belong together.

mod place;

pub(super) use place::{removed, unwhite};

use std::ffi::{CStr, CString};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::fsync;

use super::Format;
use super::look::leads_nowhere;
use crate::error::Result;
use crate::sys::file::{read_all, write_at};
use crate::tree::{self, Dir, Kind, SELF, Time, sys};

/// A folder with the entry that is to be published.
const NEW: &CStr = c".sliverfs-new";
/// A directory that was taken out of the store, and has no more use.
const OLD: &CStr = c".sliverfs-old";
/// mini_fo's records of a folder, written anew.
const RECORDS: &CStr = c".sliverfs-records";
/// What was begun and must be ended: a letter, a blank, a path in the store, and a line's end when it is whole.
const JOURNAL: &CStr = c".sliverfs-journal";
/// The name of the room in the store, and a line's end when it is whole.
const NOTE: &CStr = c".sliverfs-room";
/// What the name of a room begins with.
const ROOM: &[u8] = b".sliverfs-room-";

/// No journal is longer: what the kernel takes as one word of a command line (`MAX_ARG_STRLEN`, linux/binfmts.h).
const MOST: u64 = 1 << 17;

/// What the journal says: put what is in the folder of the new entry in place of what is there.
const PUT: u8 = b'P';
/// What the journal says: remove what is there with mini_fo's records of it.
const DROP: u8 = b'D';

/// A folder on the disk of a store: beside it, or the store itself, where nothing beside it is ours.
///
/// What it holds by these names was left by a crash. Beside a store no name of a tenant's can be one of them. In one that is given as
/// a bare directory one can: a journal may be a tenant's, and then it leads nowhere but to what is the tenant's.
pub struct Scratch {
    dir: Dir,
    /// The store's root and its time, where the work may change that.
    root: Option<(Dir, Time)>,
    /// The name of a folder in the store's root, where nothing can be renamed from beside the store into it: a subvolume. It is noted
    /// beside the store before it is made, so that no folder of a tenant's is ever taken for it.
    room: Option<CString>,
}

/// Ends what a command that was cut began in the folder with a store's layers. The store is mounted nowhere, and nobody else is at it.
pub fn settle(folder: &Path, format: Format) -> Result<()> {
    let store = tree::open(&folder.join(if format.whole() { "tree" } else { "upper" }))?;
    beside(format, &store)?.settle_or_tell(format, &store)
}

/// The scratch of a sliver's store, in the folder in which its layer lies: the store's own, or its image's.
pub fn beside(format: Format, store: &Dir) -> Result<Box<Scratch>> {
    let folder = store.parent().map_err(sys("open the folder of", b"the store"))?;
    if format.whole() { Scratch::beside_tree(folder, store) } else { Ok(Scratch::beside(folder)) }
}

impl Scratch {
    /// The folder of a sliver's store, in which the upper folder lies.
    pub fn beside(dir: Dir) -> Box<Self> {
        Box::new(Self { dir, root: None, room: None })
    }

    /// The folder of a sliver's store, in which the store lies as a whole tree, or as a subvolume.
    pub fn beside_tree(dir: Dir, store: &Dir) -> Result<Box<Self>> {
        let mut scratch = Self::inside(store)?;
        let failed = || sys("look beside", b".");
        if dir.stat().map_err(failed())?.id.0 != store.stat().map_err(failed())?.id.0 {
            scratch.room = Some(room(&dir, store).map_err(failed())?);
        }
        scratch.dir = dir;
        Ok(scratch)
    }

    /// The store itself: a bare directory.
    pub fn inside(store: &Dir) -> Result<Box<Self>> {
        let time = store.stat().map_err(sys("look at", b"."))?.mtime;
        let mut scratch = Self::beside(tree::again(store)?);
        scratch.root = Some((tree::again(store)?, time));
        Ok(scratch)
    }

    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    pub(super) fn records(&self) -> &'static CStr {
        RECORDS
    }

    /// The folder with the entries that come and go.
    fn place(&self) -> nix::Result<Dir> {
        match (&self.room, &self.root) {
            (Some(room), Some((root, _))) => root.child(room),
            _ => self.dir.again(),
        }
    }

    /// The names of what a crash left.
    pub fn left(&self) -> Vec<&'static CStr> {
        let mut names = Vec::new();
        for name in [JOURNAL, NOTE, NEW, OLD, RECORDS] {
            if self.dir.stat_at(name).is_ok() {
                names.push(name);
            }
        }
        names
    }

    /// Was something begun, and not ended?
    pub fn begun(&self) -> bool {
        self.dir.stat_at(JOURNAL).is_ok()
    }

    /// Ends what the journal says, and removes the rest: what was begun is done or undone.
    pub fn settle(&self, format: Format, store: &Dir) -> Result<()> {
        if self.left().is_empty() {
            return Ok(());
        }
        self.finish(format, store)?;
        self.clear()
    }

    /// As [`Self::settle`], but what cannot be removed may stay: a tenant's immutable file in it must not keep the sliver down.
    pub fn settle_or_tell(&self, format: Format, store: &Dir) -> Result<()> {
        if self.left().is_empty() {
            return Ok(());
        }
        self.finish(format, store)?;
        told(self.clear());
        Ok(())
    }

    fn finish(&self, format: Format, store: &Dir) -> Result<()> {
        if self.begun() {
            if let Some((what, path)) = self.journal().map_err(sys("read the journal of", b"the store"))? {
                match (what, place(store, &path)?) {
                    // The directory was there when it was noted, and nothing that was begun removes it.
                    (_, None) => crate::warn!(
                        "a journal names {}, which the store has not: it is removed",
                        tree::shown(&path).display()
                    ),
                    (PUT, Some((dir, name))) => self.exchange(format, &dir, &name, &path)?,
                    (_, Some((dir, name))) => self.drop_recorded(&dir, &name, &path)?,
                }
            }
            self.end()?;
        }
        Ok(())
    }

    /// Removes what is left, but for the journal.
    pub(super) fn clear(&self) -> Result<()> {
        let remove = |dir: &Dir, name: &CStr| tree::remove(dir, name, &tree::shown(name.to_bytes()));
        for name in [NEW, OLD, RECORDS] {
            remove(&self.dir, name)?;
        }
        let Some((root, time)) = &self.root else { return Ok(()) };
        let noted = self.dir.stat_at(NOTE).is_ok();
        if let Some(room) = self.room.as_ref().filter(|_| noted) {
            // A note that is not whole was written before there was a room.
            if matches!(noted_room(&self.dir), Ok(Some(noted)) if noted == *room) {
                remove(root, room)?;
            }
        }
        root.set_mtime(SELF, *time).map_err(sys("set the time of", b"."))?;
        if noted {
            // The note goes last, and for good: a tenant may then take the name.
            root.sync().map_err(sys("clear", b"the store"))?;
            remove(&self.dir, NOTE)?;
            self.dir.sync().map_err(sys("clear", b"the store"))?;
        }
        Ok(())
    }

    /// What was begun; none where it was not even noted whole.
    fn journal(&self) -> nix::Result<Option<(u8, Vec<u8>)>> {
        Ok(match read(&self.dir, JOURNAL)?.as_slice() {
            [what @ (PUT | DROP), b' ', path @ .., b'\n'] => Some((*what, path.to_vec())),
            _ => None,
        })
    }

    /// Notes on the disk what begins now.
    fn begin(&self, what: u8, path: &[u8]) -> Result<()> {
        let mut text = vec![what, b' '];
        text.extend_from_slice(path);
        self.note(JOURNAL, text).map_err(sys("write the journal for", path))
    }

    /// Writes a line to a new file, all of it durable.
    fn note(&self, name: &CStr, mut line: Vec<u8>) -> nix::Result<()> {
        line.push(b'\n');
        let file = self.dir.create_file(name)?;
        let written = write_at(&file, &line, 0).and_then(|()| fsync(&file));
        written.and_then(|()| self.dir.sync()).inspect_err(|_| {
            let _settled_by_the_next = self.dir.unlink(name);
        })
    }

    fn end(&self) -> Result<()> {
        tree::remove(&self.dir, JOURNAL, &tree::shown(JOURNAL.to_bytes()))?;
        self.dir.sync().map_err(sys("end the journal of", b"the store"))
    }

    /// A fresh folder for a new entry.
    pub(super) fn fresh(&self) -> nix::Result<Dir> {
        if let (Some(room), Some((root, _))) = (&self.room, &self.root) {
            self.note(NOTE, room.to_bytes().to_vec())?;
            root.make_dir(room)?;
        }
        let place = self.place()?;
        place.make_dir(NEW)?;
        place.child(NEW)
    }
}

/// What is done is done where the rest of it cannot be removed: the next command comes upon it again.
fn told(cleared: Result<()>) {
    if let Err(err) = cleared {
        crate::warn!("{err}");
    }
}

/// What a short file of ours holds; nothing where it is none.
fn read(dir: &Dir, name: &CStr) -> nix::Result<Vec<u8>> {
    let stat = dir.stat_at(name)?;
    if stat.kind != Kind::File || stat.size > MOST {
        return Ok(Vec::new());
    }
    read_all(dir.open_file(name, &stat)?, usize::try_from(stat.size).unwrap_or(0))
}

/// The room that is noted beside a store; none where the note is not whole, or none of ours.
fn noted_room(dir: &Dir) -> nix::Result<Option<CString>> {
    let text = match read(dir, NOTE) {
        Err(Errno::ENOENT) => return Ok(None),
        read => read?,
    };
    let name = text.strip_suffix(b"\n").filter(|name| name.starts_with(ROOM) && !name.contains(&b'/'));
    Ok(name.and_then(|name| CString::new(name).ok()))
}

/// The room of a store: the one that is noted, or one that is free.
fn room(dir: &Dir, store: &Dir) -> nix::Result<CString> {
    if let Some(room) = noted_room(dir)? {
        return Ok(room);
    }
    for number in 0..1000_u32 {
        let name = CString::new(format!(".sliverfs-room-{number}")).map_err(|_| Errno::EINVAL)?;
        if store.stat_at(&name).is_err_and(|errno| errno == Errno::ENOENT) {
            return Ok(name);
        }
    }
    Err(Errno::EEXIST)
}

/// The directory that a path in the store lies in, and its last name. None where there is no such directory, and where a name leads
/// upwards: nobody notes such a path but who wants to lead root out of the store.
fn place(store: &Dir, path: &[u8]) -> Result<Option<(Dir, CString)>> {
    match store.reach(path) {
        Err(errno) if leads_nowhere(errno) => Ok(None),
        reached => reached.map(Some).map_err(sys("open the directory above", path)),
    }
}
