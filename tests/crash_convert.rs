//! Conversions that are killed anywhere or find the disk full: the sliver is of the old kind or the new one, and its view is the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "crash/made.rs"]
mod made;
#[path = "layer/shown.rs"]
mod shown;

use std::process::Command;

use common::faults::Trial;
use common::node::{Node, run};
use common::slivers::{Saved, backend, in_stores, view};
use common::tree::{assert_same, installed, sh_in};
use common::{require, seed, strace};
use made::{check, node, only, ready, seen, trial};

/// From one kind to another and back.
fn conversions(node: &Node, from: &str, to: &str) {
    let view = || seen(node).split_once('\n').unwrap().1.to_owned();
    let wanted = view();
    trial(node, &["convert", "s", "--to", to]);
    assert_same(&view(), &wanted, to);
    run(Command::new("rm").arg("-rf").arg(node.store(".old.s")));
    trial(node, &["convert", "s", "--to", from]);
    assert_same(&view(), &wanted, from);
}

#[test]
fn conversions_between_unions() {
    if ready() {
        conversions(&node("ext4", 64, "overlay"), "overlay", "aufs");
    }
}

#[test]
fn conversions_between_a_union_and_a_snapshot() {
    if ready() && require("btrfs-snapshot", installed("mkfs.btrfs")) {
        conversions(&node("btrfs", 200, "overlay"), "overlay", "btrfs-snapshot");
    }
}

/// What is stored for a daemon is written and read without it.
#[test]
fn conversions_to_a_store_of_a_daemon_and_back() {
    if ready() {
        conversions(&node("ext4", 64, "overlay"), "overlay", "fuse-overlayfs");
    }
}

/// One in so many calls is tried of those that mount a seed.
const EACH: usize = 25;

/// A sliver on a seed, whose view is had by a mount alone.
#[test]
fn a_conversion_from_a_seed() {
    if !ready() || !require("btrfs-seed", installed("mkfs.btrfs")) {
        return;
    }
    let Some(node) = seed::node(400) else { return };
    node.ok(&["probe"]);
    seed::create(&node, "s");
    node.ok(&["mount", "s"]);
    sh_in(&node.view("s"), "echo s > etc/s; rm etc/b.txt; ln etc/s etc/t; echo a >> etc/a.txt");
    node.ok(&["umount", "s"]);
    let saved = Saved::of(&node);
    Trial {
        node: &node,
        args: &["convert", "s", "--to", "overlay"],
        fresh: &|| saved.again(),
        seen: &|| view(&node, "s"),
        settle: &|what| check(&node, what),
        tidy: &|what| {
            only(&node, &[&["s"], &[".old.s", "s"]], what);
            seed::is_clean(&node, what);
        },
    }
    .run_each(EACH);
}

#[test]
fn the_way_back_from_a_conversion() {
    if !ready() {
        return;
    }
    let node = node("ext4", 64, "overlay");
    node.ok(&["convert", "s", "--to", "copy"]);
    let saved = Saved::of(&node);
    Trial {
        node: &node,
        args: &["convert", "s", "--undo"],
        fresh: &|| saved.again(),
        seen: &|| seen(&node),
        settle: &|what| check(&node, what),
        tidy: &|what| only(&node, &[&["s"], &[".old.s", "s"]], what),
    }
    .run();
    only(&node, &[&["s"]], "undone");
}

/// A kernel that cannot let two folders change places: killed between its renames.
#[test]
fn killed_between_the_renames_of_an_old_kernel() {
    if !ready() {
        return;
    }
    let node = node("ext4", 64, "overlay");
    let mounted = view(&node, "s");
    let view_of = || seen(&node).split_once('\n').unwrap().1.to_owned();
    let wanted = view_of();
    let convert = ["convert", "s", "--to", "copy"];
    let mut lost = 0;
    for number in 1..100 {
        let kill = format!("inject=rename:signal=KILL:when={number}");
        let old = "inject=renameat2:error=EINVAL";
        let options = ["-f", "-e", "trace=rename,renameat2", "-e", old, "-e", &kill];
        let ended = strace::command(&node, &options, &convert).status().unwrap();
        // A list finds it under its name, wherever its folder is just now.
        let list = node.json(&["list", "--json"]);
        assert_eq!(list[0]["name"], "s", "{number}");
        if list[0]["recorded"] != "created" {
            lost += 1;
            node.fails(5, &["show", "s"]);
            assert!(node.fails(4, &["base", "remove", "b"]).contains("is used by s"));
            node.ok(&["umount", "s"]);
        }
        assert_same(&view_of(), &wanted, &format!("{number}"));
        node.ok(&convert);
        assert_eq!((backend(&node, "s").as_str(), in_stores(&node).len()), ("copy", 2), "{number}");
        if ended.success() {
            assert!(number > 3 && lost > 0, "{number} {lost}");
            assert_same(&view(&node, "s"), &mounted, "the view");
            return;
        }
        node.ok(&["convert", "s", "--undo"]);
        assert_eq!(in_stores(&node), ["s"]);
    }
    panic!("it never ended");
}
