//! What the new base has by a name, and what is asked of an entry more than once.

use std::ffi::CString;
use std::fs::File;

use crate::layer::judge::is_dir;
use crate::layer::walk::stat;
use crate::layer::{Entry, Side};
use crate::tree::{Dir, Kind, Stat};

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

/// What is asked of an entry more than once: a regular file is open, too.
#[derive(Default)]
pub(super) struct Listed {
    file: Option<File>,
    pub(super) attrs: Option<Vec<CString>>,
}

impl Listed {
    pub(super) fn of(side: Side<'_>) -> nix::Result<Self> {
        let file = match side.stat.kind {
            // To look for it by its name costs more than to open it, and mostly its content is compared.
            Kind::File => Some(side.dir.open_file(side.name, side.stat)?),
            _ => None,
        };
        let attrs = Side { file: file.as_ref(), ..side }.attr_names()?;
        Ok(Self { file, attrs: Some(attrs) })
    }

    pub(super) fn of_side<'a>(&'a self, side: Side<'a>) -> Side<'a> {
        Side { file: self.file.as_ref(), attrs: self.attrs.as_deref(), ..side }
    }
}
