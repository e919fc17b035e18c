//! A limit by an image: on real disks a tenant who is root gets what was promised to him and no more, and a full store, or one that a crash
//! left mounted, is worked on like any other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use common::escapes::fill;
use common::node::{Node, run};
use common::tree::said_in as sh;
use common::{busy, require};

const MIB: u64 = 1 << 20;

/// Bytes that are free on the node's disk.
fn free(node: &Node) -> u64 {
    run(Command::new("sh").args(["-ec", "sync -f .; sync -f ."]).current_dir(&node.lxcpath));
    let text = run(Command::new("stat").args(["-f", "-c", "%f %S"]).arg(&node.lxcpath));
    text.split_whitespace().map(|word| word.parse::<u64>().unwrap()).product()
}

#[test]
fn a_tenant_who_is_root_gets_no_more_than_the_limit() {
    if !require("root", common::root()) {
        return;
    }
    for fstype in ["ext4", "xfs", "btrfs"] {
        let node = Node::with_base(fstype, 320);
        let before = free(&node);
        node.ok(&["create", "a", "--base", "b", "--quota", "32M"]);
        assert!(before - free(&node) >= 32 * MIB, "{fstype}: it is taken from the disk at once");
        node.ok(&["mount", "a"]);
        let view = node.view("a");
        fill(&view, "No space left", "");
        let taken = before - free(&node);
        assert!(taken <= 33 * MIB, "{fstype}: {taken} bytes are taken from the disk");
        let sheet = node.json(&["show", "a", "--json"]);
        assert_eq!((&sheet["limit"], &sheet["means"]), (&(32 * MIB).into(), &"image".into()));
        // The file that was deleted is gone with the shell.
        assert!((26 * MIB..=32 * MIB).contains(&sheet["used"].as_u64().unwrap()), "{sheet}");
        // What the view's disk has is the limit without its tables.
        let size = run(Command::new("stat").args(["-f", "-c", "%b %S"]).arg(&view));
        let size: u64 = size.split_whitespace().map(|word| word.parse::<u64>().unwrap()).product();
        assert!((26 * MIB..=32 * MIB).contains(&size), "{size}");
        // Full, it is as good as any.
        node.ok(&["umount", "a"]);
        assert_eq!(fs::read_dir(node.store("a").join("quota")).unwrap().count(), 0);
        assert!(node.ok(&["diff", "a"]).contains("added     sparse"));
        node.ok(&["mount", "a"]);
        assert_eq!(
            sh(&view, "rm tiny1 tiny2 && rm etc/a.txt && cat etc/b.txt && echo x >fill && cat fill"),
            "two\nx\n"
        );
        assert!(sh(&view, "head -c 1G /dev/zero >more").contains("No space left"));
        node.ok(&["umount", "a"]);
        node.ok(&["compact", "a"]);
        node.ok(&["restore", "a", "etc"]);
        node.ok(&["check", "a"]);
        let diff = node.ok(&["diff", "a"]);
        assert!(!diff.contains("etc/a.txt") && diff.contains("added     fill"), "{diff}");
        node.ok(&["mount", "a"]);
        assert_eq!(
            sh(&view, "cat etc/a.txt && rm fill more && echo y >etc/a.txt && cat etc/a.txt"),
            "hello\ny\n"
        );
        node.ok(&["umount", "a"]);
        node.ok(&["destroy", "a"]);
        // XFS gives it back in the background.
        if fstype != "xfs" {
            busy::until("not all of it is given back", || before - free(&node) < MIB);
        }
    }
}

#[test]
fn a_store_without_a_free_inode_mounts() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 64);
    node.ok(&["create", "a", "--base", "b", "--quota", "8M"]);
    node.ok(&["mount", "a"]);
    let view = node.view("a");
    assert!(sh(&view, "i=0; while :>n$i; do i=$((i+1)); done").contains("No space left"));
    assert_eq!(run(Command::new("stat").args(["-f", "-c", "%d"]).arg(&view)).trim(), "0");
    for _ in 0..3 {
        node.ok(&["umount", "a"]);
        node.ok(&["mount", "a"]);
    }
    assert!(sh(&view, ":>more").contains("No space left"), "what the mount needed is kept again");
    assert_eq!(sh(&view, "rm n1 n2 n3 n4 n5 && rm etc/b.txt && echo new >more && cat more"), "new\n");
}

/// What holds room for the next mount is made anew where it is missing, and follows no link.
#[test]
fn room_for_the_next_mount_is_held_in_files_alone() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 64);
    node.ok(&["create", "a", "--base", "b", "--quota", "8M"]);
    let (spare, elsewhere) = (node.store("a").join("quota/.spare"), node.dir().join("elsewhere"));
    node.ok(&["mount", "a"]);
    fs::remove_file(spare.join("0")).unwrap();
    fs::remove_file(spare.join("1")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, spare.join("1")).unwrap();
    node.ok(&["umount", "a"]);
    node.ok(&["mount", "a"]);
    assert!(!elsewhere.exists());
    let room = |name| {
        let meta = fs::symlink_metadata(spare.join(name)).unwrap();
        (meta.is_file(), meta.mode() & 0o777, meta.blocks() * 512)
    };
    assert_eq!((room("0"), room("7")), ((true, 0o600, 32 << 10), (true, 0o600, 32 << 10)));
    node.ok(&["umount", "a"]);
}

#[test]
fn an_image_that_is_not_there_is_no_way_onto_the_disk() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 64);
    node.ok(&["create", "a", "--base", "b", "--quota", "8M"]);
    let (store, image) = (node.store("a"), node.store("a").join("quota.img"));
    run(Command::new("dd")
        .args(["if=/dev/zero", "bs=4k", "count=1", "conv=notrunc"])
        .arg(format!("of={}", image.display())));
    let said = node.fails(5, &["mount", "a"]);
    assert!(said.contains("holds no ext4") && said.contains("e2fsck"), "{said}");
    fs::rename(&image, node.lxcpath.join("away")).unwrap();
    node.fails(1, &["mount", "a"]);
    assert_eq!(fs::read_dir(store.join("quota")).unwrap().count(), 0);
    assert!(!store.join("upper").exists() && fs::read_dir(node.view("a")).unwrap().next().is_none());
}

#[test]
fn what_a_crash_left_mounted_is_no_obstacle() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 128);
    let (view, point) = (node.view("a"), node.store("a").join("quota"));
    let cut = || {
        node.ok(&["mount", "a"]);
        run(Command::new("umount").arg(&view));
        assert!(point.join("upper").exists());
    };
    node.ok(&["create", "a", "--base", "b", "--quota", "16M"]);
    cut();
    node.ok(&["mount", "a"]);
    sh(&view, "echo 1 >one");
    node.ok(&["umount", "a"]);
    for command in [
        &["diff", "a"][..],
        &["compact", "a"],
        &["quota", "a", "8M"],
        &["umount", "a"],
        &["check", "--repair"],
    ] {
        cut();
        node.ok(command);
    }
    node.ok(&["mount", "a"]);
    assert_eq!(sh(&view, "cat one"), "1\n");
    // A view that is held by nobody but an open file keeps its image, and so its store.
    let held = fs::File::open(view.join("one")).unwrap();
    run(Command::new("umount").arg("-l").arg(&view));
    run(Command::new("umount").arg("-l").arg(&point));
    let said = node.fails(4, &["mount", "a"]);
    assert!(said.contains("loop"), "{said}");
    node.fails(4, &["destroy", "a"]);
    node.fails(4, &["quota", "a", "none"]);
    drop(held);
    cut();
    node.ok(&["destroy", "a"]);
    assert!(!node.store("a").exists());
}

#[test]
fn a_disk_without_room_makes_no_image() {
    if !require("root", common::root()) {
        return;
    }
    for fstype in ["ext4", "xfs", "btrfs"] {
        let node = Node::with_base(fstype, 320);
        sh(&node.lxcpath, "fallocate -l 200M ballast");
        let said = node.fails(1, &["create", "a", "--base", "b", "--quota", "160M"]);
        assert!(said.contains("takes as much from the disk at once"), "{fstype}: {said}");
        assert!(!node.store("a").exists() && !node.lxcpath.join("a").exists());
        assert_eq!(fs::read_dir(node.lxcpath.join(".store")).unwrap().count(), 0);
    }
}

/// What a crash left inside of an image is found in there.
#[test]
fn a_check_looks_into_an_image() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 64);
    node.ok(&["create", "a", "--base", "b", "--quota", "8M"]);
    node.ok(&["mount", "a"]);
    node.ok(&["umount", "a"]);
    node.ok(&["check"]);
    let store = node.store("a");
    let inside = |script: &str| {
        let said = sh(&store, &format!("mount -o loop quota.img quota && ({script}) && umount quota"));
        assert_eq!(said, "", "{script}");
    };
    inside("mkdir -p quota/work/work && echo half >quota/work/work/#1");
    let output = node.run(&["check", "a"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(5) && told.contains("work/work/#1: left over"), "{told}");
    assert!(node.ok(&["check", "--repair", "a"]).contains("work/work/#1: left over by a crash: put right"));
    assert_eq!(node.ok(&["check", "a"]), "");
    // A step that was cut: who has the image mounted is told, and who has not ends it.
    let cut = "printf 'D etc/none\\n' >quota/.sliverfs-journal";
    assert_eq!(sh(&store, &format!("mount -o loop quota.img quota && {cut}")), "");
    let said = node.fails(4, &["diff", "a"]);
    assert!(said.contains("is being changed, or that was cut"), "{said}");
    run(Command::new("umount").arg(store.join("quota")));
    node.ok(&["diff", "a"]);
    node.ok(&["check", "a"]);
    // An image that was about to grow.
    let record = store.join("sliver.json");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace(&(8 * MIB).to_string(), &(9 * MIB).to_string())).unwrap();
    assert!(node.fails(5, &["check", "a"]).contains("1 findings"));
    assert!(node.ok(&["check", "--repair", "a"]).contains("quota.img: not as large as"));
    assert_eq!(node.json(&["show", "a", "--json"])["limit"], 8 * MIB);
}
