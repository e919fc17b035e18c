//! Commands on a disk that has N bytes left, for a stair of N: what is seen is old or new, nothing is left over that `check`
//! finds, and with room the same command does its work.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "crash/made.rs"]
mod made;
#[path = "layer/shown.rs"]
mod shown;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use common::layers::said;
use common::node::{Node, run};
use common::require;
use common::slivers::{Saved, in_stores};
use common::tree::{assert_same, copy, installed, sh_in};
use nix::sys::statvfs::statvfs;

/// KiB that are left: a block, and each time twice as many.
const STAIR: [u64; 12] = [0, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 8192];

/// A command, and what it changes.
struct Trial<'a> {
    node: &'a Node,
    args: &'a [&'a str],
    fresh: &'a dyn Fn(),
    seen: &'a dyn Fn() -> String,
}

/// Bytes that ext4 keeps for what it notes when it writes data out: free by statfs(2), and nobody's.
fn kept(node: &Node) -> u64 {
    let device = fs::metadata(&node.lxcpath).unwrap().dev();
    let device =
        format!("/sys/dev/block/{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let name = fs::canonicalize(device).unwrap();
    let kept = Path::new("/sys/fs/ext4").join(name.file_name().unwrap()).join("reserved_clusters");
    fs::read_to_string(kept).unwrap().trim().parse::<u64>().unwrap() * 4096
}

/// Leaves so much of the disk to root.
fn leave(node: &Node, kib: u64) {
    let fill = node.lxcpath.with_file_name("fill");
    let kept = kept(node);
    let free = || {
        let disk = statvfs(&node.lxcpath).unwrap();
        (disk.blocks_free() * disk.fragment_size()).saturating_sub(kept)
    };
    // The list of the file's own pieces wants a block, too, where there are many.
    for _ in 0..2 {
        let length = fs::metadata(&fill).map_or(0, |fill| fill.len()) + free() - (kib << 10);
        let _less = Command::new("fallocate").args(["-l", &length.to_string()]).arg(&fill).output().unwrap();
    }
    assert!(free() >> 10 <= kib + 4, "{} KiB are free", free() >> 10);
}

fn empty(node: &Node) {
    let _none_yet = fs::remove_file(node.lxcpath.with_file_name("fill"));
    run(Command::new("sync").arg("-f").arg(&node.lxcpath));
}

impl Trial<'_> {
    fn check(&self, what: &str) {
        let output = self.node.run(&["check"]);
        assert!(output.status.success(), "{what}: {}", said(&output));
    }

    /// Tries the stair, up to where there is room enough.
    fn run(&self) {
        empty(self.node);
        (self.fresh)();
        let (old, stores) = ((self.seen)(), in_stores(self.node));
        self.node.ok(self.args);
        let new = (self.seen)();
        assert_ne!(old, new, "{:?}", self.args);
        let mut failed = 0;
        for kib in STAIR {
            let what = format!("{:?} with {kib} KiB left", self.args);
            empty(self.node);
            (self.fresh)();
            // What is not on the disk yet takes some of it later.
            empty(self.node);
            leave(self.node, kib);
            let output = self.node.run(self.args);
            let done = output.status.success();
            assert_same(
                &(self.seen)(),
                if done { &new } else { &old },
                &format!("{what}: {}", said(&output)),
            );
            if !done {
                failed += 1;
                let (code, said) = (output.status.code(), said(&output));
                let told = ["No space left on device", "are free", "came up read-only"]
                    .iter()
                    .any(|text| said.contains(text));
                assert!(code == Some(1) && told, "{what}: {code:?} {said}");
                assert_eq!(in_stores(self.node), stores, "{what}");
            }
            self.check(&what);
            empty(self.node);
            if !done {
                self.node.ok(self.args);
                assert_same(&(self.seen)(), &new, &format!("{what}, then again"));
                self.check(&what);
            }
            if done {
                break;
            }
        }
        assert!(failed > 0, "{:?} takes no space", self.args);
    }
}

/// A node whose sliver `s` has a file of some size, beside what [`made::node`] makes.
fn node() -> Option<Node> {
    if !require("root", common::root()) {
        return None;
    }
    let node = made::node("ext4", 64, "overlay");
    node.ok(&["mount", "s"]);
    sh_in(
        &node.view("s"),
        "head -c 150000 /dev/urandom > large; mkdir -p e/f; for n in 1 2 3 4; do cp large e/f/$n; done; rm -r d; mkdir d; echo > d/new",
    );
    node.ok(&["umount", "s"]);
    Some(node)
}

/// The stores of the node as they are now.
fn trial(node: &Node, args: &[&str]) {
    let saved = Saved::of(node);
    Trial { node, args, fresh: &|| saved.again(), seen: &|| made::seen(node) }.run();
}

#[test]
fn a_rebase() {
    let Some(node) = node() else { return };
    trial(&node, &["rebase", "s", "--onto", "c"]);
}

#[test]
fn conversions() {
    let Some(node) = node() else { return };
    for to in ["aufs", "copy", "mini_fo", "fuse-overlayfs"] {
        let saved = Saved::of(&node);
        trial(&node, &["convert", "s", "--to", to]);
        saved.again();
        run(Command::new("rm").arg("-rf").arg(node.lxcpath.with_file_name("saved")));
    }
}

/// What the base's folder and the view of `s` are, without a mount.
fn all(node: &Node) -> String {
    let list = |dir: &Path| {
        run(Command::new("find").arg(dir).args(["-maxdepth", "1", "-not", "-name", ".promised"]))
    };
    [".base", ".store", ""].map(|dir| list(&node.lxcpath.join(dir))).concat() + &made::seen(node)
}

#[test]
fn what_comes_from_elsewhere() {
    let Some(node) = node() else { return };
    let source = node.dir().join("source");
    copy(&node.dir().join("old"), &source);
    sh_in(&source, "head -c 300000 /dev/urandom > new; rm d/e; mkdir -p x/y; echo y > x/y/z");
    let layer = node.dir().join("layer.tar");
    run(Command::new("tar").arg("-cf").arg(&layer).arg("-C").arg(&source).arg("."));
    let [source, layer] = [&source, &layer].map(|path| path.to_str().unwrap());
    trial(&node, &["import", "s", layer, "--replace"]);
    run(Command::new("rm").arg("-rf").arg(node.lxcpath.with_file_name("saved")));
    if require("rsync", installed("rsync")) {
        trial(&node, &["sync", "s", source]);
    }
    for (args, back) in [
        (&["base", "add", "n", source][..], &["base", "remove", "n"][..]),
        (&["base", "add", "n", layer], &["base", "remove", "n"]),
        (&["create", "n", "--base", "b", "--backend", "overlay"], &["destroy", "n"]),
        (&["create", "n", "--base", "b", "--backend", "overlay", "--data", layer], &["destroy", "n"]),
        (&["create", "n", "--base", "b", "--backend", "overlay", "--quota", "4M"], &["destroy", "n"]),
    ] {
        let fresh = || drop(node.run(back));
        Trial { node: &node, args, fresh: &fresh, seen: &|| all(&node) }.run();
        node.ok(back);
    }
}

#[test]
fn a_layer_that_goes_out() {
    let Some(node) = node() else { return };
    let layer = node.lxcpath.with_file_name("layer.tar");
    let args = ["export", "s", "-o", layer.to_str().unwrap()];
    let seen = || {
        let disk = layer.parent().unwrap();
        let names = run(Command::new("find").arg(disk).args(["-maxdepth", "1", "-not", "-name", "fill"]));
        names
            + &fs::read(&layer).map_or("none".to_owned(), |layer| sliverfs::hash::fnv64a(&layer).to_string())
    };
    Trial { node: &node, args: &args, fresh: &|| drop(fs::remove_file(&layer)), seen: &seen }.run();
}

#[test]
fn a_copy_of_what_the_base_has() {
    let Some(node) = node() else { return };
    trial(&node, &["restore", "s", "d/e"]);
}

/// On a disk without a free block: these need none, and the view is what it was.
#[test]
fn what_needs_no_space() {
    let Some(node) = node() else { return };
    node.ok(&["mount", "s"]);
    // As it was, but copied up.
    sh_in(&node.view("s"), "touch -d @1600000000 c; touch -d @1500000000 c");
    node.ok(&["umount", "s"]);
    let before = made::seen(&node);
    leave(&node, 0);
    for args in [
        &["check"][..],
        &["diff", "s"],
        &["usage", "--deep"],
        &["mount", "s"],
        &["umount", "s"],
        &["compact", "s"],
        &["restore", "s", "b"],
    ] {
        node.ok(args);
        if args != ["restore", "s", "b"] {
            assert_same(&made::seen(&node), &before, &format!("{args:?}"));
        }
    }
    let upper = node.store("s").join("upper");
    assert!(!upper.join("c").exists() && !upper.join("b").exists() && upper.join("e/f/4").exists());
    node.ok(&["destroy", "s"]);
    node.ok(&["base", "remove", "c"]);
    node.ok(&["check"]);
}
