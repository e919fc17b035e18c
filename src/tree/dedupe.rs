//! Deduplication after the fact: files of a tree that equal those of other trees under the same path share their extents again.
//!
//! The kernel compares and shares under the locks of both files, and changes nothing that anybody can see: a tree may be in use,
//! and what comes, changes or goes meanwhile is passed over. Memory: the walk's, whatever the trees hold.

use std::fs::File;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

use super::{Dir, Entry, Kind, Stat, Step, Walk, equal, shown, sys};
use crate::error::{Error, Result};
use crate::sum::Sum;
use crate::sys::extents::{self, Extent, Map};

/// The most that is compared at a time, in bytes: for so long the files are locked.
const PART: u64 = 1 << 20;

/// What was found in a tree, and what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// Regular files that were looked at.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that share more than before.
    pub found: u64,
    /// Bytes of files that had an extent for themselves alone, and share it now: by FIEMAP, before and after.
    pub gain: u64,
}

/// Deduplicates the tree `tree` (shown as `path`) against the tree `base`, and what is in none of its files against `others`,
/// the first that has an equal one. With `dry_run` the files are only read and compared.
///
/// `progress` is told the bytes of files as they are done with. A disk that cannot is [`crate::error::Class::Unsupported`].
pub fn dedupe(
    tree: Dir,
    path: &[u8],
    base: Option<Dir>,
    others: &[&Path],
    dry_run: bool,
    progress: &mut dyn FnMut(u64),
) -> Result<Shared> {
    let mut walk = Walk::new(tree, path)?;
    let mut work = Work { base, others, dry_run, prefix: path.len(), sum: Shared::default() };
    while let Some(step) = walk.step()? {
        let Step::Entry(entry) = step else { continue };
        match entry.stat.kind {
            Kind::Dir => match walk.enter_unmounted() {
                Err(err) if err.errno().is_some_and(is_gone) => {}
                entered => drop(entered?),
            },
            Kind::File => {
                let size = entry.stat.size;
                if size > 0 {
                    work.file(&entry)?;
                }
                progress(size);
            }
            _ => {}
        }
    }
    Ok(work.sum)
}

/// What a name answers that was another one, or none, a moment later.
pub(super) fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ESTALE | Errno::ENXIO)
}

struct Work<'a> {
    base: Option<Dir>,
    others: &'a [&'a Path],
    dry_run: bool,
    prefix: usize,
    sum: Shared,
}

/// The file that is being deduplicated.
struct Subject<'a> {
    file: File,
    size: u64,
    path: &'a [u8],
    dry_run: bool,
}

/// What a pass over a file's extents came to, in bytes.
#[derive(Default)]
struct Pass {
    /// In extents that only this file uses.
    alone: u64,
    /// Of these, those that were found in the other file.
    found_alone: u64,
    /// Found in the other file.
    found: u64,
}

impl Work<'_> {
    fn file(&mut self, entry: &Entry<'_>) -> Result<()> {
        let Entry { dir, name, stat, path } = entry;
        let file = match dir.open_file(name, stat) {
            Err(errno) if is_gone(errno) => return Ok(()),
            opened => opened.map_err(sys("open", path))?,
        };
        let subject = Subject { file, size: stat.size, path, dry_run: self.dry_run };
        self.sum.files += 1;
        self.sum.bytes = self.sum.bytes.plus(stat.size);
        let below = path.get(self.prefix..).unwrap_or_default();
        let below = below.strip_prefix(b"/").unwrap_or(below);
        let base = self.base.as_ref().and_then(|base| find(base, below, stat));
        let first = subject.pass(base.as_ref(), false)?;
        let mut found = first.found;
        let mut alone = subject.left(&first, first.alone)?;
        for other in self.others {
            if alone == 0 {
                break;
            }
            let Some(from) = Dir::open(other).ok().and_then(|other| find(&other, below, stat)) else {
                continue;
            };
            let next = subject.pass(Some(&from), true)?;
            found = found.plus(next.found);
            alone = subject.left(&next, alone)?;
        }
        self.sum.found += u64::from(found > 0);
        let mut gain = first.alone.minus(alone);
        if self.dry_run {
            // What is only read is found again under each other name of the file.
            gain = gain.checked_div(stat.links).unwrap_or(gain);
        }
        self.sum.gain = self.sum.gain.plus(gain);
        Ok(())
    }
}

impl Subject<'_> {
    /// What only this file uses after a pass, and used before it.
    fn left(&self, pass: &Pass, alone: u64) -> Result<u64> {
        if self.dry_run || pass.found == 0 {
            return Ok(alone.minus(pass.found_alone));
        }
        self.pass(None, false).map(|now| now.alone)
    }

    /// Goes through the extents, and lets them share with `from` what lies elsewhere there and holds the same bytes. With
    /// `only_alone` what another file uses already is left as it is.
    fn pass(&self, from: Option<&File>, only_alone: bool) -> Result<Pass> {
        let (mut pass, mut map) = (Pass::default(), Map::default());
        let mut at = 0;
        while at < self.size {
            let part = map.read(&self.file, at, self.size);
            let before = at;
            for extent in part.map_err(refused("look at the extents of", self.path))? {
                at = if extent.is_last() { self.size } else { extent.end() };
                let end = extent.end().min(self.size);
                if !extent.can_be_shared() || end <= extent.logical {
                    continue;
                }
                let shared = extent.is_shared();
                if !shared {
                    pass.alone = pass.alone.plus(end - extent.logical);
                }
                let Some(from) = from.filter(|_| !(shared && only_alone)) else { continue };
                if same_place(from, extent, end) {
                    continue;
                }
                let found =
                    self.share(from, extent.logical, end).map_err(refused("deduplicate", self.path))?;
                pass.found = pass.found.plus(found);
                if !shared {
                    pass.found_alone = pass.found_alone.plus(found);
                }
            }
            if at <= before {
                break;
            }
        }
        Ok(pass)
    }

    /// Shares the equal parts between `at` and `end`, and returns their bytes.
    fn share(&self, from: &File, mut at: u64, end: u64) -> nix::Result<u64> {
        let mut found = 0u64;
        if self.dry_run {
            extents::share_equal(from, &self.file, 0, 0)?;
        }
        while at < end {
            let length = PART.min(end - at);
            let done = if self.dry_run {
                if equal(from, &self.file, at, at.plus(length))? { length } else { 0 }
            } else {
                match extents::share_equal(from, &self.file, at, length) {
                    // Another file, and not another disk: immutable, a swap file, without checksums where the other has some, or
                    // a tail that older kernels do not take.
                    Err(Errno::EPERM | Errno::EINVAL | Errno::ETXTBSY | Errno::EACCES) => 0,
                    done => done?,
                }
            };
            found = found.plus(done);
            // Older kernels share less at a time than they were asked for.
            at = at.plus(if done == 0 { length } else { done });
        }
        Ok(found)
    }
}

/// The regular file of the same size at `below` in a tree. None where there is another thing, or nothing.
fn find(tree: &Dir, below: &[u8], wanted: &Stat) -> Option<File> {
    // What is deeper is no file of a package, and each level is opened for each file in it.
    if below.len() >= usize::try_from(libc::PATH_MAX).unwrap_or(0) {
        return None;
    }
    let (dir, name) = tree.reach(below).ok()?;
    let stat = dir.stat_at(&name).ok()?;
    let candidate = stat.kind == Kind::File && stat.size == wanted.size && stat.id != wanted.id;
    if candidate { dir.open_file(&name, &stat).ok() } else { None }
}

/// Does `from` have all of the extent, up to `end`, at the same place on the disk?
fn same_place(from: &File, extent: &Extent, end: u64) -> bool {
    let mut at = extent.logical;
    for other in Map::default().read(from, at, end).unwrap_or_default() {
        if other.logical <= at && other.end() > at && other.lies_with(extent) {
            at = other.end();
        }
    }
    at >= end
}

fn refused<'a>(op: &'static str, path: &'a [u8]) -> impl FnOnce(Errno) -> Error + use<'a> {
    move |errno| match errno {
        Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::ENOSYS => Error::unsupported(format_args!(
            "{} lies on a disk where files cannot share extents",
            shown(path).display()
        ))
        .way_out("use Btrfs, or XFS made with reflink=1"),
        _ => sys(op, path)(errno),
    }
}
