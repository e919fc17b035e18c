//! Commands on a sliver that stands on a seed, killed anywhere or on a full disk: the view is as before or as after, and no mount and no
//! loop device stays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::path::Path;

use common::faults::Trial;
use common::layers::said;
use common::node::Node;
use common::slivers::{Saved, in_stores, listed};
use common::tar::Tar;
use common::tree::{copy, installed, sh_in};
use common::{require, seed, strace};

/// A sliver `s` that changed something, unmounted; or none where that cannot be.
fn sliver() -> Option<Node> {
    let ready = require("root", common::root())
        && require("strace", strace::works())
        && require("btrfs-seed", installed("mkfs.btrfs"));
    let node = seed::node(400).filter(|_| ready)?;
    node.ok(&["probe"]);
    seed::create(&node, "s");
    node.ok(&["mount", "s"]);
    sh_in(&node.view("s"), "echo s > etc/s; rm etc/b.txt; ln etc/s etc/t; echo a >> etc/a.txt");
    node.ok(&["umount", "s"]);
    Some(node)
}

/// What the view shows, mounted for it.
fn seen(node: &Node) -> String {
    if node.store("s").exists() { listed(node, "s", false) } else { "none".to_owned() }
}

fn repair(node: &Node, what: &str) {
    let output = node.run(&["check", "--repair"]);
    assert!(output.status.success(), "{what}: {}", said(&output));
}

fn tidy(node: &Node, what: &str) {
    let found = in_stores(node);
    assert!(found.is_empty() || found == ["s"] || found == [".old.s", "s"], "{what}: {found:?}");
    seed::is_clean(node, what);
}

/// Tries one in so many of the calls of a command that writes the store.
fn changes(node: &Node, args: &[&str], each: usize) {
    let saved = Saved::of(node);
    let container = node.lxcpath.with_file_name("container");
    let copied = |from: &Path, to: &Path| {
        let mut copy = std::process::Command::new("cp");
        common::node::run(copy.arg("-aT").arg(from).arg(to));
    };
    copied(&node.lxcpath.join("s"), &container);
    Trial {
        node,
        args,
        fresh: &|| {
            saved.again();
            copied(&container, &node.lxcpath.join("s"));
        },
        seen: &|| seen(node),
        settle: &|what| repair(node, what),
        tidy: &|what| tidy(node, what),
    }
    .run_each(each);
}

#[test]
fn an_import_and_a_destruction() {
    let Some(node) = sliver() else { return };
    let layer = node.dir().join("layer.tar");
    fs::write(&layer, Tar::default().file(b"which", b"new").file(b"etc/.wh.a.txt", b"").end()).unwrap();
    changes(&node, &["import", "s", layer.to_str().unwrap(), "--replace"], 30);
    changes(&node, &["destroy", "s"], 3);
}

#[test]
fn a_restoration() {
    let Some(node) = sliver() else { return };
    changes(&node, &["restore", "s", "etc"], 12);
}

/// What is written anew beside the old store.
#[test]
fn a_store_that_is_made_smaller_or_larger_or_synced() {
    let Some(node) = sliver() else { return };
    changes(&node, &["compact", "s"], 40);
    changes(&node, &["quota", "s", "300M"], 60);
    if require("rsync", installed("rsync")) {
        changes(&node, &["sync", "s", seed::text(&node.dir().join("tree"))], 60);
    }
}

/// One that stands on another seed, and the way back.
#[test]
fn a_rebase() {
    let Some(node) = sliver() else { return };
    let newer = node.dir().join("newer");
    copy(&node.dir().join("tree"), &newer);
    sh_in(&newer, "echo newer > etc/a.txt; echo n > etc/n; rm -r var");
    node.ok(&["base", "add", "c", seed::text(&newer), "--pack", "btrfs"]);
    changes(&node, &["rebase", "s", "--onto", "c"], 60);
}

/// What only reads a view that is up leaves it up, and makes its file whole or not at all.
#[test]
fn what_reads_a_mounted_one() {
    let Some(node) = sliver() else { return };
    node.ok(&["mount", "s"]);
    let up = seed::loops(&node).len();
    let file = node.dir().join("layer.out");
    let mounts = || fs::read_to_string("/proc/thread-self/mountinfo").unwrap().lines().count();
    let table = mounts();
    let same = |what: &str| {
        assert_eq!((seed::loops(&node).len(), mounts()), (up, table), "{what}");
        assert_eq!(seed::actual(&node, "s"), "mounted", "{what}");
        assert_eq!(in_stores(&node), ["s"], "{what}");
        let left = fs::read_dir(node.dir()).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| name.to_str().unwrap().contains("layer.out")).collect();
        assert!(left.is_empty() || left == ["layer.out"], "{what}: {left:?}");
    };
    Trial {
        node: &node,
        args: &["export", "s", "-o", file.to_str().unwrap()],
        fresh: &|| {
            let _made = fs::remove_file(&file);
        },
        seen: &|| {
            fs::read(&file).map_or("none".to_owned(), |bytes| format!("{:x}", sliverfs::hash::fnv64a(&bytes)))
        },
        settle: &|what| {
            assert_eq!(seed::actual(&node, "s"), "mounted", "{what}");
        },
        tidy: &same,
    }
    .run_each(10);
    node.ok(&["umount", "s"]);
    seed::is_clean(&node, "unmounted");
}
