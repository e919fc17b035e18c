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

/// The lines of a view at a path and below it, and all others but for the folders above.
fn parts(lines: &str, path: &str) -> (Vec<String>, Vec<String>) {
    // Change, name, letter, mode, owner; and a name may hold blanks.
    let name = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let letter = (2..words.len() - 2).find(|at| words[*at].len() == 1 && words[at + 2].contains(':'));
        words[1..letter.unwrap()].join(" ")
    };
    let below = |line: &str| name(line) == path || name(line).starts_with(&format!("{path}/"));
    let above = |line: &str| name(line).is_empty() || format!("{path}/").starts_with(&(name(line) + "/"));
    // What a line says of other names of the same file is no part of either.
    let plain = |line: &str| line.split(" with ").next().unwrap().replacen("Opaque ", "Meta ", 1);
    let (inside, outside): (Vec<_>, Vec<_>) = lines.lines().partition(|line| below(line));
    (
        inside.into_iter().map(plain).collect(),
        outside.into_iter().filter(|line| !above(line)).map(plain).collect(),
    )
}

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
            assert_same(&parts(&after, path).0.join("\n"), &parts(&wanted, path).0.join("\n"), &what);
            // Deleted folders above are there again, with nothing else in them.
            let other = |lines: &str| parts(lines, path).1.join("\n");
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
        assert_eq!(node.ok(&["restore", "a", "etc"]), "etc: copied from the base\n", "{kind}");
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
        let below = |lines: &str, path: &str| parts(lines, path).0;
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
