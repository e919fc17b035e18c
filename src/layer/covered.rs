//! Would a directory show the same if it were not opaque?

use std::ffi::{CStr, CString};

use nix::errno::Errno;

use super::decode::{self, Names, aufs_opaque};
use super::{Format, walk};
use crate::tree::{Chain, Dir, Kind, Shelf, attr};

/// Of all directories on the way down together, no more names are looked after: where there are more, the mark stays.
const HELD: usize = 20_000;

/// Does the store say something of each name that the base has in the same directory, and below it? Then the mark that hides the
/// base's hides nothing. The cost grows with what the store has: the base's names are read no further than that.
pub(super) fn covered(format: Format, store: Dir, base: Dir) -> nix::Result<bool> {
    // Too many marks could say so.
    if format == Format::FuseOverlayfs {
        return Ok(false);
    }
    let Some(first) = names(format, &store, &base)? else { return Ok(false) };
    let mut held = first.len();
    let mut levels = vec![first];
    let (mut store, mut base) = (Chain::new(store)?, Chain::new(base)?);
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.pop() else {
            levels.pop();
            if !levels.is_empty() {
                store.up()?;
                base.up()?;
            }
            continue;
        };
        held = held.saturating_sub(1);
        if !merges(format, store.here(), base.here(), &name)? {
            continue;
        }
        let (below, above) = (store.here().child(&name)?, base.here().child(&name)?);
        let Some(next) = names(format, &below, &above)? else { return Ok(false) };
        held = held.saturating_add(next.len());
        if held > HELD {
            return Ok(false);
        }
        levels.push(next);
        store.down(below)?;
        base.down(above)?;
    }
    Ok(true)
}

/// The base's names that the store has something by, and that may be directories of both; none where the base has one more, or
/// the store has too many to tell.
fn names(format: Format, store: &Dir, base: &Dir) -> nix::Result<Option<Vec<CString>>> {
    let mut shelf = Shelf::new(store)?;
    let Names { here, gone, rare } = decode::names(format, store, base, false, &mut shelf)?;
    let (Some(here), Some(gone)) = (here.in_memory(), gone.in_memory()) else { return Ok(None) };
    if rare.is_some() {
        return Ok(None);
    }
    // Both are sorted backwards.
    let has = |list: &[CString], name: &CString| list.binary_search_by(|other| name.cmp(other)).is_ok();
    let mut both = Vec::new();
    for name in base.some_names(here.len().saturating_add(gone.len()))? {
        if has(&gone, &name) {
            continue;
        }
        if !has(&here, &name) {
            return Ok(None);
        }
        both.push(name);
    }
    Ok(Some(both))
}

/// Would the store's directory merge with the base's?
fn merges(format: Format, store: &Dir, base: &Dir, name: &CStr) -> nix::Result<bool> {
    for dir in [store, base] {
        if walk::stat(dir, name)?.is_none_or(|stat| stat.kind != Kind::Dir) {
            return Ok(false);
        }
    }
    if format == Format::Aufs {
        return match store.child(name) {
            Err(Errno::ENOENT) => Ok(false),
            child => Ok(aufs_opaque(&child?)? == Some(false)),
        };
    }
    if format.prefixes().is_empty() {
        return Ok(true);
    }
    let marks = decode::marks(format, store, name, &attr::names(store, name)?)?;
    Ok(marks.opaque != b'y' && marks.redirect.is_none())
}
