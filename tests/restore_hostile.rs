//! `restore` in the store of a hostile tenant: nothing is followed, and what he called as our own files are called stays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "layer/shown.rs"]
mod shown;

use std::fs;

use common::layers::{bare, said, sh};
use common::node::Node;
use common::require;
use common::scripts::base;
use common::tree::{Temp, assert_same};
use sliverfs::layer::Format;

/// A store that is a whole tree, or was taken out of a node, may hold a journal that its tenant wrote.
#[test]
fn a_journal_of_a_tenant_leads_nowhere() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::quick();
    sh(
        "cd $1; mkdir base outside; echo x > base/f; echo good > outside/secret; mkdir outside/dir",
        &[&temp.join(".")],
    );
    let (base, store) = (temp.join("base"), temp.join("store"));
    for journal in [
        "printf 'P ../outside/secret\\n' > $1/.sliverfs-journal",
        "printf 'D ../outside/dir\\n' > $1/.sliverfs-journal",
        "printf 'P ..\\n' > $1/.sliverfs-journal",
        "printf 'P not/there\\n' > $1/.sliverfs-journal",
        "ln -s ../outside $1/link; printf 'P link/secret\\n' > $1/.sliverfs-journal",
        "printf 'P a\\0b\\n' > $1/.sliverfs-journal",
        "mkdir $1/.sliverfs-journal",
        "mkfifo $1/.sliverfs-journal",
        "truncate -s 1T $1/.sliverfs-journal",
    ] {
        for format in [Format::Overlay, Format::MiniFo, Format::Tree] {
            sh(
                "mkdir -p $1/.sliverfs-new/dir; echo bad > $1/.sliverfs-new/secret; cp $2/f $1",
                &[&store, &base],
            );
            sh(journal, &[&store]);
            let output = bare("restore", format, &base, &store, &["f"]);
            assert!(output.status.success(), "{journal}: {}", said(&output));
            assert_eq!(fs::read(temp.join("outside/secret")).unwrap(), b"good\n", "{journal}");
            assert!(temp.join("outside/dir").exists(), "{journal}");
            assert!(!store.join(".sliverfs-journal").exists(), "{journal}");
            fs::remove_dir_all(&store).unwrap();
        }
    }
}

/// The same of a sliver that is a copy of its base, with what the next mount does by itself.
#[test]
fn a_tenant_leads_no_mount_out_of_his_tree() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 32);
    node.ok(&["create", "a", "--base", "b", "--backend", "copy"]);
    node.ok(&["mount", "a"]);
    sh(
        "echo good > $1/secret; cd $1/a/rootfs; mkdir .sliverfs-new; echo bad > .sliverfs-new/secret; \
         printf 'P ../../../secret\\n' > .sliverfs-journal",
        &[&node.lxcpath],
    );
    node.ok(&["umount", "a"]);
    node.ok(&["mount", "a"]);
    assert_eq!(fs::read(node.lxcpath.join("secret")).unwrap(), b"good\n");
    node.ok(&["umount", "a"]);
}

/// What cannot be removed of what the tenant had there is told: the path is the base's all the same, and the sliver can be mounted.
#[test]
fn what_is_immutable_keeps_no_sliver_down() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 32);
    for kind in ["overlay", "copy"] {
        node.ok(&["create", "a", "--base", "b", "--backend", kind]);
        node.ok(&["mount", "a"]);
        sh("echo mine > $1/etc/dir/mine", &[&node.view("a")]);
        node.ok(&["umount", "a"]);
        // overlay keeps the flag that a tenant sets to itself; what is bound sets it on the disk.
        sh("cd $1; chattr +i [ut]*/etc/dir/mine", &[&node.store("a")]);
        let output = node.run(&["restore", "a", "etc/dir"]);
        assert!(output.status.success() && said(&output).contains("chattr -i"), "{kind}: {}", said(&output));
        let output = node.run(&["mount", "a"]);
        assert!(output.status.success() && said(&output).contains("chattr -i"), "{kind}: {}", said(&output));
        assert!(!node.view("a").join("etc/dir/mine").exists());
        assert_eq!(fs::read_to_string(node.view("a").join("etc/dir/c.txt")).unwrap(), "three\n");
        node.ok(&["umount", "a"]);
        assert!(node.fails(1, &["restore", "a", "etc/dir/c.txt"]).contains("chattr -i"));
        assert!(node.fails(1, &["check", "--repair"]).contains("could not be put right"));
        sh("chattr -i $1/.sliverfs-old/mine", &[&node.store("a")]);
        node.ok(&["check", "--repair"]);
        node.ok(&["check"]);
        node.ok(&["destroy", "a"]);
    }
}

/// What a tenant calls as our own files are called stays, whatever is done with the sliver.
#[test]
fn names_of_a_tenant_stay() {
    if !require("root", common::root()) {
        return;
    }
    for (fstype, mib, kind) in
        [("ext4", 32, "copy"), ("btrfs", 128, "btrfs-snapshot"), ("btrfs", 128, "reflink")]
    {
        let node = Node::with_base(fstype, mib);
        node.ok(&["create", "a", "--base", "b", "--backend", kind]);
        node.ok(&["mount", "a"]);
        sh(
            "cd $1; mkdir .sliverfs-new .sliverfs-old .sliverfs-room-0; echo mine > .sliverfs-new/etc; echo mine > .sliverfs-room-0/f; \
             echo 'P etc' > .sliverfs-journal; echo .sliverfs-old > .sliverfs-room; echo mine > .sliverfs-records; \
             rm -r etc; mkdir etc; echo mine > etc/mine; touch -d @1500000000 .",
            &[&node.view("a")],
        );
        node.ok(&["umount", "a"]);
        let tree = node.store("a").join("tree");
        let all = || common::listing::of(&tree, true);
        let before = all();
        node.ok(&["check", "--repair"]);
        node.ok(&["mount", "a"]);
        node.ok(&["umount", "a"]);
        assert_same(&all(), &before, kind);
        assert_eq!(
            node.ok(&["restore", "a", "etc"]),
            "etc: copied from the base, without 1 names that only the sliver had\n",
            "{kind}"
        );
        node.ok(&["mount", "a"]);
        node.ok(&["umount", "a"]);
        let those = |text: &str, what: &dyn Fn(&str) -> bool| {
            text.lines().filter(|line| what(line)).collect::<Vec<_>>().join("\n")
        };
        let others = |text: &str| those(text, &|line| !line.starts_with("etc"));
        let base = common::listing::of(&node.lxcpath.join(".base/b/tree"), true);
        assert_same(&others(&all()), &others(&before), kind);
        // The names of one file are one only where they were copied at once.
        let known = |text: &str| those(text, &|line| line.starts_with("etc/dir"));
        assert_same(&known(&all()), &known(&base), kind);
        let left: Vec<_> =
            fs::read_dir(node.store("a")).unwrap().map(|one| one.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| name == "tree" || name == "sliver.json"), "{kind}: {left:?}");
    }
}

/// Links where the base has folders, FIFOs and devices where it has files: nothing is followed, opened or waited for.
#[test]
fn nothing_leads_out_of_the_store() {
    if !require("root", common::root()) {
        return;
    }
    for format in [Format::Overlay, Format::MiniFo, Format::Aufs, Format::Tree] {
        let temp = Temp::new();
        let (lower, store, outside) = (temp.join("base"), temp.join("store"), temp.join("outside"));
        base(&lower);
        sh(
            "mkdir -p $1 $2/b $2/e; echo kept > $2/f; echo kept > $2/b/f; echo kept > $2/e/x; cd $1; ln -s $2 a; ln -s $2 d; mkfifo f; mknod empty c 1 3",
            &[&store, &outside],
        );
        for path in ["a/f", "a/b/f", "d/e/x"] {
            let output = bare("restore", format, &lower, &store, &[path]);
            assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        }
        let output = bare("restore", format, &lower, &store, &["a", "d", "f", "empty"]);
        assert!(output.status.success(), "{}: {}", format.name(), said(&output));
        for path in ["f", "b/f", "e/x"] {
            assert_eq!(fs::read_to_string(outside.join(path)).unwrap(), "kept\n");
        }
        let wanted = shown::whole(Format::Tree, &lower, &lower);
        let below = |lines: &str, path: &str| shown::parts(lines, path).0;
        for path in ["a", "d", "f", "empty"] {
            assert_eq!(
                below(&shown::whole(format, &store, &lower), path),
                below(&wanted, path),
                "{}",
                format.name()
            );
        }
    }
}
