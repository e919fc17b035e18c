//! /proc/PID/mountinfo (proc(5)): what is mounted where, in one mount namespace.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};
use crate::hash::fnv64a;
use crate::mount::seed::FSTYPE;
use crate::sys::{file, zfs};

/// What the source of each mount that this program makes starts with; a store's path follows.
pub const SOURCE: &str = "sliverfs:";

/// The text of one mountinfo file.
pub struct MountInfo(Vec<u8>);

/// One mount. The fields are as the kernel wrote them: blanks and backslashes stand in octal.
#[derive(Clone, Copy, Debug)]
pub struct Mount<'a> {
    /// `major:minor` of the mounted file system: the st_dev of what is seen in it.
    pub device: &'a [u8],
    root: &'a [u8],
    target: &'a [u8],
    options: &'a [u8],
    /// The file-system type.
    pub fstype: &'a [u8],
    source: &'a [u8],
    super_options: &'a [u8],
}

impl MountInfo {
    /// Takes the text of a mountinfo file.
    pub fn new(text: Vec<u8>) -> Self {
        Self(text)
    }

    /// Reads the mounts of this process's namespace.
    pub fn of_self() -> Result<Self> {
        Self::read(Path::new("/proc/self/mountinfo"))
    }

    /// Reads the mounts that a mountinfo file lists.
    pub fn read(path: &Path) -> Result<Self> {
        file::read(path).at("read", path).map(Self)
    }

    /// The mounts, in the order in which they were made.
    pub fn mounts(&self) -> impl DoubleEndedIterator<Item = Mount<'_>> {
        self.0.split(|b| *b == b'\n').filter_map(parse)
    }

    /// The dataset of ZFS that a path lies in; none where that is no ZFS.
    pub fn dataset(&self, path: &Path) -> Result<Option<String>> {
        zfs::dataset(path, &self.0).at("look at", path)
    }

    /// A number that stands for the whole text.
    pub fn hash(&self) -> u64 {
        fnv64a(&self.0)
    }

    /// What is mounted on `target`: the topmost, where several lie on one another.
    pub fn at(&self, target: &Path) -> Option<Mount<'_>> {
        // Bytes, and not paths, whose comparison takes them apart: the kernel writes them in one form.
        self.mounts().rev().find(|mount| *unescape(mount.target) == *target.as_os_str().as_bytes())
    }
}

impl<'a> Mount<'a> {
    /// The mount point.
    pub fn target(&self) -> Cow<'a, Path> {
        match unescape(self.target) {
            Cow::Borrowed(bytes) => Cow::Borrowed(Path::new(OsStr::from_bytes(bytes))),
            Cow::Owned(bytes) => Cow::Owned(OsStr::from_bytes(&bytes).into()),
        }
    }

    /// The folder of the mounted file system that is seen at the mount point.
    pub fn root(&self) -> Cow<'a, [u8]> {
        unescape(self.root)
    }

    /// The source string.
    pub fn source(&self) -> Cow<'a, [u8]> {
        unescape(self.source)
    }

    /// Is it a dataset of ZFS, or a folder in one?
    pub fn is_zfs(&self) -> bool {
        zfs::is_type(self.fstype)
    }

    /// Is it the dataset that a store lies in, or a folder in it? It has the kind of name that this program gives one.
    pub fn is_dataset(&self) -> bool {
        let mut names = self.source.rsplitn(2, |byte| *byte == b'/');
        let number = names.next().and_then(|leaf| leaf.strip_prefix(b"sliverfs-"));
        self.is_zfs()
            && names.next().is_some()
            && number
                .is_some_and(|digits| digits.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-'))
    }

    /// Is it a view of this program's? A union says so in its source; a bound tree shows a folder of a store, or
    /// the one of a store's dataset.
    pub fn is_ours(&self) -> bool {
        self.source().starts_with(SOURCE.as_bytes())
            || contains(self.root, b"/.store/")
            || self.is_dataset() && (self.root == b"/tree" || self.root.starts_with(b"/tree/"))
    }

    /// The loop device below it, where it is a Btrfs on one: it may be what grew from a seed.
    pub fn loop_device(&self) -> Option<PathBuf> {
        self.loop_below().filter(|_| self.fstype == FSTYPE.as_bytes())
    }

    /// The loop device below it, of whatever type it is.
    pub fn loop_below(&self) -> Option<PathBuf> {
        let source = self.source();
        let name = source.rsplit(|b| *b == b'/').next().filter(|name| name.starts_with(b"loop"))?;
        Some(Path::new("/dev").join(OsStr::from_bytes(name)))
    }

    /// Is the mount, or the file system below it, read-only?
    pub fn read_only(&self) -> bool {
        [self.options, self.super_options]
            .iter()
            .any(|options| options.split(|b| *b == b',').any(|option| option == b"ro"))
    }
}

/// Does a text have this part?
pub fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// A line: `ID PARENT MAJ:MIN ROOT TARGET OPTIONS [TAGS…] - TYPE SOURCE SUPER_OPTIONS`.
fn parse(line: &[u8]) -> Option<Mount<'_>> {
    let mut fields = line.split(|b| *b == b' ');
    let device = fields.nth(2)?;
    let root = fields.next()?;
    let target = fields.next()?;
    let options = fields.next()?;
    fields.by_ref().find(|field| *field == b"-")?;
    let fstype = fields.next()?;
    let source = fields.next()?;
    let super_options = fields.next().unwrap_or_default();
    Some(Mount { device, root, target, options, fstype, source, super_options })
}

/// Undoes the kernel's `\ooo` (seq_path, mangle: blank, tab, newline, backslash, `#`).
fn unescape(field: &[u8]) -> Cow<'_, [u8]> {
    if !field.contains(&b'\\') {
        return Cow::Borrowed(field);
    }
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => out.push(byte),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEXT: &[u8] = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
        40 22 0:45 / /srv/l\\040x/a/rootfs rw,noatime - overlay sliverfs:/srv/l\\040x/.store/a rw,lowerdir=x\n\
        41 22 0:46 / /b rw shared:2 master:1 - overlay sliverfs:/srv/.store/b ro\n\
        garbage\n";

    #[test]
    fn folders_of_a_dataset_of_ours() {
        let ask = |root: &str, fstype: &str, source: &str, what: fn(&Mount<'_>) -> bool| {
            let text = format!("50 22 0:47 {root} /v rw - {fstype} {source} rw\n");
            what(&MountInfo(text.into_bytes()).mounts().next().unwrap())
        };
        let ours =
            |root: &str, fstype: &str| ask(root, fstype, "tank/sliverfs-2a-6", |mount| mount.is_ours());
        assert!(ours("/tree", "zfs") && ours("/tree/srv", "fuse.zfs"));
        assert!(!ours("/", "zfs") && !ours("/trees", "zfs") && !ours("/tree", "ext4"));
        let made = |source: &str| ask("/", "zfs", source, |mount| mount.is_dataset());
        assert!(made("tank/sliverfs-2a-6") && made("tank/lxc/sliverfs-2a-6"));
        // Those of the operator.
        assert!(!made("tank/sliverfs-store") && !made("sliverfs-2a") && !made("tank/sliverfs-2a-6/own"));
    }

    #[test]
    fn fields_and_escapes() {
        let info = MountInfo(TEXT.to_vec());
        assert_eq!(info.mounts().count(), 3);
        let a = info.at(Path::new("/srv/l x/a/rootfs")).unwrap();
        assert_eq!(a.device, b"0:45");
        assert_eq!(a.fstype, b"overlay");
        assert_eq!(&*a.source(), b"sliverfs:/srv/l x/.store/a");
        assert!(!a.read_only());
        assert!(info.at(Path::new("/b")).unwrap().read_only(), "the file system itself is read-only");
    }

    #[test]
    fn octal() {
        for (field, plain) in [("a\\012b", "a\nb"), ("\\134", "\\"), ("\\13", "\\13"), ("\\777", "\\777")] {
            assert_eq!(&*unescape(field.as_bytes()), plain.as_bytes());
        }
    }
}
