//! The content of regular files, with holes passed over where the disk tells them.

use std::fs::File;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek64};

use super::{Stat, shown, sys};
use crate::error::{Error, Result};
use crate::sum::Sum;
use crate::sys::file::fill_from;

/// The unit in which zeros are told from data: the block of nearly every disk.
pub const BLOCK: usize = 4096;

/// Reads all of a file that may be other than zero, and hands it on as (offset, bytes).
///
/// Offsets are multiples of [`BLOCK`]; so are the lengths, but for the last one. `buffer` is a whole number of blocks.
/// A file that ends before the size that was seen is an error.
pub fn read_data(
    file: &File,
    seen: &Stat,
    path: &[u8],
    buffer: &mut [u8],
    each: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    data(file, seen, path, &mut |mut at, end| {
        while at < end {
            let want = usize::try_from(end.minus(at)).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..want).unwrap_or_default();
            read(file, part, at, path)?;
            each(at, part)?;
            at = at.plus(want as u64);
        }
        Ok(())
    })
}

/// Fills `part` with what lies in a file from there on; one that ends before is an error.
pub fn read(file: &File, part: &mut [u8], at: u64, path: &[u8]) -> Result<()> {
    if fill_from(file, part, at).map_err(sys("read", path))? {
        return Ok(());
    }
    Err(Error::failed(format_args!("{} became shorter while it was read", shown(path).display())))
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
