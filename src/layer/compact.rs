//! What a store holds and needs not, because the base has it again, is dropped: one step at a time, each of which leaves the view as
//! it is, and none of which needs space.

mod linked;

use std::ffi::CStr;

use nix::errno::Errno;
use serde::Serialize;

use self::linked::Held;
use super::covered::covered;
use super::decode::OPAQUE;
use super::scratch::{removed, unwhite};
use super::{
    Aspects, Change, Changes, Doubt, Entry, Format, Scratch, Show, Side, Step, differences, origins, records,
    walk,
};
use crate::error::Result;
use crate::sum::Sum;
use crate::sys::xattr;
use crate::tree::attr::{self, Attr};
use crate::tree::{self, Dir, Kind, Stat, Time, shown, sys};

/// What was dropped, and what was not.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Compacted {
    /// Files, links, devices, … that are as the base's.
    pub files: usize,
    /// Directories that held nothing, and are as the base's.
    pub directories: usize,
    /// Whiteouts of what the base lacks.
    pub whiteouts: usize,
    /// Marks of directories that hid nothing of the base's.
    pub marks: usize,
    /// What a crash left.
    pub garbage: usize,
    /// The bytes that the disk got back.
    pub bytes: u64,
    /// As the base's, but kept: they share their content with other names, here or in the base, and no directory goes with all.
    pub linked: usize,
    /// As the base's, but kept: they are immutable, or the disk was too full to write mini_fo's records anew.
    pub stuck: usize,
    /// What the format does not explain: left as it is.
    pub unclear: usize,
}

/// A directory on the way down.
struct Level {
    time: Time,
    /// Something stays in it.
    kept: bool,
    /// mini_fo's records of it could not be written anew: they may still delete what its files stand for.
    recorded: bool,
    /// What can go with it alone.
    held: Held,
}

/// A run through a store.
pub struct Compact<'a> {
    format: Format,
    scratch: &'a Scratch,
    ignore: Aspects,
    dry_run: bool,
    /// The store and the base, until the marks of the origin are removed.
    roots: Option<(Dir, Dir)>,
    levels: Vec<Level>,
    done: Compacted,
    tell: &'a mut dyn FnMut(&str, &[u8]) -> Result<()>,
    progress: &'a mut dyn FnMut(u64),
}

/// How the walk goes on.
enum Way {
    Past,
    In,
    Merged,
}

impl<'a> Compact<'a> {
    /// `ignore` holds what may differ from the base's; `tell` is given each step, or what is kept, and the path; `progress` the
    /// bytes that were compared.
    pub fn new(
        format: Format,
        scratch: &'a Scratch,
        ignore: Aspects,
        dry_run: bool,
        tell: &'a mut dyn FnMut(&str, &[u8]) -> Result<()>,
        progress: &'a mut dyn FnMut(u64),
    ) -> Self {
        let (roots, levels, done) = (None, Vec::new(), Compacted::default());
        Self { format, scratch, ignore, dry_run, roots, levels, done, tell, progress }
    }

    /// Goes through the whole store.
    pub fn run(mut self, store: Dir, base: &Dir) -> Result<Compacted> {
        self.roots = Some((tree::again(&store)?, tree::again(base)?));
        let mut changes = Changes::new(self.format, store, base, Show::Changes)?;
        while let Some(step) = changes.step()? {
            let way = match step {
                Step::Entry(entry) => self.entry(&entry)?,
                Step::Leave(entry) => {
                    self.leave(&entry)?;
                    Way::Past
                }
            };
            match way {
                Way::Past => {}
                Way::In => changes.enter()?,
                Way::Merged => {
                    changes.merge();
                    changes.enter()?;
                }
            }
        }
        Ok(self.done)
    }

    /// Once, before the base's file shows by a name whose mark says another one, or none: that may be another file's.
    fn forget(&mut self) -> Result<()> {
        match self.roots.take() {
            Some((store, base)) => origins::forget(self.format, &store, &base),
            None => Ok(()),
        }
    }

    fn keep(&mut self) -> Result<Way> {
        if let Some(level) = self.levels.last_mut() {
            level.kept = true;
        }
        Ok(Way::Past)
    }

    fn entry(&mut self, entry: &Entry<'_>) -> Result<Way> {
        match (entry.doubt, entry.change, entry.node) {
            (Some(Doubt::Garbage), _, Some(node)) => self.garbage(node.dir, entry),
            (Some(doubt), ..) => {
                self.done.unclear += 1;
                (self.tell)(doubt.words(), entry.path)?;
                self.keep()
            }
            (None, Change::Delete, _) if entry.base.is_none() => self.whiteout(entry),
            (None, Change::Put, Some(node)) => self.put(entry, node),
            (None, Change::Meta | Change::Opaque, Some(node)) => self.directory(entry, node),
            _ => self.keep(),
        }
    }

    fn garbage(&mut self, dir: &Dir, entry: &Entry<'_>) -> Result<Way> {
        self.done.garbage += 1;
        (self.tell)("left over by a crash: dropped", entry.path)?;
        if !self.dry_run {
            tree::remove(dir, entry.name, &shown(entry.path))?;
        }
        Ok(Way::Past)
    }

    fn whiteout(&mut self, entry: &Entry<'_>) -> Result<Way> {
        // mini_fo's records went before the folder was listed, if they could.
        if self.format == Format::MiniFo && !self.dry_run {
            return self.keep();
        }
        self.done.whiteouts += 1;
        (self.tell)("a whiteout of nothing: dropped", entry.path)?;
        if !self.dry_run {
            let failed = || sys("remove the whiteout of", entry.path);
            unwhite(self.format, entry.here, entry.name).map_err(failed())?;
            if self.format != Format::Aufs {
                removed(entry.here.unlink(entry.name)).map_err(failed())?;
            }
        }
        Ok(Way::Past)
    }

    fn put(&mut self, entry: &Entry<'_>, node: Side<'_>) -> Result<Way> {
        let Some(base) = entry.base.filter(|_| self.levels.last().is_none_or(|level| !level.recorded)) else {
            return self.keep();
        };
        // What fuse-overlayfs cannot copy up was copied when the store was made, and stays.
        let special =
            self.format == Format::FuseOverlayfs && !matches!(node.stat.kind, Kind::File | Kind::Link);
        if special || !self.same(entry, self.ignore)? {
            return self.keep();
        }
        if node.stat.links > 1 || base.stat.links > 1 {
            return self.hold(entry, node, base);
        }
        if !self.dry_run {
            if self.roots.is_some() {
                let own = origins::is_own(self.format, node, base);
                if !own.map_err(sys("read the mark of the origin of", entry.path))? {
                    self.forget()?;
                }
            }
            match node.dir.unlink(node.name) {
                Err(Errno::EPERM) => {
                    self.done.stuck += 1;
                    (self.tell)("as in the base, but immutable: kept", entry.path)?;
                    return self.keep();
                }
                done => removed(done).map_err(sys("remove", entry.path))?,
            }
        }
        self.done.files += 1;
        self.done.bytes = self.done.bytes.plus(node.stat.allocated);
        (self.tell)("as in the base: dropped", entry.path)?;
        Ok(Way::Past)
    }

    /// Is the entry as the base's, in all that anybody can see of it but what is ignored?
    fn same(&mut self, entry: &Entry<'_>, ignore: Aspects) -> Result<bool> {
        let (Some(node), Some(base)) = (entry.node, entry.base) else { return Ok(false) };
        let differs = differences(self.format, entry)?.without(ignore);
        (self.progress)(node.stat.size);
        if !differs.is_empty() {
            return Ok(false);
        }
        let ours = labels(node, self.format).map_err(sys("read the attributes of", entry.path))?;
        let theirs = labels(base, Format::Tree).map_err(sys("read the attributes of", entry.path))?;
        Ok(ours == theirs)
    }

    fn directory(&mut self, entry: &Entry<'_>, node: Side<'_>) -> Result<Way> {
        let open = || sys("open", entry.path);
        let mut merges = entry.change == Change::Meta;
        let base = entry.base.filter(|base| base.stat.kind == Kind::Dir);
        let below = match base.filter(|_| !merges || self.format == Format::MiniFo) {
            Some(base) => Some(base.dir.child(base.name).map_err(open())?),
            None => None,
        };
        if let (false, Some(below)) = (merges, &below) {
            let dirs = (node.dir.child(node.name).map_err(open())?, below.again().map_err(open())?);
            merges =
                covered(self.format, dirs.0, dirs.1).map_err(sys("compare with the base", entry.path))?;
            if merges {
                self.done.marks += 1;
                (self.tell)("hides nothing of the base's: not opaque any more", entry.path)?;
                if !self.dry_run {
                    self.unmark(node).map_err(sys("remove the opaque mark of", entry.path))?;
                }
            }
        }
        let (time, held) = (node.stat.mtime, Held::default());
        let mut level = Level { time, kept: false, recorded: false, held };
        if self.format == Format::MiniFo {
            let dir = node.dir.child(node.name).map_err(open())?;
            self.records(&dir, below.as_ref().filter(|_| merges), entry.path, &mut level)?;
        }
        self.levels.push(level);
        Ok(if merges && entry.change == Change::Opaque { Way::Merged } else { Way::In })
    }

    /// Takes away what makes a directory opaque. It is on the disk before what it no longer hides may go.
    fn unmark(&self, node: Side<'_>) -> nix::Result<()> {
        let dir = node.dir.child(node.name)?;
        match self.format {
            Format::Aufs => removed(dir.unlink(OPAQUE))?,
            Format::MiniFo => {
                let name = node.name.to_bytes();
                records::rewrite(node.dir, self.scratch, &mut |line| records::gone(line) != Some(name))?;
            }
            format => xattr::remove(&node.dir.proc_path(node.name), &format.attr(b"opaque")?)?,
        }
        dir.sync()
    }

    /// Drops mini_fo's records of what the base lacks, and of files that were made anew: a file of the store hides the base's without.
    fn records(&mut self, dir: &Dir, base: Option<&Dir>, path: &[u8], level: &mut Level) -> Result<()> {
        let failed = || sys("read the records of", path);
        let found = match records::read(dir) {
            Err(Errno::ENOENT) => return Ok(()),
            read => read.map_err(failed())?,
        };
        level.kept = true;
        level.recorded = found.odd;
        if found.odd || self.dry_run {
            return Ok(());
        }
        let (mut useless, mut nothing) = (Vec::new(), 0);
        let count = found.gone.len();
        for name in found.gone {
            let old = match base {
                Some(base) => walk::stat(base, &name).map_err(failed())?,
                None => None,
            };
            let new = walk::stat(dir, &name).map_err(failed())?;
            let file = |stat: Option<Stat>| stat.is_some_and(|stat| stat.kind != Kind::Dir);
            if old.is_none() || file(old) && file(new) {
                nothing += usize::from(old.is_none());
                useless.push(name);
            }
        }
        if useless.is_empty() {
            return Ok(());
        }
        useless.sort_unstable();
        let mut kept = |line: &[u8]| match records::gone(line) {
            Some(name) => useless.binary_search_by(|other| other.to_bytes().cmp(name)).is_err(),
            None => true,
        };
        match records::rewrite(dir, self.scratch, &mut kept) {
            Err(Errno::ENOSPC | Errno::EDQUOT) => {
                level.recorded = true;
                self.done.stuck += 1;
                (self.tell)("no space to write the records anew: kept", path)
            }
            done => {
                done.map_err(sys("rewrite the records of", path))?;
                level.kept = count > useless.len() || !found.moved.is_empty();
                self.done.whiteouts += nothing;
                Ok(())
            }
        }
    }

    fn leave(&mut self, entry: &Entry<'_>) -> Result<()> {
        let (Some(level), Some(node)) = (self.levels.pop(), entry.node) else { return Ok(()) };
        // What was dropped in it set its time.
        if !self.dry_run && node.stat.mtime != level.time {
            node.dir.set_mtime(node.name, level.time).map_err(sys("set the time of", entry.path))?;
        }
        let as_base = |base: Side<'_>| {
            base.stat.kind == Kind::Dir && (self.ignore.has(Aspects::TIME) || base.stat.mtime == level.time)
        };
        let plain = entry.change == Change::Meta && entry.from.is_none() && !entry.path.is_empty();
        let may_go = plain && !level.kept && entry.base.is_some_and(as_base);
        if !may_go || !self.same(entry, self.ignore.and(Aspects::TIME))? {
            return self.stay(level.held);
        }
        if !level.held.is_empty() {
            return self.whole(entry, node, level);
        }
        if !self.dry_run {
            match node.dir.remove_dir(node.name) {
                Err(Errno::ENOTEMPTY | Errno::EPERM) => return self.keep().map(drop),
                done => removed(done).map_err(sys("remove the directory", entry.path))?,
            }
        }
        self.done.directories += 1;
        self.done.bytes = self.done.bytes.plus(node.stat.allocated);
        (self.tell)("as in the base: dropped", entry.path)
    }
}

/// The attributes that no base keeps, and a view shows all the same: labels, signatures.
fn labels(side: Side<'_>, format: Format) -> nix::Result<Vec<Attr>> {
    let label = |name: &CStr| !attr::kept(name.to_bytes()) && format.own(name).is_none();
    attr::read_some(side.dir, side.name, side.attr_names()?, &label)
}
