//! What snapshots meet on a real Btrfs: bases that came by another way, subvolumes in a source, and a base on another disk.
//! Subvolumes of a tenant are in `alive`, edits in `conformance`, cuts in `crash`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::node::{Node, run};
use common::slivers::in_stores;
use common::{listing, require};

fn btrfs() -> Option<Node> {
    require("root", common::root()).then(|| Node::with_base("btrfs", 300))
}

fn tool(args: &[&str], path: &Path) -> String {
    run(Command::new("btrfs").args(args).arg(path))
}

/// A base that was protected by hand, or came with `btrfs receive`: both are read-only, and a sliver is not.
#[test]
fn a_base_that_is_read_only_or_was_received() {
    let Some(node) = btrfs() else { return };
    let tree = node.lxcpath.join(".base/b/tree");
    run(Command::new("btrfs").args(["property", "set"]).arg(&tree).args(["ro", "true"]));
    let check = |uuid: bool| {
        let show = tool(&["subvolume", "show"], &tree);
        let received = show.lines().find(|line| line.contains("Received UUID")).unwrap().to_owned();
        assert_eq!(!received.trim_end().ends_with('-'), uuid, "{show}");
        assert!(show.contains("readonly"), "{show}");
        node.ok(&["create", "a", "--base", "b", "--backend", "btrfs-snapshot"]);
        node.ok(&["mount", "a"]);
        fs::write(node.view("a").join("etc/b.txt"), "mine").unwrap();
        let show = tool(&["subvolume", "show"], &node.store("a").join("tree"));
        let received = show.lines().find(|line| line.contains("Received UUID")).unwrap();
        // Another `btrfs receive` would take it for what was sent, if it still said so.
        assert!(received.trim_end().ends_with('-') && !show.contains("readonly"), "{show}");
        node.ok(&["umount", "a"]);
        node.ok(&["destroy", "a"]);
        node.ok(&["base", "verify", "b"]);
    };
    check(false);
    // The node's disk is replaced: the base is sent, and received at its new place.
    let base = node.lxcpath.join(".base/b");
    let stream = node.dir().join("stream");
    let script = r#"btrfs -q send -f "$2" "$1/tree"; btrfs property set "$1/tree" ro false
        btrfs -q subvolume delete "$1/tree"; btrfs -q receive -f "$2" "$1""#;
    run(Command::new("sh").args(["-ec", script, "sh"]).arg(&base).arg(&stream));
    check(true);
    node.ok(&["base", "remove", "b"]);
    assert!(!base.exists());
    assert_eq!(fs::read_dir(node.lxcpath.join(".base")).unwrap().count(), 0);
}

/// A sliver that came with `btrfs receive`, or whose tenant made its root read-only, is a writable one all the same.
#[test]
fn a_sliver_that_became_read_only() {
    let Some(node) = btrfs() else { return };
    node.ok(&["create", "a", "--base", "b", "--backend", "btrfs-snapshot"]);
    let store = node.store("a");
    let stream = node.dir().join("stream");
    let script = r#"btrfs property set "$1/tree" ro true; btrfs -q send -f "$2" "$1/tree"; btrfs -q subvolume delete "$1/tree"
        btrfs -q receive -f "$2" "$1""#;
    run(Command::new("sh").args(["-ec", script, "sh"]).arg(&store).arg(&stream));
    let plan = node.ok(&["mount", "a", "--dry-run"]);
    assert!(plan.contains("btrfs property set -f") && plan.contains("ro false"), "{plan}");
    node.ok(&["mount", "a"]);
    fs::write(node.view("a").join("file"), "mine").unwrap();
    run(Command::new("btrfs").args(["property", "set"]).arg(node.view("a")).args(["ro", "true"]));
    node.ok(&["umount", "a"]);
    node.ok(&["mount", "a"]);
    fs::write(node.view("a").join("file"), "mine again").unwrap();
    run(Command::new("btrfs").args(["property", "set"]).arg(node.view("a")).args(["ro", "true"]));
    node.ok(&["umount", "a"]);
    node.ok(&["destroy", "a"]);
    assert_eq!(fs::read_dir(node.lxcpath.join(".store")).unwrap().count(), 0);
}

/// systemd makes var/lib/machines and var/lib/portables subvolumes where it boots from Btrfs.
#[test]
fn subvolumes_in_a_source_are_folders_of_the_base() {
    let Some(node) = btrfs() else { return };
    let source = node.dir().join("disk/source");
    tool(&["-q", "subvolume", "create"], &source);
    fs::create_dir_all(source.join("var/lib")).unwrap();
    for nested in ["var/lib/machines", "var/lib/machines/inner", "srv"] {
        tool(&["-q", "subvolume", "create"], &source.join(nested));
        fs::write(source.join(nested).join("file"), nested).unwrap();
    }
    run(Command::new("btrfs").args(["property", "set"]).arg(source.join("srv")).args(["ro", "true"]));
    node.ok(&["base", "add", "nested", source.to_str().unwrap()]);
    node.ok(&["base", "verify", "nested"]);
    node.ok(&["create", "a", "--base", "nested", "--backend", "btrfs-snapshot"]);
    node.ok(&["mount", "a"]);
    assert_eq!(listing::of(&node.view("a"), true), listing::of(&source, true));
    fs::write(node.view("a").join("srv/file"), "mine").unwrap();
    // Something that is mounted in the source is still no part of it.
    let mounted = source.join("var/lib/portables");
    fs::create_dir(&mounted).unwrap();
    run(Command::new("mount").arg("--bind").arg(node.lxcpath.join(".store")).arg(&mounted));
    let other = node.dir().join("other");
    fs::create_dir(&other).unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&other));
    run(Command::new("mount").arg("--bind").arg(&other).arg(&mounted));
    let said = node.fails(1, &["base", "add", "no", source.to_str().unwrap()]);
    assert!(said.contains("var/lib/portables is another file system"), "{said}");
    run(Command::new("umount").arg(&mounted));
    run(Command::new("umount").arg(&mounted));
    // A tenant's subvolume counts as its space.
    let space = || node.json(&["show", "a", "--json"])["space"].as_u64().unwrap();
    let before = space();
    tool(&["-q", "subvolume", "create"], &node.view("a").join("mine"));
    fs::write(node.view("a").join("mine/file"), vec![1; 3 << 20]).unwrap();
    run(Command::new("sync").arg("-f").arg(&node.lxcpath));
    assert!(space() >= before + (3 << 20));
    node.ok(&["umount", "a"]);
    node.ok(&["destroy", "a"]);
    node.ok(&["base", "remove", "nested"]);
}

/// A tenant's own subvolume must not be missing in a store that is written anew.
#[test]
fn a_subvolume_of_a_tenant_is_not_lost() {
    let Some(node) = btrfs() else { return };
    node.ok(&["create", "a", "--base", "b", "--backend", "btrfs-snapshot"]);
    let tree = node.store("a").join("tree");
    tool(&["-q", "subvolume", "create"], &tree.join("sub"));
    fs::write(tree.join("sub/file"), "mine").unwrap();
    let source = node.dir().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("new"), "").unwrap();
    for args in [
        &["convert", "a", "--to", "copy", "--dry-run"][..],
        &["convert", "a", "--to", "copy"],
        &["convert", "a", "--to", "reflink"],
        &["sync", "a", source.to_str().unwrap(), "--dry-run"],
        &["sync", "a", source.to_str().unwrap()],
    ] {
        let said = node.fails(5, args);
        assert!(said.contains("sub (") && said.contains("subvolume delete"), "{args:?}: {said}");
        assert_eq!(in_stores(&node), ["a"], "{args:?}");
    }
    assert_eq!(fs::read_to_string(tree.join("sub/file")).unwrap(), "mine");
    // The way out.
    run(Command::new("cp").arg("-a").arg(tree.join("sub")).arg(tree.join("plain")));
    tool(&["-q", "subvolume", "delete"], &tree.join("sub"));
    let wanted = listing::of(&tree, true);
    node.ok(&["convert", "a", "--to", "copy"]);
    assert_eq!(listing::of(&tree, true), wanted);
}

/// However many files it has: a subvolume goes with one call, and the kernel clears up after the command has ended.
#[test]
fn a_deletion_is_one_call() {
    let Some(node) = btrfs() else { return };
    // The disk is mounted without user_subvol_rm_allowed, which is an option for others than root.
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(!table.contains("user_subvol_rm_allowed"));
    let calls = |program: &[&str]| {
        let trace = node.dir().join("trace");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-e", "trace=?unlink,unlinkat,?rmdir,ioctl", "-o"]).arg(&trace).args(program);
        let plain = node.command(&["destroy", "a"]);
        strace.arg(plain.get_program()).args(plain.get_args());
        run(&mut strace);
        let text = fs::read_to_string(trace).unwrap();
        let removals =
            text.lines().filter(|line| line.contains(" unlink") || line.contains(" rmdir")).count();
        (removals, text.matches("BTRFS_IOC_SNAP_DESTROY").count())
    };
    let create = || {
        node.ok(&["create", "a", "--base", "b", "--backend", "btrfs-snapshot"]);
        for number in 0..100 {
            fs::write(node.store("a").join("tree").join(number.to_string()), "x").unwrap();
        }
    };
    create();
    let (removals, deletions) = calls(&[]);
    assert!(deletions == 1 && removals < 20, "{removals} {deletions}");
    // Without the right to do that (in a container) it is emptied like a folder.
    create();
    let (removals, deletions) =
        calls(&["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]);
    assert!(deletions >= 1 && removals > 100, "{removals} {deletions}");
    assert_eq!(fs::read_dir(node.lxcpath.join(".store")).unwrap().count(), 0);
}

#[test]
fn bases_that_give_no_snapshot() {
    let Some(node) = btrfs() else { return };
    let kind = |name: &str, base: &str| {
        node.ok(&["create", name, "--base", base]);
        let backend = node.json(&["show", name, "--json"])["backend"].as_str().unwrap().to_owned();
        node.ok(&["destroy", name]);
        backend
    };
    // As on a kernel without overlay.
    node.ok(&["probe"]);
    without_unions(&node);
    assert_eq!(kind("a", "b"), "btrfs-snapshot");
    // Copied from another disk: a plain folder, whose files can be shared.
    let base = node.lxcpath.join(".base/b");
    let plain = node.lxcpath.join(".base/plain");
    run(Command::new("cp").args(["-a", "--reflink=never"]).arg(&base).arg(&plain));
    let record = fs::read_to_string(plain.join("base.json")).unwrap();
    fs::write(plain.join("base.json"), record.replace("\"name\":\"b\"", "\"name\":\"plain\"")).unwrap();
    node.ok(&["base", "verify", "plain"]);
    assert_eq!(kind("a", "plain"), "reflink");
    let said = node.fails(3, &["create", "a", "--base", "plain", "--backend", "btrfs-snapshot"]);
    assert!(said.contains(".base/plain/tree is no subvolume"), "{said}");
    // An image is a disk of its own: nothing is shared with it.
    if require("mksquashfs", common::tree::installed("mksquashfs")) {
        let tree = node.dir().join("tree");
        node.ok(&["base", "add", "image", tree.to_str().unwrap(), "--pack", "squashfs"]);
        for backend in ["btrfs-snapshot", "reflink"] {
            let said = node.fails(2, &["create", "a", "--base", "image", "--backend", backend]);
            assert!(said.contains("cannot stand on the base `image`"), "{said}");
        }
        let said = node.fails(3, &["create", "a", "--base", "image"]);
        assert!(said.contains("only when asked for by name"), "{said}");
        assert_eq!(fs::read_dir(node.lxcpath.join(".store")).unwrap().count(), 0);
    }
}

#[test]
fn a_base_on_another_disk() {
    let Some(node) = btrfs() else { return };
    let other = Node::new("btrfs", 300);
    let bases = other.lxcpath.join("bases");
    fs::rename(other.lxcpath.join(".base"), &bases).unwrap();
    node.ok(&["base", "remove", "b"]);
    fs::remove_dir(node.lxcpath.join(".base")).unwrap();
    std::os::unix::fs::symlink(&bases, node.lxcpath.join(".base")).unwrap();
    let tree = node.dir().join("tree");
    node.ok(&["base", "add", "b", tree.to_str().unwrap()]);
    let check = |kinds: &[&str]| {
        for kind in kinds {
            let said = node.fails(3, &["create", "a", "--base", "b", "--backend", kind]);
            assert!(
                said.contains("different disks") && said.contains("bring them onto one"),
                "{kind}: {said}"
            );
            assert!(!node.store("a").exists() && !node.lxcpath.join("a").exists());
            assert_eq!(fs::read_dir(node.lxcpath.join(".store")).unwrap().count(), 0);
        }
    };
    check(&["btrfs-snapshot", "reflink"]);
    let verdicts = node.json(&["probe", "--json"]);
    let verdict = verdicts.as_array().unwrap().iter().find(|verdict| verdict["kind"] == "reflink").unwrap();
    assert_eq!((&verdict["works"], &verdict["lasting"]), (&false.into(), &false.into()), "{verdict}");
    // It was on one disk when it was tried: the plan fails, is taken back, and says the same.
    fs::remove_file(node.lxcpath.join(".base")).unwrap();
    fs::create_dir(node.lxcpath.join(".base")).unwrap();
    node.ok(&["probe"]);
    fs::remove_dir(node.lxcpath.join(".base")).unwrap();
    std::os::unix::fs::symlink(&bases, node.lxcpath.join(".base")).unwrap();
    for kind in ["btrfs-snapshot", "reflink"] {
        let said = node.fails(1, &["create", "a", "--base", "b", "--backend", kind]);
        assert!(
            said.contains("bring .base and .store onto one") && said.contains("--backend copy"),
            "{kind}: {said}"
        );
        assert!(!node.store("a").exists() && !node.lxcpath.join("a").exists());
        assert_eq!(fs::read_dir(node.lxcpath.join(".store")).unwrap().count(), 0);
    }
    node.ok(&["create", "a", "--base", "b", "--backend", "copy"]);
    node.ok(&["mount", "a"]);
    assert_eq!(listing::of(&node.view("a"), true), listing::of(&tree, true));
    let said = node.ok(&["dedupe", "a", "--json"]);
    assert!(said.contains("\"gain\":0"), "{said}");
    node.ok(&["umount", "a"]);
    node.ok(&["destroy", "a"]);
}

/// Lets the node remember that no union works on it, and not as something that passes.
fn without_unions(node: &Node) {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(&node.lxcpath).unwrap();
    let key = format!("{:x}-{:x}", meta.dev(), meta.ino());
    let file = Path::new("/var/run/sliverfs").join(key).join("probe.json");
    let mut known: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    for verdict in known["verdicts"].as_array_mut().unwrap() {
        if ["overlay", "fuse-overlayfs", "btrfs-seed"].iter().any(|kind| verdict["kind"] == *kind) {
            verdict["works"] = false.into();
            verdict["auto"] = false.into();
            verdict["reason"] = "not here".into();
        }
    }
    fs::write(&file, known.to_string()).unwrap();
}
