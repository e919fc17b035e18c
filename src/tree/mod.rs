//! Whole trees by open directories: read, copied, removed, summed up in a digest. No name in a tree is ever followed as a link,
//! and no device, FIFO or socket is ever opened.

pub mod attr;
mod chain;
mod content;
mod copy;
mod digest;
mod dir;
mod ids;
mod meta;
mod remove;
mod space;
mod walk;

pub use chain::Chain;
pub use content::{BLOCK, read_data};
pub use copy::{Content, Copied, copy, copy_path};
pub use digest::{Summary, digest, hex};
pub use dir::{Dir, Kind, Stat, Time};
pub use ids::Ids;
pub use meta::Meta;
pub use remove::{remove, remove_path};
pub use space::space;
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
    CString::new(name).map_err(|_| Error::failed(format!("the name {} holds a NUL", shown(name).display())))
}

/// Opens the folder at `path`, following links in it: for paths that the operator named.
pub fn open(path: &Path) -> Result<Dir> {
    use crate::error::Context;
    Dir::open(path).at("open", path)
}
