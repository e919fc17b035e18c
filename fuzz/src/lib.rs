//! What the targets share: rooms in memory, stores and archives made of a fuzzer's bytes.

use std::cell::RefCell;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use sliverfs::archive::{self, Content, Fault, Policy, Stream};
use sliverfs::layer::{Changes, Format, Show, Step};
use sliverfs::progress::Progress;
use sliverfs::sys::xattr;
use sliverfs::tree::{self, Dir, Kind};

#[path = "../../tests/layer/shown.rs"]
pub mod shown;

/// The formats in the order of an input's first byte.
pub const FORMATS: [Format; 8] = Format::ALL;

/// What lies in the recorded stores' base beside another name of its sort.
const LIKE_OTHERS: [&str; 20] = [
    "append.txt",
    "back\\slash",
    "chmod.txt",
    "chown.txt",
    "d2f",
    "del.txt",
    "dirchmod",
    "dirren",
    "etc/passwd",
    "f2d",
    "over_dst.txt",
    "over_src.txt",
    "ren.txt",
    "sp ace.txt",
    "sp dir",
    "symdel",
    "tab\tname",
    "touch.txt",
    "trunc.txt",
    "uml-ü.txt",
];

/// A folder in memory, with the recorded stores' base in it. Each process has its own.
pub struct Room(PathBuf);

impl Room {
    fn new() -> Self {
        // Bytes of a fuzzer's make devices and marks of union file systems.
        assert!(nix_is_root(), "only root can fuzz this");
        let path = std::env::var_os("SLIVERFS_FUZZ_ROOM").map_or_else(
            || PathBuf::from(format!("/dev/shm/sliverfs-fuzz-{}", std::process::id())),
            PathBuf::from,
        );
        let _from_an_earlier_process = tree::remove_path(&path);
        for folder in ["base", "store"] {
            fs::create_dir_all(path.join(folder)).unwrap();
        }
        let tar = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/base.tar");
        let Content::Tar(mut tar) = archive::open(&tar, &progress()).unwrap() else { panic!("no tar") };
        archive::unpack(&mut *tar, &tree::open(&path.join("base")).unwrap(), Policy::NewTree).unwrap();
        // Each walk goes through all of it, some ten times for an input: a name of each sort is enough.
        for name in LIKE_OTHERS {
            tree::remove_path(&path.join("base").join(name)).unwrap();
        }
        Self(path)
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The base.
    pub fn base(&self) -> PathBuf {
        self.join("base")
    }

    /// A folder by the name, empty.
    pub fn empty(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        tree::remove_path(&path).unwrap();
        fs::create_dir(&path).unwrap();
        path
    }

    /// What lies in it: nothing that is told to stay in a folder of it adds to that.
    pub fn names(&self) -> Vec<CString> {
        tree::open(&self.0).unwrap().names().unwrap()
    }
}

fn nix_is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

impl Drop for Room {
    fn drop(&mut self) {
        let _gone = tree::remove_path(&self.0);
    }
}

thread_local! {
    static ROOM: RefCell<Option<Room>> = const { RefCell::new(None) };
}

/// Works in this process's room. libFuzzer ends a process without destructors: tests/fuzz removes what is left.
pub fn with_room(work: impl FnOnce(&Room)) {
    ROOM.with(|room| work(room.borrow_mut().get_or_insert_with(Room::new)));
}

pub fn progress() -> Rc<Progress> {
    Rc::new(Progress::new("reading", None))
}

/// Makes a store of records with a NUL behind each, their fields parted by tabs:
/// `d PATH`, `f PATH CONTENT`, `l PATH TARGET`, `c PATH MAJOR MINOR`, `p PATH`, `x PATH NAME VALUE`, `h PATH OLD`, `b PATH BASE` (a copy of
/// the base's file). What cannot be made is left out.
pub fn store(room: &Room, folder: &Path, bytes: &[u8]) {
    for record in bytes.split(|b| *b == 0).take(64) {
        let mut fields = record.split(|b| *b == b'\t');
        let (Some(what), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (first, second) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let Some((dir, name)) = place(folder, path) else { continue };
        match what {
            b"d" => drop(dir.make_dir(&name)),
            b"f" => drop(dir.create_file(&name).map(|mut file| std::io::Write::write_all(&mut file, first))),
            b"l" if !first.is_empty() => drop(dir.make_link(&name, first)),
            b"c" => drop(dir.make_node(&name, Kind::Char, (number(first), number(second)))),
            b"p" => drop(dir.make_node(&name, Kind::Fifo, (0, 0))),
            b"x" => {
                if let Ok(attr) = CString::new(first) {
                    let _unknown = xattr::set(&dir.proc_path(&name), &attr, second);
                }
            }
            b"h" => {
                if let Some((old, target)) = place(folder, first) {
                    let _missing = dir.hard_link(&name, &old, &target);
                }
            }
            b"b" => {
                if let Some((old, target)) = place(&room.base(), first) {
                    copy(&old, &target, &dir, &name);
                }
            }
            _ => {}
        }
    }
}

fn number(digits: &[u8]) -> u64 {
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// A file of the base's as a driver copies it up.
fn copy(old: &Dir, target: &CString, dir: &Dir, name: &CString) {
    let Ok(stat) = old.stat_at(target) else { return };
    if stat.kind != Kind::File {
        return;
    }
    let (Ok(mut from), Ok(mut to)) = (old.open_file(target, &stat), dir.create_file(name)) else { return };
    std::io::copy(&mut from, &mut to).unwrap();
    tree::Meta::read(old, target, &stat, None, b"").unwrap().apply(dir, name, Kind::File, b"").unwrap();
}

/// The folder that a path leads to, and its last name; none where it leads out of `root`, or through a link.
fn place(root: &Path, path: &[u8]) -> Option<(Dir, CString)> {
    let mut dir = tree::open(root).ok()?;
    let mut parts = path.split(|b| *b == b'/').peekable();
    while let Some(part) = parts.next() {
        let name = CString::new(part).ok().filter(|_| !matches!(part, b"" | b"." | b".."))?;
        if parts.peek().is_none() {
            return Some((dir, name));
        }
        dir = dir.child(&name).ok()?;
    }
    None
}

/// Walks through all of a store; the number of entries that its format does not explain. None where the walk refuses it.
pub fn walk(format: Format, store: &Path, base: &Path, show: Show) -> Option<u64> {
    let base = tree::open(base).unwrap();
    let mut changes = Changes::new(format, tree::open(store).unwrap(), &base, show).ok()?;
    let (mut doubts, mut depth) = (0, 0_usize);
    while let Some(step) = changes.step().ok()? {
        match step {
            Step::Entry(entry) => {
                doubts += u64::from(entry.doubt.is_some());
                assert!(!entry.path.split(|b| *b == b'/').any(|part| part == b".."));
                let enters =
                    matches!(entry.change, sliverfs::layer::Change::Meta | sliverfs::layer::Change::Opaque);
                depth += usize::from(enters);
                changes.enter().ok()?;
            }
            Step::Leave(_) => depth = depth.checked_sub(1).unwrap(),
        }
    }
    assert_eq!(depth, 0);
    Some(doubts)
}

/// A tar out of memory. Checksums of headers are made right, or the fuzzer would get behind none of them.
pub struct Tar {
    bytes: Vec<u8>,
    at: usize,
}

impl Tar {
    pub fn new(bytes: &[u8]) -> Self {
        let mut bytes = bytes.to_vec();
        for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        Self { bytes, at: 0 }
    }
}

impl Stream for Tar {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let left = &self.bytes[self.at..];
        // Odd pieces, as a pipe gives them.
        let most = left.len().min(buffer.len()).min(700);
        buffer[..most].copy_from_slice(&left[..most]);
        self.at += most;
        Ok(most)
    }
}

/// A file with these bytes in it.
pub fn file(room: &Room, name: &str, bytes: &[u8]) -> PathBuf {
    let path = room.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// A path of bytes.
pub fn path(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// Reads a stream to its end, or to as much as no input of a few KiB should hold a fuzzer up with.
pub fn drain(stream: &mut dyn Stream) {
    let (mut buffer, mut all) = (vec![0; 1 << 16], 0);
    while let Ok(got) = stream.read(&mut buffer) {
        all += got;
        if got == 0 || all > 32 << 20 {
            break;
        }
    }
}
