//! A store beside its base, walked in the order of the names: each directory before what it holds, and once more after it.

use std::ffi::CStr;

use nix::errno::Errno;

use super::decode::{self, Names};
use super::level::{Below, Found, Level, Seen};
use super::{Change, Entry, Format, Side};
use crate::error::{Error, Result};
use crate::tree::{self, Chain, Dir, Ids, Kind, Shelf, Stat, shown, sys};

/// How many moved directories may lie in one another: each of them holds a handful of open directories.
const MOVES: usize = 16;

/// What a walk shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// What the store says, as it says it.
    Changes,
    /// The same for formats that cannot say that a directory was moved: it is opaque, and holds what it had in the base.
    Flat,
    /// The whole view, without what is deleted.
    View,
}

/// What the walk came upon.
pub enum Step<'a> {
    /// A name. The walk goes into a directory only when told to by [`Changes::enter`].
    Entry(Entry<'a>),
    /// The end of a directory that was entered.
    Leave(Entry<'a>),
}

/// Looks at a name; none where nothing is there.
pub(super) fn stat(dir: &Dir, name: &CStr) -> nix::Result<Option<Stat>> {
    match dir.stat_at(name) {
        Err(Errno::ENOENT) => Ok(None),
        seen => seen.map(Some),
    }
}

/// Was a directory removed or replaced between the look and the step into it? In a view that is in use that is no fault.
pub fn beside(err: &Error) -> bool {
    matches!(err.errno(), Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ESTALE))
}

/// A walk through the changes that a store holds. Memory: a level for each directory on the way down, and a part of their names.
pub struct Changes {
    shelf: Shelf,
    pub(super) format: Format,
    pub(super) show: Show,
    pub(super) store: Chain,
    /// The device of the store: what is mounted in it is none of its own.
    pub(super) device: u64,
    /// The base's root, for moved directories.
    pub(super) root: Dir,
    /// The root of the store, and of a whole tree the files whose names are other ones than in the base, where that had to be found out.
    pub(super) top: Dir,
    pub(super) regrouped: Option<Box<Ids>>,
    /// The way down the base; a new one for each moved directory.
    pub(super) base: Vec<Chain>,
    // Each is handed on when it is left: by one word.
    #[allow(clippy::vec_box)]
    pub(super) levels: Vec<Box<Level>>,
    pub(super) path: Vec<u8>,
    pub(super) last: Option<Box<Seen>>,
    pub(super) began: bool,
    /// The last step was an entry that can be entered.
    pub(super) fresh: bool,
    /// The ends of directories are told, too.
    pub(super) leaves: bool,
    /// So far down, the caller remembers what a directory of the store is, and is not told it again at its end. He opens files, too.
    pub(super) known: usize,
}

impl Changes {
    /// Begins at the roots of a store and of its base: of the upper directory, or of the whole tree.
    pub fn new(format: Format, store: Dir, base: &Dir, show: Show) -> Result<Box<Self>> {
        let failed = || sys("look at", b".");
        let top = store.again().map_err(failed())?;
        let store = Chain::new(store).map_err(failed())?;
        Ok(Box::new(Self {
            shelf: Shelf::new(store.here()).map_err(failed())?,
            format,
            show,
            device: store.id().0,
            top,
            regrouped: None,
            store,
            root: base.again().map_err(failed())?,
            base: vec![Chain::of(base).map_err(failed())?],
            levels: Vec::new(),
            path: Vec::new(),
            last: None,
            began: false,
            fresh: false,
            leaves: true,
            known: 0,
        }))
    }

    /// The same walk with no look at what a directory of the store is when it is left, `depth` levels down from the root: two calls for each.
    /// A file whose attributes are listed is opened for that: whoever copies or compares it need not do so.
    pub(super) fn known(mut self: Box<Self>, depth: usize) -> Box<Self> {
        self.known = depth;
        self
    }

    /// The same walk without the ends of directories.
    pub fn without_leaves(mut self: Box<Self>) -> Box<Self> {
        self.leaves = false;
        self
    }

    /// The next step; none at the end. The first entry is the root. A name that was removed since its directory was listed
    /// is passed over.
    pub fn step(&mut self) -> Result<Option<Step<'_>>> {
        if !self.go_on()? {
            return Ok(None);
        }
        Ok(match self.entry() {
            Some(entry) if self.fresh => Some(Step::Entry(entry)),
            left => left.map(Step::Leave),
        })
    }

    /// Goes to the next step; false at the end.
    fn go_on(&mut self) -> Result<bool> {
        self.fresh = true;
        if !self.began {
            self.began = true;
            self.last = Some(self.root().map_err(sys("look at", b"."))?);
            return Ok(true);
        }
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.path);
            if let Some(found) = level.next(&mut self.shelf).map_err(sys("list", &self.path))? {
                if self.comes_upon(found)? {
                    return Ok(true);
                }
                continue;
            }
            let Some(level) = self.levels.pop() else { break };
            self.shelf.cut(level.mark);
            self.go_out(&level).map_err(sys("go back from", &self.path))?;
            if self.leaves {
                self.fresh = false;
                self.last = Some(self.left(level).map_err(sys("look again at", &self.path))?);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks at a name of the current directory, whose path stands. False where it means nothing.
    fn comes_upon(&mut self, found: Found) -> Result<bool> {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(found.name.to_bytes());
        self.last = self.look(found).map_err(sys("look at", &self.path))?;
        Ok(self.last.is_some())
    }

    /// Goes back to the directory above one that was left.
    fn go_out(&mut self, level: &Level) -> nix::Result<()> {
        if self.levels.is_empty() {
            return Ok(());
        }
        if level.stored {
            self.store.up()?;
        }
        match (level.base, self.base.last_mut()) {
            (Below::Down, Some(base)) => base.up().map(drop),
            (Below::Moved, _) => {
                self.base.pop();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The entry of a directory that was left, looked at again.
    fn left(&self, level: Box<Level>) -> nix::Result<Box<Seen>> {
        let above = self.levels.last().map_or(Below::Down, |above| above.base);
        let mut seen = Seen::new(level.name, level.stored, level.doubt);
        seen.change = level.change;
        seen.origin = level.origin;
        seen.whiteouts = level.whiteouts;
        if level.stored && self.levels.len() < self.known {
            return Ok(seen);
        }
        if let Some(base) = self.base.last().filter(|_| above != Below::None) {
            seen.base = stat(base.here(), &seen.name)?;
        }
        seen.node = if level.stored { stat(self.store.here(), &seen.name)? } else { seen.base };
        Ok(seen)
    }

    /// Goes into the directory that was the last step. When that fails because another process was at it in the meantime ([`beside`]),
    /// the walk can go on without it.
    pub fn enter(&mut self) -> Result<()> {
        match self.last.take() {
            Some(seen) if self.fresh && matches!(seen.change, Change::Meta | Change::Opaque) => {
                self.go_in(seen)
            }
            _ => Ok(()),
        }
    }

    /// Takes the opaque directory that was the last step for one that merges with what the base has by its name.
    pub fn merge(&mut self) {
        if let Some(last) = self.last.as_mut().filter(|last| last.change == Change::Opaque) {
            last.change = Change::Meta;
        }
    }

    /// Looks at one name of the directory that was entered last, in place of the steps up to it; none where the store says nothing.
    pub fn find(&mut self, name: &CStr) -> Result<Option<Entry<'_>>> {
        let Some(level) = self.levels.last_mut() else { return Ok(None) };
        let mut has = |list: &mut tree::Names| list.find(name, &mut self.shelf);
        let listed = has(&mut level.names.here).and_then(|here| Ok((here, has(&mut level.names.gone)?)));
        let (here, gone) = listed.map_err(sys("list", &self.path))?;
        let odd = level
            .names
            .rare
            .as_ref()
            .and_then(|rare| rare.odd.iter().find(|(odd, _)| odd.as_c_str() == name));
        let found = Found {
            name: name.to_owned(),
            here: here || odd.is_some(),
            gone,
            below: false,
            doubt: odd.map(|(_, doubt)| *doubt),
        };
        self.path.truncate(level.path);
        self.fresh = true;
        self.comes_upon(found)?;
        Ok(self.entry())
    }

    /// The directory of the store that was entered last.
    pub fn here(&self) -> &Dir {
        self.store.here()
    }

    fn go_in(&mut self, dir: Box<Seen>) -> Result<()> {
        let open = || sys("open the directory", &self.path);
        let root = self.levels.is_empty();
        let view = self.show == Show::View && !self.format.whole();
        let (flat, strange) = self.levels.last().map_or((view, false), |level| (level.flat, level.strange));
        let child = match dir.node {
            Some(_) if dir.inside.dir.is_some() => dir.inside.dir,
            Some(node) if dir.stored && !root => {
                let child = self.store.here().child(&dir.name).map_err(open())?;
                if child.stat().map_err(open())?.id != node.id {
                    return Err(open()(Errno::ESTALE));
                }
                Some(child)
            }
            _ => None,
        };
        let far = dir.origin.as_ref().and_then(|origin| origin.far.as_ref());
        let moved = far.is_some();
        let mut base = Below::None;
        if let Some(far) = far {
            if self.base.len() > MOVES {
                return Err(Error::failed(format_args!(
                    "more than {MOVES} moved directories lie in one another at {}",
                    shown(&self.path).display()
                )));
            }
            let child = far.dir.child(&far.name).map_err(open())?;
            self.base.push(Chain::new(child).map_err(open())?);
            base = Below::Moved;
        } else if let Some(below) =
            dir.base.filter(|stat| dir.change == Change::Meta && stat.kind == Kind::Dir)
        {
            if let Some(base) = self.base.last_mut().filter(|_| !root) {
                let child = match dir.below.dir {
                    Some(child) => child,
                    None => base.here().child(&dir.name).map_err(open())?,
                };
                base.down_to(child, below.id);
            }
            base = Below::Down;
        }
        if let Some((child, node)) = child.zip(dir.node) {
            self.store.down_to(child, node.id);
        }
        if let Some(above) = self.levels.last_mut() {
            above.rest(&mut self.shelf);
        }
        let mut level = Box::new(Level {
            names: Names::default(),
            below: tree::Names::default(),
            mark: self.shelf.mark(),
            path: self.path.len(),
            name: dir.name,
            origin: dir.origin,
            change: dir.change,
            doubt: dir.doubt,
            stored: dir.stored,
            base,
            flat: flat || moved && self.show != Show::Changes,
            strange: strange || moved,
            whiteouts: dir.whiteouts,
        });
        if level.stored {
            let names = decode::names(self.format, self.store.here(), &self.root, root, &mut self.shelf);
            level.names = match names {
                // Removed since it was opened.
                Err(Errno::ENOENT) => Names::default(),
                names => names.map_err(sys("list", &self.path))?,
            };
        }
        let lists = level.flat || self.format.whole() && self.show != Show::View;
        if let Some(base) = self.base.last().filter(|_| lists && base != Below::None) {
            level.below =
                tree::Names::of(base.here(), &mut self.shelf).map_err(sys("list in the base", &self.path))?;
        }
        self.levels.push(level);
        Ok(())
    }

    /// The last step.
    fn entry(&self) -> Option<Entry<'_>> {
        let seen = self.last.as_deref()?;
        let strange = self.show != Show::Changes && self.levels.last().is_some_and(|level| level.strange);
        let below = self.base.last().map_or(&self.root, Chain::here);
        let name = seen.name.as_c_str();
        let far = seen.origin.as_ref().and_then(|origin| origin.far.as_ref());
        let far = far.map(|far| Side::new(&far.dir, &far.name, &far.stat));
        let (data, moved) = match seen.change {
            Change::Put => (far, None),
            _ => (None, far),
        };
        let dir = if seen.stored { self.store.here() } else { below };
        let base = seen.base.as_ref().filter(|_| !strange);
        let base = base.map(|stat| Side { dir: below, name, stat, more: &seen.below });
        Some(Entry {
            change: seen.change,
            doubt: seen.doubt,
            name,
            path: &self.path,
            node: seen.node.as_ref().map(|stat| Side { dir, name, stat, more: &seen.inside }),
            stored: seen.stored,
            here: self.store.here(),
            data,
            base: if self.show == Show::Changes { moved.or(base) } else { base },
            from: seen.origin.as_ref().map(|origin| origin.from.as_slice()).filter(|from| !from.is_empty()),
            differs: seen.differs,
            attrs: None,
        })
    }
}
