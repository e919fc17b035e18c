//! The same random edits in a view of the real overlay and in a plain copy of its base: the engine reads the store as the plain
//! tree, and so it does after every conversion. `SLIVERFS_SEED=N` runs the script N alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "layer/shown.rs"]
mod shown;

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::node::run;
use common::require;
use common::tree::{Temp, assert_same};
use sliverfs::layer::Format;
use sliverfs::sys::xattr;
use sliverfs::tree::{Dir, Kind, Time};

const SCRIPTS: u64 = 250;
const EDITS: u32 = 40;
/// What sliverfs asks of overlay.
const PLAIN: &str = "redirect_dir=nofollow,metacopy=off";

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn pick(&mut self, of: usize) -> usize {
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

fn base(tree: &Path) {
    run(Command::new("sh").arg("-ec").arg(
        r#"mkdir "$1"; cd "$1"; mkdir -p a/b/c d/e empty; for f in f a/f a/b/f a/b/c/f d/a d/b d/e/x; do echo "base $f" > $f; done
        ln -s f l; ln -s /etc a/l; mkfifo d/p; mknod d/null c 1 3; chmod 600 a/f; chown 5:6 d; chmod 4755 d/a; chown 7 l -h
        setfattr -n trusted.t -v 1 a; setfattr -n trusted.t -v 2 f; find . -depth -exec touch -h -d @1500000000 {} +"#,
    ).arg("sh").arg(tree));
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
        _ => return Err(refused()),
    }
    Ok(())
}

/// A mount that goes with the script.
struct Overlay(PathBuf);

impl Overlay {
    fn mount(temp: &Path, lower: &Path, upper: &Path, extra: &str) -> Self {
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

fn script(temp: &Path, lower: &Path, seed: u64) {
    let here = temp.join(seed.to_string());
    let (plain, store) = (here.join("plain"), here.join("upper"));
    fs::create_dir_all(&store).unwrap();
    run(Command::new("cp").arg("-a").arg(lower).arg(&plain));
    let mut random = Random(seed);
    random.below(1);
    let mut done = Vec::new();
    {
        let view = Overlay::mount(&here, lower, &store, PLAIN);
        for number in 0..EDITS {
            let what = random.below(17);
            let (path, other) = (random.path(&plain), random.path(&plain));
            // The view is asked first: it refuses to move the base's folders.
            if edit(&view.0, what, &path, &other, number).is_ok() {
                done.push((what, path.clone(), other.clone(), number));
                edit(&plain, what, &path, &other, number)
                    .unwrap_or_else(|err| panic!("seed {seed}: {done:?}: {err}"));
            }
        }
    }
    let wanted = shown::whole(Format::Tree, &plain, lower);
    let same = |format: Format, store: &Path, what: &str| {
        assert_same(&shown::whole(format, store, lower), &wanted, &format!("seed {seed}: {done:?}: {what}"));
    };
    same(Format::Overlay, &store, "the store");
    let applied = here.join("applied");
    run(Command::new("cp").arg("-a").arg(lower).arg(&applied));
    shown::apply(Format::Overlay, &store, lower, &applied).unwrap();
    same(Format::Tree, &applied, "made in a copy of the base");
    let mut from = (Format::Overlay, store);
    // Each from the one before it, and so the last one has been all of them.
    for to in
        [Format::Aufs, Format::Overlayfs, Format::MiniFo, Format::Tree, Format::OverlayUser, Format::Overlay]
    {
        let new = here.join(format!("as-{}", to.name()));
        shown::convert(from.0, &from.1, lower, to, &new)
            .unwrap_or_else(|err| panic!("seed {seed}: {done:?}: to {}: {err}", to.name()));
        same(to, &new, to.name());
        from = (to, new);
    }
    // And the kernel sees it, too.
    let view = Overlay::mount(&here, lower, &from.1, PLAIN);
    same(Format::Tree, &view.0, "the converted store, mounted");
    drop(view);
    fs::remove_dir_all(&here).unwrap();
}

/// Mounts that end with the thread.
fn own_namespace() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
}

#[test]
fn a_store_is_read_as_the_tree_that_the_same_edits_make() {
    if !require("root", common::root()) {
        return;
    }
    own_namespace();
    let temp = Temp::quick();
    let lower = temp.join("base");
    base(&lower);
    match std::env::var("SLIVERFS_SEED") {
        Ok(seed) => script(&temp.0, &lower, seed.parse().unwrap()),
        Err(_) => (1..=SCRIPTS).for_each(|seed| script(&temp.0, &lower, seed)),
    }
}

/// What this program asks the kernel not to do, others did not: folders that were moved, files without their content. Read while
/// the view is mounted.
#[test]
fn redirects_and_metacopies_of_a_real_kernel() {
    if !require("root", common::root()) {
        return;
    }
    own_namespace();
    let temp = Temp::quick();
    let (lower, store) = (temp.join("base"), temp.join("upper"));
    base(&lower);
    fs::create_dir(&store).unwrap();
    let view = Overlay::mount(&temp.0, &lower, &store, "redirect_dir=on,metacopy=on");
    run(Command::new("sh").arg("-ec").arg(
        r#"cd "$1"; mv a moved; mv moved/b d/b2; chmod 640 d/b2/f moved/f; mv d/b2/f renamed; rm d/b2/c/f; echo new > moved/new
        chmod 700 d/a; mv d/e d/e2; mkdir a; echo other > a/f; mv moved/l a/l; ln f hard; chown 3 f; touch -h -d @1600000000 renamed"#,
    ).arg("sh").arg(&view.0));
    let mut from = Vec::new();
    shown::walk(Format::Overlay, &store, &lower, sliverfs::layer::Show::Changes, |entry| {
        assert_eq!(entry.doubt, None, "{}", shown::escape(entry.path));
        from.extend(entry.from.map(|from| format!("{} {}", shown::escape(entry.path), shown::escape(from))));
    });
    assert_eq!(from, ["d/b2 /a/b", "d/e2 e", "f /f", "hard /f", "moved a", "renamed /a/b/f"]);
    let wanted = shown::whole(Format::Tree, &view.0, &lower);
    assert_same(&shown::whole(Format::Overlay, &store, &lower), &wanted, "the store");
    for to in Format::ALL {
        let new = temp.join(to.name());
        shown::convert(Format::Overlay, &store, &lower, to, &new).unwrap();
        assert_same(&shown::whole(to, &new, &lower), &wanted, to.name());
    }
    let applied = temp.join("applied");
    run(Command::new("cp").arg("-a").arg(&lower).arg(&applied));
    shown::apply(Format::Overlay, &store, &lower, &applied).unwrap();
    assert_same(&shown::whole(Format::Tree, &applied, &lower), &wanted, "made in a copy of the base");
}

/// An overlay in the view (a container in the sliver) has marks of its own, which the kernel keeps under other names (6.7).
#[test]
fn an_overlay_in_an_overlay() {
    if !require("root", common::root()) {
        return;
    }
    own_namespace();
    let temp = Temp::quick();
    let (lower, store) = (temp.join("base"), temp.join("upper"));
    base(&lower);
    fs::create_dir(&store).unwrap();
    let view = Overlay::mount(&temp.0, &lower, &store, PLAIN);
    let marked = run(Command::new("sh").arg("-c").arg(
        r#"cd "$1"; setfattr -n trusted.overlay.opaque -v y a/b && setfattr -n trusted.overlay.x -v 1 f && echo yes"#,
    ).arg("sh").arg(&view.0));
    if !require(
        "overlay",
        if marked.is_empty() {
            Err("this kernel's overlay keeps none of another's marks".into())
        } else {
            Ok(())
        },
    ) {
        return;
    }
    let wanted = shown::whole(Format::Tree, &view.0, &lower);
    assert!(
        wanted.contains("trusted.overlay.opaque=y") && wanted.contains("trusted.overlay.x=1"),
        "{wanted}"
    );
    drop(view);
    assert_same(&shown::whole(Format::Overlay, &store, &lower), &wanted, "the store");
    for to in Format::ALL {
        let new = temp.join(to.name());
        let done = shown::convert(Format::Overlay, &store, &lower, to, &new);
        if matches!(to, Format::Overlayfs | Format::FuseOverlayfs) {
            let said = done.unwrap_err();
            assert!(said.contains("has an attribute trusted.overlay.opaque that "), "{said}");
            continue;
        }
        done.unwrap();
        assert_same(&shown::whole(to, &new, &lower), &wanted, to.name());
    }
    let view = Overlay::mount(&temp.0, &lower, &temp.join("overlay"), PLAIN);
    assert_same(&shown::whole(Format::Tree, &view.0, &lower), &wanted, "the converted store, mounted");
}

/// A daemon's view, which ends with the test.
struct Fuse(PathBuf);

impl Fuse {
    fn serve(temp: &Path, lower: &Path, upper: &Path) -> Self {
        let (work, view) = (temp.join("fuse-work"), temp.join("fuse-view"));
        for dir in [&work, &view] {
            fs::create_dir_all(dir).unwrap();
        }
        let layers =
            format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        let mut command = Command::new("fuse-overlayfs");
        command.arg("-o").arg(layers).arg(&view).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().unwrap().success());
        Self(view)
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        let _gone = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// fuse-overlayfs marks folders as overlay and as aufs do, both at once.
#[test]
fn a_store_of_fuse_overlayfs() {
    if !require("fuse-overlayfs", common::tree::installed("fuse-overlayfs").and(common::root())) {
        return;
    }
    own_namespace();
    let temp = Temp::new();
    let (lower, store) = (temp.join("base"), temp.join("upper"));
    base(&lower);
    fs::create_dir(&store).unwrap();
    let view = Fuse::serve(&temp.0, &lower, &store);
    run(Command::new("sh").arg("-ec").arg(
        r#"cd "$1"; rm -r a/b; mkdir a/b; echo new > a/b/n; rm -r d/e; echo file > d/e; echo more >> f; ln f hard; rm d/a
        mkdir new; echo x > new/x; chmod 700 empty; rm l; setfattr -n user.x -v 1 d/b"#,
    ).arg("sh").arg(&view.0));
    drop(view);
    // Served anew: what was just written still has the time that the kernel gave it, and the store the daemon's.
    let view = Fuse::serve(&temp.0, &lower, &store);
    let wanted = shown::whole(Format::Tree, &view.0, &lower);
    assert_same(&shown::whole(Format::FuseOverlayfs, &store, &lower), &wanted, "while it is served");
    drop(view);
    shown::walk(Format::FuseOverlayfs, &store, &lower, sliverfs::layer::Show::Changes, |entry| {
        assert_eq!(entry.doubt, None, "{}", shown::escape(entry.path));
    });
    for to in Format::ALL {
        let new = temp.join(to.name());
        shown::convert(Format::FuseOverlayfs, &store, &lower, to, &new).unwrap();
        assert_same(&shown::whole(to, &new, &lower), &wanted, to.name());
    }
    let view = Fuse::serve(&temp.0, &lower, &temp.join("fuse-overlayfs"));
    assert_same(&shown::whole(Format::Tree, &view.0, &lower), &wanted, "the converted store, served");
}
