//! An OCI image layer of a stream of changes (image-spec, "Image Layer Filesystem Changeset").

use super::decode::{OPAQUE, WH};
use super::{Aspects, Change, Entry, Format, Side, compare, differences};
use crate::archive::{Head, Tar};
use crate::error::{Error, Result};
use crate::sum::Sum;
use crate::tree::{self, Dir, Kind, Links, Meta, attr, shown, sys};

/// Writes changes as a tar. It takes the entries of a walk with [`super::Show::Flat`].
///
/// Holes are written as zeros: no unpacker of layers knows sparse entries. Sockets are left out.
pub struct Layer {
    format: Format,
    tar: Tar,
    links: Box<Links>,
    /// The folders on the way down that are as in the base and not in the tar: each by the length of its path, and what it is.
    way: Vec<(usize, Meta)>,
    /// Written so far.
    pub entries: usize,
}

impl Layer {
    /// Begins one of a store of the given format.
    pub fn new(format: Format, store: &Dir, tar: Tar) -> Result<Self> {
        Ok(Self {
            format,
            tar,
            links: Links::new(store).map_err(sys("look at", b"the store"))?,
            way: Vec::new(),
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
        // The walk has told each folder that it went into: those of longer paths are left.
        let above = entry.path.len().saturating_sub(entry.name.to_bytes().len() + 1);
        while self.way.last().is_some_and(|(length, _)| *length > above) {
            self.way.pop();
        }
        match (entry.change, entry.node) {
            (Change::Delete, _) if entry.base.is_some() => {
                self.go_down(entry.path)?;
                self.mark(&whiteout(entry))
            }
            (Change::Put | Change::Meta | Change::Opaque, Some(node)) => {
                if self.changed(entry)? {
                    return self.put(entry, node);
                }
                if node.stat.kind == Kind::Dir {
                    let meta = self.meta(entry, node)?;
                    self.way.push((entry.path.len(), meta));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Writes the folders on the way to an entry: who unpacks a layer by itself would make them with an owner and a mode of its own,
    /// which hide the base's.
    fn go_down(&mut self, path: &[u8]) -> Result<()> {
        let way = std::mem::take(&mut self.way);
        for (length, meta) in &way {
            self.folder(path.get(..*length).unwrap_or_default(), meta)?;
        }
        Ok(())
    }

    fn folder(&mut self, path: &[u8], meta: &Meta) -> Result<()> {
        let path = if path.is_empty() { b"./".to_vec() } else { [path, b"/"].concat() };
        self.head(&Head { path: &path, flag: b'5', link: b"", size: 0, device: (0, 0), meta })
    }

    fn head(&mut self, head: &Head<'_>) -> Result<()> {
        if let Some((name, _)) = head.meta.attrs.iter().find(|(name, _)| attr::forged(name.to_bytes())) {
            return Err(Error::failed(format_args!(
                "{} has an attribute {} that a union file system would obey",
                shown(head.path).display(),
                shown(name.to_bytes()).display()
            ))
            .way_out("remove the attribute from the view"));
        }
        self.entries += 1;
        self.tar.head(head)
    }

    /// Writes the end; the layer's DiffID, where it is wanted, and its bytes.
    pub fn finish(&mut self) -> Result<(String, u64)> {
        self.tar.finish()
    }

    /// What is as in the base is no change, though a store has it: what was changed back, and folders on the way to nothing that is one.
    /// So all kinds of stores give the same layer of the same changes. Of a file with more names another one may be new; but
    /// fuse-overlayfs's stores begin with those of the base: there the walk has looked at all of them.
    fn changed(&self, entry: &Entry<'_>) -> Result<bool> {
        let Some((node, base)) = entry.node.zip(entry.base) else { return Ok(true) };
        let (new, old) = (node.stat, base.stat);
        let fuse = self.format == Format::FuseOverlayfs;
        let alike = entry.change != Change::Opaque
            && (new.mtime, new.mode, new.uid, new.gid) == (old.mtime, old.mode, old.uid, old.gid)
            && (new.kind == Kind::Dir || new.links == old.links && (new.links == 1 || fuse));
        Ok(!alike || differences(self.format, entry)? != Aspects::NONE)
    }

    /// Owner, mode, time and attributes.
    fn meta(&self, entry: &Entry<'_>, node: Side<'_>) -> Result<Meta> {
        let stat = node.stat;
        let source = if entry.stored { self.format } else { Format::Tree };
        let attrs = compare::attrs(&node, source).map_err(sys("read the attributes of", entry.path))?;
        Ok(Meta { mode: stat.mode, uid: stat.uid, gid: stat.gid, mtime: stat.mtime, attrs })
    }

    fn put(&mut self, entry: &Entry<'_>, node: Side<'_>) -> Result<()> {
        let (stat, path) = (node.stat, entry.path);
        let mut head = Head { path, flag: b'0', link: b"", size: 0, device: (0, 0), meta: &Meta::default() };
        if stat.kind == Kind::Socket {
            crate::warn!("{} is a socket: left out", shown(path).display());
            return Ok(());
        }
        self.go_down(path)?;
        if stat.kind != Kind::Dir {
            if let Some(first) = self.links.first(stat, path).map_err(sys("note", path))? {
                return self.head(&Head { flag: b'1', link: &first, ..head });
            }
        }
        let meta = self.meta(entry, node)?;
        head.meta = &meta;
        match stat.kind {
            Kind::Dir => {
                self.folder(path, &meta)?;
                let hides = entry.base.is_some_and(|base| base.stat.kind == Kind::Dir);
                if entry.change == Change::Opaque && hides {
                    return self.mark(&[path, b"/", OPAQUE.to_bytes()].concat());
                }
                Ok(())
            }
            Kind::Link => {
                let target = node.dir.read_link(node.name).map_err(sys("read the link", path))?;
                self.head(&Head { flag: b'2', link: &target, ..head })
            }
            Kind::File => self.file(entry, entry.data.unwrap_or(node), head),
            Kind::Char => self.head(&Head { flag: b'3', device: stat.device, ..head }),
            Kind::Block => self.head(&Head { flag: b'4', device: stat.device, ..head }),
            Kind::Fifo | Kind::Socket => self.head(&Head { flag: b'6', ..head }),
        }
    }

    fn file(&mut self, entry: &Entry<'_>, data: Side<'_>, head: Head<'_>) -> Result<()> {
        let path = entry.path;
        let from = data.dir.open_file(data.name, data.stat).map_err(sys("open", path))?;
        self.head(&Head { size: data.stat.size, ..head })?;
        let (mut at, tar) = (0, &mut self.tar);
        tree::data(&from, data.stat, path, &mut |start, end| {
            tar.zeros(start.minus(at))?;
            at = end;
            tar.file(&from, start, end, path)
        })?;
        tar.zeros(data.stat.size.minus(at))?;
        tar.pad()
    }

    /// An empty file that only its name makes something.
    fn mark(&mut self, path: &[u8]) -> Result<()> {
        let meta = Meta::default();
        self.head(&Head { path, flag: b'0', link: b"", size: 0, device: (0, 0), meta: &meta })
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
