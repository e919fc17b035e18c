//! Limits: on real disks a tenant who is root gets what was promised to him and no more, a full store is worked on like any other,
//! limits grow, shrink and go with the view unchanged, and the node promises no more than it has.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

use common::escapes::TRIES;
use common::node::{Node, PROFILE, run};
use common::slivers::in_stores;
use common::{listing, require, strace};

const MIB: u64 = 1 << 20;

/// Bytes that are free on the node's disk.
fn free(node: &Node) -> u64 {
    run(Command::new("sh").args(["-ec", "sync -f .; sync -f ."]).current_dir(&node.lxcpath));
    let text = run(Command::new("stat").args(["-f", "-c", "%f %S"]).arg(&node.lxcpath));
    text.split_whitespace().map(|word| word.parse::<u64>().unwrap()).product()
}

/// Runs a script in a folder; returns what it says, however it ends.
fn sh(folder: &Path, script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).current_dir(folder).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// The binary with a configuration.
fn with_config(node: &Node, config: &str, args: &[&str]) -> Output {
    let file = node.dir().join("uci");
    fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sliverfs"));
    command.arg("--config").arg(file).arg("--lxcpath").arg(&node.lxcpath).args(args).output().unwrap()
}

/// Fills a view with all that is left, in the ways that a tenant may think of.
fn fill(view: &Path, full: &str, subvolumes: &str) {
    let mut tries = Command::new("sh");
    tries.args(["-c", &format!("{TRIES}echo all")]).env("FULL", full).env("SUBVOLUMES", subvolumes);
    let output = tries.current_dir(view).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "all\n");
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
        assert!(fstype == "xfs" || before - free(&node) < MIB, "{fstype}: all of it is given back");
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

/// Turns simple quotas on where this kernel has them.
fn enabled(node: &Node) -> bool {
    let output = node.run(&["quota", "--enable"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    require("simple-quotas", if output.status.success() { Ok(()) } else { Err(said) })
}

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
    if !enabled(&node) {
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
    if !enabled(&node) {
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
    if !enabled(&node) {
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
