//! Whole trees by open directories: read, copied, removed, summed up in a digest. No name in a tree is ever followed as a link,
//! and no device, FIFO or socket is ever opened.

pub mod attr;
mod chain;
mod content;
mod copy;
mod dedupe;
mod digest;
mod dir;
mod ids;
mod meta;
mod names;
mod remove;
mod space;
mod spill;
mod sync;
mod walk;

pub use chain::Chain;
pub use content::{BLOCK, data, equal, read};
pub use copy::{Content, Copied, ONE_DISK, copy, copy_entry, copy_path};
pub(crate) use copy::{Links, copy_content};
pub use dedupe::{Shared, dedupe};
pub use digest::{Summary, digest, hex};
pub use dir::{Dir, Kind, Stat, Time};
pub use ids::Ids;
pub use meta::Meta;
pub use names::{Names, Shelf};
pub use remove::{remove, remove_path};
pub use space::{Space, count, count_at, shares, space};
pub use spill::Spill;
pub use sync::sync_tree;
pub use walk::{Entry, Step, Walk};

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::error::{Error, Result};

/// The tree's own root as a name in itself.
pub const SELF: &CStr = c".";

/// A path from a tree in a form that a message can carry: every byte outside of printable UTF-8 is escaped.
pub fn shown(path: &[u8]) -> PathBuf {
    PathBuf::from(crate::out::escape(path))
}

/// Gives a bare errno its step and the tree's path, which is escaped only when there is an error to show.
pub(crate) fn sys<'a>(op: &'static str, path: &'a [u8]) -> impl FnOnce(Errno) -> Error + use<'a> {
    move |errno| {
        let err = Error::sys(op, &shown(path), errno);
        match errno {
            Errno::EOPNOTSUPP => {
                err.way_out("this disk does not keep such an entry: use another one (ext4 keeps all)")
            }
            _ => err,
        }
    }
}

/// A component of a path as the kernel takes it. A NUL cannot stand in one.
pub(crate) fn c_name(name: &[u8]) -> Result<CString> {
    CString::new(name)
        .map_err(|_| Error::failed(format_args!("the name {} holds a NUL", shown(name).display())))
}

/// A second handle of an open folder.
pub(crate) fn again(dir: &Dir) -> Result<Dir> {
    dir.again().map_err(sys("open again", b"."))
}

/// Opens the folder at `path`, following links in it: for paths that the operator named.
pub fn open(path: &Path) -> Result<Dir> {
    use crate::error::Context;
    Dir::open(path).at("open", path)
}

/// Is there nothing in a folder?
pub fn is_empty(path: &Path) -> Result<bool> {
    let names = open(path)?.some_names(0);
    names.map(|names| names.is_empty()).map_err(sys("list", path.as_os_str().as_encoded_bytes()))
}

/// Opens the folder that the last name of a path lies in, following links, and gives that name.
pub fn above(path: &Path) -> Result<(Dir, CString)> {
    use std::os::unix::ffi::OsStrExt;
    let Some(name) = path.file_name() else {
        return Err(Error::usage(format_args!("{} ends in no name", path.display())));
    };
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((open(above)?, c_name(name.as_bytes())?))
}

/// Opens a bare store, whose last name is no link: on a disk that was taken out of a node, one could lead to the operator's own.
pub fn open_store(path: &Path) -> Result<Dir> {
    use crate::error::Context;
    if path.file_name().is_none() {
        return open(path);
    }
    let (above, name) = above(path)?;
    match above.child(&name) {
        Err(Errno::ELOOP | Errno::ENOTDIR) => {
            Err(Error::usage(format_args!("{} is no folder", path.display()))
                .way_out("a link is not followed: name the store itself"))
        }
        opened => opened.at("open", path),
    }
}
