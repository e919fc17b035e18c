//! What an operator reads at 2 a.m.: for each mistake that is easily made, the exit code, and what was tried, on which path, why it
//! failed, and the way out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::node::{Node, run};
use common::tree::installed;
use common::{busy, require, root};

/// Each command must end with the code, and say all of the texts.
fn said(node: &Node, when: &str, mistakes: &[(i32, &str, &[&str])]) {
    let dir = node.dir().to_str().unwrap();
    for (code, line, texts) in mistakes {
        let line = line.replace("DIR", dir);
        let said = node.fails(*code, &line.split(' ').collect::<Vec<_>>());
        for text in *texts {
            let text = text.replace("DIR", dir);
            assert!(said.contains(&text), "{when}: {line}: `{text}` is missing in: {said}");
        }
    }
}

fn node() -> Node {
    let node = Node::with_base("ext4", 96);
    let tree = node.dir().join("tree");
    node.ok(&["base", "add", "b2", tree.to_str().unwrap()]);
    node.ok(&["create", "web", "--base", "b"]);
    node
}

#[test]
fn a_slip_of_the_pen() {
    if !require("root", root()) || !require("rsync", installed("rsync")) {
        return;
    }
    let node = node();
    fs::write(node.dir().join("text"), "no archive\n").unwrap();
    said(
        &node,
        "with nothing mounted",
        &[
            (2, "create x --base nope", &["no base `nope` in DIR/disk/lxc", "`sliverfs base list`"]),
            (2, "create web --base b2", &["with base b ", "`sliverfs rebase web --onto b2`"]),
            (
                2,
                "create web --base b --backend copy",
                &["backend overlay", "`sliverfs convert web --to copy`"],
            ),
            (2, "create x --base b --backend zfs", &["`zfs` is no backend", "take auto, overlay"]),
            (1, "base add x /nowhere.tar", &["open /nowhere.tar: No such file", "see whether the path"]),
            (2, "base add x DIR/text", &["DIR/text is no archive or image", "it takes tar"]),
            (2, "base add x DIR/tree --pack zip", &["`zip` is no image format", "squashfs, erofs or btrfs"]),
            (
                2,
                "create web --base b --quota 64M",
                &["with another limit", "sliverfs quota web 64M changes it"],
            ),
            (2, "create web --base b --size 300M", &["limit is none", "sliverfs quota web 300M"]),
            (2, "create x --base b --size 300M", &["keeps no limit", "a quota in its place"]),
            (2, "quota", &["no sliver is named", "sliverfs quota SLIVER SIZE", "--enable"]),
            (2, "list --config DIR/uci", &["Unrecognized argument: --config", "the options before them"]),
            (0, "destroy nobody", &["there is no sliver `nobody` in DIR/disk/lxc: nothing is destroyed"]),
            (2, "frobnicate", &["Unrecognized argument: frobnicate", "`sliverfs help` lists"]),
            (2, "list --spaces", &["Unrecognized argument: --spaces", "`sliverfs COMMAND --help`"]),
            (2, "create x --base=b", &["Unrecognized argument: --base=b", "not `--base=NAME`"]),
            (2, "create x", &["a sliver stands on a base", "--base BASE"]),
            (2, "create a/b --base b", &["`a/b` is not a name", "starts with a letter or a digit"]),
            (2, "mount wbe", &["no sliver `wbe` in DIR/disk/lxc", "`sliverfs list`"]),
            (2, "mount", &["name the slivers, or give --all"]),
            (2, "restore web no/such", &["the base has no no/such"]),
            (2, "restore web ../../etc/passwd", &["`../../etc/passwd` leads out of the sliver"]),
            (2, "restore web /", &["the whole sliver cannot be restored", "destroy it and create it again"]),
            (2, "convert web --to btrfs", &["`btrfs` is no backend", "btrfs-snapshot, btrfs-seed"]),
            (2, "convert web --to btrfs-seed", &["cannot stand on the base `b`", "--pack btrfs"]),
            (
                2,
                "convert web --undo",
                &["no store of `web` from before a conversion", "to the next mount only"],
            ),
            (2, "rebase web --onto nope", &["no base `nope`", "`sliverfs base list`"]),
            (2, "rebase web --undo", &["no store of `web` from before a rebase", "--commit"]),
            (
                2,
                "diff --format overley --base DIR/tree --store DIR",
                &["`overley` is no format", "overlayfs, mini_fo"],
            ),
            (2, "diff --format overlay --base DIR/tree", &["want all of --format, --base and --store"]),
            (2, "import web DIR/text", &["DIR/text is no archive", "it takes tar"]),
            (2, "export web --json", &["standard output cannot take the layer and JSON", "-o FILE"]),
            (
                1,
                "export web -o DIR/no/such/web.tar",
                &["create DIR/no/such/", "No such file", "its folder there"],
            ),
            (1, "sync web /nowhere", &["open the source /nowhere: No such file"]),
            (
                2,
                "sync web DIR/disk",
                &["`DIR/disk` holds the slivers themselves", "rsync://HOST/MODULE/PATH"],
            ),
            (2, "base remove nope", &["no base `nope`", "`sliverfs base list`"]),
            (4, "base remove b", &["the base `b` is used by web", "rebase them", "--commit`"]),
        ],
    );
    for asked in ["-h", "--help", "help"] {
        assert!(node.ok(&["mount", asked]).starts_with("Usage: sliverfs mount "), "{asked}");
    }
    // Nothing differs where nothing is, and that must not look the same.
    let looked = node.run(&["diff", "web", "no/such"]);
    let text = String::from_utf8_lossy(&looked.stderr).into_owned();
    assert!(
        looked.status.success() && text.contains("neither the sliver nor its base has no/such"),
        "{text}"
    );
    let looked = node.run(&["diff", "web", "etc/a.txt"]);
    assert!(looked.stdout.is_empty() && looked.stderr.is_empty(), "{looked:?}");
    assert_eq!(node.ok(&["rebase", "web", "--onto", "b"]), "`web` stands on `b` already\n");
    let mut alone = node.command(&["sync", "web", node.dir().join("tree").to_str().unwrap()]);
    let alone = alone.env("PATH", "/nowhere").output().unwrap();
    let text = String::from_utf8_lossy(&alone.stderr).into_owned();
    assert!(alone.status.code() == Some(3) && text.contains("rsync is not installed; install it"), "{text}");
}

#[test]
fn what_is_in_use() {
    if !require("root", root()) || !require("rsync", installed("rsync")) {
        return;
    }
    let node = node();
    node.ok(&["mount", "web"]);
    let mounted: &[&str] =
        &["the store of `web` is mounted at DIR/disk/lxc/web/rootfs", "unmount it: sliverfs umount web"];
    said(
        &node,
        "while it is mounted",
        &[
            (4, "compact web", mounted),
            (4, "restore web etc/a.txt", mounted),
            (4, "convert web --to copy", mounted),
            (4, "rebase web --onto b2", mounted),
            (4, "import web DIR/nothing.tar", mounted),
            (4, "sync web DIR/tree", mounted),
            (4, "destroy web", mounted),
            (4, "check web", mounted),
        ],
    );
}

#[test]
fn a_disk_that_is_full_read_only_or_gone() {
    if !require("root", root()) || !require("rsync", installed("rsync")) {
        return;
    }
    let node = node();
    let disk = node.dir().join("disk");
    node.ok(&["mount", "web"]);
    run(Command::new("sh").args(["-ec", "head -c 5000000 /dev/urandom >data"]).current_dir(node.view("web")));
    node.ok(&["umount", "web"]);
    let tar = node.dir().join("layer.tar");
    node.ok(&["export", "web", "-o", tar.to_str().unwrap()]);
    busy::fill(&disk.join("fill"));
    let full: &[&str] = &["No space left on device", "the disk is full"];
    said(
        &node,
        "on a full disk",
        &[
            (
                1,
                "base add b3 DIR/tree",
                &["No space left on device", "nothing of the base was kept", "are free on the disk"],
            ),
            (1, "convert web --to copy", full),
            (1, "rebase web --onto b2", full),
            (1, "import web DIR/layer.tar --replace", full),
            (1, "sync web DIR/tree", full),
            (1, "export web -o DIR/disk/web.tar", full),
            (
                1,
                "export web -o DIR/disk/web.tar.gz",
                &["gzip did not write DIR/disk/web.tar.gz", "stands above"],
            ),
        ],
    );
    fs::remove_file(disk.join("fill")).unwrap();
    assert!(!Path::new(&disk).join("web.tar").exists() && !node.store("../.new.web").exists());
    busy::remount("ro", &disk);
    let read_only: &[&str] = &["Read-only file system", "remount it, or check it with fsck"];
    said(
        &node,
        "on a disk that is read-only",
        &[
            (1, "create x --base b", read_only),
            (1, "mount web", read_only),
            (1, "destroy web", read_only),
            (1, "base add b3 DIR/tree", read_only),
            (1, "convert web --to copy", read_only),
            (1, "rebase web --onto b2", read_only),
            (1, "import web DIR/layer.tar --replace", read_only),
            (1, "sync web DIR/tree", read_only),
        ],
    );
    busy::umount(&disk);
    let gone: &[&str] = &["open LXCPATH DIR/disk/lxc: No such file or directory", "mount its disk"];
    said(&node, "without its disk", &[(1, "list", gone), (1, "mount web", gone)]);
    fs::create_dir(&node.lxcpath).unwrap();
    let unmarked: &[&str] =
        &["DIR/disk/lxc does not carry slivers", "if its disk is not mounted yet, mount it"];
    said(&node, "on the bare mount point", &[(1, "mount web", unmarked), (1, "create x --base b", unmarked)]);
}

#[test]
fn an_interrupt() {
    if !require("root", root()) {
        return;
    }
    let node = node();
    let tar = run(Command::new("sh")
        .args(["-ec", "head -c 300000 /dev/zero >big; tar -cf layer.tar big; echo made"])
        .current_dir(node.dir()));
    assert_eq!(tar, "made\n");
    let layer = fs::read(node.dir().join("layer.tar")).unwrap();
    let mut import = node.command(&["import", "web", "-"]);
    let mut child = import.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The rest never comes.
    child.stdin.as_mut().unwrap().write_all(&layer[..200_000]).unwrap();
    let begun = node.lxcpath.join(".store/.new.web/layer/big");
    busy::until("it has not begun", || begun.exists() || child.try_wait().unwrap().is_some());
    run(Command::new("kill").args(["-INT", &child.id().to_string()]));
    let stdin = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.signal(), Some(2), "{text}");
    let words = "interrupted: the sliver is as it was; the same command begins anew";
    assert_eq!(text.matches(words).count(), 1, "{text}");
    assert_eq!(node.ok(&["diff", "web"]), "");
    node.ok(&["import", "web", node.dir().join("layer.tar").to_str().unwrap()]);
    assert_eq!(node.ok(&["diff", "web"]), "added     big  293 KiB\n");
}
