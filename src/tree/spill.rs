//! Bytes that may be more than fit into memory: what is too much lies in a file without a name.

use std::fs::File;

use nix::errno::Errno;

use super::Dir;
use crate::sum::Sum;
use crate::sys::file::{fill_from, write_at};

/// So many bytes stay in memory.
const KEPT: usize = 256 << 10;

/// Bytes that are put one behind the other, and read at any place.
pub struct Spill {
    /// On whose disk the file is to lie.
    dir: Dir,
    file: Option<File>,
    /// As many bytes lie in the file; the others follow in memory.
    written: u64,
    tail: Vec<u8>,
    /// When there are so many in memory, the next write is tried.
    limit: usize,
}

impl Spill {
    /// Begins without a file. It will lie on the disk of `dir`, or among the temporary files where that takes none.
    pub fn new(dir: &Dir) -> nix::Result<Box<Self>> {
        Ok(Box::new(Self { dir: dir.again()?, file: None, written: 0, tail: Vec::new(), limit: KEPT }))
    }

    /// How many bytes there are.
    pub fn end(&self) -> u64 {
        self.written.plus(self.tail.len() as u64)
    }

    /// Puts bytes behind the others. On a full disk they stay in memory.
    pub fn push(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        if self.tail.len() < self.limit {
            return;
        }
        self.limit = match self.write() {
            Ok(()) => KEPT,
            Err(_) => self.tail.len().saturating_mul(2),
        };
    }

    fn write(&mut self) -> nix::Result<()> {
        if self.file.is_none() {
            self.file = Some(self.dir.unnamed()?);
        }
        if let Some(file) = &self.file {
            write_at(file, &self.tail, self.written)?;
            self.written = self.end();
            self.tail = Vec::with_capacity(KEPT);
        }
        Ok(())
    }

    /// Reads from `at` on, no more than the buffer takes; nothing only at the end.
    pub fn read(&self, at: u64, buffer: &mut [u8]) -> nix::Result<usize> {
        let Some(inside) = at.checked_sub(self.written) else {
            let left = usize::try_from(self.written.minus(at)).unwrap_or(usize::MAX);
            let most = left.min(buffer.len());
            let (Some(file), Some(part)) = (&self.file, buffer.get_mut(..most)) else { return Ok(0) };
            return if fill_from(file, part, at)? { Ok(most) } else { Err(Errno::EIO) };
        };
        let from = usize::try_from(inside).ok().and_then(|from| self.tail.get(from..)).unwrap_or_default();
        let most = from.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..most), from.get(..most)) {
            to.copy_from_slice(from);
        }
        Ok(most)
    }

    /// Forgets all from `at` on.
    pub fn cut(&mut self, at: u64) {
        let kept = usize::try_from(at.minus(self.written)).unwrap_or(usize::MAX);
        self.tail.truncate(kept);
        self.written = self.written.min(at);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn comes_back_from_file_and_memory() {
        let mut spill = Spill::new(&Dir::open(&std::env::temp_dir()).unwrap()).unwrap();
        let all: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
        for part in all.chunks(1000) {
            spill.push(part);
        }
        assert!(spill.file.is_some() && !spill.tail.is_empty() && spill.tail.len() < KEPT);
        assert_eq!(spill.end(), all.len() as u64);
        let (mut back, mut buffer) = (Vec::new(), [0; 777]);
        loop {
            match spill.read(back.len() as u64, &mut buffer).unwrap() {
                0 => break,
                got => back.extend_from_slice(&buffer[..got]),
            }
        }
        assert!(back == all);
        spill.cut(500);
        spill.push(b"new");
        assert_eq!(spill.read(499, &mut buffer).unwrap(), 1);
        assert_eq!(spill.read(500, &mut buffer).unwrap(), 3);
        assert_eq!(&buffer[..3], b"new");
        assert_eq!(spill.read(503, &mut buffer).unwrap(), 0);
    }
}
