//! The same random edits in a view of the real overlay and in a plain copy of its base: the engine reads the store as the plain
//! tree, and so it does after every conversion. `SLIVERFS_SEED=N` runs the script N alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "layer/shown.rs"]
mod shown;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::node::run;
use common::require;
use common::scripts::{Overlay, PLAIN, base, edits, own_namespace};
use common::tree::{Temp, assert_same};
use sliverfs::layer::Format;

const SCRIPTS: u64 = 250;
/// As many of them are exported and imported, too.
const LAYERS: u64 = 40;

fn script(temp: &Path, lower: &Path, seed: u64) {
    let here = temp.join(seed.to_string());
    let (plain, store) = (here.join("plain"), here.join("upper"));
    fs::create_dir_all(&store).unwrap();
    run(Command::new("cp").arg("-a").arg(lower).arg(&plain));
    let done = edits(&here, lower, &plain, &store, seed);
    let wanted = shown::whole(Format::Tree, &plain, lower);
    let same = |format: Format, store: &Path, what: &str| {
        assert_same(&shown::whole(format, store, lower), &wanted, &format!("seed {seed}: {done:?}: {what}"));
    };
    same(Format::Overlay, &store, "the store");
    let applied = here.join("applied");
    run(Command::new("cp").arg("-a").arg(lower).arg(&applied));
    shown::apply(Format::Overlay, &store, lower, &applied).unwrap();
    same(Format::Tree, &applied, "made in a copy of the base");
    if seed <= LAYERS {
        shown::layer(Format::Overlay, &store, lower, &here.join("layer")).unwrap();
        same(Format::Aufs, &here.join("layer"), "out of an OCI layer");
    }
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
