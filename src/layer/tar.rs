//! An OCI image layer of a stream of changes (image-spec, "Image Layer Filesystem Changeset").

use super::decode::{OPAQUE, WH};
use super::{Aspects, Change, Comparer, Entry, Format, Side, compare};
use crate::archive::{Head, Tar};
use crate::error::{Error, Result};
use crate::tree::{self, Dir, Kind, Links, Meta, attr, shown, sys};

/// Writes changes as a tar. It takes the entries of a walk with [`super::Show::Flat`].
///
/// Holes are written as zeros: no unpacker of layers knows sparse entries. Sockets are left out.
pub struct Layer {
    format: Format,
    tar: Tar,
    links: Links,
    comparer: Comparer,
    /// Written so far.
    entries: u64,
}

impl Layer {
    /// Begins one of a store of the given format.
    pub fn new(format: Format, store: &Dir, tar: Tar) -> Result<Self> {
        Ok(Self {
            format,
            tar,
            links: Links::new(store).map_err(sys("look at", b"the store"))?,
            comparer: Comparer::new(format),
            entries: 0,
        })
    }

    /// Takes an entry; refuses one that a layer cannot hold, or that the store's format does not explain.
    pub fn take(&mut self, entry: &Entry<'_>) -> Result<()> {
        if let Some(why) = refused(entry) {
            return Err(Error::failed(format_args!(
                "{} cannot be in a layer: {why}",
                shown(entry.path).display()
            )));
        }
        if let Some(doubt) = entry.doubt {
            let (path, words) = (shown(entry.path), doubt.words());
            return Err(Error::damaged(format_args!(
                "{} in the store is not what {} writes: {words}",
                path.display(),
                self.format.name()
            ))
            .way_out("`sliverfs diff` tells all such entries: settle them first"));
        }
        match (entry.change, entry.node) {
            (Change::Delete, _) if entry.base.is_some() => self.mark(&whiteout(entry)),
            (Change::Put | Change::Meta | Change::Opaque, Some(node)) if self.changed(entry)? => {
                self.put(entry, node)
            }
            _ => Ok(()),
        }
    }

    /// Writes the end; the layer's DiffID, its bytes and the number of its entries.
    pub fn finish(self) -> Result<(String, u64, u64)> {
        let (digest, size) = self.tar.finish()?;
        Ok((digest, size, self.entries))
    }

    /// What is as in the base is no change, though a store has it: folders on the way to others, and what was changed back. So all
    /// kinds of stores give the same layer of the same changes. Of a file with more names another one may be new; but
    /// fuse-overlayfs's stores begin with those of the base.
    fn changed(&mut self, entry: &Entry<'_>) -> Result<bool> {
        let Some((node, base)) = entry.node.zip(entry.base) else { return Ok(true) };
        let (new, old) = (node.stat, base.stat);
        let fuse = self.format == Format::FuseOverlayfs;
        let alike = entry.change != Change::Opaque
            && (new.mtime, new.mode, new.uid, new.gid) == (old.mtime, old.mode, old.uid, old.gid)
            && (new.kind == Kind::Dir || new.links == old.links && (new.links == 1 || fuse));
        Ok(!alike || self.comparer.differences(entry)? != Aspects::NONE)
    }

    fn put(&mut self, entry: &Entry<'_>, node: Side<'_>) -> Result<()> {
        let (stat, path) = (node.stat, entry.path);
        let mut head = Head { path, flag: b'0', link: b"", size: 0, device: (0, 0), meta: &Meta::default() };
        if stat.kind == Kind::Socket {
            crate::warn!("{} is a socket: left out", shown(path).display());
            return Ok(());
        }
        if stat.kind != Kind::Dir {
            if let Some(first) = self.links.first(stat, path).map_err(sys("note", path))? {
                self.entries += 1;
                return self.tar.head(&Head { flag: b'1', link: &first, ..head });
            }
        }
        let source = if entry.stored { self.format } else { Format::Tree };
        let attrs = compare::attrs(node, source).map_err(sys("read the attributes of", path))?;
        if let Some((name, _)) = attrs.iter().find(|(name, _)| attr::forged(name.to_bytes())) {
            return Err(Error::failed(format_args!(
                "{} has an attribute {} that a union file system would obey",
                shown(path).display(),
                shown(name.to_bytes()).display()
            ))
            .way_out("remove the attribute from the view"));
        }
        let meta = Meta { mode: stat.mode, uid: stat.uid, gid: stat.gid, mtime: stat.mtime, attrs };
        head.meta = &meta;
        self.entries += 1;
        match stat.kind {
            Kind::Dir => {
                let path = if path.is_empty() { b"./".to_vec() } else { [path, b"/"].concat() };
                self.tar.head(&Head { path: &path, flag: b'5', ..head })?;
                let hides = entry.base.is_some_and(|base| base.stat.kind == Kind::Dir);
                if entry.change == Change::Opaque && hides {
                    return self.mark(&[&path, OPAQUE.to_bytes()].concat());
                }
                Ok(())
            }
            Kind::Link => {
                let target = node.dir.read_link(node.name).map_err(sys("read the link", path))?;
                self.tar.head(&Head { flag: b'2', link: &target, ..head })
            }
            Kind::File => self.file(entry, entry.data.unwrap_or(node), head),
            Kind::Char => self.tar.head(&Head { flag: b'3', device: stat.device, ..head }),
            Kind::Block => self.tar.head(&Head { flag: b'4', device: stat.device, ..head }),
            Kind::Fifo | Kind::Socket => self.tar.head(&Head { flag: b'6', ..head }),
        }
    }

    fn file(&mut self, entry: &Entry<'_>, data: Side<'_>, head: Head<'_>) -> Result<()> {
        let path = entry.path;
        let from = data.dir.open_file(data.name, data.stat).map_err(sys("open", path))?;
        self.tar.head(&Head { size: data.stat.size, ..head })?;
        let (mut at, tar) = (0, &mut self.tar);
        tree::data(&from, data.stat, path, &mut |start, end| {
            tar.zeros(start.saturating_sub(at))?;
            at = end;
            tar.file(&from, start, end, path)
        })?;
        tar.zeros(data.stat.size.saturating_sub(at))?;
        tar.pad()
    }

    /// An empty file that only its name makes something.
    fn mark(&mut self, path: &[u8]) -> Result<()> {
        self.entries += 1;
        let meta = Meta::default();
        self.tar.head(&Head { path, flag: b'0', link: b"", size: 0, device: (0, 0), meta: &meta })
    }
}

/// `FOLDER/.wh.NAME`.
fn whiteout(entry: &Entry<'_>) -> Vec<u8> {
    let name = entry.name.to_bytes();
    [entry.path.strip_suffix(name).unwrap_or_default(), WH, name].concat()
}

/// Why an unpacker would take the entry for something else.
fn refused(entry: &Entry<'_>) -> Option<&'static str> {
    let device = entry.node.is_some_and(|node| node.stat.kind == Kind::Char && node.stat.device == (0, 0));
    match entry.change {
        Change::Nothing => None,
        _ if entry.name.to_bytes().starts_with(WH) => Some("names of whiteouts begin like that"),
        Change::Put if device => Some("a device 0:0 is a whiteout to overlay"),
        _ => None,
    }
}
