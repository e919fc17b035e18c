//! A store over its old base, and the new base: three ways to one store over the new base.
//!
//! The walk goes through what the store holds; the new base is only looked at where the store has something, by open directories. A
//! whole tree is compared with its old base, and its changes are made in a copy of the new one.

mod outcome;
mod put;
mod seen;

use std::ffi::CStr;

pub use self::outcome::{Action, Outcome, Prefer};
use self::seen::{list, look};
use super::judge::{Judge, META, Verdict, changed_in, is_dir, merged};
use super::walk::stat;
use super::{Aspects, Change, Changes, Entry, Format, More, Show, Side, Step, Writer};
use crate::error::Result;
use crate::sys::writeback::Writeback;
use crate::tree::{Chain, Dir, Stat, sys};

/// Of so many levels on the way down it is remembered what the directories are: a tenant can make a hundred thousand.
const KNOWN: usize = 64;

/// Where the new store is written, the files that are waited for then, and what is told the bytes of content.
pub type Into<'a> = (&'a Dir, &'a mut Writeback, &'a mut dyn FnMut(u64));

/// Makes the changes of a store over the base `old` to those of one over `new`, and tells what becomes of each. Without `into` that
/// is all. What is written is not on the disk until the caller syncs it.
pub fn merge(
    from: Format,
    store: Dir,
    (old, new): (&Dir, &Dir),
    into: Option<Into<'_>>,
    prefer: Prefer,
    tell: &mut dyn FnMut(&Outcome<'_>) -> Result<()>,
) -> Result<()> {
    let mut merge = Merge {
        writer: into
            .map(|(dir, files, progress)| Writer::new(from, from, dir, files, progress))
            .transpose()?,
        judge: Judge::new(from),
        prefer,
        levels: Vec::new(),
        tell,
    };
    let mut new = Chain::of(new).map_err(sys("look at the new base at", b"."))?;
    let mut changes = Changes::new(from, store, old, Show::Flat)?.known(KNOWN);
    while let Some(step) = changes.step()? {
        match step {
            Step::Entry(entry) => {
                let open = merge.levels.last().is_none_or(|level| level.open);
                let seen = if open { look(new.here(), &entry) } else { Ok((None, None)) };
                let (there, inside) = seen.map_err(sys("look in the new base at", entry.path))?;
                let side = there.as_ref().map(|stat| Side::new(new.here(), entry.name, stat));
                // Each of them is compared with the other two.
                let (mut old, mut news) = (More::default(), More { dir: inside, ..More::default() });
                let mut base = entry.base;
                if let (Some(base), Some(side)) = (&mut base, side) {
                    let failed = || sys("list the attributes in the bases of", entry.path);
                    list(*base, &mut old).map_err(failed())?;
                    list(side, &mut news).map_err(failed())?;
                    base.more = &old;
                }
                let side = side.map(|side| Side { more: &news, ..side });
                let depth = merge.levels.len();
                let Some(mut level) = merge.entry(&Entry { base, ..entry }, side)? else { continue };
                level.bare = news.attrs.as_ref().is_some_and(Vec::is_empty);
                if let Some(node) = entry.node.filter(|_| depth < KNOWN) {
                    level.seen = Some(Box::new((*node.stat, there)));
                }
                if let Some((child, stat)) = news.dir.zip(there).filter(|_| level.open) {
                    new.down_to(child, stat.id);
                }
                merge.levels.push(level);
                changes.enter()?;
            }
            Step::Leave(entry) => {
                let Some(level) = merge.levels.pop() else { continue };
                if level.open && !entry.path.is_empty() {
                    new.up().map_err(sys("go back in the new base from", entry.path))?;
                }
                let open = merge.levels.last().is_none_or(|level| level.open);
                let there = match level.seen.as_deref() {
                    Some((_, there)) => Ok(*there),
                    None if open => stat(new.here(), entry.name),
                    None => Ok(None),
                };
                let there = there.map_err(sys("look in the new base at", entry.path))?;
                let node = level.seen.as_deref().map(|(node, _)| Side::new(entry.here, entry.name, node));
                let entry = Entry { node: entry.node.or(node), ..entry };
                let mut more = More::default();
                if level.bare {
                    more.attrs = Some(Vec::new());
                }
                let side = there
                    .as_ref()
                    .map(|stat| Side { more: &more, ..Side::new(new.here(), entry.name, stat) });
                merge.leave(&entry, side, &level)?;
            }
        }
    }
    Ok(())
}

/// A directory that was entered.
struct Level {
    /// The new base has it, and it shows through.
    open: bool,
    /// It has been written, or would have been.
    made: bool,
    /// The new base has something else here.
    blocked: bool,
    /// The new base's has no attributes.
    bare: bool,
    /// What is below it is told, and not written: the new base's version stays.
    quiet: bool,
    /// What the store's directory is, and what the new base has: of those [`KNOWN`] levels down, others are looked at again.
    seen: Option<Box<(Stat, Option<Stat>)>>,
    /// What was found out of the directory itself: see [`Judge::sides`].
    sides: Option<(Aspects, Aspects, Aspects)>,
}

struct Merge<'a, 'w> {
    writer: Option<Box<Writer<'w>>>,
    judge: Judge,
    prefer: Prefer,
    levels: Vec<Level>,
    tell: &'a mut dyn FnMut(&Outcome<'_>) -> Result<()>,
}

impl<'w> Merge<'_, 'w> {
    /// A level where the entry is a directory that is to be entered.
    fn entry(&mut self, entry: &Entry<'_>, new: Option<Side<'_>>) -> Result<Option<Level>> {
        entry.refuse_doubt()?;
        if entry.doubt.is_some() || entry.change == Change::Nothing {
            return Ok(None);
        }
        let quiet = self.levels.last().is_some_and(|level| level.quiet);
        let level =
            Level { open: false, made: true, blocked: false, bare: false, quiet, seen: None, sides: None };
        if entry.path.is_empty() {
            self.write(entry, new, entry.change)?;
            let sides = self.judge.sides(entry, new)?;
            self.folder(entry, sides.2)?;
            return Ok(Some(Level { open: true, sides: Some(sides), ..level }));
        }
        let folder = is_dir(entry.node);
        // overlay marks each new directory as opaque, whatever lies below it.
        if folder && (entry.change == Change::Meta || entry.base.is_none()) {
            if is_dir(new) || new.is_none() && is_dir(entry.base) {
                return self.merged(entry, new, level).map(Some);
            }
            if new.is_some() && is_dir(entry.base) {
                let quiet = quiet || self.prefer == Prefer::Theirs;
                self.lazily(entry, true, quiet);
                return Ok(Some(Level { blocked: true, made: false, quiet, ..level }));
            }
        }
        let verdict = self.judge.verdict(entry, new)?;
        let change = if entry.change == Change::Opaque && !is_dir(new) { Change::Meta } else { entry.change };
        match verdict {
            Verdict::Take => {
                self.told(entry, Action::Take, "", None)?;
                return Ok(None);
            }
            Verdict::Conflict(why) => {
                self.conflict(entry, new, why)?;
                if self.prefer == Prefer::Theirs {
                    return Ok(None);
                }
                self.write(entry, new, change)?;
            }
            Verdict::Keep => {
                let why = if self.hides(entry, new)? { HIDES } else { "" };
                self.told(entry, Action::Keep, why, None)?;
                self.write(entry, new, change)?;
            }
            Verdict::Merge(mine, theirs) => {
                self.told(entry, Action::Merge, "", None)?;
                self.write_merged(entry, new, mine, theirs)?;
            }
        }
        Ok(folder.then_some(level))
    }

    /// A directory that shows what the new base has in it, or what it had before the new base lost it. It is written where
    /// something in it is, or where the sliver changed it itself.
    fn merged(&mut self, entry: &Entry<'_>, new: Option<Side<'_>>, level: Level) -> Result<Level> {
        let open = new.is_some();
        let sides = if open { Some(self.judge.sides(entry, new)?) } else { None };
        let (mine, changed) = match sides {
            _ if !is_dir(entry.base) => (Aspects::NONE, true),
            Some((mine, ..)) => (mine, !mine.is_empty()),
            None => {
                let mine = self.judge.mine(entry)?;
                (mine, mine.has(META))
            }
        };
        let level = Level { open, sides, ..level };
        if !changed {
            self.lazily(entry, false, level.quiet);
            return Ok(Level { made: false, ..level });
        }
        self.write(entry, new, Change::Meta)?;
        match sides {
            Some((.., clash)) => {
                if !self.folder(entry, clash)? && (mine.has(META) || !is_dir(entry.base)) {
                    self.told(entry, Action::Keep, "", None)?;
                }
            }
            None => self.told(entry, Action::Conflict, "changed here, gone from the new base", None)?,
        }
        Ok(level)
    }

    /// Tells where both sides changed a directory itself; is that so?
    fn folder(&mut self, entry: &Entry<'_>, clash: Aspects) -> Result<bool> {
        let clash = !clash.is_empty();
        if clash {
            self.told(
                entry,
                Action::Conflict,
                "owner, mode or attributes changed here and in the new base",
                None,
            )?;
        }
        Ok(clash)
    }

    /// Does the sliver's version hide what the new base changed in a directory? A plan alone looks through the bases for that.
    fn hides(&self, entry: &Entry<'_>, new: Option<Side<'_>>) -> Result<bool> {
        match (entry.base.filter(|_| entry.from.is_none()), new) {
            (Some(old), Some(new)) if self.writer.is_none() && is_dir(entry.base) && is_dir(Some(new)) => {
                changed_in(old, new, entry.path)
            }
            _ => Ok(false),
        }
    }

    fn leave(&mut self, entry: &Entry<'_>, new: Option<Side<'_>>, level: &Level) -> Result<()> {
        if level.quiet {
            if level.blocked && level.made {
                return self.conflict(entry, new, NO_FOLDER);
            }
            return Ok(());
        }
        if let (Some(node), Some(new)) = (entry.node, new.filter(|_| level.open)) {
            let (mine, mut theirs, clash) = match level.sides {
                Some(sides) => sides,
                None => self.judge.sides(entry, Some(new))?,
            };
            if self.prefer == Prefer::Theirs {
                theirs = theirs.and(clash);
            }
            let ours = if self.prefer == Prefer::Theirs { mine.without(clash) } else { mine };
            let stat = merged(ours, theirs, node.stat, new.stat);
            let attrs = if ours.has(Aspects::ATTRS) { (node, entry.stored) } else { (new, false) };
            let node = Side { stat: &stat, ..node };
            if let Some(writer) = self.writer.as_mut() {
                writer.take(&Step::Leave(Entry {
                    node: Some(node),
                    base: Some(new),
                    attrs: Some(attrs),
                    ..*entry
                }))?;
            }
        } else if let Some(writer) = self.writer.as_mut() {
            writer.take(&Step::Leave(Entry { base: new, ..*entry }))?;
        }
        if level.blocked && level.made {
            return self.conflict(entry, new, NO_FOLDER);
        }
        Ok(())
    }

    fn told(
        &mut self,
        entry: &Entry<'_>,
        action: Action,
        why: &'static str,
        beside: Option<&CStr>,
    ) -> Result<()> {
        let quiet = self.levels.last().is_some_and(|level| level.quiet);
        let (action, why) = match action {
            Action::Keep | Action::Merge if quiet => (Action::Conflict, NO_FOLDER),
            _ => (action, why),
        };
        (self.tell)(&Outcome { path: entry.path, action, why, beside })
    }
}

/// Of what is kept.
const HIDES: &str = "hides what the new base changed in it";

const NO_FOLDER: &str = "changed here, no folder any more in the new base";
