//! mini_fo's records: lines `D NAME` and `R OLDPATH NEWNAME` in a regular file of each folder, hidden from the view.

use std::ffi::{CStr, CString};

use nix::errno::Errno;
use nix::unistd::fsync;

use super::Scratch;
use crate::sys::file::{read_all, write_at};
use crate::tree::{Dir, Kind};

/// The file's name. No name of a tenant's can be this one.
pub(super) const FILE: &CStr = c"META_dAfFgHE39ktF3HD2sr";

/// The longest file that is read, in bytes: some 60,000 names of the longest kind.
const MAX: u64 = 16 << 20;

/// The records of a folder, taken apart.
#[derive(Default)]
pub(super) struct Records {
    /// The names of `D` records, unsorted.
    pub(super) gone: Vec<CString>,
    /// What stands behind the `R `: an old path, a space and a new name, each of which may hold spaces.
    pub(super) moved: Vec<Vec<u8>>,
    /// Something was there that is none of them, or the last line is cut off.
    pub(super) odd: bool,
}

/// Reads the records of a folder that has some. What is there by their name and is no regular file is odd.
pub(super) fn read(dir: &Dir) -> nix::Result<Records> {
    let mut records = Records::default();
    match text(dir)? {
        Some(text) => records.parse(&text),
        None => records.odd = true,
    }
    Ok(records)
}

/// What stands in the file; none where it is none, or too long.
fn text(dir: &Dir) -> nix::Result<Option<Vec<u8>>> {
    let stat = dir.stat_at(FILE)?;
    if stat.kind != Kind::File || stat.size > MAX {
        return Ok(None);
    }
    let most = usize::try_from(MAX).unwrap_or(usize::MAX);
    read_all(dir.open_file(FILE, &stat)?, most).map(Some)
}

/// Replaces a folder's records by those of its lines that are kept, in one step. A line has its end, but for a last one that is
/// torn. False where all are kept, or there are none.
pub(super) fn rewrite(
    dir: &Dir,
    scratch: &Scratch,
    keep: &mut dyn FnMut(&[u8]) -> bool,
) -> nix::Result<bool> {
    let text = match text(dir) {
        Err(Errno::ENOENT) | Ok(None) => return Ok(false),
        Ok(Some(text)) => text,
        Err(errno) => return Err(errno),
    };
    let mut kept = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|b| *b == b'\n').filter(|line| keep(line)) {
        kept.extend_from_slice(line);
    }
    if kept.len() == text.len() {
        return Ok(false);
    }
    if kept.is_empty() {
        dir.unlink(FILE)?;
    } else {
        let name = scratch.records();
        let file = scratch.dir().create_file(name)?;
        let written = write_at(&file, &kept, 0).and_then(|()| fsync(&file));
        let moved = written.and_then(|()| scratch.dir().rename(name, dir, FILE));
        moved.inspect_err(|_| {
            let _cleared_by_the_next = scratch.dir().unlink(name);
        })?;
    }
    dir.sync().map(|()| true)
}

/// The name that a line says is deleted.
pub(super) fn gone(line: &[u8]) -> Option<&[u8]> {
    line.strip_suffix(b"\n")?.strip_prefix(b"D ")
}

impl Records {
    fn parse(&mut self, text: &[u8]) {
        for line in text.split_inclusive(|b| *b == b'\n') {
            let whole = line.strip_suffix(b"\n");
            let (letter, rest) = whole.and_then(|line| line.split_at_checked(2)).unwrap_or_default();
            match (letter, CString::new(rest)) {
                (b"D ", Ok(name)) if !matches!(rest, b"" | b"." | b"..") && !rest.contains(&b'/') => {
                    self.gone.push(name);
                }
                (b"R ", Ok(_)) if rest.starts_with(b"/") => self.moved.push(rest.to_vec()),
                _ => self.odd = true,
            }
        }
    }
}

/// Adds the record that a name of the base is deleted.
pub(super) fn push_gone(text: &mut Vec<u8>, name: &CStr) {
    text.extend_from_slice(b"D ");
    text.extend_from_slice(name.to_bytes());
    text.push(b'\n');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn whole_and_torn_lines() {
        for (text, gone, moved, odd) in [
            (&b"D a\nR /x y z\nD b c\n"[..], &[c"a", c"b c"][..], &[&b"/x y z"[..]][..], false),
            (b"", &[], &[], false),
            (b"D a\nD a\n", &[c"a", c"a"], &[], false),
            (b"D a\nD b", &[c"a"], &[], true),
            (b"D nl\nname\n", &[c"nl"], &[], true),
            (b"D .\nD ..\nD ...\n", &[c"..."], &[], true),
            (b"D a/b\nD \nR x y\n\nX a\nD x\0y\n", &[], &[], true),
        ] {
            let mut records = Records::default();
            records.parse(text);
            let names: Vec<&CStr> = records.gone.iter().map(CString::as_c_str).collect();
            assert_eq!((names.as_slice(), records.odd), (gone, odd), "{}", text.escape_ascii());
            assert_eq!(records.moved, moved, "{}", text.escape_ascii());
        }
    }
}
