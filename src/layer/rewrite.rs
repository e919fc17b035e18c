//! From a store in one format to one in another.

use nix::errno::Errno;

use super::{Aspects, Change, Changes, Doubt, Entry, Format, Show, Step, Writer, cannot, compare};
use crate::error::{Class, Error, Result};
use crate::out::joined;
use crate::sum::Sum;
use crate::sys::writeback::Writeback;
use crate::tree::{Dir, Kind, shown, sys};

/// As many refused entries are told by name.
const NAMED: usize = 10;

/// What the new layer is written into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// An empty folder, which then holds a union's store.
    Store,
    /// A copy or a snapshot of the base, in which the changes are made.
    Copy,
    /// An empty folder, which then holds all that the view shows.
    Whole,
}

/// What a look at a store's changes told, before anything is written.
#[derive(Debug, Default)]
pub struct Survey {
    /// Changed names. 0 where that is found out only by comparing contents.
    pub entries: u64,
    /// Bytes of the files among them.
    pub bytes: u64,
    /// What those take on the disk.
    pub space: u64,
    /// What the new format does not keep or not show, in sentences.
    pub told: Vec<String>,
    refused: Vec<String>,
    /// More than those that are named.
    more: u64,
    /// Of the first one.
    class: Option<(Class, Option<Doubt>)>,
}

impl Survey {
    fn refuse(&mut self, entry: &Entry<'_>, doubt: Option<Doubt>, why: &str) {
        self.class.get_or_insert((doubt.map_or(Class::Failed, |_| Class::Damaged), doubt));
        if self.refused.len() < NAMED {
            let path = if entry.path.is_empty() { ".".as_bytes() } else { entry.path };
            self.refused.push(format!("{} ({why})", shown(path).display()));
        } else {
            self.more += 1;
        }
    }

    /// Fails where entries cannot be written, with their names.
    pub fn check(&self, to: Format) -> Result<()> {
        let Some((class, doubt)) = self.class else { return Ok(()) };
        let mut names = joined(&self.refused, "; ");
        if self.more > 0 {
            names.push_str("; and more: ");
            names.push_str(&self.more.to_string());
        }
        let way_out = doubt.map_or(
            "rename or remove them in the view, or take another kind; nothing was changed",
            Doubt::way_out,
        );
        Err(Error::new(class, format_args!("{} cannot keep what the store has: {names}", to.name()))
            .way_out(way_out))
    }
}

/// Looks at all that would be written: what the new format cannot keep, and what no format explains.
pub fn survey(from: Format, store: &Dir, base: &Dir, to: Format) -> Result<Survey> {
    let mut found = Survey::default();
    // Of a copy, what was changed would take reading both trees; the names alone do here.
    let compares = from == Format::Tree;
    let show = if compares { Show::View } else { Show::Flat };
    let obeyed = matches!(to, Format::Overlayfs | Format::FuseOverlayfs);
    let unseen = to.loses().has(Aspects::ATTRS);
    let (mut attributes, mut garbage) = (0_u64, 0_u64);
    let again = store.again().map_err(sys("look at", b"the store"))?;
    let mut changes = Changes::new(from, again, base, show)?.without_leaves();
    while let Some(step) = changes.step()? {
        let Step::Entry(entry) = step else { continue };
        match entry.doubt {
            None => {}
            Some(Doubt::Garbage) => garbage += 1,
            Some(doubt) => found.refuse(&entry, Some(doubt), doubt.words()),
        }
        if entry.change == Change::Nothing {
            continue;
        }
        if let Some(why) = cannot(to, &entry) {
            found.refuse(&entry, None, why);
        }
        if !compares && !entry.path.is_empty() {
            found.entries += 1;
            let file = entry.data.or(entry.node).filter(|node| node.stat.kind == Kind::File);
            found.bytes = found.bytes.plus(file.map_or(0, |node| node.stat.size));
            found.space = found.space.plus(file.map_or(0, |node| node.stat.allocated));
        }
        if let Some(node) = entry.node.filter(|_| obeyed || unseen) {
            let source = if entry.stored { from } else { Format::Tree };
            let attrs = match compare::attrs(&node, source) {
                Err(Errno::ENOENT) => continue,
                attrs => attrs.map_err(sys("read the attributes of", entry.path))?,
            };
            if !attrs.is_empty() {
                attributes += 1;
            }
            if obeyed && attrs.iter().any(|(attr, _)| to.own(attr).is_some() && to.hidden(attr).is_none()) {
                found.refuse(&entry, None, "the driver would obey its attributes");
            }
        }
        changes.enter()?;
    }
    if !compares && matches!(to, Format::Aufs | Format::FuseOverlayfs | Format::MiniFo) {
        names_of_base(from, store, base, to, &mut found)?;
    }
    if garbage > 0 {
        found.told.push(format!("{garbage} entries that a crash left are left out"));
    }
    if unseen {
        let mut told =
            format!("{} gives what it copies up from the base to root, with a new time", to.name());
        if attributes > 0 {
            told += &format!(
                ", and shows no extended attributes, which stay in the store: {attributes} entries have some"
            );
        }
        found.told.push(told);
    }
    Ok(found)
}

/// Looks for names in the base that the new driver would hide, or take for its own.
fn names_of_base(from: Format, store: &Dir, base: &Dir, to: Format, found: &mut Survey) -> Result<()> {
    let again = store.again().map_err(sys("look at", b"the store"))?;
    let mut changes = Changes::new(from, again, base, Show::View)?.without_leaves();
    while let Some(step) = changes.step()? {
        let Step::Entry(entry) = step else { continue };
        if let Some(why) = cannot(to, &entry).filter(|_| !entry.stored) {
            found.refuse(&entry, None, why);
        }
        changes.enter()?;
    }
    Ok(())
}

/// Writes the changes of a store into `new`. What no format explains, and what another file system or a subvolume holds, would be missing
/// there, and the old store goes: it is refused. The new one is not on the disk until the caller syncs it.
pub fn rewrite(
    from: Format,
    store: &Dir,
    base: &Dir,
    to: Format,
    new: &Dir,
    tree: Target,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let show = if tree == Target::Whole { Show::View } else { Show::Flat };
    let mut files = Writeback::default();
    let mut writer = Writer::new(from, to, new, &mut files, progress)?;
    let again = store.again().map_err(sys("look at", b"the store"))?;
    let mut changes = Changes::new(from, again, base, show)?;
    while let Some(step) = changes.step()? {
        if let Step::Entry(entry) = &step {
            entry.refuse_doubt()?;
        }
        writer.take(&step)?;
        if let Step::Entry(_) = step {
            changes.enter()?;
        }
    }
    Ok(())
}
