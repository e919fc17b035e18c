//! Full copies on a disk that deduplicates: a real pool of zfs-fuse. `auto` takes them there, and there alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs::File;
use std::process::{Command, Stdio};

use nix::fcntl::{Flock, FlockArg};

use common::node::{Node, run, small_tree};
use common::zfs::{POOL, Zfs};
use common::{busy, listing, require};
use serde_json::Value;

/// What the probe says of copies, and what `auto` takes.
fn copy(node: &Node, path: Option<&str>) -> (Value, Option<String>) {
    let mut command = node.command(&["probe", "--json"]);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let output = command.output().unwrap();
    let verdicts: Value = serde_json::from_slice(&output.stdout).unwrap();
    let verdicts = verdicts.as_array().unwrap();
    let taken = verdicts.iter().find(|verdict| verdict["auto"] == true);
    assert_eq!(output.status.code(), Some(if taken.is_some() { 0 } else { 3 }));
    let taken = taken.map(|verdict| verdict["kind"].as_str().unwrap().to_owned());
    (verdicts.iter().find(|verdict| verdict["kind"] == "copy").unwrap().clone(), taken)
}

/// What is done in a view leaves what it leaves in a plain folder, also after a remount. zfs-fuse drops a set-id bit when root
/// writes, too, so no file that has one is written to.
fn edit(node: &Node) {
    let script = "echo new > new; ln -s new sym; mkfifo p; mknod dev c 1 5; rm etc/dir/c.txt; echo more >> etc/a.txt; mv var/deep d
        chmod 4711 etc/b.txt; chown 5:6 var/null; setfattr -n user.a -v one etc/b.txt; truncate -s 2000000 var/sparse
        ln etc/b.txt second; rm -r 'odd names'; setfattr -n trusted.b -v two bin
        find . -newermt @1600000000 ! -type d -exec touch -h -d @2000000000 {} +";
    let tree = node.dir().join("tree");
    for folder in [&node.view("x"), &tree] {
        run(Command::new("sh").args(["-ec", script]).current_dir(folder));
    }
    let wanted = listing::of(&tree, false);
    assert_eq!(listing::of(&node.view("x"), false), wanted);
    node.ok(&["umount", "x"]);
    node.ok(&["mount", "x"]);
    assert_eq!(listing::of(&node.view("x"), false), wanted, "after a remount");
}

#[test]
fn a_pool_that_deduplicates() {
    if !require("zfs-fuse", common::zfs::available()) {
        return;
    }
    let mut node = Node::new("ext4", 16);
    let zfs = Zfs::on(&mut node, 256);
    let said = |verdict: &Value| verdict["reason"].as_str().unwrap().to_owned();

    // Found out each time: the property is the operator's, at any time.
    let (off, taken) = copy(&node, None);
    assert_eq!((&off["works"], &off["auto"]), (&true.into(), &false.into()), "{off}");
    assert_ne!(taken.as_deref(), Some("copy"));
    assert!(said(&off).contains(&format!("while dedup is off for {POOL} (fuse.zfs)")), "{off}");
    let (unknown, _) = copy(&node, Some("/nonexistent"));
    assert_eq!(unknown["auto"], false);
    assert!(said(&unknown).contains("the program `zfs` is not installed"), "{unknown}");
    zfs.set("dedup=on");
    let (on, taken) = copy(&node, None);
    assert_eq!((&on["works"], &on["auto"]), (&true.into(), &true.into()), "{on}");
    // Before fuse-overlayfs, whose daemon takes memory for each sliver.
    assert_eq!(taken.as_deref(), Some("copy"));
    assert!(said(&on).contains(&format!("{POOL} (fuse.zfs) with dedup=on")), "{on}");
    assert!(node.ok(&["probe"]).contains("with dedup=on (auto takes it)"));

    let tree = node.dir().join("tree");
    small_tree(&tree);
    // zfs-fuse keeps whole seconds.
    let script = "cd \"$0/var\"; head -c 8000000 /dev/urandom > random; touch -d @1500000000 random .";
    run(Command::new("sh").args(["-ec", script]).arg(&tree));
    node.ok(&["base", "add", "b", tree.to_str().unwrap()]);
    let one = zfs.number("allocated");
    // syncfs(2) does not reach the pool. Where that cannot be asked, each file is written to it before the store gets its name.
    let trace = node.dir().join("trace");
    let plain = node.command(&["create", "v", "--base", "b", "--backend", "copy"]);
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-E", "PATH=/nonexistent", "-e", "trace=fsync,?rename,?renameat,renameat2", "-o"])
        .arg(&trace)
        .arg(plain.get_program());
    run(strace.args(plain.get_args()));
    let calls = std::fs::read_to_string(&trace).unwrap();
    let (before, _) = calls.split_once("/.store/v\"").expect("the store's rename");
    // 12 files in 11 inodes, the record and LXC's configuration.
    assert!(before.matches("fsync(").count() >= 13, "{calls}");
    node.ok(&["destroy", "v"]);
    for name in ["x", "y", "z"] {
        node.ok(&["create", name, "--base", "b"]);
        assert_eq!(node.json(&["show", name, "--json"])["backend"], "copy");
        node.ok(&["mount", name]);
        assert_eq!(listing::of(&node.view(name), true), listing::of(&tree, true), "{name}");
    }
    let (four, ratio) = (zfs.number("allocated"), zfs.number("dedupratio"));
    assert!(ratio >= 350 && four - one < 2_000_000, "dedupratio {ratio}, {one} bytes and then {four}");
    edit(&node);
    for name in ["x", "y", "z"] {
        node.ok(&["umount", name]);
    }
    node.fails(3, &["dedupe"]);
    zfs.set("dedup=off");
    match node.run(&["create", "w", "--base", "b"]).status.code() {
        Some(0) => assert_ne!(node.json(&["show", "w", "--json"])["backend"], "copy"),
        code => assert_eq!(code, Some(3)),
    }
    node.ok(&["destroy", "w"]);
    for name in ["x", "y", "z"] {
        node.ok(&["destroy", name]);
    }
    node.ok(&["base", "remove", "b"]);
}

/// What works on one sliver in a mount namespace of its own, for long, holds no other's dataset there.
#[test]
fn a_dataset_goes_while_another_sliver_is_synced() {
    if !require("zfs-fuse", common::zfs::available()) || !require("rsync", common::tree::installed("rsync")) {
        return;
    }
    let mut node = Node::new("ext4", 16);
    let _zfs = Zfs::on(&mut node, 256);
    let (tree, programs) = (node.dir().join("tree"), node.dir().join("programs"));
    small_tree(&tree);
    std::fs::create_dir(&programs).unwrap();
    node.ok(&["base", "add", "b", tree.to_str().unwrap()]);
    for name in ["x", "y"] {
        node.ok(&["create", name, "--base", "b", "--backend", "copy", "--quota", "8M"]);
    }
    // One that waits before it begins, for a lock that goes with this test, however it ends.
    let [began, go] = ["began", "go"].map(|name| programs.join(name));
    let go = Flock::lock(File::create(&go).unwrap(), FlockArg::LockExclusive).unwrap();
    let real = "PATH=${PATH#*:}; [ \"$1\" = --version ] || { : > \"${0%/*}/began\"; flock \"${0%/*}/go\" true; }; exec rsync \"$@\"";
    busy::script(&programs.join("rsync"), &format!("#!/bin/sh\n{real}\n"));
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut sync = node.command(&["sync", "x", tree.to_str().unwrap()]);
    let mut sync = sync.env("PATH", path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    busy::until("rsync was not started", || began.exists() || sync.try_wait().unwrap().is_some());
    let destroyed = node.run(&["destroy", "y"]);
    drop(go);
    assert!(sync.wait().unwrap().success());
    assert!(destroyed.status.success(), "{}", String::from_utf8_lossy(&destroyed.stderr));
    node.ok(&["mount", "x"]);
    assert_eq!(listing::of(&node.view("x"), true), listing::of(&tree, true));
    node.ok(&["umount", "x"]);
    node.ok(&["destroy", "x"]);
}

/// What a command made is there after a power cut in the very next moment, the names and what is in the files.
#[test]
fn a_power_cut_takes_nothing() {
    if !require("zfs-fuse", common::zfs::available()) {
        return;
    }
    let mut node = Node::new("ext4", 16);
    let mut zfs = Zfs::on(&mut node, 256);
    let tree = node.dir().join("tree");
    small_tree(&tree);
    let wanted = listing::of(&tree, true);
    zfs.number("allocated");
    node.ok(&["base", "add", "b", tree.to_str().unwrap()]);
    zfs.crash();
    for limit in [&[][..], &["--quota", "8M"]] {
        node.ok(&[&["create", "x", "--base", "b", "--backend", "copy"], limit].concat());
        zfs.crash();
        node.ok(&["check"]);
        node.ok(&["mount", "x"]);
        assert_eq!(listing::of(&node.view("x"), true), wanted, "{limit:?}");
        // A folder, and a file alone.
        run(Command::new("sh")
            .args(["-ec", "rm -r var; echo other > etc/a.txt"])
            .current_dir(node.view("x")));
        node.ok(&["umount", "x"]);
        zfs.number("allocated");
        node.ok(&["restore", "x", "var"]);
        zfs.crash();
        // What had no more use may be there again.
        node.ok(&["check", "--repair"]);
        node.ok(&["restore", "x", "etc/a.txt"]);
        zfs.crash();
        node.ok(&["check", "--repair"]);
        node.ok(&["mount", "x"]);
        for part in ["var", "etc/a.txt"] {
            let [restored, base] = [node.view("x"), tree.clone()].map(|top| top.join(part));
            if part == "var" {
                assert_eq!(listing::of(&restored, true), listing::of(&base, true), "{limit:?}");
            } else {
                assert_eq!(std::fs::read(restored).unwrap(), std::fs::read(base).unwrap(), "{limit:?}");
            }
        }
        node.ok(&["umount", "x"]);
        node.ok(&["destroy", "x"]);
    }
}
