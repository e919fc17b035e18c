//! What a name of a store means over its base.

use std::fs::File;
use std::os::fd::AsFd;

use nix::errno::Errno;

use super::compare::sides;
use super::decode::{self, Marks, TARGET};
use super::format::FUSE;
use super::level::{Below, Far, Found, Origin, Seen};
use super::walk::{beside, stat};
use super::{Aspects, Change, Changes, Doubt, Format, Show, Side, Step};
use crate::error::Result;
use crate::tree::{Chain, Dir, Ids, Kind, SELF, Stat, attr, c_name, sys};

impl Seen {
    fn new(found: Found, change: Change, node: Option<Stat>, base: Option<Stat>) -> Self {
        Self {
            name: found.name,
            change,
            doubt: found.doubt,
            stored: found.here,
            node,
            base,
            origin: None,
            differs: None,
            whiteouts: false,
            inside: None,
            below: None,
            file: None,
            attrs: None,
        }
    }

    fn delete(&mut self) {
        self.change = Change::Delete;
        self.node = None;
    }
}

/// A directory's change, or that of anything else.
fn standing(stat: &Stat) -> Change {
    if stat.kind == Kind::Dir { Change::Meta } else { Change::Put }
}

impl Changes {
    /// The root. What would make it opaque is not obeyed: a driver has no reason to write it there, and nothing recorded says what it
    /// would make of it.
    pub(super) fn root(&mut self) -> nix::Result<Seen> {
        let found = Found { name: SELF.to_owned(), here: true, gone: false, below: false, doubt: None };
        let here = self.store.here();
        let mut seen = Seen::new(found, Change::Meta, Some(here.stat()?), Some(self.root.stat()?));
        match self.format {
            Format::Overlay | Format::OverlayUser => {
                seen.whiteouts = self.marks(&mut seen)?.opaque == b'x';
            }
            Format::Aufs
            | Format::FuseOverlayfs
            | Format::Overlayfs
            | Format::MiniFo
            | Format::Snapshot
            | Format::Tree => {}
        }
        Ok(seen)
    }

    /// What a name of the current directory means; none where it means nothing.
    pub(super) fn look(&mut self, found: Found) -> nix::Result<Option<Seen>> {
        let Some(level) = self.levels.last() else { return Ok(None) };
        let (flat, whiteouts) = (level.flat, level.whiteouts);
        let node = if found.here { stat(self.store.here(), &found.name)? } else { None };
        let base = match self.base.last().filter(|_| level.base != Below::None && found.doubt.is_none()) {
            Some(base) => stat(base.here(), &found.name)?,
            None => None,
        };
        if found.doubt.is_some() {
            return Ok(Some(Seen::new(found, Change::Nothing, node, None)));
        }
        let gone = found.gone;
        let Some(stands) = node else {
            return Ok(match base {
                _ if gone && flat => None,
                base if gone => Some(Seen::new(found, Change::Delete, None, base)),
                Some(stat) if flat => {
                    let found = Found { here: false, ..found };
                    Some(Seen::new(found, standing(&stat), base, base))
                }
                Some(_) if found.below => Some(Seen::new(found, Change::Delete, None, base)),
                _ => None,
            });
        };
        let mut seen = Seen::new(found, standing(&stands), node, base);
        if stands.kind == Kind::Dir && stands.id.0 != self.device {
            seen.doubt = Some(Doubt::Mount);
            seen.change = Change::Nothing;
            return Ok(Some(seen));
        }
        match self.format {
            Format::Overlay | Format::OverlayUser => self.overlay(&mut seen, &stands, whiteouts)?,
            Format::Overlayfs => self.overlayfs(&mut seen, &stands)?,
            Format::MiniFo => self.mini_fo(&mut seen, &stands, gone)?,
            Format::Aufs | Format::FuseOverlayfs if gone => {
                seen.delete();
                seen.doubt = Some(Doubt::Both);
            }
            Format::FuseOverlayfs if stands.kind == Kind::Char && stands.device == (0, 0) => seen.delete(),
            Format::FuseOverlayfs if stands.kind == Kind::Dir && self.fuse_opaque(&mut seen)? => {
                seen.change = Change::Opaque;
            }
            Format::Aufs | Format::FuseOverlayfs if stands.kind == Kind::Dir => {
                match self.store.here().child(&seen.name) {
                    // Removed or replaced since it was looked at.
                    Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
                    child => aufs(&mut seen, &child?)?,
                }
            }
            // Its stores begin with the base's files of several names.
            Format::FuseOverlayfs if stands.links > 1 && self.show == Show::Flat => {
                self.untouched(&mut seen)?;
            }
            Format::Aufs | Format::FuseOverlayfs => {}
            Format::Snapshot | Format::Tree => {
                if self.show != Show::View && self.untouched(&mut seen)? {
                    return Ok(None);
                }
            }
        }
        // Who is told of it mostly goes in.
        if seen.change == Change::Meta
            && seen.origin.is_none()
            && base.is_some_and(|base| base.kind == Kind::Dir)
        {
            seen.below = self.base.last().and_then(|base| base.here().child(&seen.name).ok());
        }
        Ok(if flat && seen.change == Change::Delete && seen.doubt.is_none() { None } else { Some(seen) })
    }

    fn marks(&self, seen: &mut Seen) -> nix::Result<Marks> {
        self.marks_by(self.format.prefix().unwrap_or_default(), seen)
    }

    /// Lists the attributes but once; a directory is opened for that, which is gone into next.
    fn marks_by(&self, prefix: &str, seen: &mut Seen) -> nix::Result<Marks> {
        let here = self.store.here();
        if seen.attrs.is_none() {
            if seen.node.is_some_and(|node| node.kind == Kind::Dir) && seen.name.as_c_str() != SELF {
                let same =
                    |dir: &Dir| dir.stat().is_ok_and(|stat| seen.node.is_some_and(|node| node.id == stat.id));
                seen.inside = here.child(&seen.name).ok().filter(same);
            }
            if let Some(node) = seen.node.filter(|node| node.kind == Kind::File && self.known > 0) {
                seen.file = here.open_file(&seen.name, &node).ok();
            }
            let listed = match &seen.inside {
                Some(inside) => attr::names(inside, SELF),
                None => attr::names_of(here, &seen.name, seen.file.as_ref().map(File::as_fd)),
            };
            seen.attrs = match listed {
                // Removed since it was looked at: whoever opens it will see.
                Err(Errno::ENOENT) => Some(Vec::new()),
                listed => Some(listed?),
            };
        }
        match decode::marks(prefix, here, &seen.name, seen.attrs.as_deref().unwrap_or_default()) {
            Err(Errno::ENOENT) => Ok(Marks::default()),
            marks => marks,
        }
    }

    fn overlay(&self, seen: &mut Seen, stat: &Stat, whiteouts: bool) -> nix::Result<()> {
        match stat.kind {
            Kind::Char if stat.device == (0, 0) => seen.delete(),
            Kind::Dir => {
                let marks = self.marks(seen)?;
                match (marks.opaque, marks.redirect) {
                    (b'y', _) => seen.change = Change::Opaque,
                    (opaque, redirect) => {
                        seen.whiteouts = opaque == b'x';
                        if let Some(from) = redirect {
                            self.moved(seen, from)?;
                        }
                    }
                }
            }
            Kind::File => {
                let marks = self.marks(seen)?;
                if marks.whiteout && stat.size == 0 {
                    if whiteouts { seen.delete() } else { seen.doubt = Some(Doubt::StrayWhiteout) }
                } else if marks.metacopy {
                    self.metacopy(seen, marks.redirect)?;
                }
            }
            Kind::Link if self.marks(seen)?.whiteout => seen.doubt = Some(Doubt::Foreign),
            Kind::Link | Kind::Char | Kind::Block | Kind::Fifo | Kind::Socket => {}
        }
        Ok(())
    }

    fn overlayfs(&self, seen: &mut Seen, stat: &Stat) -> nix::Result<()> {
        match stat.kind {
            Kind::Dir if self.marks(seen)?.opaque == b'y' => seen.change = Change::Opaque,
            Kind::Link if self.marks(seen)?.whiteout => seen.delete(),
            Kind::Link if self.store.here().read_link(&seen.name).is_ok_and(|to| to == TARGET) => {
                seen.doubt = Some(Doubt::TornWhiteout);
            }
            _ => {}
        }
        Ok(())
    }

    /// Does one of the attributes say so that fuse-overlayfs looks at?
    fn fuse_opaque(&self, seen: &mut Seen) -> nix::Result<bool> {
        let mut opaque = self.marks(seen)?.opaque == b'y';
        for prefix in FUSE {
            opaque |= self.marks_by(prefix, seen)?.opaque == b'y';
        }
        Ok(opaque)
    }

    fn mini_fo(&self, seen: &mut Seen, stat: &Stat, gone: bool) -> nix::Result<()> {
        if stat.kind != Kind::Dir {
            return Ok(());
        }
        let rare = self.levels.last().and_then(|level| level.names.rare.as_ref());
        let moved = rare.and_then(|rare| rare.moved.iter().find(|(new, _)| *new == seen.name));
        match moved {
            Some((_, from)) => self.moved(seen, from.clone()),
            None => {
                if gone && seen.base.is_some() {
                    seen.change = Change::Opaque;
                }
                Ok(())
            }
        }
    }

    /// What `from` means in the base: a path from its root, or a name in the current directory.
    fn origin(&self, from: &[u8]) -> nix::Result<Option<Far>> {
        if from.starts_with(b"/") {
            return resolve(&self.root, from);
        }
        let (Ok(name), Some(base)) = (std::ffi::CString::new(from), self.base.last()) else {
            return Ok(None);
        };
        let merged = self.levels.last().is_some_and(|level| level.base != Below::None);
        if !merged || from.contains(&b'/') || matches!(from, b"" | b"." | b"..") {
            return Ok(None);
        }
        let dir = base.here().again()?;
        Ok(stat(&dir, &name)?.map(|stat| Far { dir, name, stat }))
    }

    /// A directory that merges with another one of the base than that of its name.
    fn moved(&self, seen: &mut Seen, from: Vec<u8>) -> nix::Result<()> {
        let far = self.origin(&from)?.filter(|far| far.stat.kind == Kind::Dir);
        if far.is_none() {
            seen.doubt = Some(Doubt::Lost);
        }
        if far.is_none() || self.show != Show::Changes {
            seen.change = Change::Opaque;
        }
        seen.origin = Some(Box::new(Origin { far, from }));
        Ok(())
    }

    /// A file whose content is the base's.
    fn metacopy(&self, seen: &mut Seen, from: Option<Vec<u8>>) -> nix::Result<()> {
        let name = from.as_deref().unwrap_or(seen.name.to_bytes());
        let far = self.origin(name)?.filter(|far| far.stat.kind == Kind::File);
        if far.is_none() {
            seen.doubt = Some(Doubt::Lost);
        }
        seen.origin = Some(Box::new(Origin { far, from: from.unwrap_or_default() }));
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
        let mut differs = sides(self.format, node, node, base)?;
        if linked && !kept && differs.is_empty() && self.regrouped(id)? {
            differs = Aspects::LINKS;
        }
        seen.differs = Some(differs);
        Ok(differs.is_empty())
    }

    /// Is one of the names of a file not one of the base's file, though each has as many? All of them are looked at, once, and only
    /// where a file of several names seems untouched.
    fn regrouped(&mut self, id: (u64, u64)) -> nix::Result<bool> {
        let mut found = match self.regrouped.take() {
            Some(found) => found,
            None => {
                groups(self.format, &self.top, &self.root).map_err(|err| err.errno().unwrap_or(Errno::EIO))?
            }
        };
        let is = found.has(id);
        self.regrouped = Some(found);
        is
    }
}

/// The files of a store whose names are not those of one file of the base.
fn groups(format: Format, tree: &Dir, root: &Dir) -> Result<Ids> {
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
pub(super) fn resolve(root: &Dir, path: &[u8]) -> nix::Result<Option<Far>> {
    let mut dir = root.again()?;
    let mut parts = path.split(|b| *b == b'/').skip(1).peekable();
    while let Some(part) = parts.next() {
        let (Ok(name), false) = (c_name(part), matches!(part, b"" | b"." | b"..")) else { break };
        let found = match parts.peek() {
            None => dir.stat_at(&name).map(Err),
            Some(_) => dir.child(&name).map(Ok),
        };
        match found {
            Ok(Ok(child)) => dir = child,
            Ok(Err(stat)) => return Ok(Some(Far { dir, name, stat })),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}

/// Looks into a directory of aufs's.
fn aufs(seen: &mut Seen, dir: &Dir) -> nix::Result<()> {
    match decode::aufs_opaque(dir)? {
        Some(true) => seen.change = Change::Opaque,
        Some(false) => {}
        None => seen.doubt = Some(Doubt::Foreign),
    }
    Ok(())
}
