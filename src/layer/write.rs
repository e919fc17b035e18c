//! A new store, or a tree, of a stream of changes.

use std::ffi::{CStr, CString};
use std::os::fd::AsFd;

use nix::errno::Errno;

use super::decode::{OPAQUE, TARGET, WH, WHITEOUT};
use super::{Aspects, Change, Entry, Format, Side, Step, compare, records};
use crate::error::{Error, Result};
use crate::sys::file::write_at;
use crate::sys::writeback::Writeback;
use crate::sys::xattr;
use crate::tree::attr::{self, Attr};
use crate::tree::{self, Chain, Content, Dir, Kind, Links, Meta, SELF, Stat, copy_content, shown, sys};

/// The longest name that aufs takes: its whiteout must fit.
const AUFS_NAME_MAX: usize = 242;

/// Writes changes into a folder: an empty one for a store, a copy or a snapshot of the base for a whole tree.
///
/// It takes the steps of a walk with [`super::Show::Flat`] for a store, and for a tree in a copy; with [`super::Show::View`] for a
/// tree in an empty folder. What it makes is not on the disk until the caller syncs it.
pub struct Writer<'a> {
    from: Format,
    to: Format,
    here: Chain,
    links: Box<Links>,
    /// A whiteout that the others can be links of.
    whiteout: Option<(Dir, CString)>,
    /// mini_fo's records of the directories on the way down.
    records: Vec<Vec<u8>>,
    /// Directories of a whole tree on the way down that are as in the base: made when something in them is written.
    /// True where something else may be there already that is none; last the permissions.
    unmade: Vec<(CString, bool, u32)>,
    buffer: Vec<u8>,
    files: &'a mut Writeback,
    progress: &'a mut dyn FnMut(u64),
}

impl<'a> Writer<'a> {
    /// Begins at the root of the new store. `from` is the format of the store that the changes come from; `progress` is told
    /// the bytes of content as they are written, and `files` are waited for by the caller.
    pub fn new(
        from: Format,
        to: Format,
        root: &Dir,
        files: &'a mut Writeback,
        progress: &'a mut dyn FnMut(u64),
    ) -> Result<Box<Self>> {
        let failed = || sys("look at", b"the new store");
        Ok(Box::new(Self {
            from,
            to,
            here: Chain::of(root).map_err(failed())?,
            links: Links::new(root).map_err(failed())?,
            whiteout: None,
            records: Vec::new(),
            unmade: Vec::new(),
            buffer: Vec::new(),
            files,
            progress,
        }))
    }

    /// Takes a step of the walk. After an entry that is a directory, the walk must enter it.
    pub fn take(&mut self, step: &Step<'_>) -> Result<()> {
        match step {
            Step::Entry(entry) => self.entry(entry),
            Step::Leave(entry) => self.leave(entry),
        }
    }

    fn entry(&mut self, entry: &Entry<'_>) -> Result<()> {
        if entry.change == Change::Nothing {
            return Ok(());
        }
        if let Some(why) = cannot(self.to, entry) {
            return Err(Error::failed(format_args!(
                "{} cannot be kept by {}: {why}",
                shown(entry.path).display(),
                self.to.name()
            )));
        }
        if entry.path.is_empty() {
            self.records.push(Vec::new());
            return self.begin().map_err(sys("begin the store at", b"."));
        }
        if self.is_unmade(entry)? {
            self.lazily(entry, false);
            return Ok(());
        }
        if entry.change != Change::Delete || entry.base.is_some() {
            self.make_way(entry.path)?;
        }
        if self.to == Format::MiniFo && recorded(entry) {
            if let Some(records) = self.records.last_mut() {
                records::push_gone(records, entry.name);
            }
        }
        match (entry.change, entry.node) {
            (Change::Meta | Change::Opaque, Some(_)) => self.directory(entry),
            (Change::Put, Some(node)) => self.put(entry, node),
            (Change::Delete, _) if entry.base.is_some() => self.delete(entry),
            _ => Ok(()),
        }
    }

    /// In a whole tree every directory is told: one that is as in the base is written only where it holds what is not.
    fn is_unmade(&self, entry: &Entry<'_>) -> Result<bool> {
        let base = entry.base.is_some_and(|base| base.stat.kind == Kind::Dir);
        if !self.from.whole() || self.to.whole() || entry.change != Change::Meta || !base {
            return Ok(false);
        }
        compare::differences(self.from, entry).map(Aspects::is_empty)
    }

    /// The directory by this name is made when something is written in it. Where the base has something else there, it is `blocked`.
    pub fn lazily(&mut self, entry: &Entry<'_>, blocked: bool) {
        self.unmade.push((entry.name.to_owned(), blocked, early(entry, 0o700)));
    }

    /// Copies a folder of a base to a name that neither the store nor the base has.
    pub fn copy_folder(&mut self, from: Side<'_>, name: &CStr, path: &[u8]) -> Result<()> {
        self.make_way(path)?;
        self.files.and_more();
        let here = self.here.here();
        here.make_dir(name).map_err(sys("make the directory", path))?;
        let to = here.child(name).map_err(sys("open the new", path))?;
        let from = from.dir.child(from.name).map_err(sys("open the base's version of", path))?;
        tree::copy(from, path, &to, (0, 0), Content::Written, self.progress).map(drop)
    }

    /// Makes the directories down to the one that the entry lies in.
    fn make_way(&mut self, path: &[u8]) -> Result<()> {
        for (name, blocked, mode) in std::mem::take(&mut self.unmade) {
            if blocked && self.filled() {
                tree::remove(self.here.here(), &name, &shown(path))?;
            }
            if let Some(records) = self.records.last_mut().filter(|_| blocked && self.to == Format::MiniFo) {
                records::push_gone(records, &name);
            }
            match self.here.here().make_dir_as(&name, mode) {
                Err(Errno::EEXIST) if self.filled() => {}
                made => made.map_err(sys("make the directories of", path))?,
            }
            self.go_in(&name, path)?;
        }
        Ok(())
    }

    fn go_in(&mut self, name: &CStr, path: &[u8]) -> Result<()> {
        let child = self.here.here().child(name).map_err(sys("open the new", path))?;
        self.records.push(Vec::new());
        self.here.down(child).map_err(sys("open the new", path))
    }

    fn begin(&mut self) -> nix::Result<()> {
        if self.to == Format::Aufs {
            let here = self.here.here();
            mark(here, WHITEOUT)?;
            self.whiteout = Some((here.again()?, WHITEOUT.to_owned()));
        }
        Ok(())
    }

    /// May the folder have something of the base's already? A store of fuse-overlayfs begins with what it cannot copy up.
    fn filled(&self) -> bool {
        self.to.whole() || self.to == Format::FuseOverlayfs
    }

    /// Removes what a tree has by the name, if it is in the way.
    fn clear(&self, entry: &Entry<'_>) -> Result<()> {
        // A name that is shown in a message is made only where there is something: a path can be as long as the tree is deep.
        let there = || self.here.here().stat_at(entry.name).is_ok();
        if self.filled() && entry.base.is_some() && there() {
            return tree::remove(self.here.here(), entry.name, &shown(entry.path));
        }
        Ok(())
    }

    fn directory(&mut self, entry: &Entry<'_>) -> Result<()> {
        let merges = self.filled()
            && entry.change == Change::Meta
            && entry.base.is_some_and(|base| base.stat.kind == Kind::Dir)
            && self.here.here().stat_at(entry.name).is_ok();
        if !merges {
            self.clear(entry)?;
            let made = self.here.here().make_dir_as(entry.name, early(entry, 0o700));
            made.map_err(sys("make the directory", entry.path))?;
        }
        self.go_in(entry.name, entry.path)?;
        if entry.change == Change::Opaque {
            make_opaque(self.to, self.here.here()).map_err(sys("make opaque", entry.path))?;
        }
        Ok(())
    }

    fn leave(&mut self, entry: &Entry<'_>) -> Result<()> {
        if self.unmade.pop().is_some() {
            return Ok(());
        }
        let written = "write the directory";
        if let Some(text) = self.records.pop().filter(|text| !text.is_empty()) {
            let file = self.here.here().create_file(records::FILE).map_err(sys(written, entry.path))?;
            write_at(&file, &text, 0).map_err(sys(written, entry.path))?;
            self.files.add(file, 0).map_err(sys(written, entry.path))?;
        }
        let made = self.here.here().stat().map_err(sys(written, entry.path))?;
        if !entry.path.is_empty() {
            self.here.up().map_err(sys("go back from the new", entry.path))?;
        }
        match entry.node {
            Some(node) => self.meta(entry, node, Some(&made)),
            None => Ok(()),
        }
    }

    fn put(&mut self, entry: &Entry<'_>, node: Side<'_>) -> Result<()> {
        let Entry { name, path, .. } = *entry;
        self.clear(entry)?;
        let here = self.here.here();
        if self.links.again(node.stat, here, name, path).map_err(sys("link", path))? {
            return Ok(());
        }
        let mut made = None;
        match node.stat.kind {
            Kind::File => {
                let data = entry.data.unwrap_or(node);
                let mut held = None;
                let from = compare::opened(&data, &mut held).map_err(sys("open", path))?;
                let file = here.create_file_as(name, early(entry, 0o600)).map_err(sys("create", path))?;
                made = Some(Stat::of(file.as_fd()).map_err(sys("create", path))?);
                copy_content(from, data.stat, &file, path, &mut self.buffer, self.progress)?;
                self.files.add(file, data.stat.size).map_err(sys("write", path))?;
            }
            Kind::Link => {
                let target = node.dir.read_link(node.name).map_err(sys("read the link", path))?;
                // A longer one is content, but no file that can be opened (ext4_symlink(), fs/ext4/namei.c).
                if target.len() >= 60 {
                    self.files.and_more();
                }
                here.make_link(name, &target).map_err(sys("make the link", path))?;
            }
            kind => here.make_node(name, kind, node.stat.device).map_err(sys("make", path))?,
        }
        self.meta(entry, node, made.as_ref())
    }

    /// Gives the new entry what the old one carries, and the new one has not.
    fn meta(&self, entry: &Entry<'_>, node: Side<'_>, made: Option<&Stat>) -> Result<()> {
        let (stat, path) = (node.stat, entry.path);
        let (side, stored) = entry.attrs.unwrap_or((node, entry.stored));
        let mut attrs = compare::attrs(&side, if stored { self.from } else { Format::Tree })
            .map_err(sys("read the attributes of", path))?;
        for (attr, _) in attrs.iter_mut().filter(|(attr, _)| self.to.own(attr).is_some()) {
            match self.to.hidden(attr) {
                Some(hidden) => *attr = hidden,
                None => {
                    return Err(Error::failed(format_args!(
                        "{} has an attribute {} that {} would obey",
                        shown(path).display(),
                        shown(attr.to_bytes()).display(),
                        self.to.name()
                    ))
                    .way_out("remove the attribute from the view"));
                }
            }
        }
        if self.filled() {
            self.strip(entry.name, &attrs).map_err(sys("remove the attributes of", path))?;
        }
        let meta = Meta { mode: stat.mode, uid: stat.uid, gid: stat.gid, mtime: stat.mtime, attrs };
        meta.complete(self.here.here(), entry.name, stat.kind, made, path)
    }

    /// In a copy of the base, an entry may have attributes of the base's, or by a default ACL those of the folder above.
    fn strip(&self, name: &CStr, keep: &[Attr]) -> nix::Result<()> {
        let here = self.here.here();
        for old in attr::names(here, name)? {
            let part = attr::kept(old.to_bytes()) && self.to.own(&old).is_none();
            if part && keep.iter().all(|(attr, _)| *attr != old) {
                xattr::remove(&here.proc_path(name), &old)?;
            }
        }
        Ok(())
    }

    fn delete(&mut self, entry: &Entry<'_>) -> Result<()> {
        let (here, name) = (self.here.here(), entry.name);
        let failed = || sys("write the whiteout of", entry.path);
        let mut file = WH.to_vec();
        let name = match self.to {
            Format::MiniFo => return Ok(()),
            Format::Snapshot | Format::Tree => return self.clear(entry),
            Format::Overlay | Format::OverlayUser | Format::Overlayfs | Format::FuseOverlayfs => {
                self.clear(entry)?;
                name.to_owned()
            }
            Format::Aufs => {
                file.extend_from_slice(name.to_bytes());
                tree::c_name(&file)?
            }
        };
        // A link takes no inode; where it cannot be made, or no more of them, another first one is.
        if let Some((dir, first)) = &self.whiteout {
            if here.hard_link(&name, dir, first).is_ok() {
                return Ok(());
            }
        }
        if self.to == Format::Overlayfs {
            let made =
                here.make_link(&name, TARGET).and_then(|()| set_mark(self.to, here, &name, b"whiteout"));
            return made.map_err(failed());
        }
        let aufs = self.to == Format::Aufs;
        let made = if aufs { mark(here, &name) } else { here.make_node(&name, Kind::Char, (0, 0)) };
        made.map_err(failed())?;
        self.whiteout = Some((here.again().map_err(failed())?, name));
        Ok(())
    }
}

/// The permissions that an entry is made with: its own where it stays root's, so that they need not be set; else no one's but root's.
fn early(entry: &Entry<'_>, least: u32) -> u32 {
    let stat = entry.node.map(|node| node.stat).filter(|stat| (stat.uid, stat.gid) == (0, 0));
    stat.map_or(0, |stat| stat.mode & 0o777) | least
}

/// Why an entry cannot be written in a format; none where it can. An entry whose attributes the driver would obey is only found
/// when it is written.
pub fn cannot(to: Format, entry: &Entry<'_>) -> Option<&'static str> {
    let name = entry.name.to_bytes();
    let stat = entry.node.map(|node| node.stat);
    match to {
        Format::Aufs | Format::FuseOverlayfs if name.starts_with(WH) => {
            Some("names of whiteouts begin like that")
        }
        Format::Overlay | Format::OverlayUser | Format::FuseOverlayfs => stat
            .is_some_and(|stat| stat.kind == Kind::Char && stat.device == (0, 0))
            .then_some("a device 0:0 would be a whiteout there"),
        Format::MiniFo if name == records::FILE.to_bytes() => Some("the driver's own file has this name"),
        Format::MiniFo if name.contains(&b'\n') && recorded(entry) => {
            Some("the driver cannot note a name with a line's end as deleted")
        }
        Format::Aufs if name.len() > AUFS_NAME_MAX => Some("the name is too long for a whiteout"),
        Format::MiniFo | Format::Aufs | Format::Overlayfs | Format::Snapshot | Format::Tree => None,
    }
}

/// Does mini_fo want a record of it? Where the base has the name, and it does not show through.
fn recorded(entry: &Entry<'_>) -> bool {
    let (node, base) = (entry.node.map(|node| node.stat.kind), entry.base.map(|base| base.stat.kind));
    base.is_some() && (node != base || entry.change == Change::Opaque)
}

/// Sets one of the driver's attributes to `y`.
pub(super) fn set_mark(format: Format, dir: &Dir, name: &CStr, attr: &[u8]) -> nix::Result<()> {
    xattr::set(&dir.proc_path(name), &format.attr(attr)?, b"y")
}

/// Makes a new directory opaque; mini_fo has a record for it in the one above.
pub(super) fn make_opaque(format: Format, dir: &Dir) -> nix::Result<()> {
    match format {
        Format::Overlay | Format::OverlayUser | Format::Overlayfs | Format::FuseOverlayfs => {
            set_mark(format, dir, SELF, b"opaque")
        }
        Format::Aufs => mark(dir, OPAQUE),
        Format::MiniFo | Format::Snapshot | Format::Tree => Ok(()),
    }
}

/// Makes one of aufs's own files.
fn mark(dir: &Dir, name: &CStr) -> nix::Result<()> {
    match dir.create_file(name) {
        Err(Errno::EEXIST) => Ok(()),
        made => made.and_then(|_| dir.chmod(name, 0o444)),
    }
}
