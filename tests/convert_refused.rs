//! Conversions that are refused, cut or undone changed nothing; and where a kernel needs one, that is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::process::{Command, Output};

use common::edited::{ready, sliver};
use common::node::{Node, run};
use common::slivers::{backend, in_stores, view};
use common::tree::assert_same;
use common::{busy, listing};

#[test]
fn a_plan_and_the_way_back() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 96);
    let wanted = sliver(&node, "s", "overlay");
    let plan = node.ok(&["convert", "s", "--to", "copy", "--dry-run"]);
    for step in ["cp -aT", "# write the changes of the overlay store", "mv -T --exchange", "sync -f"] {
        assert!(plan.contains(step), "{plan}");
    }
    let told = node.json(&["convert", "s", "--to", "copy", "--dry-run", "--json"]);
    assert_eq!(told["state"], "planned");
    assert!(told["entries"].as_u64().unwrap() > 10 && told["bytes"].as_u64().unwrap() > 3_000_000, "{told}");
    assert_eq!(in_stores(&node), ["s"]);
    assert_eq!(node.json(&["convert", "s", "--to", "overlay", "--json"])["state"], "unchanged");
    node.fails(2, &["convert", "s", "--undo"]);

    node.ok(&["mount", "s"]);
    let said = node.fails(4, &["convert", "s", "--to", "copy"]);
    assert!(said.contains("is mounted at"), "{said}");
    node.ok(&["umount", "s"]);

    node.ok(&["convert", "s", "--to", "copy"]);
    let sheet = node.json(&["show", "s", "--json"]);
    assert!(sheet["kept_store"].as_str().unwrap().ends_with("/.store/.old.s"), "{sheet}");
    node.ok(&["convert", "s", "--undo", "--dry-run"]);
    assert_eq!(backend(&node, "s"), "copy");
    node.ok(&["convert", "s", "--undo"]);
    assert_eq!((backend(&node, "s").as_str(), in_stores(&node)), ("overlay", vec!["s".to_owned()]));
    assert_same(&view(&node, "s"), &wanted, "brought back");
    // What cannot be removed of the store that was given up is told: it is undone all the same.
    node.ok(&["convert", "s", "--to", "copy"]);
    let immutable = node.store("s").join("tree/var/big");
    run(Command::new("chattr").arg("+i").arg(&immutable));
    let output = node.run(&["convert", "s", "--undo"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    run(Command::new("chattr").arg("-i").arg(node.lxcpath.join(".store/.rm.s/tree/var/big")));
    assert!(output.status.success() && said.contains("chattr -i"), "{said}");
    assert_eq!(backend(&node, "s"), "overlay");
    assert_same(&view(&node, "s"), &wanted, "brought back");
    node.ok(&["check", "--repair"]);
    assert_eq!(in_stores(&node), ["s"]);
    // Destroyed with what is kept of it.
    node.ok(&["convert", "s", "--to", "copy"]);
    node.ok(&["destroy", "s"]);
    assert_eq!(in_stores(&node), [""; 0]);

    for args in [
        &["convert", "s"][..],
        &["convert", "--to", "copy"],
        &["convert", "s", "--to", "nosuch"],
        &["convert", "s", "--to", "copy", "--undo"],
        &["convert", "s", "--to", "tree", "--format", "overlay"],
    ] {
        node.fails(2, args);
    }
}

/// What the new kind cannot keep is told by name, and nothing was begun.
#[test]
fn what_a_format_cannot_keep() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 96);
    node.ok(&["create", "s", "--base", "b", "--backend", "copy"]);
    let tree = node.store("s").join("tree");
    let long = "n".repeat(243);
    for name in [".wh.one", "META_dAfFgHE39ktF3HD2sr", &long, "etc/.wh..wh.x"] {
        fs::write(tree.join(name), name).unwrap();
    }
    run(Command::new("mknod").arg(tree.join("var/zero")).args(["c", "0", "0"]));
    run(Command::new("setfattr").args(["-n", "trusted.overlay.opaque", "-v", "y"]).arg(tree.join("etc/dir")));
    let before = listing::of(&tree, true);
    for (to, names) in [
        ("aufs", &[".wh.one", long.as_str(), "etc/.wh..wh.x"][..]),
        ("overlay", &["var/zero (a device 0:0"]),
        ("mini_fo", &["META_dAfFgHE39ktF3HD2sr"]),
        ("overlayfs", &["etc/dir (the driver would obey"]),
    ] {
        for args in [&["convert", "s", "--to", to][..], &["convert", "s", "--to", to, "--dry-run"]] {
            let said = node.fails(1, args);
            assert!(names.iter().all(|name| said.contains(name)), "{to}: {said}");
            assert!(said.contains("rename or remove them"), "{said}");
        }
        assert_eq!(in_stores(&node), ["s"], "{to}");
    }
    assert_eq!(backend(&node, "s"), "copy");
    assert_same(&listing::of(&tree, true), &before, "the old store");
    assert!(fs::symlink_metadata(tree.join("var/zero")).unwrap().file_type().is_char_device());

    // Nor what the base has, which a union of the new kind would hide.
    let odd = node.dir().join("odd");
    fs::create_dir_all(odd.join("etc")).unwrap();
    fs::write(odd.join("etc/.wh.hosts"), "").unwrap();
    node.ok(&["base", "add", "odd", odd.to_str().unwrap()]);
    node.ok(&["create", "o", "--base", "odd", "--backend", "overlay"]);
    assert!(node.fails(1, &["convert", "o", "--to", "aufs"]).contains("etc/.wh.hosts (names of whiteouts"));
    node.ok(&["convert", "o", "--to", "mini_fo"]);

    // A store that its own format does not explain is told, and not guessed at.
    node.ok(&["create", "t", "--base", "b", "--backend", "overlay"]);
    node.ok(&["convert", "t", "--to", "overlayfs"]);
    std::os::unix::fs::symlink("(overlay-whiteout)", node.store("t").join("upper/etc")).unwrap();
    let said = node.fails(5, &["convert", "t", "--to", "aufs"]);
    assert!(said.contains("etc (a whiteout without its attribute"), "{said}");
}

/// A node whose kernel changed: its slivers are told what to do, or are converted by themselves.
#[test]
fn a_store_that_the_kernel_cannot_show() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 96);
    let wanted = sliver(&node, "s", "overlay");
    node.ok(&["convert", "s", "--to", "mini_fo"]);
    for command in ["mount", "apply"] {
        let said = with_config(&node, "", &[command, if command == "mount" { "s" } else { "--dry-run" }]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said.status.code(), Some(if command == "mount" { 3 } else { 1 }), "{text}");
        assert!(text.contains("sliverfs convert s --to auto"), "{text}");
    }
    assert_eq!(backend(&node, "s"), "mini_fo");
    let auto = "option convert 'auto'";
    let plan = with_config(&node, auto, &["mount", "s", "--dry-run"]);
    assert!(String::from_utf8_lossy(&plan.stdout).contains("as overlay"), "{plan:?}");
    assert_eq!(backend(&node, "s"), "mini_fo");
    assert!(with_config(&node, auto, &["mount", "s"]).status.success());
    assert_same(&listing::of(&node.view("s"), true), &wanted, "mounted");
    node.ok(&["umount", "s"]);
    assert_eq!((backend(&node, "s").as_str(), in_stores(&node)), ("overlay", vec!["s".to_owned()]));

    node.ok(&["convert", "s", "--to", "aufs"]);
    let plan = with_config(&node, auto, &["apply", "--dry-run"]);
    let steps = "sliverfs convert s --to auto\nsliverfs mount s\n";
    assert_eq!(String::from_utf8_lossy(&plan.stdout), steps, "{plan:?}");
    let done = with_config(&node, auto, &["apply"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_same(&listing::of(&node.view("s"), true), &wanted, "applied");
    node.ok(&["umount", "s"]);
}

fn with_config(node: &Node, option: &str, args: &[&str]) -> Output {
    let file = node.dir().join("config");
    let text = format!("config sliverfs main\n{option}\nconfig sliver s\noption base b\n");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sliverfs"));
    command.arg("--config").arg(file).arg("--lxcpath").arg(&node.lxcpath).args(args).output().unwrap()
}

#[test]
fn a_full_disk_leaves_the_old_state() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 32);
    let wanted = sliver(&node, "s", "overlay");
    let fill = |name: &str| {
        let file = node.lxcpath.join(name);
        busy::fill(&file);
        fs::OpenOptions::new().write(true).open(file).unwrap()
    };
    let big = fill("big");
    big.set_len(big.metadata().unwrap().len() - (160 << 10)).unwrap();
    big.sync_all().unwrap();
    for to in ["copy", "aufs"] {
        // The second one needs few blocks: it finds none at all.
        if to == "aufs" {
            fill("rest");
        }
        let said = node.fails(1, &["convert", "s", "--to", to]);
        assert!(said.contains("No space left on device") && said.contains("the disk is full"), "{said}");
        assert!(!said.contains("take back"), "{said}");
        assert_eq!(in_stores(&node), ["s"], "{to}");
        assert_eq!(backend(&node, "s"), "overlay");
    }
    fs::remove_file(node.lxcpath.join("rest")).unwrap();
    assert_same(&view(&node, "s"), &wanted, "the old view");
    drop(big);
    fs::remove_file(node.lxcpath.join("big")).unwrap();
    node.ok(&["convert", "s", "--to", "copy"]);
    assert_same(&view(&node, "s"), &wanted, "the new view");
}

/// A restore was cut where the old folder is out of the way, and the new one not yet in its place: nobody takes that for the sliver.
#[test]
fn what_was_cut_is_ended_first() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 96);
    node.ok(&["create", "s", "--base", "b", "--backend", "copy"]);
    let wanted = view(&node, "s");
    let cut = "cd $1; mkdir .sliverfs-new .sliverfs-old; cp -a tree/etc .sliverfs-new/etc; mv tree/etc .sliverfs-old; echo P etc > .sliverfs-journal";
    let cut = || run(Command::new("sh").args(["-ec", cut, "sh"]).arg(node.store("s")));
    let lost = |text: &str| text.lines().filter(|line| line.starts_with("etc")).count();
    cut();
    for args in [&["diff", "s"][..], &["export", "s", "-o", "/dev/null"]] {
        assert!(node.fails(4, args).contains("sliverfs check --repair s"), "{args:?}");
    }
    node.ok(&["check", "--repair", "s"]);
    node.ok(&["diff", "s"]);
    cut();
    node.ok(&["convert", "s", "--to", "overlay"]);
    assert_eq!(lost(&view(&node, "s")), lost(&wanted));
    node.ok(&["convert", "s", "--to", "copy"]);
    node.ok(&["mount", "s"]);
    node.ok(&["umount", "s"]);
    cut();
    node.ok(&["base", "add", "c", node.dir().join("tree").to_str().unwrap()]);
    node.ok(&["rebase", "s", "--onto", "c"]);
    assert_eq!(lost(&view(&node, "s")), lost(&wanted));
}
