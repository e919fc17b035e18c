//! Unpacks a tar below an open directory. What an archive asks for is done or refused, never done half or elsewhere.

use std::ffi::{CStr, CString};
use std::io::{Seek, SeekFrom, Write};

use nix::errno::Errno;

use super::place::{UNNAMED, components, folder, leads};
use super::reader::{Member, Reader, What};
use super::refuse;
use super::sparse::Map;
use super::stream::Stream;
use crate::error::{Context, Error, Result};
use crate::sum::Sum;
use crate::sys::file::set_size;
use crate::sys::xattr;
use crate::tree::{Chain, Dir, Ids, Kind, Meta, SELF, Stat, Time, attr, shown, sys};

/// What to do about a folder of a layer and a whiteout of its name, where that name is too long for both to be unpacked.
pub(super) const ONE_OF_BOTH: &str = "leave the whiteout out of the layer; a folder that hides the base's has an empty file .wh..wh..opq in it";

/// Where an archive may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Into a fresh folder, which becomes a base. No path may lead through a link at all.
    NewTree,
    /// As [`Policy::NewTree`]; folders that are not named, the root among them, are marked as such ([`super::is_unnamed`]).
    Layer,
    /// Into a tree that lives: links in the folders of a path are resolved beneath its root, and what is there is replaced.
    Beneath,
}

/// Unpacks the tar `from` into `root`, and returns the number of its entries.
///
/// Refused, with the entry's name: paths that are absolute, climb with `..`, or lead where [`Policy`] does not allow; hard
/// links to what the archive cannot reach; whiteouts (character device 0:0) and marks of union file systems; sizes, maps and
/// numbers that cannot be; a stream that ends early. Of two entries with one path the later one stays, as with tar; but
/// nothing replaces a directory, and a directory replaces nothing in a new tree.
pub fn unpack(from: &mut dyn Stream, root: &Dir, policy: Policy) -> Result<u64> {
    let mut to = Unpack::new(root, policy)?;
    let mut reader = Reader::new(from);
    let mut entries = 0;
    while let Some(member) = reader.member()? {
        to.member(&member, &mut reader)?;
        entries += 1;
    }
    to.leave()?;
    if entries == 0 && policy == Policy::NewTree {
        return Err(Error::usage("the archive holds no entries"));
    }
    Ok(entries)
}

/// The folder that entries go into, kept open while they follow one another.
pub(super) struct Folder {
    path: Vec<CString>,
    /// The way to it, which the next one may have a part of in common.
    pub(super) way: Chain,
    /// Its time before we wrote into it.
    before: Time,
    /// It would hand a default ACL down to what is made in it.
    inherits: bool,
}

pub(super) struct Unpack<'a> {
    root: &'a Dir,
    policy: Policy,
    folder: Option<Folder>,
    /// Directories that the archive gave a time to.
    named: Box<Ids>,
    buffer: Vec<u8>,
}

impl<'a> Unpack<'a> {
    pub(super) fn new(root: &'a Dir, policy: Policy) -> Result<Self> {
        // The archive may not name the root; then it is like a folder that is made on the way.
        let meta = match policy {
            Policy::NewTree => Some(Meta { mode: 0o755, ..Meta::default() }),
            Policy::Layer => Some(Meta { uid: UNNAMED, gid: UNNAMED, ..Meta::default() }),
            Policy::Beneath => None,
        };
        if let Some(meta) = meta {
            meta.apply(root, SELF, Kind::Dir, b"")?;
        }
        let named = Ids::beside(root).map_err(sys("look at", b"."))?;
        Ok(Self { root, policy, folder: None, named, buffer: vec![0; 1 << 16] })
    }

    /// Makes an entry, and takes its data from the reader.
    pub(super) fn member(&mut self, member: &Member, reader: &mut Reader<'_>) -> Result<()> {
        let path = &member.path;
        if let Some((name, _)) = member.meta.attrs.iter().find(|(name, _)| attr::forged(name.to_bytes())) {
            let name = shown(name.to_bytes());
            let why = format!("carries {}, which a union file system would obey", name.display());
            return Err(refuse(path, why));
        }
        let parts = components(path, path, "has a path that")?;
        let Some((name, parents)) = parts.split_last() else {
            return self.root_entry(member);
        };
        if let What::Node(Kind::Char, (0, 0)) = member.what {
            return Err(refuse(path, "is a whiteout (character device 0:0)"));
        }
        let into = self.enter(parents, path)?;
        let made = match &member.what {
            What::Dir => return self.directory(name, member),
            What::File(size, map) => {
                let mut file = fresh(into.way.here(), name, path, || into.way.here().create_file(name))?;
                let buffer = &mut self.buffer;
                write(&mut file, *size, map.as_ref(), reader, path, buffer)?;
                Kind::File
            }
            What::Link(target) if target.is_empty() => return Err(refuse(path, "is a link to nothing")),
            What::Link(target) if target.contains(&0) => {
                return Err(refuse(path, "is a link to a name with a NUL"));
            }
            What::Link(target) => {
                fresh(into.way.here(), name, path, || into.way.here().make_link(name, target))?;
                Kind::Link
            }
            What::Node(kind, device) => {
                fresh(into.way.here(), name, path, || into.way.here().make_node(name, *kind, *device))
                    .map_err(|err| {
                        if err.errno() == Some(Errno::EINVAL) {
                            refuse(path, "has device numbers that cannot be")
                        } else {
                            err
                        }
                    })?;
                *kind
            }
            What::HardLink(target) => return self.hard_link(name, target, path),
        };
        self.finish(name, made, member)
    }

    /// The archive's own root: a new tree takes its attributes, a living one keeps its own.
    fn root_entry(&mut self, member: &Member) -> Result<()> {
        match (&member.what, self.policy) {
            (What::Dir, Policy::Beneath) => Ok(()),
            (What::Dir, _) => {
                self.leave()?;
                member.meta.apply(self.root, SELF, Kind::Dir, &member.path)
            }
            _ => Err(refuse(&member.path, "is the root, and no directory")),
        }
    }

    fn directory(&mut self, name: &CStr, member: &Member) -> Result<()> {
        let path = &member.path;
        let Some(into) = &self.folder else { return Ok(()) };
        match into.way.here().stat_at(name) {
            Ok(stat) if stat.kind == Kind::Dir => {}
            Ok(stat) if self.policy != Policy::Beneath => {
                let refused = refuse(path, "is a directory in the place of something else");
                // No archive holds a socket: in a layer it is a whiteout whose name would be too long.
                return Err(if stat.kind == Kind::Socket { refused.way_out(ONE_OF_BOTH) } else { refused });
            }
            Ok(stat) => {
                // On a merged /usr `bin` is a link: what the archive holds below `bin/` goes where the link leads.
                let mut way = into.path.clone();
                way.push(name.to_owned());
                if stat.kind == Kind::Link && leads(self.start(path)?, self.policy, &way) {
                    return Ok(());
                }
                into.way.here().unlink(name).map_err(sys("replace", path))?;
                into.way.here().make_dir(name).map_err(sys("create", path))?;
            }
            Err(Errno::ENOENT) => into.way.here().make_dir(name).map_err(sys("create", path))?,
            Err(errno) => return Err(sys("look at", path)(errno)),
        }
        self.finish(name, Kind::Dir, member)?;
        let Some(into) = &self.folder else { return Ok(()) };
        let id = into.way.here().stat_at(name).map_err(sys("look at", path))?.id;
        if self.policy == Policy::Beneath {
            self.named.note(id, 0).map_err(sys("note", path))?;
        }
        Ok(())
    }

    fn hard_link(&mut self, name: &CStr, target: &[u8], path: &[u8]) -> Result<()> {
        let target = components(target, path, "is a hard link whose target")?;
        let Some((last, parents)) = target.split_last() else {
            return Err(refuse(path, "is a hard link to the root"));
        };
        let from = folder(self.start(path)?, self.policy, parents, false, path)?.into_here();
        let stat = match from.stat_at(last) {
            // No archive holds a socket: what is one in a layer stands for a whiteout.
            Err(Errno::ENOENT) | Ok(Stat { kind: Kind::Socket, .. }) => {
                return Err(refuse(path, "is a hard link to what is not there"));
            }
            seen => seen.map_err(sys("look at the target of", path))?,
        };
        if stat.kind == Kind::Dir {
            return Err(refuse(path, "is a hard link to a directory"));
        }
        let Some(into) = &self.folder else { return Ok(()) };
        if into.way.here().stat_at(name).is_ok_and(|there| there.id == stat.id) {
            // GNU tar writes a file that it was given twice as a link to itself.
            return Ok(());
        }
        fresh(into.way.here(), name, path, || into.way.here().hard_link(name, &from, last))
    }

    /// Gives a new entry its attributes, and takes away what it inherited.
    fn finish(&self, name: &CStr, kind: Kind, member: &Member) -> Result<()> {
        let Some(into) = &self.folder else { return Ok(()) };
        if into.inherits && kind != Kind::Link {
            let path = into.way.here().proc_path(name);
            for acl in [c"system.posix_acl_access", c"system.posix_acl_default"] {
                match xattr::remove(&path, acl) {
                    Ok(()) | Err(Errno::ENODATA | Errno::EOPNOTSUPP | Errno::EACCES) => {}
                    Err(errno) => return Err(sys("take the inherited ACL from", &member.path)(errno)),
                }
            }
        }
        member.meta.apply(into.way.here(), name, kind, &member.path)
    }

    /// Makes `parts` the current folder.
    pub(super) fn enter(&mut self, parts: &[CString], path: &[u8]) -> Result<&Folder> {
        if self.folder.as_ref().is_none_or(|folder| folder.path != parts) {
            // From where the two ways part. In a living tree a link on the way may be another one by now.
            let way = match self.leave()?.filter(|_| self.policy != Policy::Beneath) {
                Some(Folder { path: before, mut way, .. }) => {
                    let same = before.iter().zip(parts).take_while(|(before, part)| before == part).count();
                    while way.depth() > same {
                        way.up().map_err(sys("go back to the folder of", path))?;
                    }
                    way
                }
                None => self.start(path)?,
            };
            let below = parts.get(way.depth()..).unwrap_or_default();
            let way = folder(way, self.policy, below, true, path)?;
            let before = way.here().stat().map_err(sys("look at the folder of", path))?.mtime;
            let inherits = xattr::get(&way.here().proc_path(SELF), c"system.posix_acl_default").is_ok();
            self.folder = Some(Folder { path: parts.to_vec(), way, before, inherits });
        }
        self.folder.as_ref().ok_or_else(|| Error::failed("no folder is open"))
    }

    /// The way from the root on.
    fn start(&self, path: &[u8]) -> Result<Chain> {
        Chain::of(self.root).map_err(sys("open the folder of", path))
    }

    /// Lets go of the current folder. What was put into it changed its time: that is set back to what the archive said.
    /// In a living tree a folder that the archive does not name keeps the time of its change.
    pub(super) fn leave(&mut self) -> Result<Option<Folder>> {
        let left = self.folder.take();
        if let Some(folder) = &left {
            let failed = |errno| {
                let path = folder.path.iter().map(|part| part.to_bytes()).collect::<Vec<_>>().join(&b'/');
                sys("set the time of", &path)(errno)
            };
            if self.policy != Policy::Beneath || self.named.has(folder.way.id()).map_err(failed)? {
                folder.way.here().set_mtime(SELF, folder.before).map_err(failed)?;
            }
        }
        Ok(left)
    }
}

/// Makes an entry, in the place of what has its name and is no directory.
fn fresh<T>(dir: &Dir, name: &CStr, path: &[u8], mut make: impl FnMut() -> nix::Result<T>) -> Result<T> {
    match make() {
        Err(Errno::EEXIST) => {}
        made => return made.map_err(sys("create", path)),
    }
    if dir.stat_at(name).is_ok_and(|there| there.kind == Kind::Dir) {
        return Err(refuse(path, "would replace a directory"));
    }
    dir.unlink(name).map_err(sys("replace", path))?;
    make().map_err(sys("create", path))
}

/// Writes a file's data to where they belong.
fn write(
    file: &mut std::fs::File,
    size: u64,
    map: Option<&Map>,
    reader: &mut Reader<'_>,
    path: &[u8],
    buffer: &mut [u8],
) -> Result<()> {
    let whole = [(0, size)];
    let mut at = 0;
    for (offset, length) in map.map_or(&whole[..], Vec::as_slice) {
        if *length == 0 {
            continue;
        }
        if *offset != at {
            file.seek(SeekFrom::Start(*offset)).at("write", &shown(path))?;
        }
        let mut left = *length;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..want).unwrap_or_default();
            let got = reader.read(part)?;
            if got < want {
                return Err(refuse(path, "has less data than it says"));
            }
            file.write_all(part).at("write", &shown(path))?;
            left = left.minus(got as u64);
        }
        at = offset.plus(*length);
    }
    if at == size { Ok(()) } else { set_size(&file, size).at("write", &shown(path)) }
}
