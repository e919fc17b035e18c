//! What a store holds that its format does not explain, and what of it can be put right without losing anything.

use super::write::set_mark;
use super::{Changes, Doubt, Entry, Format, Scratch, Show, Step, records};
use crate::error::Result;
use crate::tree::{self, Dir, shown, sys};

/// Is told a doubt, its path and whether it was put right, or why it could not be.
pub type Tell<'a> = &'a mut dyn FnMut(Doubt, &[u8], Result<bool>) -> Result<()>;

/// Walks through a store and tells each doubt. What cannot be put right does not keep the rest from it.
pub fn mend(
    format: Format,
    base: &Dir,
    store: Dir,
    scratch: &Scratch,
    repair: bool,
    tell: Tell<'_>,
) -> Result<()> {
    let mut changes = Changes::new(format, store, base, Show::Changes)?.without_leaves();
    while let Some(step) = changes.step()? {
        let Step::Entry(entry) = step else { continue };
        if let Some(doubt) = entry.doubt {
            let done = if repair { put_right(format, scratch, &entry, doubt) } else { Ok(false) };
            tell(doubt, entry.path, done)?;
        }
        changes.enter()?;
    }
    Ok(())
}

fn put_right(format: Format, scratch: &Scratch, entry: &Entry<'_>, doubt: Doubt) -> Result<bool> {
    let Some(node) = entry.node else { return Ok(false) };
    let failed = || sys("put right", entry.path);
    match doubt {
        Doubt::Garbage => tree::remove(node.dir, entry.name, &shown(entry.path)).map(|()| true),
        // The name hid what the base has already, and held nothing: the driver was about to mark it, or a copy lost the mark.
        Doubt::TornWhiteout if entry.base.is_some() => {
            set_mark(format, node.dir, node.name, b"whiteout").map(|()| true).map_err(failed())
        }
        // A last line that is cut off: what it was to delete is there again.
        Doubt::Record => {
            let mut whole = |line: &[u8]| line.ends_with(b"\n");
            let rewritten = records::rewrite(node.dir, scratch, &mut whole).map_err(failed())?;
            Ok(rewritten && records::read(node.dir).is_ok_and(|records| !records.odd))
        }
        Doubt::TornWhiteout
        | Doubt::StrayWhiteout
        | Doubt::Both
        | Doubt::Foreign
        | Doubt::Dirren
        | Doubt::Lost
        | Doubt::Mount => Ok(false),
    }
}
