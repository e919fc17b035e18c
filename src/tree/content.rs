//! The content of regular files, with holes passed over where the disk tells them.

use std::fs::File;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek64};

use super::{Stat, shown, sys};
use crate::error::{Error, Result};
use crate::sum::Sum;
use crate::sys::file::{fill_from, read_from};

/// The unit in which zeros are told from data: the block of nearly every disk.
pub const BLOCK: usize = 4096;

/// As much of a file is read to be handed on, and mostly written: a power of two, since ext4 makes one folio of what one call
/// writes, where it can.
const AT_ONCE: usize = BLOCK * 32;

/// As much of each of two files is compared at once: what zig's allocator keeps when it is given back, and 32 KiB it does not.
const COMPARED: usize = BLOCK * 7;

/// Reads all of a file that may be other than zero, and hands it on as (offset, bytes).
///
/// Offsets are multiples of [`BLOCK`]; so are the lengths, but for the last one. `buffer` is kept for the next file. A file that ends
/// before the size that was seen is an error.
pub fn read_data(
    file: &File,
    seen: &Stat,
    path: &[u8],
    buffer: &mut Vec<u8>,
    each: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    data(file, seen, path, &mut |mut at, end| {
        while at < end {
            let size = at_once(at, end, AT_ONCE);
            whole(read_from(file, buffer, size, at), path)?;
            each(at, buffer)?;
            at = at.plus(size as u64);
        }
        Ok(())
    })
}

/// Fills `part` with what lies in a file from there on; one that ends before is an error.
pub fn read(file: &File, part: &mut [u8], at: u64, path: &[u8]) -> Result<()> {
    whole(fill_from(file, part, at), path)
}

fn at_once(at: u64, end: u64, most: usize) -> usize {
    usize::try_from(end.minus(at)).unwrap_or(usize::MAX).min(most)
}

fn whole(read: nix::Result<bool>, path: &[u8]) -> Result<()> {
    if read.map_err(sys("read", path))? {
        return Ok(());
    }
    Err(Error::failed(format_args!("{} became shorter while it was read", shown(path).display())))
}

/// Do both files hold the same bytes there? A file that became shorter is another one.
pub fn equal(one: &File, other: &File, mut at: u64, end: u64) -> nix::Result<bool> {
    let (mut left, mut right) = (Vec::with_capacity(COMPARED), Vec::with_capacity(COMPARED));
    while at < end {
        let size = at_once(at, end, COMPARED);
        let read = read_from(one, &mut left, size, at)? && read_from(other, &mut right, size, at)?;
        if !read || !alike(&left, &right) {
            return Ok(false);
        }
        at = at.plus(size as u64);
    }
    Ok(true)
}

/// Are they the same bytes? By words, some at a time: a C library that is built for size compares, as it copies, one byte after the other.
fn alike(one: &[u8], other: &[u8]) -> bool {
    const WORD: usize = size_of::<usize>();
    let word = |bytes: &[u8], number: usize| {
        let bytes = bytes.get(number * WORD..).and_then(|bytes| bytes.first_chunk().copied());
        usize::from_ne_bytes(bytes.unwrap_or_default())
    };
    let (mut a, mut b) = (one.chunks_exact(4 * WORD), other.chunks_exact(4 * WORD));
    let differ = |a: &[u8], b: &[u8], number| word(a, number) ^ word(b, number);
    one.len() == other.len()
        && a.by_ref()
            .zip(b.by_ref())
            .all(|(a, b)| differ(a, b, 0) | differ(a, b, 1) | differ(a, b, 2) | differ(a, b, 3) == 0)
        && a.remainder() == b.remainder()
}

/// Hands on where the data of a file lie that may be other than zero, as (start, end) in their order: multiples of [`BLOCK`], but
/// for the file's end.
pub fn data(
    file: &File,
    seen: &Stat,
    path: &[u8],
    each: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    if seen.allocated >= seen.size {
        return each(0, seen.size);
    }
    let mut at = 0;
    while at < seen.size {
        match next_data(file, at, seen.size).map_err(sys("look for holes in", path))? {
            None => break,
            Some((start, end)) => {
                each(start, end)?;
                at = end;
            }
        }
    }
    Ok(())
}

/// The next stretch of data at or behind `at`, widened to whole blocks; None when there are only holes left.
fn next_data(file: &File, at: u64, size: u64) -> nix::Result<Option<(u64, u64)>> {
    let seek = |from: u64, whence| {
        let from = i64::try_from(from).map_err(|_| Errno::EOVERFLOW)?;
        lseek64(file, from, whence).map(|to| u64::try_from(to).unwrap_or(0))
    };
    let block = BLOCK as u64;
    let start = match seek(at, Whence::SeekData) {
        Ok(start) => start,
        Err(Errno::ENXIO) => return Ok(None),
        // Before Linux 3.1, and where a file system knows no holes: all of it may be data.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(Some((at, size))),
        Err(errno) => return Err(errno),
    };
    let start = (start / block).times(block).max(at);
    let end = seek(start.max(at), Whence::SeekHole).unwrap_or(size);
    let end = end.max(start.plus(1)).div_ceil(block).times(block);
    Ok(Some((start, end.min(size))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_byte_counts() {
        for length in 0..40 {
            let one = vec![7; length];
            assert!(alike(&one, &one.clone()));
            assert!(!alike(&one, &vec![7; length + 1]) && !alike(&vec![7; length + 1], &one));
            for at in 0..length {
                let mut other = one.clone();
                *other.get_mut(at).unwrap() = 8;
                assert!(!alike(&one, &other), "{at} of {length}");
            }
        }
    }
}
