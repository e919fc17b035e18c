//! Which inodes were seen: a hash table of our own, since std's ordered and hashed maps weigh several KiB for each pair of types.

use std::fs::File;

use nix::errno::Errno;

use super::Dir;
use crate::hash::fnv64a;
use crate::sum::Sum;
use crate::sys::file::{fill_from, set_size, write_at};

/// With more places than that, the table lies in a file.
const IN_MEMORY: usize = 1 << 13;
/// Bytes of a place in the file.
const PLACE: u64 = 24;

/// Device and number of an inode.
type Id = (u64, u64);

/// Numbers by inode. A tenant's tree may have millions of them: what is too much for memory lies in a file without a name.
pub struct Ids {
    /// On whose disk the file is to lie.
    dir: Dir,
    /// A power of two of places, of which less than half is taken.
    places: Vec<Option<(Id, u64)>>,
    file: Option<Table>,
    taken: u64,
}

impl Ids {
    /// None yet. The file will lie on the disk of `dir`, or among the temporary files where that takes none.
    pub fn beside(dir: &Dir) -> nix::Result<Box<Self>> {
        Ok(Box::new(Self { dir: dir.again()?, places: Vec::new(), file: None, taken: 0 }))
    }

    /// The number of `id`, where one was noted before; else `number` is noted.
    pub fn note(&mut self, id: Id, number: u64) -> nix::Result<Option<u64>> {
        let room = self.file.as_ref().map_or(self.places.len() as u64, |table| table.room);
        if self.taken.times(2) >= room {
            self.grow()?;
        }
        let known = match &self.file {
            Some(table) => {
                let (at, known) = table.find(id)?;
                if known.is_none() {
                    table.write(at, id, number)?;
                }
                known
            }
            None => match self.place(id) {
                Some(free @ None) => {
                    *free = Some((id, number));
                    None
                }
                place => place.and_then(|place| place.map(|(_, known)| known)),
            },
        };
        self.taken = self.taken.plus(u64::from(known.is_none()));
        Ok(known)
    }

    /// Was a number noted for `id`?
    pub fn has(&mut self, id: Id) -> nix::Result<bool> {
        match &self.file {
            Some(table) => Ok(table.find(id)?.1.is_some()),
            None => Ok(self.place(id).is_some_and(|place| place.is_some())),
        }
    }

    fn grow(&mut self) -> nix::Result<()> {
        let room = (self.places.len() * 2).max(64);
        if room <= IN_MEMORY && self.file.is_none() {
            let old = std::mem::replace(&mut self.places, vec![None; room]);
            for place in old {
                let Some((id, _)) = place else { continue };
                if let Some(at) = self.place(id) {
                    *at = place;
                }
            }
            return Ok(());
        }
        let old = self.file.as_ref().map_or(IN_MEMORY as u64, |old| old.room);
        let new = Table { file: self.dir.unnamed()?, room: old.times(8) };
        set_size(&new.file, new.room.times(PLACE))?;
        for place in std::mem::take(&mut self.places) {
            let Some((id, number)) = place else { continue };
            new.write(new.find(id)?.0, id, number)?;
        }
        if let Some(old) = &self.file {
            for at in 0..old.room {
                if let Some((id, number)) = old.read(at)? {
                    new.write(new.find(id)?.0, id, number)?;
                }
            }
        }
        self.file = Some(new);
        Ok(())
    }

    /// Where `id` is, or belongs.
    fn place(&mut self, id: Id) -> Option<&mut Option<(Id, u64)>> {
        let last = self.places.len().checked_sub(1)?;
        let mut at = usize::try_from(hash(id)).unwrap_or(0) & last;
        while self.places.get(at)?.is_some_and(|(known, _)| known != id) {
            at = (at + 1) & last;
        }
        self.places.get_mut(at)
    }
}

fn hash(id: Id) -> u64 {
    (fnv64a(&id.0.to_ne_bytes()) ^ fnv64a(&id.1.to_ne_bytes())) >> 33
}

/// The table as a file with holes: device, inode and number, which is one more than what was noted, and 0 where the place is free.
struct Table {
    file: File,
    /// A power of two of places.
    room: u64,
}

impl Table {
    fn read(&self, at: u64) -> nix::Result<Option<(Id, u64)>> {
        let mut bytes = [0; 24];
        if !fill_from(&self.file, &mut bytes, at.times(PLACE))? {
            return Err(Errno::EIO);
        }
        let [device, inode, number] = [0, 8, 16].map(|at| {
            let field = bytes.get(at..).and_then(|bytes| bytes.first_chunk().copied());
            u64::from_ne_bytes(field.unwrap_or_default())
        });
        Ok(number.checked_sub(1).map(|number| ((device, inode), number)))
    }

    /// Where `id` is, or belongs; and what was noted for it.
    fn find(&self, id: Id) -> nix::Result<(u64, Option<u64>)> {
        let last = self.room.minus(1);
        let mut at = hash(id) & last;
        loop {
            match self.read(at)? {
                Some((known, number)) if known == id => return Ok((at, Some(number))),
                Some(_) => at = at.plus(1) & last,
                None => return Ok((at, None)),
            }
        }
    }

    fn write(&self, at: u64, (device, inode): Id, number: u64) -> nix::Result<()> {
        let mut bytes = [0; 24];
        for (field, number) in bytes.chunks_mut(8).zip([device, inode, number.plus(1)]) {
            field.copy_from_slice(&number.to_ne_bytes());
        }
        write_at(&self.file, &bytes, at.times(PLACE))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_keeps_its_first_number() {
        let mut ids = Ids::beside(&Dir::open(&std::env::temp_dir()).unwrap()).unwrap();
        assert!(!ids.has((1, 1)).unwrap());
        for number in 0..100_000 {
            assert_eq!(ids.note((number % 3, number / 3), number), Ok(None));
            assert_eq!(ids.file.is_some(), number >= 4096);
        }
        for number in 0..100_000 {
            assert_eq!(ids.note((number % 3, number / 3), 7), Ok(Some(number)));
        }
        assert!(ids.has((2, 1)).unwrap() && !ids.has((3, 1)).unwrap());
        assert!(ids.places.is_empty());
    }
}
