//! The digest of a base: SHA-256 over a canonical stream of its whole tree. The stream is frozen; docs/digest.md is
//! its definition.

use std::fmt::Write;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::content::{BLOCK, read_data};
use super::meta::Meta;
use super::{Dir, Entry, Ids, Kind, SELF, Step, Walk, sys};
use crate::error::Result;
use crate::json::{FromJson, Json};
use crate::sum::Sum;

/// What the digest found on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The digest as text: the version of the stream, a colon, 64 hexadecimal digits.
    pub digest: &'static str,
    /// Names below the root.
    pub entries: u64,
    /// Bytes of all regular files, each hard-linked one counted once.
    pub bytes: u64,
    /// Bytes that the tree takes on its disk.
    pub disk: u64,
    /// Attributes that were counted in.
    pub attrs: u64,
}

impl FromJson for Summary {
    fn from_json(json: &Json) -> Result<Self> {
        Ok(Self {
            digest: json.text("digest")?,
            entries: json.number("entries")?,
            bytes: json.number("bytes")?,
            disk: json.number("disk")?,
            attrs: json.number("attrs")?,
        })
    }
}

/// Sums up the tree `root` (shown as `path`).
///
/// `attrs` is false where the kernel hides the attributes of the tree: the digest is then of another kind, which only
/// compares with its like. `progress` is told the bytes of content as they are read. What a union file system would
/// obey is refused.
pub fn digest(root: &Dir, path: &[u8], attrs: bool, progress: &mut dyn FnMut(u64)) -> Result<Summary> {
    let version = if attrs { "sliverfs-tree-1" } else { "sliverfs-tree-1-noxattr" };
    let mut stream = Stream {
        hash: Sha256::new(),
        linked: Ids::beside(root).map_err(sys("look at", path))?,
        number: 0,
        with_attrs: attrs,
        bytes: 0,
        disk: 0,
        attrs: 0,
        buffer: Vec::new(),
        progress,
    };
    stream.hash.update(version);
    stream.hash.update(b"\n");
    let stat = root.stat().map_err(sys("look at", path))?;
    stream.entry(&Entry { dir: root, name: SELF, stat: &stat, path }, b"")?;
    let mut walk = Walk::new(root.again().map_err(sys("open", path))?, path)?;
    while let Some(step) = walk.step()? {
        match step {
            Step::Entry(entry) => {
                stream.entry(&entry, entry.name.to_bytes())?;
                if entry.stat.kind == Kind::Dir {
                    walk.enter_subvolume()?;
                }
            }
            Step::Leave { .. } => stream.hash.update(b"."),
        }
    }
    stream.hash.update(b".");
    Ok(Summary {
        digest: format!("{version}:{}", hex(&stream.hash.finalize())).leak(),
        entries: stream.number.minus(1),
        bytes: stream.bytes,
        disk: stream.disk,
        attrs: stream.attrs,
    })
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _into_string = write!(text, "{byte:02x}");
    }
    text
}

struct Stream<'a> {
    hash: Sha256,
    /// The number of the first name of each file that has several.
    linked: Box<Ids>,
    number: u64,
    with_attrs: bool,
    bytes: u64,
    disk: u64,
    attrs: u64,
    buffer: Vec<u8>,
    progress: &'a mut dyn FnMut(u64),
}

impl Stream<'_> {
    fn entry(&mut self, entry: &Entry<'_>, name: &[u8]) -> Result<()> {
        let Entry { dir, stat, path, .. } = entry;
        let number = self.number;
        self.number += 1;
        if stat.kind != Kind::Dir && stat.links > 1 {
            if let Some(first) = self.linked.note(stat.id, number).map_err(sys("note", path))? {
                self.hash.update(b"h");
                self.text(name);
                self.hash.update(first.to_be_bytes());
                return Ok(());
            }
        }
        self.disk = self.disk.plus(stat.allocated);
        let meta = Meta::read(dir, entry.name, stat, None, path)?;
        self.hash.update([letter(stat.kind)]);
        self.text(name);
        self.meta(&meta, stat.kind);
        match stat.kind {
            Kind::File => self.content(entry)?,
            Kind::Link => {
                let target = dir.read_link(entry.name).map_err(sys("read the link", path))?;
                self.text(&target);
            }
            Kind::Char | Kind::Block => {
                self.hash.update(stat.device.0.to_be_bytes());
                self.hash.update(stat.device.1.to_be_bytes());
            }
            Kind::Dir | Kind::Fifo | Kind::Socket => {}
        }
        Ok(())
    }

    fn meta(&mut self, meta: &Meta, kind: Kind) {
        let mode = if kind == Kind::Link { 0o777 } else { meta.mode };
        // Modulo 2^32, as squashfs and kernels with 32 bits of time keep it.
        let low = meta.mtime.seconds.rem_euclid(1 << 32);
        for number in
            [u64::from(mode), u64::from(meta.uid), u64::from(meta.gid), u64::try_from(low).unwrap_or(0)]
        {
            self.hash.update(number.to_be_bytes());
        }
        if self.with_attrs {
            self.attrs = self.attrs.plus(meta.attrs.len() as u64);
            self.hash.update((meta.attrs.len() as u64).to_be_bytes());
            for (name, value) in &meta.attrs {
                self.text(name.to_bytes());
                self.text(value);
            }
        }
    }

    /// Size, then every block of 4 KiB that is not all zeros with its number, then the end.
    fn content(&mut self, entry: &Entry<'_>) -> Result<()> {
        let Entry { dir, name, stat, path } = entry;
        self.bytes = self.bytes.plus(stat.size);
        self.hash.update(stat.size.to_be_bytes());
        let file = dir.open_file(name, stat).map_err(sys("open", path))?;
        let (hash, progress) = (&mut self.hash, &mut self.progress);
        let mut shown = 0;
        read_data(&file, stat, path, &mut self.buffer, &mut |offset, bytes| {
            for (number, block) in (offset / BLOCK as u64..).zip(bytes.chunks(BLOCK)) {
                if block.iter().any(|b| *b != 0) {
                    hash.update(number.to_be_bytes());
                    hash.update(block);
                }
            }
            let end = offset.plus(bytes.len() as u64);
            progress(end.minus(shown));
            shown = end;
            Ok(())
        })?;
        (self.progress)(stat.size.minus(shown));
        self.hash.update(u64::MAX.to_be_bytes());
        Ok(())
    }

    /// Bytes of any length, told apart from what follows by their length.
    fn text(&mut self, bytes: &[u8]) {
        self.hash.update((bytes.len() as u64).to_be_bytes());
        self.hash.update(bytes);
    }
}

fn letter(kind: Kind) -> u8 {
    match kind {
        Kind::Dir => b'd',
        Kind::File => b'f',
        Kind::Link => b'l',
        Kind::Char => b'c',
        Kind::Block => b'b',
        Kind::Fifo => b'p',
        Kind::Socket => b's',
    }
}
