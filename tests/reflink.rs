//! Copies that share, and copies that do not: on Btrfs and XFS all of a base is kept and costs nothing, where that cannot be it is
//! refused, and a disk that fills in the middle is as before. Edits are in `conformance`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use common::node::{Node, run};
use common::tree::{assert_same, full_tree};
use common::{listing, require};

const MIB: u64 = 1 << 20;

fn free(node: &Node) -> u64 {
    run(Command::new("sh").args(["-ec", "sync -f .; sync -f ."]).current_dir(&node.lxcpath));
    let text = run(Command::new("stat").args(["-f", "-c", "%a %S"]).arg(&node.lxcpath));
    text.split_whitespace().map(|word| word.parse::<u64>().unwrap()).product()
}

fn stores(node: &Node) -> usize {
    fs::read_dir(node.lxcpath.join(".store")).unwrap().count()
}

#[test]
fn all_of_a_base_is_kept_and_shared() {
    if !require("root", common::root()) {
        return;
    }
    for fstype in ["btrfs", "xfs"] {
        let node = Node::new(fstype, 320);
        let tree = node.dir().join("tree");
        full_tree(&tree, true);
        // XFS has 18 bits for a minor number.
        let script = "cd \"$0/var\"; rm ../dev/big; touch -d @1500000000 ../dev; head -c 8000000 /dev/urandom > more; touch -d @1500000000 more .";
        run(Command::new("sh").args(["-ec", script]).arg(&tree));
        node.ok(&["base", "add", "b", tree.to_str().unwrap()]);
        let before = free(&node);
        node.ok(&["create", "a", "--base", "b", "--backend", "reflink"]);
        let used = before - free(&node);
        assert!(used < 2 * MIB, "{fstype}: {used}");
        let (copy, base) = (node.store("a").join("tree"), node.lxcpath.join(".base/b/tree"));
        assert_same(&listing::of(&copy, true), &listing::of(&tree, true), fstype);
        for file in ["var/holes", "var/all-hole", "var/end-hole", "var/zeros", "var/more"] {
            let blocks = |tree: &std::path::Path| fs::metadata(tree.join(file)).unwrap().blocks();
            assert_eq!(blocks(&copy), blocks(&base), "{fstype}: {file}");
        }
        assert_eq!(node.json(&["dedupe", "--json"])["gain"], 0, "{fstype}: every extent is shared");
        node.ok(&["destroy", "a"]);
        node.ok(&["base", "verify", "b"]);
    }
}

#[test]
fn where_nothing_can_be_shared_nothing_is_copied() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 64);
    let said = node.fails(3, &["create", "a", "--base", "b", "--backend", "reflink"]);
    assert!(
        said.contains("lies on ext4, where files cannot share extents") && said.contains("reflink=1"),
        "{said}"
    );
    assert!(stores(&node) == 0 && !node.lxcpath.join("a").exists());
    // Files without checksums and files with them do not share on Btrfs: the disk can, and this folder cannot.
    let node = Node::with_base("btrfs", 256);
    node.ok(&["probe"]);
    run(Command::new("chattr").arg("+C").arg(node.lxcpath.join(".store")));
    let said = node.fails(1, &["create", "a", "--base", "b", "--backend", "reflink"]);
    assert!(said.contains("share the extents of") && said.contains("--backend copy"), "{said}");
    assert!(stores(&node) == 0 && !node.lxcpath.join("a").exists());
    node.ok(&["create", "a", "--base", "b", "--backend", "copy"]);
    node.ok(&["destroy", "a"]);
}

#[test]
fn a_disk_that_fills_in_the_middle_of_a_copy() {
    if !require("root", common::root()) {
        return;
    }
    for (fstype, mib) in [("ext4", 128), ("xfs", 320), ("btrfs", 256)] {
        let node = Node::with_base(fstype, mib);
        let tree = node.dir().join("tree");
        let script = "cd \"$0\"; for n in 1 2 3 4; do head -c 5000000 /dev/urandom > big$n; done";
        run(Command::new("sh").args(["-ec", script]).arg(&tree));
        node.ok(&["base", "add", "big", tree.to_str().unwrap()]);
        let there = free(&node) - 8 * MIB;
        let fill = node.lxcpath.join("fill");
        run(Command::new("dd")
            .args(["if=/dev/zero", "bs=1M", "status=none", "conv=fsync"])
            .args([format!("of={}", fill.display()), format!("count={}", there / MIB)]));
        node.ok(&["probe"]);
        let before = free(&node);
        assert!(before < 14 * MIB, "{fstype}: {before}");
        let said = node.fails(1, &["create", "a", "--base", "big", "--backend", "copy"]);
        assert!(said.contains("No space left") && said.contains("the disk is full"), "{fstype}: {said}");
        assert!(stores(&node) == 0 && !node.lxcpath.join("a").exists(), "{fstype}");
        assert!(free(&node) + MIB > before, "{fstype}");
        assert!(node.ok(&["list"]).is_empty());
        node.ok(&["base", "verify", "big"]);
        fs::remove_file(&fill).unwrap();
        node.ok(&["create", "a", "--base", "big", "--backend", "copy"]);
        assert_same(&listing::of(&node.store("a").join("tree"), true), &listing::of(&tree, true), fstype);
    }
}
