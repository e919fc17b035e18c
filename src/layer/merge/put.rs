//! What a rebase writes into the new store, and where the new base's version goes that is put in beside the sliver's.

use std::ffi::CString;

use super::{Merge, Prefer};
use crate::error::Result;
use crate::hash::fnv64a;
use crate::layer::judge::merged;
use crate::layer::walk::stat;
use crate::layer::{Action, Aspects, Change, Entry, Side, Step, Writer};
use crate::tree::{Dir, Kind, sys};

/// What is put in beside a name that both sides changed is called like it, and this.
const BESIDE: &[u8] = b".base-new";

/// The longest name that stands before it: so it fits every format, with a number.
const BESIDE_MAX: usize = 220;

/// As much of a longer one does, and a hash of all of it: others may begin alike.
const BESIDE_CUT: usize = 200;

impl<'w> Merge<'_, 'w> {
    pub(super) fn conflict(
        &mut self,
        entry: &Entry<'_>,
        new: Option<Side<'_>>,
        why: &'static str,
    ) -> Result<()> {
        let Some(new) = new.filter(|_| self.prefer == Prefer::Both) else {
            return self.told(entry, Action::Conflict, why, None);
        };
        let name = free_name(entry.here, new).map_err(sys("find a name beside", entry.path))?;
        self.told(entry, Action::Conflict, why, Some(&name))?;
        self.mark();
        let Some(writer) = self.writer() else { return Ok(()) };
        let above = entry.path.len().saturating_sub(entry.name.to_bytes().len());
        let path = [entry.path.get(..above).unwrap_or_default(), name.to_bytes()].concat();
        if new.stat.kind == Kind::Dir {
            return writer.copy_folder(new, &name, &path);
        }
        writer.take(&Step::Entry(Entry {
            change: Change::Put,
            doubt: None,
            name: &name,
            path: &path,
            node: Some(new),
            stored: false,
            here: entry.here,
            data: None,
            base: None,
            from: None,
            differs: None,
            attrs: None,
        }))
    }

    /// The directories down to here are needed.
    pub(super) fn mark(&mut self) {
        for level in self.levels.iter_mut().rev().take_while(|level| !level.made) {
            level.made = true;
        }
    }

    /// The writer; none in a plan, and where the new base's version stays.
    pub(super) fn writer(&mut self) -> Option<&mut Writer<'w>> {
        let quiet = self.levels.last().is_some_and(|level| level.quiet);
        self.writer.as_deref_mut().filter(|_| !quiet)
    }

    pub(super) fn write(&mut self, entry: &Entry<'_>, new: Option<Side<'_>>, change: Change) -> Result<()> {
        self.mark();
        match self.writer() {
            Some(writer) => writer.take(&Step::Entry(Entry { change, base: new, ..*entry })),
            None => Ok(()),
        }
    }

    pub(super) fn write_merged(
        &mut self,
        entry: &Entry<'_>,
        new: Option<Side<'_>>,
        mine: Aspects,
        theirs: Aspects,
    ) -> Result<()> {
        let (Some(ours), Some(base)) = (entry.node, new) else { return Ok(()) };
        let from_ours = mine.has(Aspects::CONTENT);
        let node = if from_ours { ours } else { base };
        let mut stat = merged(mine, theirs, ours.stat, base.stat);
        (stat.id, stat.size, stat.allocated) = (node.stat.id, node.stat.size, node.stat.allocated);
        // Other names of the new base's file have not got this owner or mode.
        stat.links = 1;
        let merged = Entry {
            node: Some(Side { stat: &stat, ..node }),
            stored: from_ours && entry.stored,
            data: if from_ours { entry.data.or(Some(ours)) } else { Some(base) },
            attrs: Some(if mine.has(Aspects::ATTRS) { (ours, entry.stored) } else { (base, false) }),
            ..*entry
        };
        self.write(&merged, new, Change::Put)
    }

    /// The directory is written when something in it is; `blocked` says that the new base has something else there.
    pub(super) fn lazily(&mut self, entry: &Entry<'_>, blocked: bool, quiet: bool) {
        if let Some(writer) = self.writer.as_mut().filter(|_| !quiet) {
            writer.lazily(entry, blocked);
        }
    }
}

/// A name for the new base's version that neither the store nor the bases have in this folder.
fn free_name(store: &Dir, new: Side<'_>) -> nix::Result<CString> {
    let mut name = new.name.to_bytes().to_vec();
    if name.len() > BESIDE_MAX {
        let hash = format!(".{:x}", fnv64a(&name));
        name.truncate(BESIDE_CUT);
        name.extend_from_slice(hash.as_bytes());
    }
    let mut number = 0_u32;
    loop {
        let mut text = [name.as_slice(), BESIDE].concat();
        if number > 0 {
            text.extend_from_slice(format!(".{number}").as_bytes());
        }
        let text = CString::new(text).unwrap_or_default();
        if stat(store, &text)?.is_none() && stat(new.dir, &text)?.is_none() {
            return Ok(text);
        }
        number += 1;
    }
}
