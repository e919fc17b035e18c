//! A sliver's life by the real binary on a real disk: what is safe to repeat, what is refused, what is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::process::Command;

use common::holder::Holder;
use common::node::{Node, run};
use common::slivers::node;
use common::{busy, listing, require};

#[test]
fn from_create_to_destroy_each_step_twice() {
    let Some(node) = node() else { return };
    for _ in 0..2 {
        node.ok(&["create", "a", "--base", "b"]);
    }
    for _ in 0..2 {
        node.ok(&["mount", "a"]);
    }
    assert_eq!(node.json(&["list", "--json"])[0]["actual"], "mounted");
    fs::write(node.view("a").join("kept"), "kept").unwrap();
    fs::remove_file(node.view("a").join("etc/a.txt")).unwrap();
    for _ in 0..2 {
        node.ok(&["umount", "a"]);
    }
    assert_eq!(node.json(&["list", "--json"])[0]["actual"], "unmounted");
    node.ok(&["mount", "--all"]);
    assert_eq!(fs::read_to_string(node.view("a").join("kept")).unwrap(), "kept");
    assert!(!node.view("a").join("etc/a.txt").exists());
    let sheet = node.json(&["show", "a", "--json"]);
    assert_eq!(sheet["backend"], "overlay");
    assert_eq!(sheet["mounted_at"][0], node.view("a").to_str().unwrap());
    assert!(sheet["space"].as_u64().unwrap() >= 16384);
    node.ok(&["umount", "--all"]);
    for _ in 0..2 {
        node.ok(&["destroy", "a"]);
    }
    assert!(!node.store("a").exists() && !node.lxcpath.join("a").exists());
    assert_eq!(fs::read_dir(node.lxcpath.join(".store")).unwrap().count(), 0, "nothing is left");
    node.ok(&["base", "verify", "b"]);
}

#[test]
fn a_dry_run_changes_nothing_and_can_be_typed() {
    let Some(node) = node() else { return };
    node.ok(&["probe"]);
    let before = listing::of(&node.lxcpath, true);
    let create = node.ok(&["create", "a", "--base", "b", "--dry-run"]);
    assert_eq!(listing::of(&node.lxcpath, true), before);
    run(Command::new("sh").arg("-ec").arg(&create));
    assert_eq!(node.json(&["show", "a", "--json"])["actual"], "unmounted", "the typed steps made a sliver");
    let mount = node.ok(&["mount", "a", "--dry-run"]);
    assert_eq!(node.json(&["show", "a", "--json"])["actual"], "unmounted");
    run(Command::new("sh").arg("-ec").arg(&mount));
    assert_eq!(node.json(&["show", "a", "--json"])["actual"], "mounted", "the typed steps mounted it");
    let umount = node.ok(&["umount", "a", "--dry-run"]);
    run(Command::new("sh").arg("-ec").arg(&umount));
    let destroy = node.ok(&["destroy", "a", "--dry-run"]);
    assert!(node.store("a").exists());
    run(Command::new("sh").arg("-ec").arg(&destroy));
    assert!(!node.store("a").exists());
}

#[test]
fn paths_with_separators_work_and_never_become_options() {
    if !require("root", common::root()) {
        return;
    }
    for odd in ["a,b", "a:b", "back\\slash", "with space", "quo'te"] {
        let mut node = Node::with_base("ext4", 32);
        let lxcpath = node.dir().join("disk").join(format!("odd {odd}"));
        fs::rename(&node.lxcpath, &lxcpath).unwrap();
        node.lxcpath = lxcpath;
        node.ok(&["create", "a", "--base", "b"]);
        node.ok(&["mount", "a"]);
        fs::write(node.view("a").join("new"), odd).unwrap();
        assert!(node.store("a").join("upper/new").exists(), "{odd}");
        assert_eq!(node.json(&["list", "--json"])[0]["actual"], "mounted", "{odd}");
        node.ok(&["umount", "a"]);
        node.ok(&["destroy", "a"]);
    }
    let mut node = Node::new("ext4", 16);
    let lxcpath = node.dir().join("disk/new\nline");
    fs::rename(&node.lxcpath, &lxcpath).unwrap();
    node.lxcpath = lxcpath;
    assert!(node.fails(2, &["list"]).contains("control character"));
}

#[test]
fn bad_input_changes_nothing() {
    let Some(node) = node() else { return };
    node.ok(&["create", "a", "--base", "b"]);
    let before = listing::of(&node.lxcpath, true);
    for name in ["", ".", "..", ".base", "a/b", "a,b", "-x", "x y", &"n".repeat(64)] {
        node.fails(2, &["create", "--base", "b", "--", name]);
        node.fails(2, &["destroy", "--", name]);
    }
    assert!(node.fails(2, &["create", "c", "--base", "nobase"]).contains("nobase"));
    node.fails(2, &["create", "c", "--base", "b", "--backend", "ext4"]);
    node.fails(3, &["create", "c", "--base", "b", "--backend", "mini_fo"]);
    node.fails(2, &["mount"]);
    node.fails(2, &["mount", "nosuch"]);
    node.fails(2, &["frobnicate"]);
    assert_eq!(listing::of(&node.lxcpath, true), before);
    // The same name with other wishes.
    run(Command::new("cp").arg("-a").arg(node.lxcpath.join(".base/b")).arg(node.lxcpath.join(".base/b2")));
    assert!(node.fails(2, &["create", "a", "--base", "b2"]).contains("there already"));
}

#[test]
fn records_that_cannot_be_read() {
    let Some(node) = node() else { return };
    node.ok(&["create", "a", "--base", "b"]);
    node.ok(&["create", "good", "--base", "b"]);
    let record = node.store("a").join("sliver.json");
    let text = fs::read_to_string(&record).unwrap();
    for (bad, code, word) in [
        (text.replace("\"version\":1", "\"version\":99"), 3, "newer"),
        (text.replace("\"overlay\"", "\"paper\""), 5, "damaged"),
        (text.replace("\"a\"", "\"z\""), 5, "is the record of"),
        (text[..text.len() / 2].to_owned(), 5, "damaged"),
        (String::new(), 5, "damaged"),
    ] {
        fs::write(&record, &bad).unwrap();
        for command in [&["mount", "a"][..], &["show", "a"], &["create", "a", "--base", "b"]] {
            let said = node.fails(code, command);
            assert!(said.contains(word) && said.contains(node.lxcpath.to_str().unwrap()), "{said}");
        }
        let list = node.json(&["list", "--json"]);
        assert_eq!(list[0]["recorded"], "unreadable");
        assert_eq!(list[1]["recorded"], "created");
        assert_eq!(fs::read_to_string(&record).unwrap(), bad);
        node.fails(4, &["base", "remove", "b"]);
    }
    fs::remove_file(&record).unwrap();
    assert!(node.fails(5, &["mount", "a"]).contains("sliver.json"));
}

#[test]
fn a_store_whose_record_is_damaged_can_be_destroyed() {
    let Some(node) = node() else { return };
    for backend in ["overlay", "copy"] {
        node.ok(&["create", "a", "--base", "b", "--backend", backend]);
        let record = node.store("a").join("sliver.json");
        let text = fs::read_to_string(&record).unwrap();
        // What is whole and tells of something else is not damaged.
        for (other, code) in
            [(text.replace("\"version\":1", "\"version\":99"), 3), (text.replace("\"a\"", "\"z\""), 5)]
        {
            fs::write(&record, other).unwrap();
            node.fails(code, &["destroy", "a"]);
            assert!(record.exists());
        }
        fs::write(&record, &text).unwrap();
        for bad in [Some("{"), Some(""), None] {
            node.ok(&["create", "a", "--base", "b", "--backend", backend]);
            node.ok(&["mount", "a"]);
            match bad {
                Some(bad) => fs::write(&record, bad).unwrap(),
                None => fs::remove_file(&record).unwrap(),
            }
            // It is alive: mounted here, and then held.
            assert!(node.fails(4, &["destroy", "a"]).contains("is mounted at"), "{backend} {bad:?}");
            let holder = Holder::start(
                Command::new("sh").args(["-c", "echo ready; read x"]).current_dir(node.view("a").join("etc")),
            );
            run(Command::new("umount").arg("-l").arg(node.view("a")));
            assert!(node.fails(4, &["destroy", "a"]).contains("is still held by"), "{backend} {bad:?}");
            assert!(node.store("a").exists());
            drop(holder);
            assert!(node.ok(&["destroy", "a", "--dry-run"]).contains(".rm.a"), "{backend} {bad:?}");
            let said = node.run(&["destroy", "a"]);
            assert!(said.status.success(), "{backend} {bad:?}: {}", String::from_utf8_lossy(&said.stderr));
            assert!(String::from_utf8_lossy(&said.stderr).contains("damaged or missing"));
            assert!(!node.store("a").exists() && !node.lxcpath.join("a").exists(), "{backend} {bad:?}");
        }
    }
    assert_eq!(fs::read_dir(node.lxcpath.join(".store")).unwrap().count(), 0);
    node.ok(&["base", "remove", "b"]);
}

#[test]
fn places_that_are_not_right() {
    let Some(node) = node() else { return };
    node.ok(&["create", "a", "--base", "b"]);
    // A mount point with something in it.
    fs::write(node.view("a").join("precious"), "x").unwrap();
    assert!(node.fails(1, &["mount", "a"]).contains("is not empty"));
    assert_eq!(fs::read_to_string(node.view("a").join("precious")).unwrap(), "x");
    fs::remove_file(node.view("a").join("precious")).unwrap();
    // Something else mounted on it.
    run(Command::new("mount").args(["-t", "tmpfs", "other"]).arg(node.view("a")));
    assert!(node.fails(4, &["mount", "a"]).contains("something else is mounted"));
    node.fails(4, &["destroy", "a"]);
    assert!(node.store("a").join("sliver.json").exists());
    run(Command::new("umount").arg(node.view("a")));
    // The base's tree is gone.
    let tree = node.lxcpath.join(".base/b/tree");
    fs::rename(&tree, node.dir().join("disk/away")).unwrap();
    for args in [&["mount", "a"][..], &["mount", "a", "--dry-run"], &["diff", "a"], &["check"]] {
        assert!(node.fails(5, args).contains("has lost its content"), "{args:?}");
    }
    // Or what was mounted there.
    fs::create_dir(&tree).unwrap();
    for args in
        [&["mount", "a"][..], &["compact", "a"], &["convert", "a", "--to", "copy"], &["base", "verify", "b"]]
    {
        assert!(node.fails(5, args).contains("has lost its content"), "{args:?}");
    }
    fs::remove_dir(&tree).unwrap();
    fs::rename(node.dir().join("disk/away"), &tree).unwrap();
    node.ok(&["mount", "a"]);
    node.ok(&["umount", "a"]);
    // A container of somebody else.
    fs::create_dir(node.lxcpath.join("theirs")).unwrap();
    fs::write(node.lxcpath.join("theirs/config"), "lxc.uts.name = theirs\n").unwrap();
    assert!(node.fails(4, &["create", "theirs", "--base", "b"]).contains("no sliver's"));
    // The disk is not there.
    let mut away = Node::new("ext4", 16);
    fs::remove_file(away.lxcpath.join(".sliverfs")).unwrap();
    assert!(away.fails(1, &["list"]).contains("does not carry slivers"));
    away.lxcpath = away.lxcpath.join("missing");
    assert!(away.fails(1, &["list"]).contains("missing"));
}

#[test]
fn full_and_read_only_disks() {
    let Some(node) = node() else { return };
    node.ok(&["create", "a", "--base", "b"]);
    busy::remount("ro", &node.dir().join("disk"));
    let said = node.fails(1, &["create", "c", "--base", "b", "--backend", "overlay"]);
    assert!(said.contains("read-only"), "{said}");
    let create = ["create", "d", "--base", "b", "--backend", "overlay"];
    for command in [&["mount", "a"][..], &create, &["destroy", "a"]] {
        for dry in [&[][..], &["--dry-run"]] {
            let said = node.fails(1, &[command, dry].concat());
            assert!(said.contains("read-only"), "{said}");
        }
    }
    assert_eq!(node.json(&["list", "--json"])[0]["actual"], "unmounted");
    busy::remount("rw", &node.dir().join("disk"));
    node.ok(&["mount", "a"]);
    node.ok(&["umount", "a"]);
    let full = node.dir().join("disk/full");
    busy::fill(&full);
    for inode in 0..100_000 {
        if fs::create_dir(node.dir().join(format!("disk/d{inode}"))).is_err() {
            break;
        }
    }
    let before = listing::of(&node.lxcpath, false);
    let said = node.fails(1, &["create", "c", "--base", "b", "--backend", "overlay"]);
    assert!(said.contains("full"), "{said}");
    assert_eq!(listing::of(&node.lxcpath, false), before, "nothing is left of a create that failed");
    fs::remove_file(full).unwrap();
    node.ok(&["create", "c", "--base", "b"]);
}

#[test]
fn one_more_sliver_is_eight_blocks() {
    let Some(node) = node() else { return };
    node.ok(&["create", "first", "--base", "b"]);
    let sync = || run(Command::new("sync").arg("-f").arg(&node.lxcpath));
    let free = || {
        nix::sys::statvfs::statvfs(&node.lxcpath)
            .map(|disk| disk.blocks_free() * disk.fragment_size())
            .unwrap()
    };
    sync();
    let before = free();
    node.ok(&["create", "second", "--base", "b"]);
    node.ok(&["mount", "second"]);
    node.ok(&["umount", "second"]);
    sync();
    let more = before - free();
    assert!(more <= 8 * 4096, "one more sliver took {more} bytes");
}
