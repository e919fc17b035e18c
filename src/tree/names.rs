//! The names of directories in their order, of which no more than a part is in memory.

use std::ffi::{CStr, CString};

use nix::errno::Errno;

use super::{Dir, spill::Spill};
use crate::sum::Sum;

/// As many bytes of names are in memory together, of all directories that share a shelf.
const MEMORY: usize = 1 << 20;
/// A piece of one directory that is put away is no smaller, but for its last one.
const PIECE: usize = 256 << 10;
/// What a name takes besides its own bytes.
const EACH: usize = 48;
/// As much of a piece is read at once.
const AT_ONCE: usize = 4 << 10;

/// Where the names of the directories on the way down lie: the deepest one's last.
pub struct Shelf {
    spill: Box<Spill>,
    held: usize,
}

impl Shelf {
    /// An empty one, whose file will lie on the disk of `dir`.
    pub fn new(dir: &Dir) -> nix::Result<Self> {
        Ok(Self { spill: Spill::new(dir)?, held: 0 })
    }

    /// Where the next directory's names will begin: for [`Shelf::cut`].
    pub fn mark(&self) -> u64 {
        self.spill.end()
    }

    /// A directory was left: what was put away of it and of all below it is forgotten.
    pub fn cut(&mut self, mark: u64) {
        self.spill.cut(mark);
    }
}

/// Names, which come in any order and leave in that of their bytes.
#[derive(Default)]
pub struct Names {
    /// In memory: once sorted, backwards.
    here: Vec<CString>,
    /// What those take.
    bytes: usize,
    /// Sorted pieces on the shelf; those that are used up stay, and have nothing more.
    pieces: Vec<Piece>,
}

/// A sorted piece on the shelf: names with a NUL behind each.
struct Piece {
    at: u64,
    end: u64,
    /// What was read of it, backwards.
    read: Vec<CString>,
}

impl Names {
    /// All names of a directory.
    pub fn of(dir: &Dir, shelf: &mut Shelf) -> nix::Result<Self> {
        let mut names = Self::default();
        dir.each_name(&mut |name| {
            names.push(name.to_owned(), shelf);
            Ok(true)
        })?;
        names.sort(shelf);
        Ok(names)
    }

    /// Adds one. After the last of them, [`Names::sort`] must follow.
    pub fn push(&mut self, name: CString, shelf: &mut Shelf) {
        let size = size(&name);
        self.bytes += size;
        shelf.held += size;
        self.here.push(name);
        if shelf.held > MEMORY && self.bytes > PIECE {
            self.put_away(shelf);
        }
    }

    /// Brings them into their order.
    pub fn sort(&mut self, shelf: &mut Shelf) {
        if shelf.held > MEMORY {
            return self.put_away(shelf);
        }
        self.here.sort_unstable();
        self.here.reverse();
    }

    fn put_away(&mut self, shelf: &mut Shelf) {
        let at = shelf.mark();
        self.here.sort_unstable();
        for name in std::mem::take(&mut self.here) {
            shelf.spill.push(name.as_bytes_with_nul());
        }
        shelf.held = shelf.held.saturating_sub(std::mem::take(&mut self.bytes));
        self.pieces.push(Piece { at, end: shelf.mark(), read: Vec::new() });
    }

    /// The next name; it stays the next one.
    pub fn head(&mut self, shelf: &mut Shelf) -> nix::Result<Option<&CStr>> {
        let mut least = self.here.last();
        for piece in &mut self.pieces {
            piece.fill(shelf)?;
            least = match (least, piece.read.last()) {
                (Some(least), Some(head)) => Some(least.min(head)),
                (least, head) => least.or(head),
            };
        }
        Ok(least.map(CString::as_c_str))
    }

    /// Drops a name that is the next one, however often it stands there. Does it?
    pub fn take(&mut self, name: &CStr, shelf: &mut Shelf) -> nix::Result<bool> {
        let mut there = false;
        while self.head(shelf)? == Some(name) {
            there = true;
            shelf.held = shelf.held.saturating_sub(size(name));
            let is_next = |list: &[CString]| list.last().is_some_and(|last| last.as_c_str() == name);
            if is_next(&self.here) {
                self.here.pop();
                self.bytes = self.bytes.saturating_sub(size(name));
            } else if let Some(piece) = self.pieces.iter_mut().find(|piece| is_next(&piece.read)) {
                piece.read.pop();
            }
        }
        Ok(there)
    }

    /// Is it there? What comes before it is dropped.
    pub fn find(&mut self, name: &CStr, shelf: &mut Shelf) -> nix::Result<bool> {
        while let Some(head) = self.head(shelf)?.filter(|head| *head < name) {
            let head = head.to_owned();
            self.take(&head, shelf)?;
        }
        self.take(name, shelf)
    }

    /// Before another directory is gone into: what was read ahead goes back where it would take too much.
    pub fn rest(&mut self, shelf: &mut Shelf) {
        if shelf.held <= MEMORY {
            return;
        }
        for piece in &mut self.pieces {
            for name in std::mem::take(&mut piece.read) {
                piece.at = piece.at.minus(name.as_bytes_with_nul().len() as u64);
                shelf.held = shelf.held.saturating_sub(size(&name));
            }
        }
    }

    /// The names, backwards; none where they are not all in memory.
    pub fn in_memory(self) -> Option<Vec<CString>> {
        self.pieces.is_empty().then_some(self.here)
    }
}

impl Piece {
    /// Reads on where nothing is left of what was read.
    fn fill(&mut self, shelf: &mut Shelf) -> nix::Result<()> {
        let mut buffer = Vec::new();
        if !self.read.is_empty() {
            return Ok(());
        }
        while self.read.is_empty() && self.at < self.end {
            // A name that is longer than all that was read wants more.
            let begun = buffer.len();
            let from = self.at.plus(begun as u64);
            let left = usize::try_from(self.end.minus(from)).unwrap_or(AT_ONCE);
            buffer.resize(begun + left.min(AT_ONCE), 0);
            let got = shelf.spill.read(from, buffer.get_mut(begun..).unwrap_or_default())?;
            if got == 0 {
                return Err(Errno::EIO);
            }
            buffer.truncate(begun + got);
            for name in buffer.split_inclusive(|b| *b == 0) {
                if let Ok(name) = CStr::from_bytes_with_nul(name) {
                    self.at = self.at.plus(name.to_bytes_with_nul().len() as u64);
                    shelf.held += size(name);
                    self.read.push(name.to_owned());
                }
            }
        }
        self.read.reverse();
        Ok(())
    }
}

fn size(name: &CStr) -> usize {
    name.to_bytes().len() + EACH
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shelf() -> Shelf {
        Shelf::new(&Dir::open(&std::env::temp_dir()).unwrap()).unwrap()
    }

    fn name(number: u32) -> CString {
        CString::new(format!("{:010}", number.wrapping_mul(2_654_435_761))).unwrap()
    }

    #[test]
    fn in_order_and_bounded() {
        let (mut shelf, mut names, mut inner) = (shelf(), Names::default(), Names::default());
        for number in 0..200_000 {
            names.push(name(number), &mut shelf);
            assert!(shelf.held < MEMORY + PIECE);
        }
        names.push(name(7), &mut shelf);
        names.sort(&mut shelf);
        assert!(names.pieces.len() > 5);
        let mut wanted: Vec<CString> = (0..200_000).map(name).collect();
        wanted.sort();
        for (at, wanted) in wanted.iter().enumerate() {
            assert_eq!(names.head(&mut shelf).unwrap(), Some(wanted.as_c_str()));
            assert!(names.take(wanted, &mut shelf).unwrap() && !names.take(wanted, &mut shelf).unwrap());
            if at % 10_000 == 0 {
                // As a walk does that goes into a folder, which is wide, too.
                let mark = shelf.mark();
                for number in 0..30_000 {
                    inner.push(name(number), &mut shelf);
                }
                inner.sort(&mut shelf);
                assert!(inner.find(&name(29_999), &mut shelf).unwrap());
                while let Some(head) = inner.head(&mut shelf).unwrap().map(CStr::to_owned) {
                    inner.take(&head, &mut shelf).unwrap();
                }
                shelf.cut(mark);
            }
            names.rest(&mut shelf);
        }
        assert_eq!(names.head(&mut shelf).unwrap(), None);
        assert_eq!((shelf.held, names.bytes), (0, 0));
    }

    #[test]
    fn a_name_longer_than_what_is_read_at_once() {
        let (mut shelf, mut names) = (shelf(), Names::default());
        let long = CString::new(vec![b'x'; AT_ONCE * 3]).unwrap();
        shelf.held = MEMORY + 1;
        names.push(long.clone(), &mut shelf);
        names.push(c"b".to_owned(), &mut shelf);
        names.sort(&mut shelf);
        assert!(names.find(c"b", &mut shelf).unwrap());
        assert_eq!(names.head(&mut shelf).unwrap(), Some(long.as_c_str()));
        names.rest(&mut shelf);
        assert!(names.find(&long, &mut shelf).unwrap());
        assert!(!names.find(c"z", &mut shelf).unwrap());
        assert_eq!(names.head(&mut shelf).unwrap(), None);
    }
}
