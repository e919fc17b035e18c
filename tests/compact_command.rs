//! `compact`, the command: what it says, what it refuses, and that it works on a disk that is full.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "layer/shown.rs"]
mod shown;

use std::fs;
use std::process::Command;

use common::layers::{bare, sh};
use common::listing;
use common::node::{Node, run};
use common::require;
use common::scripts::{base, copied};
use common::tree::{Temp, assert_same};
use sliverfs::layer::Format;

#[test]
fn the_command_line() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::new();
    let (lower, store) = copied(&temp.0);
    sh(
        "cd $1; touch a/f; echo other > f; mkdir new; mknod new/gone c 0 0; touch -d @1500000000 a",
        &[&store],
    );
    let before = shown::exact(Format::Overlay, &store, &lower);
    let output = bare("compact", Format::Overlay, &lower, &store, &["--dry-run"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    for line in [
        "d/a: as in the base: dropped",
        "new/gone: a whiteout of nothing: dropped",
        "9 files, 5 directories, 1 whiteouts",
    ] {
        assert!(printed.contains(line), "{printed}");
    }
    assert!(store.join("d/a").exists());
    let output = bare("compact", Format::Overlay, &lower, &store, &["--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["files"], 9);
    assert_eq!(json["directories"], 5);
    assert_eq!(json["format"], "overlay");
    assert_same(&shown::exact(Format::Overlay, &store, &lower), &before, "the view");
    let output = bare("compact", Format::Overlay, &lower, &store, &[]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "nothing to drop\n");
    let output = bare("compact", Format::Overlay, &lower, &store, &["--json", "--ignore-times"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["files"], &json["directories"]), (&1.into(), &1.into()), "{json}");
    assert_eq!(bare("compact", Format::Tree, &lower, &store, &[]).status.code(), Some(3));
    assert_eq!(bare("compact", Format::Overlay, &lower, &store, &["x"]).status.code(), Some(2));
    assert_eq!(
        Command::new(env!("CARGO_BIN_EXE_sliverfs"))
            .args(["compact", "--format", "aufs"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(2)
    );
}

/// On a disk that was taken out of a node, somebody may have put a link in the store's place.
#[test]
fn a_link_in_the_place_of_a_store_is_not_followed() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::quick();
    sh(
        "cd $1; mkdir base outside; echo x > base/f; touch -d @1 base/f; cp -a base/f outside; ln -s outside store; ln -s $1/outside abs",
        &[&temp.0],
    );
    for store in ["store", "store/", "abs"] {
        let store = temp.join(store);
        let output = bare("compact", Format::Overlay, &temp.join("base"), &store, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains("a link is not followed"), "{said}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sliverfs"));
        command.args(["convert", "--format", "overlay", "--to", "copy", "--base"]).arg(temp.join("base"));
        command.arg("--store").arg(&store).arg("--out").arg(temp.join("out"));
        assert_eq!(command.output().unwrap().status.code(), Some(2), "{}", store.display());
    }
    assert!(temp.join("outside/f").exists() && !temp.join("out").exists());
}

/// A store that is its own base would be found to hold nothing of its own; a new one in an old one is read while it is written.
#[test]
fn folders_that_lie_in_one_another_are_refused() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::quick();
    sh("cd $1; mkdir -p base/in store/in; echo x > base/f; echo x > store/f; ln -s base alias", &[&temp.0]);
    let before = listing::of(&temp.0, true);
    for [base, store] in [["base", "base"], ["alias", "base"], ["base", "base/in"], ["store/in", "store"]] {
        let output = bare("compact", Format::Overlay, &temp.join(base), &temp.join(store), &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains("lies in"), "{base} {store}: {said}");
    }
    for out in ["base/new", "base/in/new", "store/new", "store/in/new"] {
        let out = temp.join(out);
        let words = ["--to", "tree", "--out", out.to_str().unwrap()];
        let output = bare("convert", Format::Overlay, &temp.join("base"), &temp.join("store"), &words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains("lies in"), "{said}");
    }
    assert_same(&listing::of(&temp.0, true), &before, "afterwards");
}

/// A full disk is when an operator compacts.
#[test]
fn a_full_disk_is_emptied_and_a_store_in_use_is_left_alone() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 24);
    node.ok(&["create", "a", "--base", "b", "--backend", "overlay"]);
    node.ok(&["mount", "a"]);
    let view = node.view("a");
    let tree = node.lxcpath.join(".base/b/tree");
    sh(
        "cd $1; cp -a --remove-destination $2/var/big var/big; touch -d @1500000000 var; echo mine > mine; cat /dev/zero > full 2>/dev/null || :; sync",
        &[&view, &tree],
    );
    assert!(node.fails(4, &["compact", "a"]).contains("is mounted at"), "while it is mounted");
    node.ok(&["umount", "a"]);
    let store = node.store("a").join("upper");
    let before = shown::exact(Format::Overlay, &store, &tree);
    let json = node.json(&["compact", "a", "--json"]);
    assert_eq!((&json["files"], &json["directories"]), (&1.into(), &1.into()), "{json}");
    assert!(json["bytes"].as_u64().unwrap() >= 300_000, "{json}");
    assert_same(&shown::exact(Format::Overlay, &store, &tree), &before, "the view");
    node.ok(&["mount", "a"]);
    assert_eq!(fs::read_to_string(view.join("mine")).unwrap(), "mine\n");
    node.ok(&["umount", "a"]);

    // mini_fo's records need a block of their own until the new ones are in place.
    let (lower, full) = (node.dir().join("lower"), node.lxcpath.join("mini"));
    base(&lower);
    sh(
        "rm $3/full; mkdir $2; cd $2; printf 'D nothing\\nD f\\n' > META_dAfFgHE39ktF3HD2sr; cp -a $1/a .; cat /dev/zero > full 2>/dev/null || :; touch -r $1 .; \
         n=0; sync; while echo x > $3/fill.$n && sync -f $3; do n=$((n+1)); done 2>/dev/null",
        &[&lower, &full, &store],
    );
    let before = shown::exact(Format::MiniFo, &full, &lower);
    let output = bare("compact", Format::MiniFo, &lower, &full, &["--json"]);
    let first: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_same(&shown::exact(Format::MiniFo, &full, &lower), &before, "the view");
    assert_eq!(first["stuck"], 1, "{first}");
    let output = bare("compact", Format::MiniFo, &lower, &full, &["--json"]);
    let then: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&then["stuck"], &then["whiteouts"]), (&0.into(), &1.into()), "{then}");
    assert_same(&shown::exact(Format::MiniFo, &full, &lower), &before, "the view");
}

/// Nor do aufs and overlayfs need a block: what they drop is removed where it lies.
#[test]
fn a_disk_without_a_block_is_emptied_of_aufs_and_overlayfs() {
    if !require("root", common::root()) {
        return;
    }
    for format in [Format::Aufs, Format::Overlayfs] {
        let node = Node::new("ext4", 24);
        let (lower, store) = (node.dir().join("lower"), node.lxcpath.join("store"));
        base(&lower);
        sh(
            "head -c 300000 /dev/urandom > $1/d/big; touch -d @1500000000 $1/d/big $1/d; cp -a $1 $2; echo mine > $2/mine",
            &[&lower, &store],
        );
        match format {
            Format::Aufs => sh(
                "cd $1; : > .wh.nothing; for d in a d; do : > $d/.wh..wh..opq; touch -r $2/$d $d; done",
                &[&store, &lower],
            ),
            _ => sh(
                "cd $1; ln -s '(overlay-whiteout)' nothing; setfattr -h -n trusted.overlay.whiteout -v y nothing; \
                 for d in a d; do setfattr -n trusted.overlay.opaque -v y $d; done",
                &[&store],
            ),
        }
        sh(
            "cat /dev/zero > $1/full 2>/dev/null || :; sync; n=0; \
             while echo x > $1/fill.$n && sync -f $1; do n=$((n+1)); done 2>/dev/null; touch -r $2 $1/store",
            &[&node.lxcpath, &lower],
        );
        let before = shown::exact(format, &store, &lower);
        let output = bare("compact", format, &lower, &store, &["--json"]);
        let said = String::from_utf8_lossy(&output.stderr);
        let done: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}: {said}", format.name()));
        assert!(output.status.success(), "{}: {said}", format.name());
        assert!(done["bytes"].as_u64().unwrap() >= 300_000, "{done}");
        assert_eq!((&done["whiteouts"], &done["marks"]), (&1.into(), &2.into()), "{done}");
        assert_same(&shown::exact(format, &store, &lower), &before, format.name());
        let left = run(Command::new("sh").args(["-c", "cd $1; ls -A", "sh"]).arg(&store));
        assert_eq!(left, "mine\n", "{}", format.name());
    }
}

#[test]
fn a_tree_of_its_own_has_nothing_to_drop() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 24);
    node.ok(&["create", "a", "--base", "b", "--backend", "copy"]);
    assert!(node.fails(3, &["compact", "a"]).contains("dedupe"));
}
