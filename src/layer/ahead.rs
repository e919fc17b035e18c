//! Reads ahead what a walk will come upon. With nothing of it in memory, a walk waits for one block of the disk after the other; most
//! disks give many at a time, and take little longer.

use super::walk::TURNS;
use super::{Changes, Comparer, Format, Show, Step};
use crate::error::Result;
use crate::sys::helpers::{Helpers, blocks_read};
use crate::tree::Dir;

/// When the walk had to read as many blocks of 512 bytes, there will be more.
const COLD: i64 = 512;

/// Looks whether a walk waits for the disk, and then sends for what is ahead of it.
pub(super) struct Ahead {
    began: i64,
    helpers: Option<Helpers>,
}

impl Ahead {
    /// At the start of a walk.
    pub(super) fn new() -> Self {
        Self { began: blocks_read(), helpers: None }
    }

    /// At each step of it.
    pub(super) fn step(&mut self, format: Format, store: &Dir, base: &Dir) {
        if self.helpers.is_some() || blocks_read().saturating_sub(self.began) < COLD {
            return;
        }
        let mut helpers = Helpers::default();
        for turn in 1..TURNS {
            helpers.start(&mut || {
                // Whatever stops it, the walk itself will come upon.
                let _read = read(format, store, base, turn);
            });
        }
        self.helpers = Some(helpers);
    }
}

/// Does what the walk does, and writes nothing.
fn read(format: Format, store: &Dir, base: &Dir, turn: usize) -> Result<()> {
    // Of its own: where a directory is read further, its other handles go along.
    let store = store.child(c".").map_err(crate::tree::sys("open", b"."))?;
    let mut changes = Changes::new(format, store, base, Show::Changes)?.without_leaves().turned(turn);
    let mut comparer = Comparer::new(format);
    while let Some(step) = changes.step()? {
        let Step::Entry(entry) = step else { continue };
        let _seen = comparer.differences(&entry);
        changes.enter()?;
    }
    Ok(())
}
