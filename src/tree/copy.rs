//! The import of a directory: everything that a base keeps, read by descriptors and written into a fresh folder.

use std::fs::{DirBuilder, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::errno::Errno;

use super::content::{BLOCK, read_data};
use super::meta::Meta;
use super::{Chain, Dir, Entry, Ids, Kind, SELF, Stat, Step, Walk, c_name, shown, sys};
use crate::error::{Context, Error, Result};
use crate::out::Progress;
use crate::sys::extents;
use crate::sys::file::set_size;

/// How the content of files gets into a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// It is written.
    Written,
    /// The copy shares the extents of the file that it was made of; where the disk cannot, the copy fails.
    Shared,
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
    let root = Meta::read(&from, SELF, &from.stat().map_err(sys("look at", path))?, path)?;
    let mut walk = Walk::new(from, path)?;
    let mut copy = Copy {
        root: to.again().map_err(sys("open the copy of", path))?,
        to: Chain::new(to.again().map_err(sys("open the copy of", path))?)
            .map_err(sys("open the copy of", path))?,
        linked: Ids::default(),
        firsts: Vec::new(),
        buffer: vec![0; BLOCK * 16],
        prefix: path.len(),
        copied: Copied::default(),
        content,
        progress,
    };
    // Given to a directory when it is left: a default ACL would be inherited, and each new name changes the time.
    let mut directories = Vec::new();
    while let Some(step) = walk.step()? {
        match step {
            Step::Entry(entry) if entry.stat.kind == Kind::Dir => {
                directories.push(Meta::read(entry.dir, entry.name, &entry.stat, entry.path)?);
                copy.directory(&entry)?;
                walk.enter()?;
                if walk.id() == avoid {
                    return Err(Error::usage(format!(
                        "{} holds the folder of the bases itself",
                        shown(path).display()
                    ))
                    .way_out("take a source outside of LXCPATH"));
                }
            }
            Step::Entry(entry) => copy.entry(&entry)?,
            Step::Leave { name, path, .. } => {
                copy.to.up().map_err(sys("go back from the copy of", path))?;
                if let Some(meta) = directories.pop() {
                    meta.apply(copy.to.here(), name, Kind::Dir, path)?;
                }
            }
        }
    }
    root.apply(to, SELF, Kind::Dir, path)?;
    Ok(copy.copied)
}

/// Copies the tree at `from` to the new folder `to`, by path: for trees that this program made.
pub fn copy_path(from: &Path, to: &Path, content: Content) -> Result<()> {
    DirBuilder::new().mode(0o700).create(to).at("create", to)?;
    let open = super::open(to)?;
    let avoid = open.stat().map_err(sys("look at", to.as_os_str().as_bytes()))?.id;
    let progress = Progress::new("copying", None);
    let source = super::open(from)?;
    copy(source, from.as_os_str().as_bytes(), &open, avoid, content, &mut |bytes| progress.add(bytes))
        .map(drop)
}

struct Copy<'a> {
    root: Dir,
    to: Chain,
    /// Of every file with more than one name, which of `firsts` is its own.
    linked: Ids,
    /// Their first paths, below the root.
    firsts: Vec<Vec<u8>>,
    buffer: Vec<u8>,
    prefix: usize,
    copied: Copied,
    content: Content,
    progress: &'a mut dyn FnMut(u64),
}

impl Copy<'_> {
    fn directory(&mut self, entry: &Entry<'_>) -> Result<()> {
        let here = self.to.here();
        here.make_dir(entry.name).map_err(sys("copy the directory", entry.path))?;
        let child = here.child(entry.name).map_err(sys("open the copy of", entry.path))?;
        self.to.down(child).map_err(sys("open the copy of", entry.path))
    }

    fn entry(&mut self, entry: &Entry<'_>) -> Result<()> {
        let Entry { dir, name, stat, path } = entry;
        if stat.links > 1 {
            if let Some(number) = self.linked.note(stat.id, self.firsts.len() as u64) {
                let first = usize::try_from(number).ok().and_then(|number| self.firsts.get(number));
                return self.link(entry, first.map_or(b"", Vec::as_slice));
            }
            let below = path.get(self.prefix..).unwrap_or_default();
            self.firsts.push(below.strip_prefix(b"/").unwrap_or(below).to_vec());
        }
        let meta = Meta::read(dir, name, stat, path)?;
        let here = self.to.here();
        match stat.kind {
            Kind::File => {
                let mut from = dir.open_file(name, stat).map_err(sys("open", path))?;
                let mut file = here.create_file(name).map_err(sys("create the copy of", path))?;
                match self.content {
                    Content::Written => {
                        copy_content(&mut from, stat, &mut file, path, &mut self.buffer, self.progress)?;
                    }
                    Content::Shared => {
                        extents::share(&from, &file).map_err(sys("share the extents of", path))?;
                        (self.progress)(stat.size);
                    }
                }
            }
            Kind::Link => {
                let target = dir.read_link(name).map_err(sys("read the link", path))?;
                here.make_link(name, &target).map_err(sys("copy the link", path))?;
            }
            Kind::Socket => {
                log::warn!("{} is a socket: left out", shown(path).display());
                self.copied.sockets += 1;
                return Ok(());
            }
            kind => here.make_node(name, kind, stat.device).map_err(sys("make the copy of", path))?,
        }
        meta.apply(here, name, stat.kind, path)
    }

    /// Gives the copy of a file's first name a second one.
    fn link(&self, entry: &Entry<'_>, first: &[u8]) -> Result<()> {
        let failed = || sys("link the copy of", entry.path);
        let mut dir = self.root.again().map_err(failed())?;
        let mut parts = first.split(|b| *b == b'/').peekable();
        while let Some(part) = parts.next() {
            let part = c_name(part)?;
            if parts.peek().is_none() {
                return self.to.here().hard_link(entry.name, &dir, &part).map_err(failed());
            }
            dir = dir.child(&part).map_err(failed())?;
        }
        Err(failed()(Errno::ENOENT))
    }
}

/// Copies data to where they were, and leaves holes where the source has them.
fn copy_content(
    from: &mut File,
    stat: &Stat,
    to: &mut File,
    path: &[u8],
    buffer: &mut [u8],
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let sparse = stat.allocated < stat.size;
    let write = "write the copy of";
    let mut at = 0;
    read_data(from, stat, path, buffer, |offset, bytes| {
        progress(bytes.len() as u64);
        let mut offset = offset;
        for block in bytes.chunks(if sparse { BLOCK } else { bytes.len().max(1) }) {
            if !sparse || block.iter().any(|b| *b != 0) {
                if offset != at {
                    to.seek(SeekFrom::Start(offset)).at(write, &shown(path))?;
                }
                to.write_all(block).at(write, &shown(path))?;
                at = offset.saturating_add(block.len() as u64);
            }
            offset = offset.saturating_add(block.len() as u64);
        }
        Ok(())
    })?;
    if at != stat.size { set_size(&to, stat.size).at(write, &shown(path)) } else { Ok(()) }
}
