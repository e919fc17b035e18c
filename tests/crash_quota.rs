//! Commands on a sliver whose layers lie in an image, killed anywhere or on a full disk: the limit and the view are as before or
//! as after, and nothing stays beside the store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::process::Command;

use common::faults::Trial;
use common::layers::said;
use common::node::{Node, run};
use common::slivers::{Saved, in_stores};
use common::tree::sh_in;
use common::{listing, require, strace};

/// One in so many calls is tried: all of them take minutes.
const EACH: usize = 7;

fn ready() -> bool {
    require("root", common::root()) && require("strace", strace::works())
}

/// What the view shows, and the blocks that its disk has: of an image less than the limit, else those of the node's disk.
fn seen(node: &Node) -> String {
    if !node.store("s").exists() {
        return "none".to_owned();
    }
    node.ok(&["mount", "s"]);
    let view = node.view("s");
    let disk = run(Command::new("stat").args(["-f", "-c", "%b blocks of %S"]).arg(&view));
    let list = listing::of(&view, true);
    node.ok(&["umount", "s"]);
    disk + &list
}

/// The record says what there is, nothing else lies there, and nothing is mounted.
fn tidy(node: &Node, what: &str) {
    let found = in_stores(node);
    if found.is_empty() {
        return;
    }
    assert!(found == ["s"] || found == [".old.s", "s"], "{what}: {found:?}");
    let sheet = node.json(&["show", "s", "--json"]);
    let image = fs::metadata(node.store("s").join("quota.img")).map(|image| image.len()).ok();
    assert_eq!(sheet["limit"].as_u64(), image, "{what}: {sheet}");
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(!table.contains(node.lxcpath.join(".store").to_str().unwrap()), "{what}: {table}");
}

fn repair(node: &Node, what: &str) {
    let output = node.run(&["check", "--repair"]);
    assert!(output.status.success(), "{what}: {}", said(&output));
    if node.store("s").exists() {
        tidy(node, what);
    }
}

/// A sliver `s` with this limit, which changed something.
fn sliver(limit: &[&str]) -> Node {
    let node = Node::with_base("ext4", 64);
    node.ok(&["probe"]);
    node.ok(&[&["create", "s", "--base", "b", "--backend", "overlay"], limit].concat());
    node.ok(&["mount", "s"]);
    sh_in(&node.view("s"), "echo s > etc/s; rm etc/b.txt; ln etc/s etc/t; echo a >> etc/a.txt");
    node.ok(&["umount", "s"]);
    node
}

/// Tries a change of the limit.
fn change(from: &[&str], to: &str) {
    if ready() {
        try_on(&sliver(from), &["quota", "s", to], EACH);
    }
}

fn try_on(node: &Node, args: &[&str], each: usize) {
    let saved = Saved::of(node);
    Trial {
        node,
        args,
        fresh: &|| saved.again(),
        seen: &|| seen(node),
        settle: &|what| repair(node, what),
        tidy: &|what| tidy(node, what),
    }
    .run_each(each);
}

#[test]
fn a_creation() {
    if !ready() {
        return;
    }
    let node = sliver(&[]);
    node.ok(&["destroy", "s"]);
    Trial {
        node: &node,
        args: &["create", "s", "--base", "b", "--backend", "overlay", "--quota", "4M"],
        fresh: &|| {
            node.ok(&["destroy", "s"]);
        },
        seen: &|| seen(&node),
        settle: &|what| repair(&node, what),
        tidy: &|what| tidy(&node, what),
    }
    .run_each(EACH);
}

#[test]
fn it_grows() {
    change(&["--quota", "4M"], "12M");
}

#[test]
fn it_shrinks() {
    change(&["--quota", "12M"], "4M");
}

#[test]
fn it_begins() {
    change(&[], "4M");
}

#[test]
fn it_ends() {
    change(&["--quota", "4M"], "none");
}

/// Written anew with its limit.
#[test]
fn it_is_rebased_and_filled_anew() {
    if !ready() {
        return;
    }
    let node = sliver(&["--quota", "4M"]);
    let tree = node.dir().join("tree");
    sh_in(&tree, "echo new >etc/new");
    node.ok(&["base", "add", "c", tree.to_str().unwrap()]);
    try_on(&node, &["rebase", "s", "--onto", "c"], 3 * EACH);
    let layer = node.dir().join("layer.tar");
    run(Command::new("tar").arg("-cf").arg(&layer).arg("-C").arg(&tree).arg("etc"));
    try_on(&node, &["import", "s", layer.to_str().unwrap(), "--replace"], 3 * EACH);
}

/// Mounted with all of it, or not at all.
#[test]
fn it_is_mounted() {
    if !ready() {
        return;
    }
    let node = sliver(&["--quota", "4M"]);
    let mounted = || node.view("s").join("etc/s").exists();
    Trial {
        node: &node,
        args: &["mount", "s"],
        fresh: &|| {
            node.ok(&["umount", "s"]);
        },
        seen: &|| mounted().to_string(),
        settle: &|_| {},
        tidy: &|what| {
            let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            let store = format!(" {}", node.store("s").to_str().unwrap());
            assert_eq!(table.contains(&store), mounted(), "{what}: {table}");
        },
    }
    .run_each(EACH);
}
