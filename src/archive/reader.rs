//! Reads a tar entry by entry, with bounded memory and nothing taken on trust.

use super::header::{BLOCK, Block, number};
use super::pax::{MAX_MAP, Pax, Sparse, decimal};
use super::refuse;
use super::sparse::{self, Map};
use super::stream::{Fault, Stream, fill};
use crate::error::{Error, Result};
use crate::sum::Sum;
use crate::tree::{Kind, Meta, Time, c_name};

/// The most bytes of paths, link targets and pax headers that may stand before an entry.
pub(super) const MAX_TEXT: u64 = 1 << 20;

/// What an entry is.
pub enum What {
    /// A directory.
    Dir,
    /// A regular file: its size, and where its data lie when it has holes.
    File(u64, Option<Map>),
    /// Another name of an entry before.
    HardLink(Vec<u8>),
    /// A symbolic link.
    Link(Vec<u8>),
    /// A device or FIFO with its numbers.
    Node(Kind, (u64, u64)),
}

/// An entry; the data of a file follow from [`Reader::read`].
pub struct Member {
    /// The path as it stands in the archive.
    pub path: Vec<u8>,
    /// What it is.
    pub what: What,
    /// Owner, mode, time, attributes.
    pub meta: Meta,
}

/// Reads the entries of a tar.
pub struct Reader<'a> {
    from: &'a mut dyn Stream,
    /// Bytes read, for messages.
    at: u64,
    /// The path of the current entry, for messages.
    path: Vec<u8>,
    /// Bytes of the current body that are not read yet, and of its padding.
    body: u64,
    padding: u64,
    global: Pax,
}

/// What the headers before an entry's own header said.
#[derive(Default)]
struct Before {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    /// Their bytes together.
    bytes: u64,
}

impl<'a> Reader<'a> {
    /// Begins at the archive's first block.
    pub fn new(from: &'a mut dyn Stream) -> Self {
        Self { from, at: 0, path: Vec::new(), body: 0, padding: 0, global: Pax::default() }
    }

    /// The next entry; none behind the last one. What was not read of the entry before is passed over.
    pub fn member(&mut self) -> Result<Option<Member>> {
        let mut before = Before::default();
        let mut pax = self.global.clone();
        loop {
            self.pass_over()?;
            let Some(bytes) = self.block()? else {
                return if before.bytes > 0 { Err(self.torn()) } else { self.drain().map(|()| None) };
            };
            let block = Block::new(&bytes);
            if !block.checksum_fits() {
                return Err(Error::failed(format_args!(
                    "the archive is refused: it is damaged at byte {}: no header with a right checksum is there",
                    self.at.minus(BLOCK as u64)
                )));
            }
            self.path = before.path.clone().or_else(|| pax.path.clone()).unwrap_or_else(|| block.path());
            let size = block.size().and_then(|size| u64::try_from(size).ok());
            let size = size.ok_or_else(|| self.refuse("has a size that is no size"))?;
            if matches!(block.flag(), b'x' | b'X' | b'L' | b'K') {
                before.bytes = before.bytes.plus(size.max(1));
                if before.bytes > MAX_TEXT {
                    return Err(self
                        .refuse(&format!("has headers of {} bytes; {MAX_TEXT} is the most", before.bytes)));
                }
            }
            match block.flag() {
                b'x' | b'X' => {
                    let text = self.text(size)?;
                    pax.read(&text).map_err(|why| self.refuse(&why))?;
                }
                b'g' => {
                    let text = self.text(size)?;
                    self.global.read(&text).map_err(|why| self.refuse(&why))?;
                    if self.global.names_an_entry() {
                        return Err(self.refuse(
                            "is a global header that names a path, a size or attributes for all entries",
                        ));
                    }
                    pax = self.global.clone();
                }
                b'L' => before.path = Some(self.name(size)?),
                b'K' => before.link = Some(self.name(size)?),
                // A volume's label is no entry.
                b'V' => self.start_body(size)?,
                _ => return self.entry(&block, size, before, pax).map(Some),
            }
        }
    }

    /// Reads data of the current file; short only at its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let want = usize::try_from(self.body).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..want).unwrap_or_default();
        self.fill(part)?;
        self.body = self.body.minus(want as u64);
        Ok(want)
    }

    fn entry(&mut self, block: &Block<'_>, size: u64, before: Before, mut pax: Pax) -> Result<Member> {
        let path = pax.path.take().or(before.path).unwrap_or_else(|| block.path());
        self.path = pax.sparse.as_mut().and_then(|sparse| sparse.path.take()).unwrap_or(path);
        let link = pax.link.take().or(before.link).unwrap_or_else(|| block.link());
        let meta = self.meta(block, &pax)?;
        let size = pax.size.unwrap_or(size);
        let what = match block.flag() {
            0 | b'0' | b'7' if self.path.ends_with(b"/") => What::Dir,
            0 | b'0' | b'7' | b'S' => self.file(block, size, pax.sparse)?,
            b'1' => What::HardLink(link),
            b'2' => What::Link(link),
            b'3' => What::Node(Kind::Char, self.device(block)?),
            b'4' => What::Node(Kind::Block, self.device(block)?),
            b'5' | b'D' => What::Dir,
            b'6' => What::Node(Kind::Fifo, (0, 0)),
            other => {
                let flag = crate::out::escape(&[other]);
                return Err(
                    self.refuse(&format!("is of the type `{flag}`, which is none that a base can hold"))
                );
            }
        };
        match (&what, block.flag()) {
            (What::File(..), _) => {}
            // GNU's incremental archives list a directory's names in its body.
            (What::Dir, b'D') => self.start_body(size)?,
            // Programs wrote the size of the file here, and no data.
            (What::HardLink(_), _) => {}
            _ if size != 0 => return Err(self.refuse("says that it has data, which it cannot have")),
            _ => {}
        }
        Ok(Member { path: self.path.clone(), what, meta })
    }

    fn meta(&self, block: &Block<'_>, pax: &Pax) -> Result<Meta> {
        if pax.acl_in_words && !pax.attrs.iter().any(|(name, _)| name.starts_with(b"system.posix_acl_")) {
            return Err(self
                .refuse("has an ACL in words, whose names may mean others here")
                .way_out("make the archive with `--xattrs --xattrs-include='*'` and without `--acls`"));
        }
        let id = |given: Option<u32>, field: Option<i64>| {
            given.or_else(|| u32::try_from(field?).ok().filter(|id| *id != u32::MAX))
        };
        let mode = block.mode().ok_or_else(|| self.refuse("has a mode that is no mode"))?;
        let uid = id(pax.uid, block.uid()).ok_or_else(|| self.refuse("has an owner that cannot be"))?;
        let gid = id(pax.gid, block.gid()).ok_or_else(|| self.refuse("has a group that cannot be"))?;
        let mtime = pax.mtime.or_else(|| Some(Time { seconds: block.mtime()?, nanos: 0 }));
        let mtime = mtime.ok_or_else(|| self.refuse("has a time that is no time"))?;
        let attrs = pax.attrs.iter().map(|(name, value)| Ok((c_name(name)?, value.clone())));
        let attrs = attrs
            .collect::<Result<_>>()
            .map_err(|_| self.refuse("has an attribute with a NUL in its name"))?;
        Ok(Meta { mode: u32::try_from(mode & 0o7777).unwrap_or(0), uid, gid, mtime, attrs })
    }

    fn device(&self, block: &Block<'_>) -> Result<(u64, u64)> {
        let numbers = block
            .device()
            .and_then(|(major, minor)| Some((u64::try_from(major).ok()?, u64::try_from(minor).ok()?)));
        numbers.ok_or_else(|| self.refuse("has device numbers that cannot be"))
    }

    /// A regular file, sparse in one of GNU's four forms or whole.
    fn file(&mut self, block: &Block<'_>, size: u64, sparse: Option<Sparse>) -> Result<What> {
        let sparse = sparse
            .filter(|sparse| sparse.map_in_body || !sparse.map.is_empty() || sparse.real_size.is_some());
        let (map, real_size) = match (block.flag(), sparse) {
            (b'S', _) => {
                let real = block.real_size().and_then(|size| u64::try_from(size).ok());
                let map = self.old_map(block)?;
                self.start_body(size)?;
                (map, real.ok_or_else(|| self.refuse("has a real size that is no size"))?)
            }
            (_, None) => {
                self.start_body(size)?;
                return Ok(What::File(size, None));
            }
            (_, Some(sparse)) => {
                self.start_body(size)?;
                let numbers = if sparse.map_in_body { self.map_in_body()? } else { sparse.map };
                let map = sparse::pairs(&numbers).map_err(|why| self.refuse(&why))?;
                (map, sparse.real_size.ok_or_else(|| self.refuse("is sparse and does not say its size"))?)
            }
        };
        sparse::check(&map, real_size, self.body).map_err(|why| self.refuse(&why))?;
        if i64::try_from(real_size).is_err() {
            return Err(self.refuse("has a size that no disk can hold"));
        }
        Ok(What::File(real_size, Some(map)))
    }

    /// GNU's old form: four stretches in the header, then blocks of 21, as long as each says that another follows.
    fn old_map(&mut self, block: &Block<'_>) -> Result<Map> {
        let (fields, mut more) = block.sparse();
        let mut fields = fields.to_vec();
        let mut map = Map::new();
        loop {
            for field in fields.chunks_exact(24) {
                if field.iter().all(|b| *b == 0) {
                    continue;
                }
                let (offset, length) = field.split_at_checked(12).unwrap_or_default();
                let unsigned = |field| number(field).and_then(|n| u64::try_from(n).ok());
                match (unsigned(offset), unsigned(length)) {
                    (Some(offset), Some(length)) if map.len() < MAX_MAP / 2 => map.push((offset, length)),
                    (Some(_), Some(_)) => return Err(self.refuse("has too many holes")),
                    _ => return Err(self.refuse("has a sparse map that is damaged")),
                }
            }
            if !more {
                return Ok(map);
            }
            let mut next = [0; BLOCK];
            self.fill(&mut next)?;
            fields.clear();
            fields.extend_from_slice(next.get(..504).unwrap_or_default());
            more = next.get(504) != Some(&0);
        }
    }

    /// GNU's newest form: the body begins with decimal numbers, one a line, filled up to a whole block.
    fn map_in_body(&mut self) -> Result<Vec<u64>> {
        let mut numbers = Vec::new();
        let mut digits = Vec::new();
        let mut wanted = 1;
        while numbers.len() < wanted {
            let mut block = [0; BLOCK];
            if self.read(&mut block)? < BLOCK {
                return Err(self.refuse("has a sparse map that is damaged"));
            }
            for byte in block {
                if numbers.len() == wanted {
                    break;
                }
                if byte != b'\n' {
                    digits.push(byte);
                    continue;
                }
                let number =
                    decimal(&digits).ok_or_else(|| self.refuse("has a sparse map that is damaged"))?;
                digits.clear();
                if numbers.is_empty() {
                    // The first number is the count of the pairs that follow.
                    let count =
                        usize::try_from(number).ok().and_then(|count| count.checked_mul(2)?.checked_add(1));
                    wanted =
                        count.filter(|n| *n <= MAX_MAP).ok_or_else(|| self.refuse("has too many holes"))?;
                }
                numbers.push(number);
            }
            if digits.len() > 20 {
                return Err(self.refuse("has a sparse map that is damaged"));
            }
        }
        numbers.remove(0);
        Ok(numbers)
    }

    /// A name in a body of its own (GNU's `L` and `K`), without the NUL behind it.
    fn name(&mut self, size: u64) -> Result<Vec<u8>> {
        let text = self.text(size)?;
        Ok(super::header::text(&text).to_vec())
    }

    fn text(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_TEXT {
            return Err(self.refuse(&format!("has a header of {size} bytes; {MAX_TEXT} is the most")));
        }
        self.start_body(size)?;
        let mut text = vec![0; usize::try_from(size).unwrap_or(0)];
        self.read(&mut text)?;
        Ok(text)
    }

    fn start_body(&mut self, size: u64) -> Result<()> {
        let padded = size.div_ceil(BLOCK as u64).product(BLOCK as u64);
        let padding = padded.map(|padded| padded - size).filter(|_| i64::try_from(size).is_ok());
        self.body = size;
        self.padding = padding.ok_or_else(|| self.refuse("has a size that no disk can hold"))?;
        Ok(())
    }

    fn pass_over(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        while self.body > 0 {
            self.read(&mut buffer)?;
        }
        let padding = usize::try_from(self.padding).unwrap_or(0);
        self.padding = 0;
        self.fill(buffer.get_mut(..padding).unwrap_or_default())
    }

    /// The next block; none where the end is marked by two blocks of zeros.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut bytes = [0; BLOCK];
        self.fill(&mut bytes)?;
        if !Block::new(&bytes).is_zero() {
            return Ok(Some(bytes));
        }
        self.fill(&mut bytes)?;
        if Block::new(&bytes).is_zero() {
            Ok(None)
        } else {
            Err(Error::failed("the archive is refused: a block of zeros stands between its entries"))
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        match fill(self.from, bytes) {
            Ok(got) if got == bytes.len() => {
                self.at = self.at.plus(bytes.len() as u64);
                Ok(())
            }
            Ok(_) => Err(self.torn()),
            Err(fault) => Err(self.unreadable(&fault)),
        }
    }

    /// Reads what is left: only at its end a compression tells whether it was whole.
    fn drain(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(fault) => return Err(self.unreadable(&fault)),
            }
        }
    }

    fn torn(&self) -> Error {
        let behind = if self.path.is_empty() {
            String::new()
        } else {
            format!(", at or behind `{}`", crate::out::escape(&self.path))
        };
        Error::failed(format_args!("the archive is refused: it ends too early{behind}"))
            .way_out("it was cut off: bring it here again")
    }

    fn unreadable(&self, fault: &Fault) -> Error {
        if matches!(fault, Fault::Torn) {
            return self.torn();
        }
        let behind = if self.path.is_empty() {
            String::new()
        } else {
            format!(", at or behind `{}`", crate::out::escape(&self.path))
        };
        Error::failed(format_args!("the archive cannot be read{behind}: {fault}"))
    }

    fn refuse(&self, why: &str) -> Error {
        refuse(&self.path, why)
    }
}
