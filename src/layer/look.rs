//! What a name of a store means over its base.

use nix::errno::Errno;

use super::compare::sides;
use super::decode::{self, Marks, TARGET};
use super::level::{Below, Far, Found, Origin, Seen};
use super::walk::{beside, stat};
use super::{Aspects, Change, Changes, Doubt, Format, Show, Side, Step};
use crate::error::Result;
use crate::tree::{Chain, Dir, Ids, Kind, SELF, Stat, attr, sys};

/// A directory's change, or that of anything else.
fn standing(kind: Kind) -> Change {
    if kind == Kind::Dir { Change::Meta } else { Change::Put }
}

/// Is it a device 0:0, as the kernel's whiteouts are?
fn is_null(stat: &Stat) -> bool {
    stat.kind == Kind::Char && stat.device == (0, 0)
}

impl Changes {
    /// The root. What would make it opaque is not obeyed: a driver has no reason to write it there, and nothing recorded says what it
    /// would make of it.
    pub(super) fn root(&mut self) -> nix::Result<Box<Seen>> {
        let mut seen = Seen::new(SELF.to_owned(), true, None);
        seen.change = Change::Meta;
        seen.node = Some(self.store.here().stat()?);
        seen.base = Some(self.root.stat()?);
        if matches!(self.format, Format::Overlay | Format::OverlayUser) {
            seen.whiteouts = self.marks(&mut seen)?.opaque == b'x';
        }
        Ok(seen)
    }

    /// What a name of the current directory means; none where it means nothing.
    pub(super) fn look(&mut self, found: Found) -> nix::Result<Option<Box<Seen>>> {
        let Some(level) = self.levels.last() else { return Ok(None) };
        let (flat, gone) = (level.flat, found.gone);
        let mut seen = Seen::new(found.name, found.here, found.doubt);
        if seen.stored {
            seen.node = stat(self.store.here(), &seen.name)?;
        }
        if seen.doubt.is_some() {
            return Ok(Some(seen));
        }
        if let Some(base) = self.base.last().filter(|_| level.base != Below::None) {
            seen.base = stat(base.here(), &seen.name)?;
        }
        let Some(node) = &seen.node else {
            return Ok(match &seen.base {
                Some(base) if flat && !gone => {
                    seen.change = standing(base.kind);
                    seen.node = seen.base;
                    seen.stored = false;
                    Some(seen)
                }
                base if !flat && (gone || found.below && base.is_some()) => {
                    seen.change = Change::Delete;
                    Some(seen)
                }
                _ => None,
            });
        };
        let kind = node.kind;
        seen.change = standing(kind);
        if kind == Kind::Dir && node.id.0 != self.device {
            seen.doubt = Some(Doubt::Mount);
            seen.change = Change::Nothing;
            return Ok(Some(seen));
        }
        let stands = match self.format {
            Format::Overlay | Format::OverlayUser => self.overlay(&mut seen, kind).map(|()| true),
            Format::Overlayfs => self.overlayfs(&mut seen, kind).map(|()| true),
            Format::MiniFo => self.mini_fo(&mut seen, kind, gone).map(|()| true),
            Format::Aufs | Format::FuseOverlayfs => self.aufs(&mut seen, kind, gone),
            Format::Snapshot | Format::Tree => Ok(self.show == Show::View || !self.untouched(&mut seen)?),
        };
        if !stands? {
            return Ok(None);
        }
        // Who is told of it mostly goes in.
        let merges = seen.change == Change::Meta && seen.origin.is_none();
        if merges && seen.base.is_some_and(|base| base.kind == Kind::Dir) {
            seen.below.dir = self.base.last().and_then(|base| base.here().child(&seen.name).ok());
        }
        let hidden = flat && seen.change == Change::Delete && seen.doubt.is_none();
        Ok(if hidden { None } else { Some(seen) })
    }

    /// Lists the attributes; a directory is opened for that, which is gone into next.
    fn marks(&self, seen: &mut Seen) -> nix::Result<Marks> {
        let here = self.store.here();
        match &seen.node {
            Some(node) if node.kind == Kind::Dir && seen.name.as_c_str() != SELF => {
                let same = |dir: &Dir| dir.stat().is_ok_and(|stat| node.id == stat.id);
                seen.inside.dir = here.child(&seen.name).ok().filter(same);
            }
            Some(node) if node.kind == Kind::File && self.known > 0 => {
                seen.inside.file = here.open_file(&seen.name, node).ok();
            }
            _ => {}
        }
        let names = match attr::names_of(here, &seen.name, seen.inside.open()) {
            // Removed since it was looked at: whoever opens it will see.
            Err(Errno::ENOENT) => Vec::new(),
            listed => listed?,
        };
        let marks = decode::marks(self.format, here, &seen.name, &names);
        seen.inside.attrs = Some(names);
        match marks {
            Err(Errno::ENOENT) => Ok(Marks::default()),
            marks => marks,
        }
    }

    fn overlay(&self, seen: &mut Seen, kind: Kind) -> nix::Result<()> {
        match kind {
            Kind::Char if seen.node.as_ref().is_some_and(is_null) => seen.delete(),
            Kind::Dir => {
                let marks = self.marks(seen)?;
                if marks.opaque == b'y' {
                    seen.change = Change::Opaque;
                } else {
                    seen.whiteouts = marks.opaque == b'x';
                    if let Some(from) = marks.redirect {
                        self.moved(seen, from)?;
                    }
                }
            }
            Kind::File => {
                let marks = self.marks(seen)?;
                if marks.whiteout && seen.node.is_some_and(|node| node.size == 0) {
                    if self.levels.last().is_some_and(|level| level.whiteouts) {
                        seen.delete();
                    } else {
                        seen.doubt = Some(Doubt::StrayWhiteout);
                    }
                } else if marks.metacopy {
                    self.trace(seen, marks.redirect, Kind::File)?;
                }
            }
            Kind::Link if self.marks(seen)?.whiteout => seen.doubt = Some(Doubt::Foreign),
            Kind::Link | Kind::Char | Kind::Block | Kind::Fifo | Kind::Socket => {}
        }
        Ok(())
    }

    fn overlayfs(&self, seen: &mut Seen, kind: Kind) -> nix::Result<()> {
        match kind {
            Kind::Dir if self.marks(seen)?.opaque == b'y' => seen.change = Change::Opaque,
            Kind::Link if self.marks(seen)?.whiteout => seen.delete(),
            Kind::Link if self.store.here().read_link(&seen.name).is_ok_and(|to| to == TARGET) => {
                seen.doubt = Some(Doubt::TornWhiteout);
            }
            _ => {}
        }
        Ok(())
    }

    fn mini_fo(&self, seen: &mut Seen, kind: Kind, gone: bool) -> nix::Result<()> {
        if kind != Kind::Dir {
            return Ok(());
        }
        let rare = self.levels.last().and_then(|level| level.names.rare.as_ref());
        let moved = rare.and_then(|rare| rare.moved.iter().find(|(new, _)| *new == seen.name));
        if let Some((_, from)) = moved {
            return self.moved(seen, from.clone());
        }
        if gone && seen.base.is_some() {
            seen.change = Change::Opaque;
        }
        Ok(())
    }

    /// What aufs and fuse-overlayfs make of it. False where it was removed or replaced since it was looked at.
    fn aufs(&mut self, seen: &mut Seen, kind: Kind, gone: bool) -> nix::Result<bool> {
        let fuse = self.format == Format::FuseOverlayfs;
        if gone {
            seen.delete();
            seen.doubt = Some(Doubt::Both);
        } else if kind == Kind::Dir {
            // fuse-overlayfs looks at attributes, too.
            if fuse && self.marks(seen)?.opaque == b'y' {
                seen.change = Change::Opaque;
                return Ok(true);
            }
            let opaque = match self.store.here().child(&seen.name) {
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(false),
                child => decode::aufs_opaque(&child?)?,
            };
            match opaque {
                Some(true) => seen.change = Change::Opaque,
                Some(false) => {}
                None => seen.doubt = Some(Doubt::Foreign),
            }
        } else if fuse && seen.node.as_ref().is_some_and(is_null) {
            seen.delete();
        } else if fuse && self.show == Show::Flat && seen.node.is_some_and(|node| node.links > 1) {
            // Its stores begin with the base's files of several names.
            self.untouched(seen)?;
        }
        Ok(true)
    }

    /// What `from` means in the base: a path from its root, or a name in the current directory.
    fn origin(&self, from: &[u8]) -> nix::Result<Option<Box<Far>>> {
        if from.starts_with(b"/") {
            return resolve(&self.root, from);
        }
        let merged = self.levels.last().is_some_and(|level| level.base != Below::None);
        match self.base.last() {
            Some(base) if merged && !from.contains(&b'/') => look_far(base.here(), from),
            _ => Ok(None),
        }
    }

    /// Notes what the base has where an entry was moved from, or has its content; nothing in `from` is the entry's name. True where the
    /// base has something of this kind there.
    fn trace(&self, seen: &mut Seen, from: Option<Vec<u8>>, kind: Kind) -> nix::Result<bool> {
        let path = from.as_deref().unwrap_or(seen.name.to_bytes());
        let far = self.origin(path)?.filter(|far| far.stat.kind == kind);
        let there = far.is_some();
        if !there {
            seen.doubt = Some(Doubt::Lost);
        }
        seen.origin = Some(Box::new(Origin { far, from: from.unwrap_or_default() }));
        Ok(there)
    }

    /// A directory that merges with another one of the base than that of its name.
    fn moved(&self, seen: &mut Seen, from: Vec<u8>) -> nix::Result<()> {
        if !self.trace(seen, Some(from), Kind::Dir)? || self.show != Show::Changes {
            seen.change = Change::Opaque;
        }
        Ok(())
    }

    /// For whole trees, and files of several names in a store of fuse-overlayfs's: is the entry the base's? A directory may hold what is not.
    fn untouched(&mut self, seen: &mut Seen) -> nix::Result<bool> {
        let base = self.base.last().map_or(&self.root, Chain::here);
        let (Some(node), Some(old)) = (&seen.node, &seen.base) else { return Ok(false) };
        if node.kind == Kind::Dir {
            return Ok(false);
        }
        let (linked, kept) = (node.links > 1, (node.id.1, node.ctime) == (old.id.1, old.ctime));
        let id = node.id;
        let node = Side::new(self.store.here(), &seen.name, node);
        let base = Side::new(base, &seen.name, old);
        let mut differs = sides(self.format, &node, &node, &base)?;
        if linked && !kept && differs.is_empty() && self.regrouped(id)? {
            differs = Aspects::LINKS;
        }
        seen.differs = Some(differs);
        Ok(differs.is_empty())
    }

    /// Is one of the names of a file not one of the base's file, though each has as many? All of them are looked at, once, and only
    /// where a file of several names seems untouched.
    fn regrouped(&mut self, id: (u64, u64)) -> nix::Result<bool> {
        if self.regrouped.is_none() {
            let found = groups(self.format, &self.top, &self.root);
            self.regrouped = Some(found.map_err(|err| err.errno().unwrap_or(Errno::EIO))?);
        }
        match &mut self.regrouped {
            Some(found) => found.has(id),
            None => Ok(false),
        }
    }
}

/// The files of a store whose names are not those of one file of the base.
fn groups(format: Format, tree: &Dir, root: &Dir) -> Result<Box<Ids>> {
    let failed = || sys("look for the names of files in", b".");
    let ids = || Ids::beside(tree).map_err(failed());
    let (mut first, mut found) = (ids()?, ids()?);
    let top = tree.again().map_err(failed())?;
    // Neither compares.
    let show = if format.whole() { Show::View } else { Show::Changes };
    let mut names = Changes::new(format, top, root, show)?.without_leaves();
    while let Some(step) = names.step()? {
        let Step::Entry(entry) = step else { continue };
        if let Some(node) = entry.node.filter(|node| node.stat.kind != Kind::Dir && node.stat.links > 1) {
            let same = entry.base.filter(|base| base.stat.links == node.stat.links);
            // No inode has the number 0.
            let inode = same.map_or(0, |base| base.stat.id.1);
            let known = first.note(node.stat.id, inode).map_err(failed())?;
            if inode == 0 || known.is_some_and(|known| known != inode) {
                found.note(node.stat.id, 0).map_err(failed())?;
            }
        }
        match names.enter() {
            // Removed or replaced in the meantime: in a view that is in use that is no fault.
            Err(err) if beside(&err) => {}
            entered => entered?,
        }
    }
    Ok(found)
}

/// What the base has by a path from its root; none where it has nothing, or a link is in the way.
pub(super) fn resolve(root: &Dir, path: &[u8]) -> nix::Result<Option<Box<Far>>> {
    look_far(root, path.strip_prefix(b"/").unwrap_or_default())
}

/// The same by a path from any directory.
fn look_far(dir: &Dir, path: &[u8]) -> nix::Result<Option<Box<Far>>> {
    let found = dir.reach(path).and_then(|(dir, name)| {
        let stat = dir.stat_at(&name)?;
        Ok(Box::new(Far { dir, name, stat }))
    });
    match found {
        Err(errno) if leads_nowhere(errno) => Ok(None),
        found => found.map(Some),
    }
}

/// Says an errno of [`Dir::reach`], or of a look, that nothing is by a path, or a link is in the way?
pub(super) fn leads_nowhere(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG | Errno::EINVAL)
}
