//! Paths, and what is made of them, that stay until the program ends.
//!
//! A command makes some dozens of them for each sliver that it works on, and hands them to plans, errors and child processes. Given
//! back, each would want code wherever a function that holds it can end: 4 KiB of the compressed MIPS program. The paths of what
//! lies in a tree, of which there may be millions, are none of these.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Lets a path stay.
pub fn stay(path: PathBuf) -> &'static Path {
    Path::new(OsStr::from_bytes(path.into_os_string().into_vec().leak()))
}

/// Lets a part of a plan stay, or a record.
pub fn for_good<T>(what: T) -> &'static T {
    Box::leak(Box::new(what))
}

/// Paths that are made of another one, and stay.
pub trait Below {
    /// The path itself.
    fn stays(&self) -> &'static Path;

    /// The path of `name` below it, which stays.
    fn below(&self, name: &str) -> &'static Path;
}

impl Below for Path {
    fn stays(&self) -> &'static Path {
        stay(self.to_owned())
    }

    fn below(&self, name: &str) -> &'static Path {
        // `join` would make it twice: once as long as this one.
        let mut path = PathBuf::with_capacity(self.as_os_str().len() + 1 + name.len());
        path.push(self);
        path.push(name);
        stay(path)
    }
}
