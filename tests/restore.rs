//! `restore`: the base's version of a path comes back, all of it or nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "layer/shown.rs"]
mod shown;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::layers::{META, UNIONS, bare, cases, said, sh};
use common::node::{Node, run};
use common::scripts::{base, edits, own_namespace};
use common::tree::{Temp, assert_same};
use common::{require, strace};
use sliverfs::layer::Format;

const SCRIPTS: u64 = 25;

/// Restores every path of the base in turn, in a copy of the store: there it is the base's, and elsewhere nothing changed.
fn everywhere(format: Format, temp: &Path, lower: &Path, store: &Path, what: &str) {
    let wanted = shown::exact(Format::Tree, lower, lower);
    let before = shown::exact(format, store, lower);
    let copy = temp.join("copy");
    for path in [
        "f", "a/f", "a/b/f", "a/b/c", "a/b", "a", "d/e/x", "d/e", "d", "d/a", "empty", "l", "a/l", "d/p",
        "d/null",
    ] {
        run(Command::new("cp").arg("-a").arg(store).arg(&copy));
        let output = bare("restore", format, lower, &copy, &[path]);
        let told = said(&output);
        let what = format!("{what}: {}: {path}: {told}", format.name());
        // A file stands where the base has a folder.
        if told.contains("is no directory in the view") {
            assert_eq!(output.status.code(), Some(1), "{what}");
            assert_same(&shown::exact(format, &copy, lower), &before, &what);
        } else {
            assert!(output.status.success(), "{what}");
            let (after, whole) = (shown::exact(format, &copy, lower), shown::whole(format, &copy, lower));
            assert_same(
                &shown::parts(&after, path).0.join("\n"),
                &shown::parts(&wanted, path).0.join("\n"),
                &what,
            );
            // Deleted folders above are there again, with nothing else in them.
            let other = |lines: &str| shown::parts(lines, path).1.join("\n");
            assert_same(&other(&after), &other(&before), &what);
            let again = bare("restore", format, lower, &copy, &[path]);
            assert!(again.status.success(), "{what}");
            assert_same(&shown::whole(format, &copy, lower), &whole, &what);
        }
        for name in [".sliverfs-new", ".sliverfs-old", ".sliverfs-journal", ".sliverfs-records"] {
            assert!(!copy.join(name).exists(), "{what}: {name}");
        }
        run(Command::new("rm").arg("-rf").arg(&copy));
    }
}

#[test]
fn every_path_of_stores_of_random_edits() {
    if !require("root", common::root()) {
        return;
    }
    own_namespace();
    let temp = Temp::quick();
    let lower = temp.join("base");
    base(&lower);
    for seed in 1..=SCRIPTS {
        let here = temp.join(&seed.to_string());
        let (plain, store) = (here.join("plain"), here.join("upper"));
        fs::create_dir_all(&store).unwrap();
        run(Command::new("cp").arg("-a").arg(&lower).arg(&plain));
        edits(&here, &lower, &plain, &store, seed);
        // Each script in one format, and each fifth as it was written.
        let formats = [
            Format::Overlay,
            Format::Overlayfs,
            Format::MiniFo,
            Format::Aufs,
            Format::FuseOverlayfs,
            Format::Tree,
        ];
        let format = formats[usize::try_from(seed).unwrap() % formats.len()];
        let new = here.join("new");
        shown::convert(Format::Overlay, &store, &lower, format, &new).unwrap();
        everywhere(format, &here, &lower, &new, &format!("seed {seed}"));
        fs::remove_dir_all(&here).unwrap();
    }
}

#[test]
fn each_way_back() {
    if !require("root", common::root()) {
        return;
    }
    for format in UNIONS {
        let temp = Temp::new();
        let (lower, store) = (temp.join("base"), temp.join("store"));
        base(&lower);
        cases(format, &store);
        everywhere(format, &temp.0, &lower, &store, "by hand");
        let output =
            bare("restore", format, &lower, &store, &["--json", "/f", "./d//e/", "a/b/c", "a/f", "empty"]);
        // `a/b` is a file now.
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("a/b is no directory in the view"), "{}", said(&output));
        let output =
            bare("restore", format, &lower, &store, &["--json", "/f", "./d//e/", "a/b", "a/f", "empty"]);
        let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let rows: Vec<_> = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| (row["path"].as_str().unwrap(), row["done"].as_str().unwrap()))
            .collect();
        assert_eq!(
            rows[2..],
            [("a/b", "copied"), ("a/f", "copied"), ("empty", "already")],
            "{}",
            format.name()
        );
        let view = shown::exact(format, &store, &lower);
        for line in ["Put d/e/x ", "Put a/new ", "Put a/b/c/f ", "Put f "] {
            assert!(view.contains(line), "{}: {line}: {view}", format.name());
        }
        // The rest of the deleted and of the opaque folder stays away.
        for line in ["Put d/a ", "Put a/l "] {
            assert!(!view.contains(line), "{}: {line}: {view}", format.name());
        }
        for (paths, code) in
            [(&["nosuch"][..], 2), (&["../x"], 2), (&["/"], 2), (&[], 2), (&["l/x"], 2), (&["f/x"], 2)]
        {
            assert_eq!(bare("restore", format, &lower, &store, paths).status.code(), Some(code), "{paths:?}");
        }
        if format == Format::MiniFo {
            assert_eq!(fs::read_to_string(store.join(META)).unwrap(), "D d\nD a\nD other\n");
        }
    }
}

/// What goes with a folder because the base never had it is told before and after.
#[test]
fn what_only_the_sliver_had_is_counted() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::new();
    let (lower, upper) = (temp.join("base"), temp.join("upper"));
    base(&lower);
    let names =
        "mkdir -p $1/a/b/own $1/a/bb; cd $1/a; for x in b/own/x b/mine b/f bb/x 0; do echo 1 > $x; done";
    sh(names, &[&upper]);
    for format in UNIONS.into_iter().chain([Format::FuseOverlayfs, Format::Tree]) {
        let store = temp.join(format.name());
        shown::convert(Format::Overlay, &upper, &lower, format, &store).unwrap();
        let restored = |args: &[&str]| said(&bare("restore", format, &lower, &store, args));
        for (path, own) in [("a/b/c", 0), ("a/b", 3), ("a", 6)] {
            let told = restored(&["--dry-run", "--json", path]);
            assert!(told.contains(&format!("\"own\":{own}}}")), "{}: {path}: {told}", format.name());
        }
        let told = restored(&["a/b/own"]);
        assert!(told.contains("the base has no"), "{}: {told}", format.name());
        let told = restored(&["a/b"]);
        assert!(told.contains(", without 3 names that only the sliver had\n"), "{}: {told}", format.name());
        let told = restored(&["a/b"]);
        assert!(!told.contains("without"), "{}: {told}", format.name());
    }
}

/// What overlay took a moved file for must not come back under two names.
#[test]
fn a_file_that_was_moved_is_not_the_one_that_comes_back() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 32);
    node.ok(&["create", "a", "--base", "b", "--backend", "overlay"]);
    node.ok(&["mount", "a"]);
    let view = node.view("a");
    sh("cd $1; mv etc/b.txt moved; echo more >> moved", &[&view]);
    assert!(node.fails(4, &["restore", "a", "etc/b.txt"]).contains("is mounted at"));
    node.ok(&["umount", "a"]);
    node.ok(&["restore", "a", "etc/b.txt", "--dry-run"]);
    assert_eq!(node.ok(&["restore", "a", "etc/b.txt"]), "etc/b.txt: the base's again\n");
    node.ok(&["mount", "a"]);
    assert_eq!(fs::read_to_string(view.join("etc/b.txt")).unwrap(), "two\n");
    assert_eq!(fs::read_to_string(view.join("moved")).unwrap(), "two\nmore\n");
    node.ok(&["umount", "a"]);
}

#[test]
fn a_tree_gets_a_copy_and_the_rest_stays() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("btrfs", 128);
    for kind in ["btrfs-snapshot", "reflink", "copy"] {
        node.ok(&["create", "a", "--base", "b", "--backend", kind]);
        node.ok(&["mount", "a"]);
        let view = node.view("a");
        sh("cd $1; rm -r etc; echo x > var/big; rm -r var/deep; echo mine > mine", &[&view]);
        node.ok(&["umount", "a"]);
        node.ok(&["restore", "a", "etc/dir", "var/big", "var/deep/er/x"]);
        node.ok(&["mount", "a"]);
        let tree = node.lxcpath.join(".base/b/tree");
        for path in ["etc/dir/c.txt", "var/big", "var/deep/er/x", "mine"] {
            let from = if path == "mine" { view.join(path) } else { tree.join(path) };
            assert_eq!(fs::read(view.join(path)).unwrap(), fs::read(from).unwrap(), "{kind}: {path}");
        }
        assert!(!view.join("etc/a.txt").exists() && !view.join("var/deep/y").exists());
        let names: Vec<_> = fs::read_dir(&view).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!names.iter().any(|name| name.to_str().unwrap().starts_with(".sliverfs")), "{names:?}");
        node.ok(&["umount", "a"]);
        node.ok(&["destroy", "a"]);
    }
}

/// A full disk: what is only uncovered needs none of it, and what must be copied leaves the old state.
#[test]
fn no_space_leaves_the_old_state() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 24);
    node.ok(&["create", "a", "--base", "b", "--backend", "overlay"]);
    node.ok(&["mount", "a"]);
    sh(
        "cd $1; rm etc/b.txt; rm -r var; mkdir var; echo mine > etc/dir/mine; cat /dev/zero > full 2>/dev/null || :; sync",
        &[&node.view("a")],
    );
    node.ok(&["umount", "a"]);
    let (store, tree) = (node.store("a").join("upper"), node.lxcpath.join(".base/b/tree"));
    let before = shown::exact(Format::Overlay, &store, &tree);
    let said = node.fails(1, &["restore", "a", "var/big"]);
    assert!(said.contains("No space left on device"), "{said}");
    assert_same(&shown::exact(Format::Overlay, &store, &tree), &before, "the view");
    node.ok(&["check", "a"]);
    assert_eq!(node.ok(&["restore", "a", "etc/b.txt", "etc/dir"]).lines().count(), 2);
    node.ok(&["check", "a"]);
    let view = shown::exact(Format::Overlay, &store, &tree);
    assert!(view.contains("Put etc/b.txt ") && !view.contains("etc/dir/mine"), "{view}");
    // A folder that was opaque as a whole comes back, too.
    node.ok(&["restore", "a", "var"]);
    assert!(shown::exact(Format::Overlay, &store, &tree).contains("Put var/deep/er/x "));
}

/// Killed anywhere: of a snapshot, in which alone a folder can be put in place of another.
#[test]
fn killed_at_every_step_in_a_snapshot() {
    if !require("root", common::root()) || !require("strace", strace::works()) {
        return;
    }
    let node = Node::with_base("btrfs", 128);
    node.ok(&["create", "a", "--base", "b", "--backend", "btrfs-snapshot"]);
    let tree = node.store("a").join("tree");
    let fresh = || {
        sh(
            "cd $1; rm -rf empty; mkdir -p empty .sliverfs-new; echo mine > empty/mine; touch -d @1 empty/mine empty",
            &[&tree],
        )
    };
    // The time of the root is that of the last edit.
    let seen = || common::listing::of(&tree, true).split_once('\n').unwrap().1.to_owned();
    let without_times = || common::listing::of(&tree, false);
    fresh();
    let old = without_times();
    let args = ["restore", "a", "empty"];
    let points = strace::points(&node, &args);
    let (new, whole) = (without_times(), seen());
    assert!(old != new && points.len() > 20, "{points:?}");
    for point in points {
        fresh();
        strace::kill(&node, &point, &args);
        let output = node.run(&["check", "a", "--repair"]);
        assert!(output.status.success(), "{point:?}: {}", said(&output));
        let after = without_times();
        assert!(after == old || after == new, "{point:?}: {after}");
        node.ok(&["check", "a"]);
        node.ok(&args);
        assert_same(&seen(), &whole, &format!("{point:?}"));
        assert!(tree.join(".sliverfs-new").exists());
    }
}
