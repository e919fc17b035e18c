//! Old base, new base and sliver: of one name, who changed what.

use super::compare::{at_sight, sides};
use super::{Aspects, Changes, Entry, Format, Show, Side, Step, differences};
use crate::error::Result;
use crate::tree::{Kind, Stat, sys};

/// What both sides can change, and only one version of it stays. A time alone is nobody's change.
pub(super) const META: Aspects = Aspects::MODE.and(Aspects::OWNER).and(Aspects::ATTRS);
const CORE: Aspects = META.and(Aspects::CONTENT).and(Aspects::TYPE);

/// What becomes of an entry that is no merged directory.
pub(super) enum Verdict {
    Keep,
    Take,
    /// Which aspects are the sliver's, and which the new base's.
    Merge(Aspects, Aspects),
    Conflict(&'static str),
}

/// Compares the three.
pub(super) struct Judge {
    from: Format,
}

impl Judge {
    /// Of a store in the given format.
    pub(super) fn new(from: Format) -> Self {
        Self { from }
    }

    /// What the sliver changed of it, what the new base did, and what of both differs.
    pub(super) fn sides(
        &self,
        entry: &Entry<'_>,
        new: Option<Side<'_>>,
    ) -> Result<(Aspects, Aspects, Aspects)> {
        let (Some(node), Some(new)) = (&entry.node, &new) else {
            return Ok((CORE, Aspects::NONE, Aspects::NONE));
        };
        let Some(old) = entry.base.as_ref().filter(|old| old.stat.kind == node.stat.kind) else {
            return Ok((CORE, CORE, self.apart(entry, node, new)?.both(META)));
        };
        let mine = self.mine(entry)?;
        let theirs = self.theirs(entry, old, new)?;
        let mut clash = mine.both(theirs).both(CORE);
        if !clash.is_empty() {
            clash = self.apart(entry, node, new)?.both(clash);
        }
        Ok((mine, theirs, clash))
    }

    /// What the sliver changed, but for what its driver changes by itself.
    pub(super) fn mine(&self, entry: &Entry<'_>) -> Result<Aspects> {
        Ok(differences(self.from, entry)?.without(self.from.loses()).without(Aspects::LINKS))
    }

    /// What the new base changed. Of two directories that is what they are, not what is in them.
    fn theirs(&self, entry: &Entry<'_>, old: &Side<'_>, new: &Side<'_>) -> Result<Aspects> {
        let found = sides(Format::Tree, new, new, old).map_err(sys("compare", entry.path))?;
        Ok(found.without(Aspects::LINKS))
    }

    /// How the sliver's version differs from the new base's.
    fn apart(&self, entry: &Entry<'_>, node: &Side<'_>, new: &Side<'_>) -> Result<Aspects> {
        // Two trees that were not made of one another share no inodes, whatever their numbers are.
        let format = if self.from.whole() { Format::Tree } else { self.from };
        let data = entry.data.as_ref().unwrap_or(node);
        let found = sides(format, node, data, new).map_err(sys("compare", entry.path))?;
        Ok(found.without(Aspects::LINKS))
    }

    pub(super) fn verdict(&self, entry: &Entry<'_>, new: Option<Side<'_>>) -> Result<Verdict> {
        let both = "changed here and in the new base";
        let (node, new) = match (&entry.node, &entry.base, &new) {
            // A whiteout that hides nothing any more is corruption to mini_fo.
            (None, None, _) | (None, _, None) => return Ok(Verdict::Take),
            (None, Some(old), Some(new)) => {
                return Ok(if self.news(entry, old, new)?.has(CORE) {
                    Verdict::Conflict("deleted here, changed in the new base")
                } else {
                    Verdict::Keep
                });
            }
            (Some(node), _, Some(new)) => (node, new),
            (Some(_), None, None) => return Ok(Verdict::Keep),
            (Some(node), Some(old), None) => {
                if node.stat.kind == Kind::Dir || old.stat.kind == Kind::Dir {
                    return Ok(Verdict::Keep);
                }
                return Ok(if self.mine(entry)?.has(CORE) || self.linked(entry, node.stat, old.stat) {
                    Verdict::Conflict("changed here, gone from the new base")
                } else {
                    Verdict::Take
                });
            }
        };
        let Some(old) = &entry.base else {
            let same = self.apart(entry, node, new)?.both(CORE).is_empty();
            return Ok(if same { Verdict::Take } else { Verdict::Conflict("new here and in the new base") });
        };
        if node.stat.kind == Kind::Dir {
            // Deleted and made anew: it hides what the new base has, too.
            let changed = self.news(entry, old, new)?.has(CORE);
            return Ok(if changed { Verdict::Conflict(both) } else { Verdict::Keep });
        }
        let linked = self.linked(entry, node.stat, old.stat);
        let data = entry.data.as_ref().unwrap_or(node);
        let all = CORE.and(Aspects::TIME);
        let sight = at_sight(node.stat, data.stat, old.stat).without(self.from.loses());
        let seen = linked || sight.has(all);
        let mut theirs = Aspects::NONE;
        if seen {
            theirs = self.news(entry, old, new)?;
            if !theirs.has(CORE) {
                // Whatever else was changed here: it needs not be read for that.
                return Ok(Verdict::Keep);
            }
        }
        let mine = self.mine(entry)?;
        if !seen {
            if !mine.has(all) {
                // Whatever the new base has.
                return Ok(Verdict::Take);
            }
            theirs = self.news(entry, old, new)?;
        }
        let went_on = theirs.has(CORE);
        if old.stat.kind == Kind::Dir && new.stat.kind == Kind::Dir {
            return Ok(Verdict::Keep);
        }
        if !mine.has(CORE) && !linked {
            return Ok(if theirs.has(Aspects::CONTENT.and(Aspects::TYPE)) {
                Verdict::Take
            } else if went_on {
                Verdict::Merge(mine, theirs)
            } else {
                Verdict::Keep
            });
        }
        if !went_on {
            return Ok(Verdict::Keep);
        }
        let apart = self.apart(entry, node, new)?.both(CORE);
        if apart.is_empty() && !linked {
            return Ok(Verdict::Take);
        }
        let clash = mine.both(theirs).both(apart);
        // One content for all names of a file, or for none.
        Ok(if linked || mine.and(theirs).has(Aspects::TYPE) || !clash.is_empty() {
            Verdict::Conflict(both)
        } else {
            Verdict::Merge(mine, theirs)
        })
    }

    /// Has the sliver given the file another name? It may have taken an old one off, too. Where the driver takes each name of the base's
    /// file for a file of its own, only the sliver makes links, however many the base's file has.
    fn linked(&self, entry: &Entry<'_>, node: &Stat, old: &Stat) -> bool {
        let others = match self.from {
            Format::Overlay | Format::OverlayUser | Format::Overlayfs | Format::MiniFo => true,
            Format::Aufs | Format::FuseOverlayfs | Format::Snapshot | Format::Tree => {
                node.links != old.links || entry.differs.is_some_and(|found| found.has(Aspects::LINKS))
            }
        };
        node.kind != Kind::Dir && node.links > 1 && others
    }

    /// What the new base has changed. What is in a directory is looked at by itself, where the sliver has it.
    fn news(&self, entry: &Entry<'_>, old: &Side<'_>, new: &Side<'_>) -> Result<Aspects> {
        let folders = old.stat.kind == Kind::Dir && new.stat.kind == Kind::Dir;
        if folders { Ok(Aspects::NONE) } else { self.theirs(entry, old, new) }
    }
}

/// Has the new base changed anything in a directory of both? Looks through both, to the first that is not the same.
pub(super) fn changed_in(old: Side<'_>, new: Side<'_>, path: &[u8]) -> Result<bool> {
    let open = |side: Side<'_>| side.dir.child(side.name).map_err(sys("open in the bases", path));
    let mut changes = Changes::new(Format::Tree, open(new)?, &open(old)?, Show::Changes)?;
    while let Some(step) = changes.step()? {
        let Step::Entry(entry) = step else { continue };
        // What the directory itself is was looked at before.
        let below = !entry.path.is_empty();
        let both = entry.node.is_some() && entry.base.is_some();
        if below && (!both || differences(Format::Tree, &entry)?.has(CORE)) {
            return Ok(true);
        }
        changes.enter()?;
    }
    Ok(false)
}

/// Is there a directory?
pub(super) fn is_dir(side: Option<Side<'_>>) -> bool {
    side.is_some_and(|side| side.stat.kind == Kind::Dir)
}

/// Owner, mode and time: of each what one side changed.
pub(super) fn merged(mine: Aspects, theirs: Aspects, ours: &Stat, new: &Stat) -> Stat {
    let by = |aspect| if mine.has(aspect) { ours } else { new };
    let (mode, owner) = (by(Aspects::MODE), by(Aspects::OWNER));
    let content = mine.has(Aspects::CONTENT);
    let time = content || mine.has(Aspects::TIME) && !theirs.has(Aspects::CONTENT);
    let mtime = if time { ours.mtime } else { new.mtime };
    Stat { mode: mode.mode, uid: owner.uid, gid: owner.gid, mtime, ..*ours }
}
