//! Random edits, made in a view of the real overlay and in a plain copy of its base.
#![allow(dead_code)]

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sliverfs::sys::xattr;
use sliverfs::tree::{Dir, Kind, Time};

use super::node::run;

const EDITS: u32 = 40;
/// What sliverfs asks of overlay.
pub const PLAIN: &str = "redirect_dir=nofollow,metacopy=off";

/// Numbers that are the same for each seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    pub fn pick(&mut self, of: usize) -> usize {
        usize::try_from(self.below(of as u64)).unwrap()
    }

    /// One that is there, with a chance of three in four, or a new one in a folder that is there.
    fn path(&mut self, tree: &Path) -> PathBuf {
        let (mut all, mut folders) = (Vec::new(), vec![PathBuf::new()]);
        let mut next = 0;
        while let Some(folder) = folders.get(next).cloned() {
            let mut names: Vec<_> =
                fs::read_dir(tree.join(&folder)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            for name in names {
                let path = folder.join(name);
                if fs::symlink_metadata(tree.join(&path)).unwrap().is_dir() {
                    folders.push(path.clone());
                }
                all.push(path);
            }
            next += 1;
        }
        let folder = self.pick(folders.len());
        if all.is_empty() || self.below(4) == 0 {
            // Few names: what was deleted comes again as something else.
            return folders[folder].join(["a", "b", "n", "x y", "\u{fc}"][self.pick(5)]);
        }
        all.swap_remove(self.pick(all.len()))
    }
}

/// A base with a bit of everything, without hard links: edits make them.
pub fn base(tree: &Path) {
    run(Command::new("sh").arg("-ec").arg(
        r#"mkdir "$1"; cd "$1"; mkdir -p a/b/c d/e empty; for f in f a/f a/b/f a/b/c/f d/a d/b d/e/x; do echo "base $f" > $f; done
        ln -s f l; ln -s /etc a/l; mkfifo d/p; mknod d/null c 1 3; chmod 600 a/f; chown 5:6 d; chmod 4755 d/a; chown 7 l -h
        setfattr -n trusted.t -v 1 a; setfattr -n trusted.t -v 2 f; find . -depth -exec touch -h -d @1500000000 {} +"#,
    ).arg("sh").arg(tree));
}

/// Such a base, and a store that has all of it again.
pub fn copied(temp: &Path) -> (PathBuf, PathBuf) {
    let (lower, store) = (temp.join("base"), temp.join("store"));
    base(&lower);
    run(Command::new("cp").arg("-a").arg(&lower).arg(&store));
    (lower, store)
}

/// `cap_net_raw+ep`, as the kernel keeps it (linux/capability.h, revision 2).
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An ACL that names one user (linux/posix_acl_xattr.h).
fn acl(user: u32) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in [(1_u16, 6_u16, !0), (2, 5, user), (4, 4, !0), (0x10, 5, !0), (0x20, 4, !0)] {
        bytes.extend([tag.to_le_bytes(), rights.to_le_bytes()].concat());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Makes one edit; the error is the kernel's. What it writes gets a time of its own, which the two trees then share.
fn edit(tree: &Path, what: u64, path: &Path, other: &Path, number: u32) -> std::io::Result<()> {
    let full = tree.join(path);
    let dir = Dir::open(full.parent().unwrap())?;
    let name = CString::new(full.file_name().unwrap().as_bytes()).unwrap();
    let time = Time { seconds: 1_600_000_000 + i64::from(number), nanos: 0 };
    let stat = dir.stat_at(&name);
    let file = stat.is_ok_and(|stat| stat.kind == Kind::File);
    let link = stat.is_ok_and(|stat| stat.kind == Kind::Link);
    let refused = || std::io::Error::from_raw_os_error(nix::libc::EINVAL);
    match what {
        0 | 1 if file || stat.is_err() => {
            let mut open = OpenOptions::new();
            open.write(true).create(true).truncate(what == 0).append(what == 1);
            open.open(&full)?.write_all(format!("{number}\n").as_bytes())?;
            dir.set_mtime(&name, time)?;
        }
        2 if !link => dir.chmod(&name, [0o644, 0o4711, 0o700, 0o1777][(number % 4) as usize])?,
        3 => dir.chown(&name, number % 3, 9)?,
        4 => dir.unlink(&name)?,
        5 => dir.remove_dir(&name)?,
        6 if stat.is_ok_and(|stat| stat.kind == Kind::Dir) => fs::remove_dir_all(&full)?,
        7 | 8 => dir.make_dir(&name)?,
        9 => {
            dir.make_link(&name, format!("to {number}").as_bytes())?;
            dir.set_mtime(&name, time)?;
        }
        10 => {
            dir.make_node(&name, if number % 2 == 0 { Kind::Fifo } else { Kind::Char }, (5, 7))?;
            dir.set_mtime(&name, time)?;
        }
        11 | 12 => fs::rename(&full, tree.join(other))?,
        13 => {
            let to = tree.join(other);
            let name_there = CString::new(to.file_name().unwrap().as_bytes()).unwrap();
            Dir::open(to.parent().unwrap())?.hard_link(&name_there, &dir, &name)?;
        }
        14 if stat.is_ok() => xattr::set(&full, c"trusted.t", format!("{number}").as_bytes())?,
        15 => xattr::remove(&full, c"trusted.t")?,
        16 if stat.is_ok_and(|stat| stat.kind != Kind::Dir) => dir.set_mtime(&name, time)?,
        17 if file => xattr::set(&full, c"security.capability", CAPABILITY)?,
        18 if !link => xattr::set(&full, c"system.posix_acl_access", &acl(number))?,
        19 if stat.is_ok() => xattr::set(&full, c"system.posix_acl_default", &acl(number))?,
        20 if file => {
            OpenOptions::new().write(true).open(&full)?.set_len(u64::from(number) << 16)?;
            dir.set_mtime(&name, time)?;
        }
        _ => return Err(refused()),
    }
    Ok(())
}

/// A mount that goes with the script.
pub struct Overlay(pub PathBuf);

impl Overlay {
    pub fn mount(temp: &Path, lower: &Path, upper: &Path, extra: &str) -> Self {
        let (work, view) = (temp.join("work"), temp.join("view"));
        for dir in [&work, &view] {
            fs::create_dir_all(dir).unwrap();
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={},{extra},index=off",
            lower.display(),
            upper.display(),
            work.display()
        );
        nix::mount::mount(
            Some("none"),
            &view,
            Some("overlay"),
            nix::mount::MsFlags::empty(),
            Some(options.as_str()),
        )
        .unwrap();
        Self(view)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _gone = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// What was done: the edit, its paths and its number.
pub type Edits = Vec<(u64, PathBuf, PathBuf, u32)>;

/// The edits of a seed, in a view of `lower` over the new store, and in `plain`.
pub fn edits(temp: &Path, lower: &Path, plain: &Path, store: &Path, seed: u64) -> Edits {
    edits_of(temp, lower, plain, store, seed, 17)
}

/// As [`edits`], of so many kinds.
pub fn edits_of(temp: &Path, lower: &Path, plain: &Path, store: &Path, seed: u64, kinds: u64) -> Edits {
    let mut random = Random(seed);
    random.below(1);
    let mut done = Vec::new();
    let linked = linked(plain);
    {
        let view = Overlay::mount(temp, lower, store, PLAIN);
        for number in 0..EDITS {
            let what = random.below(kinds);
            let (path, other) = (random.path(plain), random.path(plain));
            // The view is asked first: it refuses to move the base's folders.
            if edit(&view.0, what, &path, &other, number).is_ok() {
                done.push((what, path.clone(), other.clone(), number));
                // A move to itself is none.
                if path != other || !matches!(what, 11 | 12) {
                    part(plain, &path, &linked);
                }
                edit(plain, what, &path, &other, number)
                    .unwrap_or_else(|err| panic!("seed {seed}: {done:?}: {err}"));
            }
        }
    }
    done
}

/// The inodes of several names.
fn linked(tree: &Path) -> Vec<u64> {
    let found =
        run(Command::new("find").arg(tree).args(["!", "-type", "d", "-links", "+1", "-printf", "%i\n"]));
    found.lines().map(|line| line.parse().unwrap()).collect()
}

/// What overlay copies up of the base is no name of the others any more.
fn part(tree: &Path, path: &Path, linked: &[u64]) {
    let (full, copy) = (tree.join(path), tree.join(".part"));
    if fs::symlink_metadata(&full).is_ok_and(|meta| linked.contains(&meta.ino())) {
        run(Command::new("cp").args(["-a", "--no-preserve=links"]).arg(&full).arg(&copy));
        fs::rename(&copy, &full).unwrap();
    }
}

/// Mounts that end with the thread.
pub fn own_namespace() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
}
