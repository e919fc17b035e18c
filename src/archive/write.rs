//! Writes a tar, byte for byte the same for the same entries: POSIX ustar, with pax records for what its header cannot say.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::header::BLOCK;
use super::reader::MAX_TEXT;
use crate::error::{Context, Error, Result};
use crate::progress::Progress;
use crate::sum::Sum;
use crate::tree::{Meta, Time, hex, read, shown};

/// So many bytes are written at once.
const AT_ONCE: usize = 64 << 10;
/// The largest numbers of a header's fields of 8 and of 12 bytes.
const MAX_SHORT: u64 = 0o777_7777;
const MAX_LONG: u64 = 0o777_7777_7777;

/// An entry's header.
pub struct Head<'a> {
    /// Relative to the root; a directory's ends with `/`.
    pub path: &'a [u8],
    /// The type flag of tar(5).
    pub flag: u8,
    /// What a link points to; empty for all others.
    pub link: &'a [u8],
    /// Bytes of the body.
    pub size: u64,
    /// Of a device, else 0:0.
    pub device: (u64, u64),
    /// Owner, mode, time, attributes.
    pub meta: &'a Meta,
}

/// A tar that is being written.
pub struct Tar {
    to: File,
    name: &'static Path,
    /// [`AT_ONCE`] bytes, of which the first `filled` wait to be written.
    buffer: Vec<u8>,
    filled: usize,
    /// Where the digest is wanted.
    hash: Option<Sha256>,
    size: u64,
    progress: Progress,
}

impl Tar {
    /// Begins one that goes to a file or a pipe; `name` is for messages. Without `digest` none is made.
    pub fn new(to: File, name: &'static Path, digest: bool) -> Self {
        Self {
            to,
            name,
            buffer: vec![0; AT_ONCE],
            filled: 0,
            hash: digest.then(Sha256::new),
            size: 0,
            progress: Progress::new("exporting", None),
        }
    }

    /// Writes an entry's headers. As many bytes as its size must follow, and then [`Tar::pad`].
    pub fn head(&mut self, head: &Head<'_>) -> Result<()> {
        let records = records(head);
        if !records.is_empty() {
            let meta = Meta { mode: 0o644, ..Meta::default() };
            let size = records.len() as u64;
            if size > MAX_TEXT {
                return Err(Error::failed(format_args!(
                    "the path and the attributes of {} have {size} bytes; {MAX_TEXT} is the most that is read again",
                    shown(head.path).display()
                )));
            }
            let pax = Head { path: b"PaxHeader", flag: b'x', link: b"", size, device: (0, 0), meta: &meta };
            self.data(&block(&pax))?;
            self.data(&records)?;
            self.pad()?;
        }
        self.data(&block(head))
    }

    /// Where the next bytes go, of no more than `most`; it counts as filled.
    fn room(&mut self, most: u64) -> Result<&mut [u8]> {
        if self.filled >= AT_ONCE {
            self.flush()?;
        }
        let begin = self.filled;
        let room = usize::try_from(most).unwrap_or(AT_ONCE).min(AT_ONCE.saturating_sub(begin));
        self.filled = begin.saturating_add(room);
        self.size = self.size.plus(room as u64);
        Ok(self.buffer.get_mut(begin..self.filled).unwrap_or_default())
    }

    fn data(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = self.room(bytes.len() as u64)?;
            let (part, rest) = bytes.split_at_checked(room.len()).unwrap_or_default();
            room.copy_from_slice(part);
            bytes = rest;
        }
        Ok(())
    }

    /// Writes a part of the current body: what lies in a file from `at` to `end`. It is read to where it is written from, since
    /// routers copy in memory one byte after the other.
    pub fn file(&mut self, from: &File, mut at: u64, end: u64, path: &[u8]) -> Result<()> {
        while at < end {
            let room = self.room(end.minus(at))?;
            read(from, room, at, path)?;
            at = at.plus(room.len() as u64);
        }
        Ok(())
    }

    /// Writes zeros: the hole of a body.
    pub fn zeros(&mut self, mut length: u64) -> Result<()> {
        while length > 0 {
            let room = self.room(length)?;
            room.fill(0);
            length = length.minus(room.len() as u64);
        }
        Ok(())
    }

    /// Fills the last block up.
    pub fn pad(&mut self) -> Result<()> {
        let block = BLOCK as u64;
        self.zeros(self.size.next_multiple_of(block).minus(self.size))
    }

    /// Writes the end. Returns the SHA-256 of all bytes, as OCI writes it, where it is wanted, and their number.
    pub fn finish(&mut self) -> Result<(String, u64)> {
        self.zeros(BLOCK as u64 * 2)?;
        self.flush()?;
        let digest = self.hash.take().map(|hash| format!("sha256:{}", hex(&hash.finalize())));
        Ok((digest.unwrap_or_default(), self.size))
    }

    fn flush(&mut self) -> Result<()> {
        let bytes = self.buffer.get(..std::mem::take(&mut self.filled)).unwrap_or_default();
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        self.to.write_all(bytes).at("write to", self.name)?;
        self.progress.add(bytes.len() as u64);
        Ok(())
    }
}

/// The pax records of what does not fit into the header.
fn records(head: &Head<'_>) -> Vec<u8> {
    let (mut text, meta) = (Vec::new(), head.meta);
    if head.path.len() > 100 {
        record(&mut text, b"path", head.path);
    }
    if head.link.len() > 100 {
        record(&mut text, b"linkpath", head.link);
    }
    if head.size > MAX_LONG {
        record(&mut text, b"size", head.size.to_string().as_bytes());
    }
    for (key, id) in [(b"uid", meta.uid), (b"gid", meta.gid)] {
        if u64::from(id) > MAX_SHORT {
            record(&mut text, key, id.to_string().as_bytes());
        }
    }
    if meta.mtime.nanos != 0 || seconds(meta.mtime).is_none() {
        record(&mut text, b"mtime", time(meta.mtime).as_bytes());
    }
    for (name, value) in &meta.attrs {
        record(&mut text, &[b"SCHILY.xattr.", name.to_bytes()].concat(), value);
    }
    text
}

/// `LENGTH KEY=VALUE\n`; the length counts its own digits.
fn record(text: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    let mut digits = length.to_string();
    while length != rest + digits.len() {
        length += 1;
        digits = length.to_string();
    }
    for part in [digits.as_bytes(), b" ", key, b"=", value, b"\n"] {
        text.extend_from_slice(part);
    }
}

/// `-SECONDS.FRACTION`: the fraction counts away from 1970.
fn time(time: Time) -> String {
    let (mut seconds, mut nanos) = (time.seconds.unsigned_abs(), time.nanos);
    let before = time.seconds < 0;
    if before && nanos > 0 {
        seconds = seconds.minus(1);
        nanos = 1_000_000_000 - nanos;
    }
    let sign = if before { "-" } else { "" };
    format!("{sign}{seconds}.{nanos:09}")
}

/// The seconds, where the header can say them.
fn seconds(time: Time) -> Option<u64> {
    u64::try_from(time.seconds).ok().filter(|seconds| *seconds <= MAX_LONG)
}

/// A header block, laid out as tar(5) says. What does not fit stands in the records, too, and is cut off or 0 here.
fn block(head: &Head<'_>) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let meta = head.meta;
    set(&mut block, 0, 100, head.path);
    for (at, digits, value) in [
        (100, 7, u64::from(meta.mode)),
        (108, 7, u64::from(meta.uid)),
        (116, 7, u64::from(meta.gid)),
        (124, 11, head.size),
        (136, 11, seconds(meta.mtime).unwrap_or(0)),
        (329, 7, head.device.0),
        (337, 7, head.device.1),
    ] {
        let text = format!("{value:0digits$o}");
        set(&mut block, at, digits, if text.len() > digits { b"00000000000" } else { text.as_bytes() });
    }
    set(&mut block, 156, 1, &[head.flag]);
    set(&mut block, 157, 100, head.link);
    set(&mut block, 257, 8, b"ustar\x0000");
    // The checksum's own field counts as blanks.
    set(&mut block, 148, 8, b"        ");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    set(&mut block, 148, 8, format!("{sum:06o}\0 ").as_bytes());
    block
}

#[inline(never)]
fn set(block: &mut [u8; BLOCK], at: usize, length: usize, bytes: &[u8]) {
    let bytes = bytes.get(..length).unwrap_or(bytes);
    if let Some(field) = block.get_mut(at..at + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn records_that_count_themselves() {
        for (length, wanted) in [(1, "6 k="), (4, "9 k="), (5, "11 k="), (93, "99 k="), (94, "101 k=")] {
            let mut text = Vec::new();
            record(&mut text, b"k", &vec![b'v'; length]);
            assert!(text.starts_with(wanted.as_bytes()), "{length}");
            let count: usize = wanted.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(text.len(), count);
        }
    }

    /// What [`super::super::Reader`] would not take is not written.
    #[test]
    fn a_path_that_cannot_be_read_again() {
        let (meta, most) = (Meta::default(), usize::try_from(MAX_TEXT).unwrap());
        // The record has 14 bytes more.
        for (length, fits) in [(most - 14, true), (most - 13, false)] {
            let path = &vec![b'x'; length];
            let null = File::options().write(true).open("/dev/null").unwrap();
            let mut tar = Tar::new(null, Path::new("null"), false);
            let head = Head { path, flag: b'0', link: b"", size: 0, device: (0, 0), meta: &meta };
            assert_eq!(tar.head(&head).is_ok(), fits);
        }
    }

    #[test]
    fn what_does_not_fit_is_a_record() {
        let of = |meta: &Meta, size| {
            let head = Head { path: b"a", flag: b'0', link: b"", size, device: (0, 0), meta };
            String::from_utf8(records(&head)).unwrap()
        };
        let at = |seconds, nanos| Meta { mtime: Time { seconds, nanos }, ..Meta::default() };
        assert_eq!(of(&at(5, 0), MAX_LONG), "");
        assert_eq!(of(&at(5, 0), 8 << 30), "19 size=8589934592\n");
        assert_eq!(of(&at(5, 1), 0), "21 mtime=5.000000001\n");
        assert_eq!(of(&at(-1, 750_000_000), 0), "22 mtime=-0.250000000\n");
        assert_eq!(of(&at(-2, 0), 0), "22 mtime=-2.000000000\n");
        assert_eq!(of(&Meta { uid: 2_097_152, ..Meta::default() }, 0), "15 uid=2097152\n");
    }
}
