//! Limits: they grow, shrink and go with the view unchanged, the configuration gives them, and the node promises no more than it has.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};

use common::node::Node;
use common::slivers::in_stores;
use common::tree::said_in as sh;
use common::{listing, require};

const MIB: u64 = 1 << 20;

/// The binary with a configuration.
fn with_config(node: &Node, config: &str, args: &[&str]) -> Output {
    let file = node.dir().join("uci");
    fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sliverfs"));
    command.arg("--config").arg(file).arg("--lxcpath").arg(&node.lxcpath).args(args).output().unwrap()
}

#[test]
fn limits_change_and_the_view_stays() {
    if !require("root", common::root()) {
        return;
    }
    for fstype in ["ext4", "btrfs"] {
        let node = Node::with_base(fstype, 320);
        node.ok(&["create", "a", "--base", "b"]);
        node.ok(&["mount", "a"]);
        let view = node.view("a");
        let script = "
            rm etc/a.txt etc/dir/c.txt; rm -r var/deep; mkdir -p var/deep/new; echo x >var/deep/new/x; chmod 600 etc/b.txt
            ln var/deep/new/x hard; setfattr -n user.k -v v hard; mknod dev c 1 5; rm -r empty; echo now >empty
            head -c 6000000 /dev/urandom >big; truncate -s 20M holes";
        assert_eq!(sh(&view, script), "");
        let before = listing::of(&view, true);
        node.ok(&["umount", "a"]);
        let space = |file: &str| fs::metadata(node.store("a").join(file)).unwrap().blocks() * 512;
        for (size, told) in [
            ("64M", "limited to 64 MiB by image"),
            ("64M", "limited to 64 MiB by image"),
            ("100M", "limited to 100 MiB by image"),
            ("16M", "limited to 16 MiB by image"),
            ("none", "has no limit"),
            ("20M", "limited to 20 MiB by image"),
        ] {
            assert!(node.ok(&["quota", "a", size]).contains(told), "{fstype}: {size}");
            assert!(node.ok(&["quota", "a"]).contains(told), "{fstype}: {size}");
            if size == "none" {
                assert!(
                    !node.store("a").join("quota.img").exists() && node.store("a").join("upper").exists()
                );
            } else {
                assert!(space("quota.img") >= size.trim_end_matches('M').parse::<u64>().unwrap() * MIB);
            }
            node.ok(&["mount", "a"]);
            assert_eq!(listing::of(&view, true), before, "{fstype}: {size}");
            node.ok(&["umount", "a"]);
        }
        let said = node.fails(1, &["quota", "a", "5M"]);
        assert!(said.contains("uses 5.7 MiB, which does not fit into 5 MiB"), "{said}");
        let said = node.fails(1, &["quota", "a", "6500K"]);
        assert!(said.contains("does not fit into 6.3 MiB"), "{said}");
        node.fails(2, &["quota", "a", "1M"]);
        let said = node.fails(1, &["quota", "a", "2G"]);
        assert!(said.contains("cannot be promised"), "{said}");
        assert!(node.ok(&["quota", "a"]).contains("limited to 20 MiB"));
        assert_eq!(in_stores(&node), ["a"], "no half of a store is left");
        node.ok(&["mount", "a"]);
        assert_eq!(listing::of(&view, true), before, "{fstype}");
        node.fails(4, &["quota", "a", "16M"]);
        node.fails(4, &["quota", "a", "none"]);
        node.ok(&["umount", "a"]);
    }
}

#[test]
fn no_more_is_promised_than_there_is() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 128);
    node.ok(&["create", "a", "--base", "b", "--quota", "48M"]);
    let said = node.fails(1, &["create", "c", "--base", "b", "--quota", "90M"]);
    assert!(said.contains("90 MiB more cannot be promised") && said.contains("48 MiB are"), "{said}");
    assert!(!node.store("c").exists() && !node.lxcpath.join("c").exists());
    let main = |options: &str| format!("config sliverfs main\n{options}\n");
    let run = |options: &str, args: &[&str]| with_config(&node, &main(options), args);
    // What is free does not count, and neither does what is full: no more than what was promised.
    let reserve = run("option reserve '80M'", &["create", "c", "--base", "b", "--quota", "8M"]);
    assert!(String::from_utf8_lossy(&reserve.stderr).contains("cannot be promised"));
    let over = run("option overcommit '1.5'", &["create", "c", "--base", "b", "--quota", "90M"]);
    assert!(over.status.success(), "{}", String::from_utf8_lossy(&over.stderr));
    let image = fs::metadata(node.store("c").join("quota.img")).unwrap();
    assert_eq!(image.len(), 90 * MIB);
    assert!(image.blocks() * 512 < 8 * MIB, "an overcommitted image is sparse");
    for (options, said) in
        [("option overcommit '0.5'", "is no factor"), ("option quota_mode 'soft '", "is no means")]
    {
        let output = run(options, &["quota", "a", "40M"]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && stderr.contains(said), "{stderr}");
    }
    // Soft is a number and no promise, and is never called a quota.
    let soft = run("option quota_mode 'soft'", &["create", "d", "--base", "b", "--quota", "1G"]);
    assert!(soft.status.success(), "{}", String::from_utf8_lossy(&soft.stderr));
    assert!(!node.store("d").join("quota.img").exists());
    let shown = node.ok(&["show", "d"]) + &node.ok(&["quota", "d"]);
    assert!(shown.contains("of 1 GiB that it should take (soft: measured only)"), "{shown}");
    assert!(!shown.contains("quota") && !shown.contains("limited"), "{shown}");
    // One that is there keeps what it has.
    let said = node.fails(2, &["create", "a", "--base", "b", "--quota", "64M"]);
    assert!(said.contains("sliverfs quota a"), "{said}");
    node.ok(&["create", "a", "--base", "b", "--quota", "48M"]);
    // A copy has no means here.
    node.fails(3, &["create", "e", "--base", "b", "--backend", "copy", "--quota", "8M"]);
}

#[test]
fn the_configuration_gives_limits_and_changes_them() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 128);
    let apply = |quota: &str, args: &[&str]| {
        let config = format!("config sliver a\n option base b\n option quota '{quota}'\n");
        with_config(&node, &config, args)
    };
    assert!(apply("16M", &["apply"]).status.success());
    assert_eq!(node.json(&["show", "a", "--json"])["limit"], 16 * MIB);
    assert!(node.view("a").join("etc").exists());
    assert!(apply("16M", &["apply"]).status.success());
    let planned = apply("24M", &["apply", "--dry-run"]);
    assert_eq!(String::from_utf8_lossy(&planned.stdout), "sliverfs quota a 24M\n");
    // It is mounted, and cannot shrink: that is told, and it stays up.
    let less = apply("8M", &["apply"]);
    assert!(less.status.code() == Some(1) && String::from_utf8_lossy(&less.stderr).contains("is mounted at"));
    node.ok(&["umount", "a"]);
    let done = apply("8M", &["apply"]);
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && told.contains("`a` is given 8 MiB"), "{told}");
    assert_eq!(node.json(&["show", "a", "--json"])["limit"], 8 * MIB);
    assert!(node.view("a").join("etc").exists());
    let bad = apply("8 MB", &["apply"]);
    assert!(String::from_utf8_lossy(&bad.stderr).contains("no size"));
}

/// Where the disk keeps them, the work is done by `tests/quota-machine`.
#[test]
fn a_disk_without_project_quotas_is_refused_with_the_way_out() {
    if !require("root", common::root()) {
        return;
    }
    for (fstype, way_out) in [
        ("ext4", "tune2fs -O project -Q prjquota"),
        ("xfs", "mount it with prjquota"),
        ("btrfs", "ext4, XFS and f2fs alone"),
    ] {
        let node = Node::with_base(fstype, 320);
        let create = ["create", "a", "--base", "b", "--backend", "overlay", "--quota", "16M", "--means"];
        let said = node.fails(3, &[&create[..], &["project"]].concat());
        assert!(said.contains(way_out), "{fstype}: {said}");
        assert!(!node.store("a").exists() && !node.lxcpath.join("a").exists(), "{fstype}: something is left");
        node.ok(&["create", "a", "--base", "b", "--backend", "overlay"]);
        fs::write(node.store("a").join("upper/kept"), "text").unwrap();
        let said = node.fails(3, &["quota", "a", "16M", "--means", "project"]);
        assert!(said.contains(way_out), "{fstype}: {said}");
        // What the container would need is there, and the disk cannot: auto takes the image.
        let config = node.lxcpath.join("a/config");
        fs::write(&config, fs::read_to_string(&config).unwrap() + "lxc.idmap = u 0 100000 65536\n").unwrap();
        assert!(node.ok(&["quota", "a", "16M"]).contains("by image"), "{fstype}");
        node.ok(&["quota", "a", "none"]);
        assert_eq!(fs::read_to_string(node.store("a").join("upper/kept")).unwrap(), "text");
        // A record from a disk that kept them.
        let record = node.store("a").join("sliver.json");
        let text = fs::read_to_string(&record).unwrap();
        let limit =
            |project: &str| format!(",\"quota\":{{\"bytes\":16777216,\"means\":\"project\"{project}}}}}");
        let with =
            |project: &str| text.trim_end().strip_suffix('}').unwrap().to_owned() + &limit(project) + "\n";
        fs::write(&record, with("")).unwrap();
        node.fails(5, &["mount", "a"]);
        fs::write(&record, with(",\"project\":20000")).unwrap();
        let said = node.fails(5, &["mount", "a"]);
        assert!(said.contains("is not in its project 20000"), "{fstype}: {said}");
        assert!(node.fails(5, &["usage", "a"]).contains("sliverfs quota SLIVER none"), "{fstype}");
        node.ok(&["quota", "a", "none"]);
        node.ok(&["mount", "a"]);
        assert_eq!(fs::read_to_string(node.view("a").join("kept")).unwrap(), "text");
        node.ok(&["umount", "a"]);
    }
    let node = Node::with_base("ext4", 64);
    let copy = ["create", "a", "--base", "b", "--backend", "copy", "--quota", "16M", "--means", "project"];
    assert!(node.fails(3, &copy).contains("tune2fs -O project -Q prjquota"));
    assert!(!node.store("a").exists());
    let dataset = ["create", "a", "--base", "b", "--backend", "copy", "--quota", "16M", "--means", "zfs"];
    node.fails(3, &dataset);
    // Nothing is in the way of the next one.
    node.ok(&["create", "a", "--base", "b", "--backend", "copy"]);
    node.fails(3, &["quota", "a", "16M", "--means", "zfs"]);
    node.ok(&["quota", "a", "16M", "--means", "soft"]);
    node.ok(&["destroy", "a"]);
}

#[test]
fn probe_says_what_keeps_a_limit() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::new("ext4", 64);
    let limit = |kinds: &serde_json::Value, kind: &str| {
        kinds.as_array().unwrap().iter().find(|verdict| verdict["kind"] == kind).unwrap()["limit"].clone()
    };
    let kinds = node.json(&["probe", "--json"]);
    assert_eq!(limit(&kinds, "overlay"), serde_json::json!({"means": "image", "reason": null}));
    assert_eq!(limit(&kinds, "btrfs-seed")["means"], "seed");
    let copy = limit(&kinds, "copy");
    assert!(copy["means"].is_null() && copy["reason"].as_str().unwrap().contains("nothing keeps"), "{copy}");
    let text = node.ok(&["probe"]);
    assert!(text.lines().any(|line| line.starts_with("overlay") && line.contains("image ")), "{text}");
    // Without the program there is no image.
    let mut command = node.command(&["probe", "--json"]);
    let output = command.env("PATH", node.dir()).output().unwrap();
    let kinds = serde_json::from_slice(&output.stdout).unwrap();
    let reason = limit(&kinds, "overlay")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("mkfs.ext4 is not installed"), "{reason}");
    assert_eq!(fs::read_dir(node.lxcpath.join(".store")).unwrap().count(), 0);
}
