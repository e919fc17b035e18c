//! A depth-first walk, names in the order of their bytes, each directory before what it holds.

use std::ffi::{CStr, CString};

use nix::errno::Errno;

use super::{Chain, Dir, Kind, Names, Shelf, Stat, shown, sys};
use crate::error::{Error, Result};
use crate::sys::btrfs;

/// What the walk came upon.
pub enum Step<'a> {
    /// A name. The walk goes into a directory only when told to by [`Walk::enter`].
    Entry(Entry<'a>),
    /// The end of a directory that was entered; `dir` is the one above, `name` its name there.
    Leave {
        /// The directory above.
        dir: &'a Dir,
        /// The name of the directory that was left.
        name: &'a CStr,
        /// Its path, as in [`Entry::path`].
        path: &'a [u8],
    },
}

/// A name in a directory.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// The directory.
    pub dir: &'a Dir,
    /// The name.
    pub name: &'a CStr,
    /// What it is.
    pub stat: &'a Stat,
    /// Its path with the walk's prefix, as raw bytes.
    pub path: &'a [u8],
}

struct Level {
    names: Names,
    /// Where they begin on the shelf.
    mark: u64,
    /// The length of this directory's own path.
    path: usize,
    /// This directory's name in the one above.
    name: CString,
}

/// A walk through a tree. Memory: a level for each directory on the way down, and a part of their names.
pub struct Walk {
    chain: Chain,
    shelf: Shelf,
    levels: Vec<Level>,
    path: Vec<u8>,
    last: Option<(CString, Stat)>,
    left: CString,
}

impl Walk {
    /// Begins at `root`. `prefix` stands before every path: the root's own path, or nothing.
    pub fn new(root: Dir, prefix: &[u8]) -> Result<Box<Self>> {
        let chain = Chain::new(root).map_err(sys("look at", prefix))?;
        let mut shelf = Shelf::new(chain.here()).map_err(sys("look at", prefix))?;
        let names = Names::of(chain.here(), &mut shelf).map_err(sys("list", prefix))?;
        let levels = vec![Level { names, mark: 0, path: prefix.len(), name: CString::default() }];
        let (path, left) = (prefix.to_vec(), CString::default());
        Ok(Box::new(Self { chain, shelf, levels, path, last: None, left }))
    }

    /// The next step; `None` at the end of the root. A name that was removed since its directory was listed is passed over.
    pub fn step(&mut self) -> Result<Option<Step<'_>>> {
        loop {
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            self.path.truncate(level.path);
            let head = level.names.head(&mut self.shelf).map_err(sys("list", &self.path))?;
            let Some(name) = head.map(CStr::to_owned) else { break };
            level.names.take(&name, &mut self.shelf).map_err(sys("list", &self.path))?;
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            let stat = match self.chain.here().stat_at(&name) {
                Err(Errno::ENOENT) => continue,
                seen => seen.map_err(sys("look at", &self.path))?,
            };
            let (name, stat) = &*self.last.insert((name, stat));
            return Ok(Some(Step::Entry(Entry { dir: self.chain.here(), name, stat, path: &self.path })));
        }
        if let Some(left) = self.levels.pop() {
            self.shelf.cut(left.mark);
            self.left = left.name;
        }
        if !self.chain.up().map_err(sys("go back from", &self.path))? {
            return Ok(None);
        }
        Ok(Some(Step::Leave { dir: self.chain.here(), name: &self.left, path: &self.path }))
    }

    /// Goes into the directory that was the last step. A mount point is refused: what is mounted there is no part of
    /// the tree. Where it fails, the walk stands where it stood, and can go on.
    pub fn enter(&mut self) -> Result<()> {
        match &self.last {
            Some((_, stat)) if stat.kind == Kind::Dir && stat.id.0 != self.chain.id().0 => {
                Err(Error::failed(format_args!("{} is another file system", shown(&self.path).display()))
                    .way_out("unmount what is mounted there first"))
            }
            _ => self.go_in(),
        }
    }

    /// As [`Walk::enter`], but goes into a Btrfs subvolume, too: it has a device of its own and is no mount, which only the
    /// mount's number tells (Linux 3.15; before it, it is refused like a mount).
    pub fn enter_subvolume(&mut self) -> Result<()> {
        if self.at_mount()? { self.enter() } else { self.go_in() }
    }

    /// As [`Walk::enter_subvolume`], but passes over what is mounted there: then it is false.
    pub fn enter_unmounted(&mut self) -> Result<bool> {
        if self.at_mount()? {
            return Ok(false);
        }
        self.go_in().map(|()| true)
    }

    /// Is the directory that was the last step a mount point, and no subvolume?
    fn at_mount(&self) -> Result<bool> {
        let Some((name, stat)) = &self.last else { return Ok(false) };
        if stat.kind != Kind::Dir || stat.id.0 == self.chain.id().0 {
            return Ok(false);
        }
        if stat.id.1 != btrfs::ROOT_INODE {
            return Ok(true);
        }
        let child = self.chain.here().child(name).map_err(sys("open the subvolume", &self.path))?;
        Ok(child.mount_id().is_none_or(|id| self.chain.here().mount_id() != Some(id)))
    }

    fn go_in(&mut self) -> Result<()> {
        let Some((name, stat)) = self.last.take() else { return Ok(()) };
        if stat.kind != Kind::Dir {
            return Ok(());
        }
        let open = "open the directory";
        let child = self.chain.here().child(&name).map_err(sys(open, &self.path))?;
        if let Some(level) = self.levels.last_mut() {
            level.names.rest(&mut self.shelf);
        }
        let mark = self.shelf.mark();
        let names = Names::of(&child, &mut self.shelf).map_err(sys("list", &self.path))?;
        self.chain.down(child).map_err(sys(open, &self.path))?;
        if self.chain.id() != stat.id {
            self.chain.up().map_err(sys("go back from", &self.path))?;
            return Err(sys(open, &self.path)(Errno::ESTALE));
        }
        self.levels.push(Level { names, mark, path: self.path.len(), name });
        Ok(())
    }

    /// Device and inode of the directory that the walk is in.
    pub fn id(&self) -> (u64, u64) {
        self.chain.id()
    }
}
