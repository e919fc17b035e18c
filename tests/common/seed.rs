//! Nodes with a base that is a Btrfs seed, and what must be gone afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::busy::until;
use super::node::{Node, run, small_tree};
use super::require;
use super::tree::installed;

/// A node with a base `b` that is a seed.
pub fn node(mib: u64) -> Option<Node> {
    let ready = require("root", super::root())
        && ["mkfs.btrfs", "btrfstune"].iter().all(|tool| require("btrfs-seed", installed(tool)));
    ready.then(|| {
        let node = Node::new("ext4", mib);
        let tree = node.dir().join("tree");
        small_tree(&tree);
        node.ok(&["base", "add", "b", text(&tree), "--pack", "btrfs"]);
        node
    })
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn image(node: &Node) -> PathBuf {
    node.lxcpath.join(".base/b/image.btrfs")
}

pub fn create(node: &Node, name: &str) {
    node.ok(&["create", name, "--base", "b", "--backend", "btrfs-seed", "--size", "256M"]);
}

/// The loop devices over files of this node's bases and stores.
pub fn loops(node: &Node) -> Vec<String> {
    let all = run(Command::new("losetup").args(["-nO", "NAME,BACK-FILE"]));
    let ours = [".base", ".store"].map(|dir| node.lxcpath.join(dir).to_str().unwrap().to_owned());
    all.lines().filter(|line| ours.iter().any(|dir| line.contains(dir))).map(str::to_owned).collect()
}

/// No loop device of this node's is left, nor a mount below its LXCPATH.
pub fn is_clean(node: &Node, when: &str) {
    // Another test's program that looks at all loop devices may have one of them open at this moment.
    until(&format!("{when}: a loop device is left"), || loops(node).is_empty());
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let left: Vec<_> = mounts.lines().filter(|line| line.contains(text(&node.lxcpath))).collect();
    assert!(left.is_empty(), "{when}: {left:?}");
}

pub fn actual(node: &Node, name: &str) -> String {
    let list = node.json(&["list", "--json"]);
    let row = list.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap();
    row["actual"].as_str().unwrap().to_owned()
}
