//! `sliverfs probe` on real disks of this kernel: what it proves, how it says no, and what it remembers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::node::{Node, run};
use common::{busy, listing, require};
use serde_json::Value;

/// What the probe says of overlay.
fn overlay(node: &Node, args: &[&str]) -> Value {
    let output = node.run(&[&["probe", "--json"], args].concat());
    let verdicts: Value = serde_json::from_slice(&output.stdout).unwrap();
    let verdicts = verdicts.as_array().unwrap();
    let verdict = verdicts.iter().find(|verdict| verdict["kind"] == "overlay").unwrap();
    let any = verdicts.iter().any(|verdict| verdict["auto"] == true);
    assert_eq!(output.status.code(), Some(if any { 0 } else { 3 }));
    verdict.clone()
}

/// A node whose LXCPATH lies on what is mounted with the given arguments.
fn node_on(mount: &[&str]) -> Node {
    let mut node = Node::new("ext4", 32);
    let disk = node.dir().join("other");
    fs::create_dir(&disk).unwrap();
    run(Command::new("mount").args(mount).arg(&disk));
    node.lxcpath = disk.join("lxc");
    fs::create_dir(&node.lxcpath).unwrap();
    node.ok(&["init"]);
    node
}

/// The folder of this boot's state.
fn run_folder(node: &Node) -> PathBuf {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(&node.lxcpath).unwrap();
    Path::new("/var/run/sliverfs").join(format!("{:x}-{:x}", meta.dev(), meta.ino()))
}

#[test]
fn works_on_ext4_xfs_and_btrfs_and_leaves_nothing() {
    if !require("root", common::root()) {
        return;
    }
    for (fstype, mib) in [("ext4", 32), ("xfs", 320), ("btrfs", 128)] {
        let node = Node::with_base(fstype, mib);
        let before = listing::of(&node.lxcpath, false);
        let verdict = overlay(&node, &[]);
        assert_eq!(verdict["works"], true, "{fstype}: {verdict}");
        assert_eq!(verdict["reason"], Value::Null);
        assert_eq!(verdict["features"]["index"], true);
        assert_eq!(listing::of(&node.lxcpath, false), before, "{fstype}");
        for kind in ["overlayfs", "mini_fo", "aufs"] {
            node.fails(3, &["create", "x", "--base", "b", "--backend", kind, "--dry-run"]);
        }
    }
}

#[test]
fn a_disk_that_lies_on_an_overlay_is_told_so() {
    if !require("root", common::root()) {
        return;
    }
    let outer = Node::with_base("ext4", 32);
    outer.ok(&["create", "a", "--base", "b"]);
    outer.ok(&["mount", "a"]);
    let mut node = Node::new("ext4", 16);
    node.lxcpath = outer.view("a").join("lxc");
    fs::create_dir(&node.lxcpath).unwrap();
    node.ok(&["init"]);
    let reason = overlay(&node, &[])["reason"].as_str().unwrap().to_owned();
    assert!(
        reason.contains("lies on an overlay") && reason.contains("use the raw /overlay or another disk"),
        "{reason}"
    );
    assert!(reason.contains(node.lxcpath.to_str().unwrap()), "{reason}");
    let tree = outer.dir().join("tree");
    node.ok(&["base", "add", "b", tree.to_str().unwrap()]);
    // By name: `auto` would take fuse-overlayfs, where that is installed.
    node.fails(3, &["create", "x", "--base", "b", "--backend", "overlay"]);
    assert!(!node.store("x").exists() && !node.lxcpath.join("x").exists());
}

#[test]
fn a_disk_that_mounts_and_cannot_do_the_rest_is_not_offered() {
    if !require("root", common::root()) {
        return;
    }
    // ramfs keeps no trusted xattrs and knows no RENAME_WHITEOUT.
    let node = node_on(&["-t", "ramfs", "ramfs"]);
    let verdict = overlay(&node, &[]);
    assert_eq!((&verdict["offered"], &verdict["works"]), (&true.into(), &false.into()));
    let reason = verdict["reason"].as_str().unwrap();
    assert!(reason.contains("ramfs") && reason.contains("use a disk with"), "{reason}");
}

#[test]
fn a_full_or_read_only_disk_is_never_remembered_as_unsupported() {
    if !require("root", common::root()) {
        return;
    }
    let node = node_on(&["-t", "tmpfs", "-o", "size=256k,nr_inodes=40", "tmpfs"]);
    let fill = node.lxcpath.join("fill");
    let mut made = Vec::new();
    for number in 0.. {
        let path = node.lxcpath.join(format!("fill{number}"));
        if fs::create_dir(&path).is_err() {
            break;
        }
        made.push(path);
    }
    let verdict = overlay(&node, &[]);
    assert_eq!((&verdict["works"], &verdict["lasting"]), (&false.into(), &false.into()), "{verdict}");
    assert!(verdict["reason"].as_str().unwrap().contains("full"), "{verdict}");
    made.iter().for_each(|path| fs::remove_dir(path).unwrap());
    assert!(!fill.exists());
    assert_eq!(overlay(&node, &[])["works"], true, "tried again without being told");

    let disk = node.lxcpath.parent().unwrap();
    busy::remount("ro", disk);
    let verdict = overlay(&node, &["--fresh"]);
    assert_eq!((&verdict["works"], &verdict["lasting"]), (&false.into(), &false.into()), "{verdict}");
    busy::remount("rw", disk);
    assert_eq!(overlay(&node, &[])["works"], true);
}

#[test]
fn what_is_remembered_and_what_is_proved_again() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::new("ext4", 32);
    overlay(&node, &[]);
    let file = run_folder(&node).join("probe.json");
    let known = fs::read_to_string(&file).unwrap();
    // A remembered yes is believed.
    let marked = known.replace("\"works\":true,\"reason\":null", "\"works\":true,\"reason\":\"from memory\"");
    assert_ne!(marked, known);
    fs::write(&file, &marked).unwrap();
    assert_eq!(overlay(&node, &[])["reason"], "from memory");
    assert_eq!(overlay(&node, &["--fresh"])["reason"], Value::Null);
    // A remembered no is believed too, while the kernel lists the same file systems.
    let no = known.replace("\"works\":true,\"reason\":null", "\"works\":false,\"reason\":\"from memory\"");
    fs::write(&file, &no).unwrap();
    assert_eq!(overlay(&node, &[])["reason"], "from memory");
    let mut changed: Value = serde_json::from_str(&no).unwrap();
    changed["filesystems"] = 1.into();
    fs::write(&file, changed.to_string()).unwrap();
    assert_eq!(overlay(&node, &[])["works"], true);
    // Another boot, another disk under the same key, or garbage: nothing of it is believed.
    for (key, value) in [("boot", Value::from("another")), ("disk", 1.into()), ("version", 99.into())] {
        let mut other: Value = serde_json::from_str(&no).unwrap();
        other[key] = value;
        fs::write(&file, other.to_string()).unwrap();
        assert_eq!(overlay(&node, &[])["works"], true, "{key}");
    }
    fs::write(&file, "{").unwrap();
    assert_eq!(overlay(&node, &[])["works"], true);
}

#[test]
fn a_full_or_read_only_disk_is_told_in_words() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::new("ext4", 16);
    let disk = node.dir().join("disk");
    let told = |words: &str| {
        let output = node.run(&["probe", "--fresh"]);
        let [table, said] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        assert_eq!(output.status.code(), Some(3), "{table}{said}");
        let words = format!("the disk of `{}` is {words}", node.lxcpath.display());
        for line in table.lines().skip(1) {
            assert!(line.contains(&words), "{table}");
        }
        assert!(said.contains(&words) && !said.contains("another disk"), "{said}");
        assert!(!table.contains(".probe.") && !said.contains(".probe."), "{table}{said}");
    };
    busy::remount("ro", &disk);
    told("mounted read-only: remount it");
    busy::remount("rw", &disk);
    let fill = disk.join("fill");
    let _full =
        Command::new("dd").args(["if=/dev/zero", "bs=4k"]).arg(format!("of={}", fill.display())).output();
    // ext4 gives back what it reserved too much of, once all is written.
    run(Command::new("sync").arg("-f").arg(&disk));
    // What the last blocks of ext4 are kept for: folders.
    let made =
        (0..).map(|number| disk.join(format!("fill{number}"))).take_while(|dir| fs::create_dir(dir).is_ok());
    assert!(made.count() < 10_000);
    told("full: free some space");
    fs::remove_file(fill).unwrap();
    assert_eq!(overlay(&node, &[])["works"], true, "nothing of it was remembered");
}

#[test]
fn only_the_probe_writes_trial_files() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 32);
    node.ok(&["create", "a", "--base", "b"]);
    fs::remove_file(run_folder(&node).join("probe.json")).unwrap();
    // After a reboot nothing is remembered; a mount asks for the options and tries nothing.
    let trace = node.dir().join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=mkdir,mkdirat,unshare,fork,clone,vfork", "-o"]).arg(&trace);
    strace
        .arg(env!("CARGO_BIN_EXE_sliverfs"))
        .args(["--config", "/dev/null", "--lxcpath"])
        .arg(&node.lxcpath);
    run(strace.args(["mount", "a"]));
    let calls = fs::read_to_string(&trace).unwrap();
    assert!(!calls.contains(".probe") && !calls.contains("unshare") && !calls.contains("fork"), "{calls}");
    let options = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = options.lines().find(|line| line.contains(node.view("a").to_str().unwrap())).unwrap();
    assert!(line.contains("redirect_dir=nofollow"), "{line}");
}

#[test]
fn what_a_crashed_probe_left_is_swept() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::new("ext4", 32);
    let left = node.lxcpath.join(".store/.probe.4711/upper/x");
    fs::create_dir_all(&left).unwrap();
    overlay(&node, &["--fresh"]);
    assert!(!node.lxcpath.join(".store/.probe.4711").exists());
}

#[test]
fn who_starts_it_may_throw_ends_of_children_away() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::new("ext4", 32);
    let probe = node.command(&["probe", "--fresh"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' CHLD; exec \"$0\" \"$@\""]).arg(probe.get_program()).args(probe.get_args());
    run(&mut shell);
}
