//! Deduplication after the fact: files of a tree that equal those of other trees under the same path share their extents again.
//!
//! The kernel compares and shares under the locks of both files, and changes nothing that anybody can see: a tree may be in use,
//! and what comes, changes or goes meanwhile is passed over. Memory: the walk's, whatever the trees hold.

use std::fs::File;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

use super::{Dir, Entry, Kind, Stat, Step, Walk, c_name, equal, shown, sys};
use crate::error::{Error, Result};
use crate::sum::Sum;
use crate::sys::extents::{self, Extent};

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

impl Shared {
    /// Adds another tree's.
    pub fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes = self.bytes.plus(other.bytes);
        self.found += other.found;
        self.gain = self.gain.plus(other.gain);
    }
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

/// What a pass over a file's extents came to, in bytes.
#[derive(Clone, Copy, Default)]
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
        let to = match dir.open_file(name, stat) {
            Err(errno) if is_gone(errno) => return Ok(()),
            opened => opened.map_err(sys("open", path))?,
        };
        self.sum.files += 1;
        self.sum.bytes = self.sum.bytes.plus(stat.size);
        let below = path.get(self.prefix..).unwrap_or_default();
        let below = below.strip_prefix(b"/").unwrap_or(below);
        let base = self.base.as_ref().and_then(|base| find(base, below, stat));
        let first = self.pass(&to, base.as_ref(), stat, false, path)?;
        let mut found = first.found;
        let mut alone = self.left(&to, stat, first, path)?;
        for other in self.others {
            if alone == 0 {
                break;
            }
            let Some(from) = Dir::open(other).ok().and_then(|other| find(&other, below, stat)) else {
                continue;
            };
            let next = self.pass(&to, Some(&from), stat, true, path)?;
            found = found.plus(next.found);
            alone = self.left(&to, stat, Pass { alone, ..next }, path)?;
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

    /// What only this file uses after a pass.
    fn left(&self, to: &File, stat: &Stat, pass: Pass, path: &[u8]) -> Result<u64> {
        if self.dry_run || pass.found == 0 {
            return Ok(pass.alone.minus(pass.found_alone));
        }
        self.pass(to, None, stat, false, path).map(|now| now.alone)
    }

    /// Goes through the extents of `to`, and lets them share with `from` what lies elsewhere there and holds the same bytes.
    /// With `only_alone` what another file uses already is left as it is.
    fn pass(
        &self,
        to: &File,
        from: Option<&File>,
        stat: &Stat,
        only_alone: bool,
        path: &[u8],
    ) -> Result<Pass> {
        let mut pass = Pass::default();
        let mut at = 0;
        let mut last = false;
        while at < stat.size && !last {
            let mut part = Vec::new();
            extents::map(to, at, stat.size.minus(at), &mut |extent| part.push(*extent))
                .map_err(refused("look at the extents of", path))?;
            let Some(end) = part.last().map(Extent::end).filter(|end| *end > at) else { break };
            at = end;
            for extent in part {
                last |= extent.is_last();
                let end = extent.end().min(stat.size);
                if !extent.can_be_shared() || end <= extent.logical {
                    continue;
                }
                let alone = if extent.is_shared() { 0 } else { end - extent.logical };
                pass.alone = pass.alone.plus(alone);
                let Some(from) = from else { continue };
                if (only_alone && extent.is_shared()) || same_place(from, &extent, end) {
                    continue;
                }
                let found =
                    self.share(from, to, extent.logical, end).map_err(refused("deduplicate", path))?;
                pass.found = pass.found.plus(found);
                pass.found_alone = pass.found_alone.plus(found.min(alone));
            }
        }
        Ok(pass)
    }

    /// Shares the equal parts between `at` and `end`, and returns their bytes.
    fn share(&self, from: &File, to: &File, mut at: u64, end: u64) -> nix::Result<u64> {
        let mut found = 0u64;
        if self.dry_run {
            extents::share_equal(from, to, 0, 0)?;
        }
        while at < end {
            let length = PART.min(end - at);
            let equal = if self.dry_run {
                equal(from, to, at, at.plus(length))?.then_some(length)
            } else {
                match extents::share_equal(from, to, at, length) {
                    Ok(done) => done,
                    // Another file, and not another disk: immutable, a swap file, without checksums where the other has some, or
                    // a tail that older kernels do not take.
                    Err(Errno::EPERM | Errno::EINVAL | Errno::ETXTBSY | Errno::EACCES) => None,
                    Err(errno) => return Err(errno),
                }
            };
            // Older kernels share less at a time than they were asked for.
            match equal {
                Some(done) if done > 0 => {
                    found = found.plus(done);
                    at = at.plus(done);
                }
                _ => at = at.plus(length),
            }
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
    let mut dir = tree.again().ok()?;
    let mut parts = below.split(|b| *b == b'/').peekable();
    while let Some(part) = parts.next() {
        let part = c_name(part).ok()?;
        if parts.peek().is_some() {
            dir = dir.child(&part).ok()?;
            continue;
        }
        let stat = dir.stat_at(&part).ok()?;
        let candidate = stat.kind == Kind::File && stat.size == wanted.size && stat.id != wanted.id;
        return if candidate { dir.open_file(&part, &stat).ok() } else { None };
    }
    None
}

/// Does `from` have all of the extent, up to `end`, at the same place on the disk?
fn same_place(from: &File, extent: &Extent, end: u64) -> bool {
    let mut at = extent.logical;
    let asked = extents::map(from, at, end.minus(at), &mut |other| {
        let there = other.logical <= at && other.end() > at;
        if there && other.place(at).is_some() && other.place(at) == extent.place(at) {
            at = other.end();
        }
    });
    asked.is_ok() && at >= end
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
