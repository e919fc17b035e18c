//! The base's version of a path is given back: by removing what hides it, or where a directory above hides it, by a copy.

use std::ffi::CString;

use nix::errno::Errno;
use serde::Serialize;

use super::look::leads_nowhere;
use super::write::make_opaque;
use super::{Change, Changes, Doubt, Format, Scratch, Show, origins};
use crate::error::{Error, Result};
use crate::tree::{Chain, Content, Dir, Kind, Meta, Stat, again, c_name, copy_entry, shown, sys};

/// How a path came to be the base's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Restored {
    /// It was so.
    Already,
    /// What hid it was removed.
    Uncovered,
    /// It was copied from the base.
    Copied,
}

/// A path, and what the base has there.
struct Wanted<'a> {
    path: &'a [u8],
    parts: Vec<CString>,
    /// The base's root.
    base: &'a Dir,
    stat: Stat,
}

impl Wanted<'_> {
    /// The path of the parts up to one.
    fn upto(&self, part: usize) -> &[u8] {
        let mut end = part;
        for name in self.parts.iter().take(part.saturating_add(1)) {
            end = end.saturating_add(name.to_bytes().len());
        }
        self.path.get(..end).unwrap_or(self.path)
    }
}

/// Gives back what the base has by `path`, relative to the view's root, with everything below it: what the store has there is gone
/// afterwards. With `dry_run` it only says how it would be done. `progress` is told the bytes as they are copied.
pub fn restore(
    format: Format,
    base: &Dir,
    store: Dir,
    scratch: &Scratch,
    path: &[u8],
    dry_run: bool,
    progress: &mut dyn FnMut(u64),
) -> Result<Restored> {
    let wanted = find(base, path)?;
    let root = again(&store)?;
    let show = if format.whole() { Show::View } else { Show::Changes };
    let mut changes = Changes::new(format, store, base, show)?;
    changes.step()?;
    changes.enter()?;
    // Does the base show through the directory that the walk is in?
    let mut merged = !format.whole();
    for (at, part) in wanted.parts.iter().enumerate() {
        let last = at.saturating_add(1) == wanted.parts.len();
        let (change, moved, folder) = match changes.find(part)? {
            None if merged => return Ok(Restored::Already),
            None => (Change::Delete, false, None),
            Some(entry) => {
                refuse(&entry, last)?;
                (entry.change, entry.from.is_some(), entry.base.map(|base| base.stat.kind))
            }
        };
        if moved && (!last || format == Format::MiniFo) {
            let folder = shown(wanted.upto(at));
            return Err(Error::failed(format_args!("{} was moved here from elsewhere", folder.display()))
                .way_out("move it away in the view first"));
        }
        let made = match change {
            _ if last && merged => {
                if !dry_run {
                    origins::forget(format, &root, base)?;
                }
                // What fuse-overlayfs cannot copy up must lie in the store as copies; the rest shows through.
                if format != Format::FuseOverlayfs || wanted.plain() {
                    if !dry_run {
                        scratch.uncover(format, changes.here(), part, path)?;
                    }
                    return Ok(Restored::Uncovered);
                }
                Made { first: at, opaque: false, contents: &[Content::Special] }
            }
            _ if last => Made { first: at, opaque: false, contents: &BOTH },
            // Opaque where it hides the rest of the base's directory.
            Change::Delete | Change::Nothing => Made { first: at, opaque: merged, contents: &BOTH },
            Change::Put => {
                let file = shown(wanted.upto(at));
                return Err(Error::failed(format_args!("{} is no directory in the view", file.display()))
                    .way_out("restore that one"));
            }
            Change::Meta | Change::Opaque => {
                merged &= change == Change::Meta && folder == Some(Kind::Dir);
                changes.enter()?;
                continue;
            }
        };
        if !dry_run {
            wanted.copy(format, scratch, changes.here(), &made, progress)?;
        }
        return Ok(Restored::Copied);
    }
    Ok(Restored::Already)
}

/// What nobody can tell the meaning of is not touched.
fn refuse(entry: &super::Entry<'_>, last: bool) -> Result<()> {
    match entry.doubt {
        None => Ok(()),
        Some(Doubt::TornWhiteout | Doubt::StrayWhiteout | Doubt::Both | Doubt::Lost) if last => Ok(()),
        Some(doubt) => Err(Error::damaged(format_args!(
            "{} cannot be restored: {}",
            shown(entry.path).display(),
            doubt.words()
        ))
        .way_out("`sliverfs check` tells what is wrong with the store")),
    }
}

fn find<'a>(base: &'a Dir, path: &'a [u8]) -> Result<Wanted<'a>> {
    let mut parts = Vec::new();
    for part in path.split(|b| *b == b'/') {
        parts.push(c_name(part)?);
    }
    match base.reach(path).and_then(|(dir, name)| dir.stat_at(&name)) {
        Ok(stat) => Ok(Wanted { path, parts, base, stat }),
        Err(errno) if leads_nowhere(errno) => {
            Err(Error::usage(format_args!("the base has no {}", shown(path).display()))
                .way_out("what the sliver made itself can only be removed, in its view"))
        }
        Err(errno) => Err(sys("look in the base for", path)(errno)),
    }
}

/// Extents are shared where the disk can.
const BOTH: [Content; 2] = [Content::Shared, Content::Written];

/// How a copy is made.
struct Made<'a> {
    /// The part of the path that it begins with.
    first: usize,
    /// The directory there hides the base's.
    opaque: bool,
    /// What to try, one after the other.
    contents: &'a [Content],
}

impl Wanted<'_> {
    /// Can fuse-overlayfs copy it up?
    fn plain(&self) -> bool {
        self.stat.links <= 1 && matches!(self.stat.kind, Kind::File | Kind::Link)
    }

    /// Puts a copy in place of what the store has there. Nothing is changed before it is whole.
    fn copy(
        &self,
        format: Format,
        scratch: &Scratch,
        place: &Dir,
        how: &Made<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut made = Ok(());
        for content in how.contents {
            made = self.build(format, scratch, how, *content, progress);
            // The disk shares no extents, or the base lies on another one.
            match &made {
                Err(err) if *content == Content::Shared && shares_none(err) => scratch.clear()?,
                _ => break,
            }
        }
        if let Err(err) = made {
            // What cannot be cleared now, the next run does.
            if let Err(err) = scratch.clear() {
                crate::warn!("{err}");
            }
            return Err(err);
        }
        match self.parts.get(how.first) {
            Some(name) => scratch.publish(format, place, name, self.upto(how.first)),
            None => Ok(()),
        }
    }

    fn build(
        &self,
        format: Format,
        scratch: &Scratch,
        how: &Made<'_>,
        content: Content,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let failed = || sys("make a copy of", self.path);
        let (above, below) = self.parts.split_at_checked(how.first).unwrap_or_default();
        let Some((last, folders)) = below.split_last() else { return Ok(()) };
        let mut base = Chain::of(self.base).map_err(failed())?;
        for name in above {
            base.here().child(name).and_then(|child| base.down(child)).map_err(failed())?;
        }
        let mut to = scratch.fresh().and_then(Chain::new).map_err(failed())?;
        for name in folders {
            to.here().make_dir(name).map_err(failed())?;
            to.here().child(name).and_then(|child| to.down(child)).map_err(failed())?;
            if how.opaque && to.depth() == 1 {
                make_opaque(format, to.here()).map_err(failed())?;
            }
            base.here().child(name).and_then(|child| base.down(child)).map_err(failed())?;
        }
        copy_entry(base.here(), last, self.path, to.here(), content, progress)?;
        // The directories above it get what they carry when they are full: each new name sets the time.
        for name in folders.iter().rev() {
            base.up().and_then(|_| to.up()).map_err(failed())?;
            let stat = base.here().stat_at(name).map_err(failed())?;
            let meta = Meta::read(base.here(), name, &stat, None, self.path)?;
            meta.apply(to.here(), name, Kind::Dir, self.path)?;
        }
        Ok(())
    }
}

fn shares_none(err: &Error) -> bool {
    let errno = err.errno();
    matches!(errno, Some(Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EINVAL | Errno::EXDEV | Errno::ENOSYS))
}
