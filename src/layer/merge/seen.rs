//! What the new base has by a name, and what is asked of an entry more than once.

use crate::layer::judge::is_dir;
use crate::layer::walk::stat;
use crate::layer::{Entry, More, Side};
use crate::tree::{Dir, Kind, Stat, attr};

/// What the new base has by an entry's name, and the directory itself, where it is one. Where the store has one, it mostly is: then to open
/// it first takes less than to look.
pub(super) fn look(dir: &Dir, entry: &Entry<'_>) -> nix::Result<(Option<Stat>, Option<Dir>)> {
    if entry.path.is_empty() {
        return Ok((stat(dir, entry.name)?, None));
    }
    let open = if is_dir(entry.node) { dir.child(entry.name).ok() } else { None };
    if let Some(child) = open {
        return Ok((Some(child.stat()?), Some(child)));
    }
    let there = stat(dir, entry.name)?;
    let folder = there.is_some_and(|stat| stat.kind == Kind::Dir);
    Ok((there, if folder { Some(dir.child(entry.name)?) } else { None }))
}

/// Notes what is asked of an entry more than once: a regular file is opened, too.
pub(super) fn list(side: Side<'_>, more: &mut More) -> nix::Result<()> {
    if side.stat.kind == Kind::File {
        // To look for it by its name costs more than to open it, and mostly its content is compared.
        more.file = Some(side.dir.open_file(side.name, side.stat)?);
    }
    let open = side.more.open().or(more.open());
    more.attrs = Some(attr::names_of(side.dir, side.name, open)?);
    Ok(())
}
