//! The import of a directory: everything that a base keeps, read by descriptors and written into a fresh folder.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

use super::content::{BLOCK, read_data};
use super::meta::Meta;
use super::spill::Spill;
use super::{Chain, Dir, Entry, Ids, Kind, SELF, Stat, Step, Walk, shown, sys};
use crate::error::{Context, Error, Result};
use crate::progress::Progress;
use crate::sum::Sum;
use crate::sys::extents;
use crate::sys::file::{self, set_size, write_at};

/// How the content of files gets into a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// It is written.
    Written,
    /// The copy shares the extents of the file that it was made of; where the disk cannot, the copy fails.
    Shared,
    /// It is written, and only what fuse-overlayfs cannot copy up is copied, with the folders that it lies in.
    ///
    /// With 1.10, what is written to a file with several names goes to one of them, and the next mount shows none of it; a device
    /// or a pipe whose mode, owner or name is changed becomes an empty file.
    Special,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default)]
pub struct Copied {
    /// Sockets, which mean nothing without the process that listens, and were left out.
    pub sockets: u64,
}

/// Copies the tree `from` (shown as `path`) into the empty folder `to`, with its root's own owner, mode, time and attributes.
///
/// `avoid` is the device and inode of a folder that must not lie in the source: the one that is written to. `progress`
/// is told the bytes of content as they are written.
pub fn copy(
    from: Dir,
    path: &[u8],
    to: &Dir,
    avoid: (u64, u64),
    content: Content,
    progress: &mut dyn FnMut(u64),
) -> Result<Copied> {
    let root = Meta::read(&from, SELF, &from.stat().map_err(sys("look at", path))?, None, path)?;
    let mut walk = Walk::new(from, path)?;
    let mut copy = Copy::begin(path, to, content, progress)?;
    // Given to a directory when it is left: a default ACL would be inherited, and each new name changes the time.
    let mut directories = Vec::new();
    while let Some(step) = walk.step()? {
        match step {
            Step::Entry(entry)
                if content == Content::Special && entry.name.to_bytes().starts_with(b".wh.") =>
            {
                let path = shown(entry.path);
                return Err(Error::unsupported(format_args!(
                    "{} reads as a deletion to fuse-overlayfs",
                    path.display()
                ))
                .way_out("take another backend, or a base without such names"));
            }
            Step::Entry(entry) if entry.stat.kind == Kind::Dir => {
                directories.push(Meta::read(entry.dir, entry.name, entry.stat, None, entry.path)?);
                copy.directory(&entry)?;
                // What is a subvolume in the source is a plain folder of the copy.
                walk.enter_subvolume()?;
                if walk.id() == avoid {
                    return Err(Error::usage(format_args!(
                        "{} holds the folder of the bases itself",
                        shown(path).display()
                    ))
                    .way_out("take a source outside of LXCPATH"));
                }
            }
            Step::Entry(entry) => copy.entry(&entry)?,
            Step::Leave { name, path, .. } => {
                copy.to.up().map_err(sys("go back from the copy of", path))?;
                // A folder that nothing was put into can be removed.
                let empty = content == Content::Special && copy.to.here().remove_dir(name).is_ok();
                if let Some(meta) = directories.pop().filter(|_| !empty) {
                    meta.apply(copy.to.here(), name, Kind::Dir, path)?;
                }
            }
        }
    }
    root.apply(to, SELF, Kind::Dir, path)?;
    Ok(copy.copied)
}

/// Copies one entry of `from` to the same name in `to`, with everything below it. `path` is its path for messages.
pub fn copy_entry(
    from: &Dir,
    name: &CStr,
    path: &[u8],
    to: &Dir,
    content: Content,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let stat = from.stat_at(name).map_err(sys("look at", path))?;
    if stat.kind == Kind::Dir {
        to.make_dir(name).map_err(sys("copy the directory", path))?;
        let child = to.child(name).map_err(sys("open the copy of", path))?;
        let source = from.child(name).map_err(sys("open", path))?;
        // Nothing that is copied holds the folder it is copied to: a base does not lie in its own tree.
        return copy(source, path, &child, (0, 0), content, progress).map(drop);
    }
    let entry = Entry { dir: from, name, stat: &stat, path };
    Copy::begin(path, to, content, progress)?.entry(&entry)
}

/// Copies the tree at `from` to the new folder `to`, by path: for trees that this program made.
pub fn copy_path(from: &Path, to: &Path, content: Content) -> Result<()> {
    file::make_dir(to, 0o700).at("create", to)?;
    let open = super::open(to)?;
    let avoid = open.stat().map_err(sys("look at", to.as_os_str().as_bytes()))?.id;
    let progress = Progress::new("copying", None);
    let source = super::open(from)?;
    copy(source, from.as_os_str().as_bytes(), &open, avoid, content, &mut |bytes| progress.add(bytes))
        .map(drop)
}

/// The names that files with more than one have in a tree that is being made.
pub(crate) struct Links {
    root: Dir,
    /// Where in `first` the path begins that belongs to what the file is in the source.
    seen: Box<Ids>,
    /// First paths, below the root: four bytes with the length before each.
    first: Box<Spill>,
}

impl Links {
    /// Begins with an empty tree.
    pub(crate) fn new(root: &Dir) -> nix::Result<Box<Self>> {
        Ok(Box::new(Self { root: root.again()?, seen: Ids::beside(root)?, first: Spill::new(root)? }))
    }

    /// The first name of a file that was seen before. None where it was not, or has no other: `path` is noted as its first name.
    pub(crate) fn first(&mut self, stat: &Stat, path: &[u8]) -> nix::Result<Option<Vec<u8>>> {
        if stat.links <= 1 {
            return Ok(None);
        }
        let Some(at) = self.seen.note(stat.id, self.first.end())? else {
            self.first.push(&u32::try_from(path.len()).map_err(|_| Errno::ENAMETOOLONG)?.to_ne_bytes());
            self.first.push(path);
            return Ok(None);
        };
        let mut length = [0; 4];
        self.read(at, &mut length)?;
        let mut first = vec![0; usize::try_from(u32::from_ne_bytes(length)).unwrap_or(0)];
        self.read(at.plus(4), &mut first)?;
        Ok(Some(first))
    }

    fn read(&self, mut at: u64, mut buffer: &mut [u8]) -> nix::Result<()> {
        while !buffer.is_empty() {
            let got = self.first.read(at, buffer)?;
            at = at.plus(got as u64);
            buffer = buffer.get_mut(got..).filter(|_| got > 0).ok_or(Errno::EIO)?;
        }
        Ok(())
    }

    /// Gives the file that was made for the source `stat` the name `name` in `here`, too. False where none was made yet: `path`,
    /// relative to the root, is noted as its first name.
    pub(crate) fn again(&mut self, stat: &Stat, here: &Dir, name: &CStr, path: &[u8]) -> nix::Result<bool> {
        let Some(first) = self.first(stat, path)? else { return Ok(false) };
        let (dir, first) = self.root.reach(&first)?;
        here.hard_link(name, &dir, &first).map(|()| true)
    }
}

struct Copy<'a> {
    to: Chain,
    linked: Box<Links>,
    prefix: usize,
    copied: Copied,
    content: Content,
    buffer: Vec<u8>,
    progress: &'a mut dyn FnMut(u64),
}

impl<'a> Copy<'a> {
    /// Begins at the empty folder `to`.
    fn begin(path: &[u8], to: &Dir, content: Content, progress: &'a mut dyn FnMut(u64)) -> Result<Self> {
        let failed = || sys("open the copy of", path);
        Ok(Self {
            to: Chain::of(to).map_err(failed())?,
            linked: Links::new(to).map_err(failed())?,
            prefix: path.len(),
            copied: Copied::default(),
            content,
            buffer: Vec::new(),
            progress,
        })
    }

    fn directory(&mut self, entry: &Entry<'_>) -> Result<()> {
        let here = self.to.here();
        here.make_dir(entry.name).map_err(sys("copy the directory", entry.path))?;
        let child = here.child(entry.name).map_err(sys("open the copy of", entry.path))?;
        self.to.down(child).map_err(sys("open the copy of", entry.path))
    }

    fn entry(&mut self, entry: &Entry<'_>) -> Result<()> {
        let Entry { dir, name, stat, path } = entry;
        if self.content == Content::Special && stat.links <= 1 && matches!(stat.kind, Kind::File | Kind::Link)
        {
            return Ok(());
        }
        let below = path.get(self.prefix..).unwrap_or_default();
        let below = below.strip_prefix(b"/").unwrap_or(below);
        if self.linked.again(stat, self.to.here(), name, below).map_err(sys("link the copy of", path))? {
            return Ok(());
        }
        let from = match stat.kind {
            Kind::File => Some(dir.open_file(name, stat).map_err(sys("open", path))?),
            _ => None,
        };
        let meta = Meta::read(dir, name, stat, from.as_ref().map(AsFd::as_fd), path)?;
        let here = self.to.here();
        match (stat.kind, from) {
            (_, Some(from)) => {
                let file = here.create_file(name).map_err(sys("create the copy of", path))?;
                match self.content {
                    Content::Written | Content::Special => {
                        copy_content(&from, stat, &file, path, &mut self.buffer, self.progress)?;
                    }
                    Content::Shared => {
                        extents::share(&from, &file).map_err(not_shared(path))?;
                        (self.progress)(stat.size);
                    }
                }
            }
            (Kind::Link, _) => {
                let target = dir.read_link(name).map_err(sys("read the link", path))?;
                here.make_link(name, &target).map_err(sys("copy the link", path))?;
            }
            (Kind::Socket, _) => {
                crate::warn!("{} is a socket: left out", shown(path).display());
                self.copied.sockets += 1;
                return Ok(());
            }
            (kind, _) => here.make_node(name, kind, stat.device).map_err(sys("make the copy of", path))?,
        }
        meta.apply(here, name, stat.kind, path)
    }
}

/// What helps where a base and a store cannot share.
pub const ONE_DISK: &str =
    "files share only on one disk: bring .base and .store onto one, or take `--backend copy`";

/// A file is never written instead: that would cost what the backend was chosen to save.
fn not_shared(path: &[u8]) -> impl FnOnce(Errno) -> Error + use<'_> {
    move |errno| {
        let err = sys("share the extents of", path)(errno);
        match errno {
            Errno::EXDEV => err.way_out(ONE_DISK),
            Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EINVAL | Errno::ETXTBSY => {
                err.way_out("this disk cannot share this file; `--backend copy` makes copies of all files")
            }
            _ => err,
        }
    }
}

/// Copies data to where they were, and leaves holes where the source has them.
pub(crate) fn copy_content(
    from: &File,
    stat: &Stat,
    to: &File,
    path: &[u8],
    buffer: &mut Vec<u8>,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let sparse = stat.allocated < stat.size;
    let mut at = 0;
    read_data(from, stat, path, buffer, &mut |offset, bytes| {
        progress(bytes.len() as u64);
        let mut offset = offset;
        for block in bytes.chunks(if sparse { BLOCK } else { bytes.len().max(1) }) {
            if !sparse || block.iter().any(|b| *b != 0) {
                write_at(to, block, offset).map_err(sys("write the copy of", path))?;
                at = offset.plus(block.len() as u64);
            }
            offset = offset.plus(block.len() as u64);
        }
        Ok(())
    })?;
    if at != stat.size { set_size(to, stat.size).map_err(sys("write the copy of", path)) } else { Ok(()) }
}
