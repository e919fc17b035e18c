//! `convert`: the view is the same whatever kind of store it comes from.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "layer/shown.rs"]
mod shown;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::edited::{ready, sliver};
use common::node::{Node, run, small_tree};
use common::slivers::{backend, in_stores, view};
use common::tree::{assert_same, installed};
use common::{listing, require};
use sliverfs::kind::Kind;
use sliverfs::layer::Format;

/// The view of a store as the layer engine reads it, without any mount.
fn read(node: &Node, name: &str) -> String {
    let kind = Kind::parse(&backend(node, name)).unwrap();
    let format = Format::of(kind);
    let layer = node.store(name).join(if kind.reads_base() { "upper" } else { "tree" });
    shown::whole(format, &layer, &node.lxcpath.join(".base/b/tree"))
}

/// Converts a sliver of each kind to each other one.
fn pairs(node: &Node, kinds: &[&str]) {
    for from in kinds {
        for to in kinds.iter().filter(|to| *to != from) {
            let what = format!("{from} to {to}");
            let wanted = sliver(node, "s", from);
            let said = node.json(&["convert", "s", "--to", to, "--json"]);
            assert_eq!([&said["from"], &said["to"], &said["state"]], [from, to, "converted"], "{what}");
            assert_eq!(backend(node, "s"), **to, "{what}");
            assert_eq!(in_stores(node), [".old.s", "s"], "{what}: the old store is kept");
            assert_same(&view(node, "s"), &wanted, &what);
            assert_eq!(in_stores(node), ["s"], "{what}: until the new one was mounted");
            // What else is written into it.
            node.ok(&["mount", "s"]);
            fs::write(node.view("s").join("etc/dir/more"), "more").unwrap();
            node.ok(&["umount", "s"]);
            node.ok(&["destroy", "s"]);
        }
    }
    node.ok(&["base", "verify", "b"]);
}

#[test]
fn every_pair_on_ext4() {
    if ready() {
        pairs(&Node::with_base("ext4", 96), &["overlay", "copy"]);
    }
}

#[test]
fn every_pair_with_a_daemon() {
    let tools = ["fuse-overlayfs", "fusermount3"];
    if ready() && tools.iter().all(|tool| require("fuse-overlayfs", installed(tool))) {
        pairs(&Node::with_base("ext4", 96), &["fuse-overlayfs", "overlay", "copy"]);
    }
}

#[test]
fn every_pair_on_btrfs() {
    if ready() && require("btrfs-snapshot", installed("mkfs.btrfs")) {
        pairs(&Node::with_base("btrfs", 300), &["overlay", "btrfs-snapshot", "reflink", "copy"]);
    }
}

#[test]
fn every_pair_on_a_seed() {
    if !ready() || !require("btrfs-seed", installed("mkfs.btrfs")) {
        return;
    }
    let node = Node::new("ext4", 400);
    let tree = node.dir().join("tree");
    small_tree(&tree);
    node.ok(&["base", "add", "b", tree.to_str().unwrap(), "--pack", "btrfs"]);
    pairs(&node, &["btrfs-seed", "overlay", "copy"]);
}

#[test]
fn an_image_is_a_base_too() {
    if !ready() || !require("mksquashfs", installed("mksquashfs")) {
        return;
    }
    let node = Node::new("ext4", 96);
    let tree = node.dir().join("tree");
    small_tree(&tree);
    node.ok(&["base", "add", "b", tree.to_str().unwrap(), "--pack", "squashfs"]);
    pairs(&node, &["overlay", "copy"]);
}

#[test]
fn through_all_unions_and_back() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 96);
    let wanted = sliver(&node, "s", "overlay");
    let seen = read(&node, "s");
    for to in ["aufs", "overlayfs", "mini_fo", "aufs", "overlay"] {
        let output = node.run(&["convert", "s", "--to", to]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        // Kinds that this kernel lacks are written all the same, and that is told.
        assert_eq!(said.contains("does not offer"), to != "overlay", "{said}");
        assert_eq!(said.contains("no extended attributes"), to == "mini_fo", "{said}");
        assert_same(&read(&node, "s"), &seen, to);
        // The store that was mounted last is the one that is kept.
        assert_eq!(in_stores(&node), [".old.s", "s"], "{to}");
        let kept = fs::read_to_string(node.lxcpath.join(".store/.old.s/sliver.json")).unwrap();
        assert!(kept.contains("\"backend\":\"overlay\"") && !kept.contains("converted"), "{kept}");
    }
    assert_same(&view(&node, "s"), &wanted, "the view");
    assert_eq!(in_stores(&node), ["s"]);
}

/// A folder of the view that a default ACL, an attribute or a mode was taken from has not got it again from the base.
#[test]
fn what_was_taken_away_stays_away() {
    if !ready() || !require("setfacl", installed("setfacl")) {
        return;
    }
    let node = Node::new("btrfs", 300);
    let tree = node.dir().join("tree");
    small_tree(&tree);
    let marks = "setfattr -n user.mark -v 1 etc var; setfacl -d -m u:5:rwx etc; setfacl -m u:6:r etc/b.txt";
    run(Command::new("sh").args(["-ec", marks]).current_dir(&tree));
    node.ok(&["base", "add", "b", tree.to_str().unwrap()]);
    node.ok(&["create", "s", "--base", "b", "--backend", "overlay"]);
    node.ok(&["mount", "s"]);
    let edits = "setfattr -x user.mark etc; echo n > plain; mv plain etc; setfacl -b etc/b.txt; setfacl -k var; echo a > etc/with";
    run(Command::new("sh").args(["-ec", edits]).current_dir(node.view("s")));
    let wanted = listing::of(&node.view("s"), true);
    node.ok(&["umount", "s"]);
    for to in ["btrfs-snapshot", "overlay", "reflink", "copy", "overlay"] {
        node.ok(&["convert", "s", "--to", to]);
        assert_same(&view(&node, "s"), &wanted, to);
    }
}

/// A whole tree is no reason for a store that has each folder of the base.
#[test]
fn folders_that_nobody_touched_are_not_copied_up() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 96);
    node.ok(&["create", "s", "--base", "b", "--backend", "copy"]);
    fs::write(node.store("s").join("tree/var/deep/er/new"), "n").unwrap();
    for to in ["overlay", "copy", "mini_fo"] {
        node.ok(&["convert", "s", "--to", to]);
    }
    let found =
        run(Command::new("find").args([".", "-mindepth", "1"]).current_dir(node.store("s").join("upper")));
    let mut found: Vec<&str> = found.lines().collect();
    found.sort_unstable();
    assert_eq!(found, ["./var", "./var/deep", "./var/deep/er", "./var/deep/er/new"]);
}

/// As many names as in the base are not the same ones.
#[test]
fn a_name_that_went_and_one_that_came() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 96);
    node.ok(&["create", "s", "--base", "b", "--backend", "copy"]);
    let edits = "ln etc/a.txt etc/zz; rm etc/a.hard; touch -d @1500000000 etc";
    run(Command::new("sh").args(["-ec", edits]).current_dir(node.store("s").join("tree")));
    let wanted = listing::uncounted(&view(&node, "s"));
    assert!(
        wanted.lines().any(|line| line.starts_with("etc/zz ") && line.contains(" with etc/a.txt ")),
        "{wanted}"
    );
    let told = node.ok(&["diff", "s"]);
    assert!(told.lines().any(|line| line.contains("etc/a.txt") && line.contains("links")), "{told}");
    for to in ["overlay", "copy"] {
        node.ok(&["convert", "s", "--to", to]);
        assert_same(&listing::uncounted(&view(&node, "s")), &wanted, to);
    }
}

#[test]
fn bare_directories() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 96);
    let wanted = sliver(&node, "s", "overlay");
    let base = node.lxcpath.join(".base/b/tree");
    let (mut format, mut store) = ("overlay", node.store("s").join("upper"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    for to in ["mini_fo", "tree", "overlayfs", "aufs", "overlay-userxattr", "tree"] {
        let out = node.lxcpath.join(format!("{to}-of-{format}"));
        let (base, from, new) = (text(&base), text(&store), text(&out));
        let args =
            ["convert", "--format", format, "--base", &base, "--store", &from, "--to", to, "--out", &new];
        node.ok(&[&args[..], &["--dry-run"]].concat());
        assert!(!out.exists());
        // What a run that was killed left.
        fs::create_dir(node.lxcpath.join(format!(".sliverfs-new.{to}-of-{format}"))).unwrap();
        node.ok(&args);
        assert!(node.fails(2, &args).contains("there already"));
        (format, store) = (to, out);
    }
    assert_same(&listing::of(&store, true), &wanted, "the tree");
    let lxcpath = fs::read_dir(&node.lxcpath).unwrap();
    let hidden =
        lxcpath.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("new"));
    assert_eq!(hidden.count(), 0);
    node.fails(2, &["convert", "--format", "aufs", "--base", "/", "--to", "tree"]);
}

/// An empty store is one, too.
#[test]
fn a_sliver_that_was_never_mounted() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 64);
    node.ok(&["create", "s", "--base", "b", "--backend", "overlay"]);
    node.ok(&["convert", "s", "--to", "copy"]);
    assert_same(&view(&node, "s"), &listing::of(&node.dir().join("tree"), true), "nothing was changed");
}
