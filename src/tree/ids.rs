//! Which inodes were seen: a hash table of our own, since std's ordered and hashed maps weigh several KiB for each pair of types.

use crate::hash::fnv64a;

/// Numbers by inode (device and number). A tenant's tree may have millions of them.
#[derive(Default)]
pub struct Ids {
    /// A power of two of places, of which less than half is taken.
    places: Vec<Option<((u64, u64), u64)>>,
    taken: usize,
}

impl Ids {
    /// The number of `id`, where one was noted before; else `number` is noted.
    pub fn note(&mut self, id: (u64, u64), number: u64) -> Option<u64> {
        if self.taken * 2 >= self.places.len() {
            let room = (self.places.len() * 2).max(64);
            let old = std::mem::replace(&mut self.places, vec![None; room]);
            for place in old.into_iter().flatten() {
                if let Some(at) = self.place(place.0) {
                    *at = Some(place);
                }
            }
        }
        match self.place(id)? {
            Some((_, known)) => Some(*known),
            free => {
                *free = Some((id, number));
                self.taken += 1;
                None
            }
        }
    }

    /// Was a number noted for `id`?
    pub fn has(&mut self, id: (u64, u64)) -> bool {
        self.place(id).is_some_and(|place| place.is_some())
    }

    /// Where `id` is, or belongs.
    fn place(&mut self, id: (u64, u64)) -> Option<&mut Option<((u64, u64), u64)>> {
        let last = self.places.len().checked_sub(1)?;
        let hash = fnv64a(&id.0.to_ne_bytes()) ^ fnv64a(&id.1.to_ne_bytes());
        let mut at = usize::try_from(hash >> 33).unwrap_or(0) & last;
        while self.places.get(at)?.is_some_and(|(known, _)| known != id) {
            at = (at + 1) & last;
        }
        self.places.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_keeps_its_first_number() {
        let mut ids = Ids::default();
        assert!(!ids.has((1, 1)));
        for number in 0..100_000 {
            assert_eq!(ids.note((number % 3, number / 3), number), None);
        }
        for number in 0..100_000 {
            assert_eq!(ids.note((number % 3, number / 3), 7), Some(number));
        }
        assert!(ids.has((2, 1)) && !ids.has((3, 1)));
    }
}
