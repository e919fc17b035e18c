//! Btrfs seeds: many slivers on one image at once, no loop device left behind, and what goes wrong on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use common::holder::{Holder, mount_waits_for};
use common::node::run;
use common::seed::{actual, create, image, is_clean, loops, node, text};
use common::slivers::in_stores;
use common::{busy, listing};

#[test]
fn ten_slivers_on_one_seed_at_once() {
    // As much as is promised to them.
    let Some(node) = node(3000) else { return };
    let names: Vec<String> = (0..10).map(|number| format!("s{number}")).collect();
    let tree = listing::of(&node.dir().join("tree"), true);
    for name in &names {
        create(&node, name);
        is_clean(&node, "a sliver is made");
    }
    let space = node.json(&["list", "--space", "--json"])[0]["space"].as_u64().unwrap();
    assert!(space < 8 << 20, "a new store takes {space} bytes");
    // All at the same moment, as after a boot.
    let mounting: Vec<_> = names.iter().map(|name| node.command(&["mount", name]).spawn().unwrap()).collect();
    for mut mount in mounting {
        assert!(mount.wait().unwrap().success());
    }
    for name in &names {
        assert_eq!(listing::of(&node.view(name), true), tree, "{name} starts as the base");
    }
    assert_eq!(fs::metadata(image(&node)).unwrap().len() % 4096, 0, "a loop device would leave the rest out");
    assert_eq!(loops(&node).len(), 20, "each has a device for the seed and one of its own");
    for name in &names {
        fs::write(node.view(name).join("etc/b.txt"), name).unwrap();
    }
    let ids = names.iter().map(|name| fs::metadata(node.view(name)).unwrap().dev());
    let mut ids: Vec<u64> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 10, "each is a file system of its own");
    assert!(node.ok(&["base", "verify", "b"]).contains("whole"), "also while they are up");
    // In any order, and again: what each wrote is in its own.
    for name in names.iter().rev().step_by(2) {
        node.ok(&["umount", name]);
        assert_eq!(actual(&node, name), "unmounted");
        node.ok(&["mount", name]);
    }
    for name in &names {
        assert_eq!(fs::read_to_string(node.view(name).join("etc/b.txt")).unwrap(), *name);
        assert_eq!(actual(&node, name), "mounted");
    }
    let sheet = node.json(&["show", "s3", "--json"]);
    assert_eq!(sheet["limit"], 256 << 20);
    assert_eq!(sheet["mounted_at"][0], text(&node.view("s3")));
    node.ok(&["umount", "--all"]);
    is_clean(&node, "all are unmounted");
    for name in &names {
        node.ok(&["destroy", name]);
    }
    assert_eq!(in_stores(&node), [""; 0]);
    node.ok(&["base", "verify", "b"]);
    node.ok(&["base", "remove", "b"]);
}

#[test]
fn a_view_is_known_wherever_it_is_alive() {
    let Some(node) = node(400) else { return };
    create(&node, "a");
    node.ok(&["mount", "a"]);
    let view = node.view("a");
    let holder = Holder::elsewhere();
    run(Command::new("umount").arg(&view));
    assert_eq!(actual(&node, "a"), "elsewhere");
    for command in ["mount", "destroy", "umount"] {
        let said = node.fails(4, &[command, "a"]);
        assert!(said.contains("in the mount namespace of process"), "{command}: {said}");
    }
    let said = node.fails(4, &["base", "remove", "b"]);
    assert!(said.contains("is used by a"), "{said}");
    drop(holder);
    node.ok(&["mount", "a"]);
    // Detached, and a process stands in it.
    let mut standing = Command::new("sh");
    standing.args(["-c", "cd \"$0/etc\"; echo ready; read x"]).arg(&view);
    let holder = Holder::start(&mut standing);
    run(Command::new("umount").args(["-l"]).arg(&view));
    assert_eq!(actual(&node, "a"), "unmounted");
    for command in ["mount", "destroy"] {
        let said = node.fails(4, &[command, "a"]);
        assert!(said.contains(&format!("process {} (sh)", holder.0.id())), "{command}: {said}");
    }
    let sheet = node.json(&["show", "a", "--json"]);
    assert!(sheet["held_by"][0].as_str().unwrap().contains(&holder.0.id().to_string()), "{sheet}");
    drop(holder);
    node.ok(&["umount", "a"]);
    // Bound by hand, under another name of the same file.
    let store = node.store("a").join("store.raw");
    let link = node.dir().join("disk/other-name");
    fs::hard_link(&store, &link).unwrap();
    let device = run(Command::new("losetup").args(["-f", "--show"]).arg(&link));
    let said = node.fails(4, &["mount", "a"]);
    assert!(said.contains(device.trim()), "{said}");
    run(Command::new("losetup").arg("-d").arg(device.trim()));
    let bound = || run(Command::new("losetup").args(["-nO", "NAME", "-j"]).arg(&link));
    busy::until("the device is still bound", || bound().trim().is_empty());
    node.ok(&["mount", "a"]);
    node.ok(&["umount", "a"]);
    node.ok(&["destroy", "a"]);
    is_clean(&node, "destroyed");
}

#[test]
fn slivers_on_the_mounted_seed_are_named_as_in_the_way() {
    let Some(node) = node(400) else { return };
    create(&node, "grown");
    node.ok(&["create", "union", "--base", "b", "--backend", "overlay"]);
    node.ok(&["mount", "union"]);
    for args in [&["mount", "grown"][..], &["create", "new", "--base", "b", "--backend", "btrfs-seed"]] {
        let said = node.fails(4, args);
        assert!(said.contains("mounted as the base of union"), "{said}");
    }
    assert_eq!(in_stores(&node).iter().filter(|name| name.starts_with('.')).count(), 0);
    node.ok(&["umount", "union"]);
    node.ok(&["mount", "grown"]);
    node.ok(&["mount", "union"]);
    for name in ["grown", "union"] {
        assert_eq!(actual(&node, name), "mounted");
    }
    node.ok(&["umount", "--all"]);
    is_clean(&node, "unmounted");
    // The seed mounted by somebody else, from this very file.
    let mnt = node.dir().join("mnt");
    fs::create_dir(&mnt).unwrap();
    run(Command::new("mount").args(["-t", "btrfs", "-o", "loop,ro"]).arg(image(&node)).arg(&mnt));
    for args in [&["mount", "grown"][..], &["create", "new", "--base", "b", "--backend", "btrfs-seed"]] {
        let said = node.fails(4, args);
        assert!(said.contains("is mounted somewhere") && said.contains("losetup -j"), "{said}");
    }
    run(Command::new("umount").arg(&mnt));
    is_clean(&node, "refused");
    node.ok(&["mount", "grown"]);
    node.ok(&["umount", "grown"]);
}

#[test]
fn what_a_container_gets_on_its_way_in() {
    let Some(node) = node(400) else { return };
    let tar = node.dir().join("data.tar");
    run(Command::new("tar").args(["-cf"]).arg(&tar).arg("-C").arg(node.dir().join("tree")).arg("var/deep"));
    node.ok(&["create", "a", "--base", "b", "--backend", "btrfs-seed", "--data", text(&tar)]);
    is_clean(&node, "created with data");
    let config = node.dir().join("uci");
    fs::write(
        &config,
        "config sliver 'u'\n option base 'b'\n option backend 'btrfs-seed'\n option size '300M'\n\
         config sliver 'w'\n option base 'b'\n option size 'wide'\n option backend 'btrfs-seed'\n",
    )
    .unwrap();
    let apply = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sliverfs"));
        command.arg("--config").arg(&config).arg("--lxcpath").arg(&node.lxcpath).args(args).output().unwrap()
    };
    let planned = apply(&["apply", "--dry-run"]);
    let planned = String::from_utf8_lossy(&planned.stdout).into_owned();
    assert!(planned.contains("--backend btrfs-seed --size 300M\n"), "{planned}");
    for _ in 0..2 {
        let output = apply(&["apply"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("`wide` is no size"), "{said}");
        assert_eq!(actual(&node, "u"), "mounted", "{said}");
    }
    assert_eq!(node.json(&["show", "u", "--json"])["limit"], 300 << 20);
    node.ok(&["umount", "--all"]);
    is_clean(&node, "applied");
}

#[test]
fn a_store_whose_record_is_damaged_can_be_destroyed() {
    let Some(node) = node(512) else { return };
    create(&node, "a");
    node.ok(&["mount", "a"]);
    fs::write(node.store("a").join("sliver.json"), "{").unwrap();
    node.fails(4, &["destroy", "a"]);
    let mut shell = Command::new("sh");
    let holder = Holder::start(shell.args(["-c", "echo ready; read x"]).current_dir(node.view("a")));
    run(Command::new("umount").arg("-l").arg(node.view("a")));
    // As after a move to another node, where nothing is noted of its mount.
    let meta = fs::metadata(&node.lxcpath).unwrap();
    let noted = format!("/var/run/sliverfs/{:x}-{:x}/mounted/a", meta.dev(), meta.ino());
    fs::remove_file(noted).unwrap();
    node.fails(4, &["destroy", "a"]);
    drop(holder);
    node.ok(&["destroy", "a"]);
    assert!(!node.store("a").exists());
    is_clean(&node, "after it was destroyed");
}

/// A tenant's own subvolume, as systemd-tmpfiles and docker make them: what it holds must not be missing in a store that is written anew.
#[test]
fn a_subvolume_in_a_view_is_not_lost() {
    let Some(node) = node(300) else { return };
    node.ok(&["create", "s", "--base", "b", "--backend", "btrfs-seed"]);
    node.ok(&["mount", "s"]);
    let view = node.view("s");
    run(Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(view.join("sub")));
    fs::write(view.join("sub/file"), "mine").unwrap();
    node.ok(&["umount", "s"]);
    let wanted = node.json(&["show", "s", "--json"])["backend"].clone();
    let tree = node.dir().join("tree");
    for args in [
        &["compact", "s", "--dry-run"][..],
        &["compact", "s"],
        &["convert", "s", "--to", "overlay"],
        &["convert", "s", "--to", "copy"],
        &["sync", "s", text(&tree)],
    ] {
        let said = node.fails(5, args);
        assert!(said.contains("sub (") && said.contains("subvolume delete"), "{args:?}: {said}");
        assert_eq!(in_stores(&node), ["s"], "{args:?}");
        is_clean(&node, &args.join(" "));
    }
    assert_eq!(node.json(&["show", "s", "--json"])["backend"], wanted);
    node.ok(&["mount", "s"]);
    assert_eq!(fs::read_to_string(view.join("sub/file")).unwrap(), "mine");
    // The way out.
    let moved = "cp -a sub plain; btrfs -q subvolume delete sub; mv plain sub";
    run(Command::new("sh").args(["-ec", moved]).current_dir(&view));
    let wanted = listing::of(&view, true);
    node.ok(&["umount", "s"]);
    node.ok(&["compact", "s"]);
    node.ok(&["mount", "s"]);
    assert_eq!(listing::of(&view, true), wanted);
    node.ok(&["umount", "s"]);
}

/// An export that nobody reads has the seed for as long as that lasts: who waits for it hears of it.
#[test]
fn who_waits_for_the_seed_hears_for_whom() {
    let Some(node) = node(400) else { return };
    create(&node, "a");
    mount_waits_for(&node, &image(&node));
    // What a reader that was killed left goes with the next mount.
    fs::create_dir(node.store("a").join("tree")).unwrap();
    node.ok(&["mount", "a"]);
    assert!(!node.store("a").join("tree").exists());
    node.ok(&["umount", "a"]);
    is_clean(&node, "at the end");
}
