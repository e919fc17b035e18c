//! Commands that are killed anywhere or find the disk full, of each kind of store: what the layer engine reads of it then, the kernel
//! shows, too, where it can mount it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "crash/made.rs"]
mod made;
#[path = "layer/shown.rs"]
mod shown;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::faults::Trial;
use common::layers::{cases, sh};
use common::node::{Node, run};
use common::scripts::{Overlay, PLAIN, base};
use common::slivers::{Saved, listed};
use common::tar::Tar;
use common::tree::{Temp, assert_same, installed};
use common::{fuse, listing, require};
use made::{check, node, only, ready, seen};
use sliverfs::layer::Format;

/// The stores, and the tree of a snapshot, which only another one gives again.
struct Kept<'a> {
    saved: Saved,
    tree: Option<&'a Node>,
}

impl<'a> Kept<'a> {
    fn of(node: &'a Node) -> Self {
        let tree = node.store("s").join("tree");
        // The root of each of Btrfs's subvolumes has this number.
        let subvolume = installed("btrfs").is_ok()
            && fs::metadata(&tree).is_ok_and(|meta| std::os::unix::fs::MetadataExt::ino(&meta) == 256);
        if subvolume {
            snapshot(&tree, &node.lxcpath.with_file_name("tree"));
        }
        Self { saved: Saved::of(node), tree: subvolume.then_some(node) }
    }

    fn again(&self) {
        self.saved.again();
        if let Some(node) = self.tree {
            let tree = node.store("s").join("tree");
            run(Command::new("rm").arg("-r").arg(&tree));
            snapshot(&node.lxcpath.with_file_name("tree"), &tree);
        }
    }
}

fn snapshot(from: &Path, to: &Path) {
    run(Command::new("btrfs").args(["subvolume", "snapshot"]).arg(from).arg(to));
}

/// What the kernel showed of each view that the engine read.
struct Judge<'a> {
    node: &'a Node,
    views: RefCell<BTreeMap<String, String>>,
    turn: Cell<usize>,
}

impl Judge<'_> {
    /// Mounts it, where the kernel has the kind: a view that was seen before looks as it did then.
    fn mounted(&self, what: &str) {
        let (kind, view) =
            seen(self.node).split_once(" on ").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        if ["mini_fo", "overlayfs", "aufs"].contains(&kind.as_str()) {
            return;
        }
        // The same under another base or kind.
        let view = view.split_once('\n').unwrap().1.to_owned();
        let now = listing::uncounted(&listed(self.node, "s", false));
        let mut views = self.views.borrow_mut();
        let wanted = views.entry(view).or_insert_with(|| now.clone());
        assert_same(&now, wanted, &format!("{what}: mounted"));
    }
}

/// Tries one in so many of the calls of a command, each time judged by a mount, too.
fn trial(node: &Node, args: &[&str], each: usize) {
    let kept = Kept::of(node);
    let judge = Judge { node, views: RefCell::default(), turn: Cell::new(0) };
    judge.mounted("before");
    Trial {
        node,
        args,
        fresh: &|| kept.again(),
        seen: &|| seen(node),
        settle: &|what| {
            seen(node);
            // By turns the next command is the one that repairs, and one that does not know of it.
            judge.turn.set(judge.turn.get() + 1);
            if judge.turn.get() % 2 == 0 {
                check(node, what);
            }
            judge.mounted(what);
            check(node, what);
        },
        tidy: &|what| {
            only(node, &[&["s"], &[".old.s", "s"]], what);
            judge.mounted(what);
        },
    }
    .run_each(each);
    kept.again();
    sh("rm -rf $1/saved; [ ! -e $1/tree ] || rm -r $1/tree", &[node.lxcpath.parent().unwrap()]);
}

/// A rebase and an import on a store that is a whole tree.
fn of_a_tree(fstype: &str, mib: u64, kind: &str) {
    if !ready() || !require(kind, installed(&format!("mkfs.{fstype}"))) {
        return;
    }
    let node = node(fstype, mib, kind);
    trial(&node, &["rebase", "s", "--onto", "c"], EACH);
    let layer = node.dir().join("layer.tar");
    fs::write(&layer, Tar::default().file(b"which", b"new").file(b"d/.wh.e", b"").end()).unwrap();
    trial(&node, &["import", "s", layer.to_str().unwrap(), "--replace"], EACH);
}

/// One in so many calls is tried.
const EACH: usize = 23;

#[test]
fn a_snapshot() {
    of_a_tree("btrfs", 200, "btrfs-snapshot");
}

#[test]
fn a_reflink_on_btrfs() {
    of_a_tree("btrfs", 200, "reflink");
}

#[test]
fn a_reflink_on_xfs() {
    of_a_tree("xfs", 320, "reflink");
}

#[test]
fn a_copy() {
    of_a_tree("ext4", 64, "copy");
}

/// What a daemon serves; the commands read and write its store without it.
#[test]
fn a_store_of_a_daemon() {
    if !fuse::ready() {
        return;
    }
    of_a_tree("ext4", 64, fuse::KIND);
    if ready() {
        let node = node("ext4", 64, fuse::KIND);
        sh("cp -p $1/c $2/c; mknod $2/nothing c 0 0", &[&node.lxcpath.join(".base/b/tree"), &upper(&node)]);
        trial(&node, &["compact", "s"], EACH / 5);
        trial(&node, &["restore", "s", "b"], EACH / 5);
    }
}

fn upper(node: &Node) -> std::path::PathBuf {
    node.store("s").join("upper")
}

/// To the other kind, and back from it.
fn conversions(node: &Node, from: &str, to: &str) {
    trial(node, &["convert", "s", "--to", to], EACH);
    node.ok(&["convert", "s", "--to", to]);
    // In its own kind it is what it was, by another way.
    trial(node, &["convert", "s", "--to", from], EACH);
    node.ok(&["convert", "s", "--to", from]);
}

#[test]
fn conversions_to_unions_of_old_kernels_and_to_a_copy() {
    if ready() {
        let node = node("ext4", 64, "overlay");
        for to in ["mini_fo", "overlayfs", "copy"] {
            conversions(&node, "overlay", to);
        }
    }
}

#[test]
fn conversions_to_a_reflink() {
    if ready() && require("reflink", installed("mkfs.xfs")) {
        conversions(&node("xfs", 320, "overlay"), "overlay", "reflink");
    }
}

/// Of directories that lie anywhere: the new one is there as a whole, or not at all.
#[test]
fn conversions_of_bare_directories() {
    if !ready() {
        return;
    }
    // What it runs by; nothing of it lies on its disk.
    let node = Node::with_base("ext4", 32);
    let temp = Temp::quick();
    let (lower, first) = (temp.join("base"), temp.join("first"));
    base(&lower);
    cases(Format::Aufs, &first);
    let wanted = shown::whole(Format::Aufs, &first, &lower);
    let (mut from, mut store) = (Format::Aufs, first);
    for to in [Format::MiniFo, Format::Overlayfs, Format::Overlay, Format::MiniFo, Format::Tree] {
        let folder = temp.join(&format!("{}-of-{}", to.name(), from.name()));
        fs::create_dir(&folder).unwrap();
        let new = folder.join("new");
        let [lower_text, store_text, new_text] = [&lower, &store, &new].map(|path| path.to_str().unwrap());
        let args = [
            "convert",
            "--format",
            from.name(),
            "--base",
            lower_text,
            "--store",
            store_text,
            "--to",
            to.name(),
            "--out",
            new_text,
        ];
        Trial {
            node: &node,
            args: &args,
            fresh: &|| sh("find $1 -mindepth 1 -delete", &[&folder]),
            seen: &|| if new.exists() { shown::whole(to, &new, &lower) } else { "none".to_owned() },
            settle: &|_| (),
            tidy: &|what| {
                let mut left = fs::read_dir(&folder).unwrap().map(|one| one.unwrap().file_name());
                assert!(left.all(|name| name == "new"), "{what}");
            },
        }
        .run_each(5);
        assert_same(&shown::whole(to, &new, &lower), &wanted, to.name());
        if to == Format::Overlay {
            let view = Overlay::mount(&folder, &lower, &new, PLAIN);
            assert_same(&shown::whole(Format::Tree, &view.0, &lower), &wanted, "mounted");
        }
        (from, store) = (to, new);
    }
}
