//! A limit by Btrfs's simple quotas. What a tenant takes by leaving it is measured in `quota_escapes.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::process::Command;

use common::escapes::fill;
use common::node::{Node, PROFILE, run};
use common::slivers::simple_quotas;
use common::tree::said_in as sh;
use common::{require, strace};

const MIB: u64 = 1 << 20;

#[test]
fn a_qgroup_limits_a_snapshot() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("btrfs", 400);
    let make = ["create", "a", "--base", "b", "--backend", "btrfs-snapshot", "--quota", "16M"];
    let named = [&make[..], &["--means", "qgroup"]].concat();
    let said = node.fails(3, &named);
    assert!(said.contains("quotas are off") && said.contains("sliverfs quota --enable"), "{said}");
    if !simple_quotas(&node) {
        return;
    }
    node.ok(&["quota", "--enable"]);
    let said = node.fails(3, &make);
    assert!(said.contains("lxc.seccomp.profile = ") && !node.store("a").exists(), "{said}");
    let warns = |args: &[&str]| {
        let output = node.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
        said.contains("`a`: a tenant leaves a qgroup by ioctls") && said.contains("lxc.seccomp.profile = /")
    };
    assert!(warns(&named));
    // A mount that fails leaves the limit that was there.
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=mount:error=ENOMEM:when=1+"]);
    let mount = node.command(&["mount", "a"]);
    let output = strace.arg(mount.get_program()).args(mount.get_args()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("Cannot allocate memory"), "{said}");
    let groups = || run(Command::new("btrfs").args(["qgroup", "show", "-re"]).arg(&node.lxcpath));
    assert!(groups().contains("16.00MiB"), "{}", groups());
    assert!(warns(&["mount", "a"]));
    let view = node.view("a");
    // What he takes by that is measured in tests/quota_escapes.rs.
    fill(&view, "Disk quota exceeded", "1");
    let sheet = node.json(&["show", "a", "--json"]);
    assert_eq!((&sheet["limit"], &sheet["means"]), (&(16 * MIB).into(), &"qgroup".into()));
    let used = sheet["used"].as_u64().unwrap();
    assert!((10 * MIB..=17 * MIB).contains(&used), "{used}");
    // A diff says of subvolumes of the tenant that it cannot tell them.
    let said = sh(
        &view,
        "rm -f fill mine/more mine/all/more && sync -f . && btrfs -q subvolume delete mine/all mine && echo ok",
    );
    assert!(said.contains("ok"), "{said}");
    node.ok(&["umount", "a"]);
    node.ok(&["diff", "a"]);
    node.ok(&["restore", "a", "etc"]);
    node.ok(&["mount", "a"]);
    assert_eq!(sh(&view, "rm tiny2 && echo x >x && cat x etc/a.txt"), "x\nhello\n");
    // More, and less than what is used, while it is mounted.
    let said = node.fails(1, &["quota", "a", "2M"]);
    assert!(said.contains("does not fit into 2 MiB"), "{said}");
    node.ok(&["quota", "a", "40M"]);
    assert!(sh(&view, "head -c 20M /dev/zero >fill && echo ok").contains("ok"));
    node.ok(&["quota", "a", "none"]);
    assert!(sh(&view, "head -c 60M /dev/zero >fill && echo ok").contains("ok"));
    node.ok(&["quota", "a", "90M", "--means", "qgroup"]);
    // On a disk where nothing limits it, it is not mounted.
    node.ok(&["umount", "a"]);
    run(Command::new("btrfs").args(["quota", "disable"]).arg(&node.lxcpath));
    assert!(node.fails(3, &["mount", "a"]).contains("quotas are off"));
    node.ok(&["quota", "--enable"]);
    node.ok(&["mount", "a"]);
    assert!(sh(&view, "head -c 200M /dev/zero >over").contains("Disk quota exceeded"));
    assert!(node.fails(3, &["convert", "a", "--to", "copy"]).contains("sliverfs quota a none"));
    node.ok(&["umount", "a"]);
    node.ok(&["quota", "a", "none"]);
    // A user namespace alone does not hold him.
    sh(&node.lxcpath, "echo 'lxc.idmap = u 0 100000 65536' >>a/config");
    node.fails(3, &["quota", "a", "80M"]);
    sh(&node.lxcpath, &format!("echo ' lxc.seccomp.profile={PROFILE}' >>a/config"));
    assert!(
        node.fails(1, &["quota", "a", "80M"]).contains("does not fit"),
        "what it wrote without a limit counts"
    );
    assert!(!warns(&["quota", "a", "95M"]) && !warns(&["mount", "a"]));
    assert!(node.ok(&["quota", "a"]).contains("by qgroup"));
    // A later line takes its place, and a profile that leaves something open is none.
    sh(
        &node.lxcpath,
        &format!(
            "sed 's/0xff00/0xffff/' {PROFILE} >open; echo \"lxc.seccomp.profile = $PWD/open\" >>a/config"
        ),
    );
    node.ok(&["umount", "a"]);
    assert!(warns(&["mount", "a"]));
    node.ok(&["umount", "a"]);
    node.ok(&["destroy", "a"]);
    assert!(!groups().contains("16.00MiB"), "{}", groups());
}

#[test]
fn full_qgroups_are_not_taken() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("btrfs", 256);
    run(Command::new("btrfs").args(["quota", "enable"]).arg(&node.lxcpath));
    let said = node.fails(
        3,
        &["create", "a", "--base", "b", "--backend", "btrfs-snapshot", "--quota", "16M", "--means", "qgroup"],
    );
    assert!(said.contains("full qgroups, which a tenant leaves"), "{said}");
    assert!(!node.store("a").exists());
    assert!(node.fails(3, &["quota", "--enable"]).contains("btrfs quota disable"));
}

/// A creation and a destruction that are cut leave a group that nothing leads to any more but what they left beside it.
#[test]
fn a_cut_leaves_no_qgroup() {
    if !require("root", common::root()) || !require("strace", strace::works()) {
        return;
    }
    let node = Node::with_base("btrfs", 256);
    if !simple_quotas(&node) {
        return;
    }
    node.ok(&["probe"]);
    let create =
        ["create", "a", "--base", "b", "--backend", "btrfs-snapshot", "--quota", "16M", "--means", "qgroup"];
    let groups = || {
        let shown = run(Command::new("btrfs").args(["qgroup", "show"]).arg(&node.lxcpath));
        shown.lines().filter(|line| line.trim_start().starts_with("1/")).count()
    };
    let ioctls = |args: &[&str]| {
        let mut points = strace::points(&node, args);
        points.retain(|point| point.call == "ioctl");
        points
    };
    let mut left = 0;
    for point in ioctls(&create) {
        node.ok(&["destroy", "a"]);
        strace::kill(&node, &point, &create);
        left += usize::from(groups() > usize::from(node.store("a").exists()));
        node.ok(&["check", "--repair"]);
        assert_eq!(groups(), usize::from(node.store("a").exists()), "{point:?}, repaired");
        node.ok(&["destroy", "a"]);
        strace::kill(&node, &point, &create);
        node.ok(&create);
        assert_eq!(groups(), 1, "{point:?}, and again");
    }
    assert!(left > 0, "no cut left a group");
    for point in ioctls(&["destroy", "a"]) {
        node.ok(&create);
        strace::kill(&node, &point, &["destroy", "a"]);
        node.ok(&["check", "--repair"]);
        assert_eq!(groups(), usize::from(node.store("a").exists()), "{point:?}");
    }
}

/// Cut anywhere, the kernel lets a snapshot have no more than is promised to it, and the next mount puts it right.
#[test]
fn a_cut_change_of_a_qgroup_promises_what_it_gives() {
    if !require("root", common::root()) || !require("strace", strace::works()) {
        return;
    }
    let node = Node::with_base("btrfs", 256);
    if !simple_quotas(&node) {
        return;
    }
    node.ok(&["create", "a", "--base", "b", "--backend", "btrfs-snapshot"]);
    // Of 24 MiB nothing is kept back from the kernel. Without a limit, as the kernel tells it, it is as much as there can be.
    let told = || {
        let shown = run(Command::new("btrfs").args(["qgroup", "show", "-r", "--raw"]).arg(&node.lxcpath));
        let line = shown.lines().find(|line| line.trim_start().starts_with("1/"));
        line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok()).unwrap_or(u64::MAX)
    };
    let promised = || node.json(&["show", "a", "--json"])["limit"].as_u64().unwrap_or(u64::MAX);
    let change = |to: &'static str| ["quota", "a", to, "--means", "qgroup"];
    for (from, to) in [("24M", "16M"), ("16M", "24M"), ("24M", "none")] {
        node.ok(&change(from));
        let mut points = strace::points(&node, &change(to));
        points.retain(|point| point.call == "ioctl" || point.call.starts_with("rename"));
        assert!(points.len() > 2, "{points:?}");
        for point in points {
            node.ok(&change(from));
            strace::kill(&node, &point, &change(to));
            assert!(told() <= promised(), "{from} to {to}, {point:?}: {} of {}", told(), promised());
            node.ok(&["mount", "a"]);
            if promised() != u64::MAX {
                assert_eq!(told(), promised(), "{from} to {to}, {point:?}, mounted");
            }
            node.ok(&change(to));
            assert_eq!(told(), promised(), "{from} to {to}, {point:?}, and again");
            node.ok(&["umount", "a"]);
        }
    }
}
