//! What one directory of a store says, in each format: as the drivers read it, and as real kernels wrote it.

use std::ffi::{CStr, CString};

use nix::errno::Errno;

use super::look::resolve;
use super::{Doubt, Format, records};
use crate::sys::xattr;
use crate::tree::{self, Dir, Kind, Shelf, attr};

/// aufs: a whiteout is this and the name.
pub(crate) const WH: &[u8] = b".wh.";
/// aufs: this in a directory makes it opaque.
pub(crate) const OPAQUE: &CStr = c".wh..wh..opq";
/// aufs: what all whiteouts are links of, in the root.
pub(super) const WHITEOUT: &CStr = c".wh..wh.aufs";
/// overlayfs: where a whiteout points. The kernel does not look at it.
pub(crate) const TARGET: &[u8] = b"(overlay-whiteout)";

/// The longest record of a move: two names of the kernel's longest kind.
const MOVE_MAX: usize = 4096 + 256;

/// The names of a directory.
#[derive(Default)]
pub(super) struct Names {
    /// What is there.
    pub(super) here: tree::Names,
    /// What is said to be deleted, by records or by names; there may be duplicates.
    pub(super) gone: tree::Names,
    /// What few directories have.
    pub(super) rare: Option<Box<Rare>>,
}

/// What few directories have.
#[derive(Default)]
pub(super) struct Rare {
    /// New names of moved directories with their old paths.
    pub(super) moved: Vec<(CString, Vec<u8>)>,
    /// What is no part of the view, and should not be there; sorted.
    pub(super) odd: Vec<(CString, Doubt)>,
}

/// Lists a directory of a store; `root` is true for its root. `base` is that of the base.
pub(super) fn names(
    format: Format,
    dir: &Dir,
    base: &Dir,
    root: bool,
    shelf: &mut Shelf,
) -> nix::Result<Names> {
    let mut names = Names::default();
    let mut recorded = false;
    dir.each_name(&mut |name| {
        match format {
            Format::MiniFo if name == records::FILE => recorded = true,
            Format::Aufs | Format::FuseOverlayfs if name.to_bytes().starts_with(WH) => {
                names.aufs(dir, name, root, format == Format::FuseOverlayfs, shelf)?;
            }
            _ => names.here.push(name.to_owned(), shelf),
        }
        Ok(true)
    })?;
    if recorded {
        names.mini_fo(dir, base, shelf)?;
    }
    names.here.sort(shelf);
    names.gone.sort(shelf);
    if let Some(rare) = &mut names.rare {
        rare.odd.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    }
    Ok(names)
}

impl Names {
    /// A name that aufs gives to its own. fuse-overlayfs has some of them, and devices 0:0 where aufs has files.
    fn aufs(&mut self, dir: &Dir, name: &CStr, root: bool, fuse: bool, shelf: &mut Shelf) -> nix::Result<()> {
        let rest = name.to_bytes().strip_prefix(WH).unwrap_or_default();
        let kind = match dir.stat_at(name) {
            Err(Errno::ENOENT) => return Ok(()),
            seen => seen?.kind,
        };
        let kind = if fuse && kind == Kind::Char { Kind::File } else { kind };
        let (file, folder) = (kind == Kind::File, kind == Kind::Dir);
        let doubt = match rest.strip_prefix(WH) {
            Some(own) => {
                let is = |word: &[u8]| attr::same(own, word);
                let (opaque, top) = (is(b".opq"), root && !fuse);
                if top && (file && is(b"aufs") || folder && (is(b"plnk") || is(b"orph")))
                    || opaque && file && !root
                {
                    return Ok(());
                }
                if opaque {
                    Doubt::Foreign
                } else if is(b"hino") || own.starts_with(b".dr.") {
                    Doubt::Dirren
                } else {
                    Doubt::Garbage
                }
            }
            None if file && !matches!(rest, b"" | b"." | b"..") => {
                self.gone.push(CString::new(rest).map_err(|_| Errno::EINVAL)?, shelf);
                return Ok(());
            }
            // Of no name, of what no folder can lack, or no whiteout.
            None => Doubt::Foreign,
        };
        self.rare.get_or_insert_default().odd.push((name.to_owned(), doubt));
        Ok(())
    }

    fn mini_fo(&mut self, dir: &Dir, base: &Dir, shelf: &mut Shelf) -> nix::Result<()> {
        let found = match records::read(dir) {
            Err(Errno::ENOENT) => return Ok(()),
            read => read?,
        };
        for name in found.gone {
            self.gone.push(name, shelf);
        }
        let mut odd = found.odd;
        for record in &found.moved {
            odd |= !self.moved(dir, record, base);
        }
        if odd {
            self.rare.get_or_insert_default().odd.push((records::FILE.to_owned(), Doubt::Record));
        }
        Ok(())
    }

    /// Takes a record of a move apart: where a path holds spaces, the base tells which of them parts the two. False where
    /// no reading fits, or more than one.
    fn moved(&mut self, dir: &Dir, record: &[u8], base: &Dir) -> bool {
        let mut fits = None;
        if record.len() > MOVE_MAX {
            return false;
        }
        for (at, _) in record.iter().enumerate().filter(|(_, byte)| **byte == b' ') {
            let (old, new) = record.split_at(at);
            let Ok(new) = CString::new(new.get(1..).unwrap_or_default()) else { return false };
            let inside = !matches!(new.to_bytes(), b"" | b"." | b"..") && !new.to_bytes().contains(&b'/');
            let stands = inside && dir.stat_at(&new).is_ok_and(|stat| stat.kind == Kind::Dir);
            if stands && has_dir(base, old) && fits.replace((new, old.to_vec())).is_some() {
                return false;
            }
        }
        let Some((new, old)) = fits else { return false };
        let moved = &mut self.rare.get_or_insert_default().moved;
        match moved.iter().find(|(name, _)| *name == new) {
            Some((_, other)) => *other == old,
            None => {
                moved.push((new, old));
                true
            }
        }
    }
}

/// Has the base a directory by a path from its root?
fn has_dir(base: &Dir, path: &[u8]) -> bool {
    resolve(base, path).is_ok_and(|far| far.is_some_and(|far| far.stat.kind == Kind::Dir))
}

/// What an entry's attributes say to overlay and overlayfs.
#[derive(Default)]
pub(super) struct Marks {
    /// `y`: opaque, where one of them says so; `x`: it holds whiteouts by attribute.
    pub(super) opaque: u8,
    /// The entry's path in the base, or its name in the same directory.
    pub(super) redirect: Option<Vec<u8>>,
    /// The content is the base's.
    pub(super) metacopy: bool,
    /// It is a whiteout.
    pub(super) whiteout: bool,
}

/// Reads an entry's marks; `names` are those of its attributes.
pub(super) fn marks(format: Format, dir: &Dir, name: &CStr, names: &[CString]) -> nix::Result<Marks> {
    let mut marks = Marks::default();
    for attr in names {
        let Some(rest) = format.own(attr) else { continue };
        let is = |mark: &[u8]| attr::same(rest, mark);
        // The kernel looks whether overlay's is there, and what overlayfs's says.
        marks.whiteout |= is(b"whiteout");
        marks.metacopy |= is(b"metacopy");
        let redirect = is(b"redirect");
        if redirect || is(b"opaque") {
            let value = match xattr::get(&dir.proc_path(name), attr) {
                Err(Errno::ENODATA) => continue,
                got => got?,
            };
            if redirect {
                marks.redirect = Some(value);
            } else if marks.opaque != b'y' {
                marks.opaque = value.first().copied().unwrap_or_default();
            }
        }
    }
    Ok(marks)
}

/// Is a directory of aufs's opaque? None where what should say so is no regular file.
pub(super) fn aufs_opaque(dir: &Dir) -> nix::Result<Option<bool>> {
    match dir.stat_at(OPAQUE) {
        Err(Errno::ENOENT) => Ok(Some(false)),
        seen => Ok((seen?.kind == Kind::File).then_some(true)),
    }
}
