//! Views that a daemon serves: their life, what they take, and where they cannot be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use common::fuse::{KIND, actual, daemon, mounts, node, ready};
use common::holder::Holder;
use common::node::{Node, run};
use common::{busy, listing, require};
use serde_json::Value;

#[test]
fn its_life() {
    let Some(node) = node() else { return };
    node.ok(&["mount", "a"]);
    node.ok(&["mount", "a"]);
    let view = node.view("a");
    let table = mounts();
    let line = table.lines().rfind(|line| line.contains(view.to_str().unwrap())).unwrap();
    assert!(
        line.contains(&format!("- fuse.fuse-overlayfs sliverfs:{} ", node.store("a").display())),
        "{line}"
    );
    assert!(!line.contains("nosuid") && !line.contains("nodev"), "{line}");

    // A session of its own, nowhere in particular, with nothing of ours but its layers and its lock.
    let it = daemon(&node, "a");
    let proc = format!("/proc/{}", it.0);
    let stat = fs::read_to_string(format!("{proc}/stat")).unwrap();
    assert_eq!(stat.split(' ').nth(5), Some(it.0.to_string().as_str()), "{stat}");
    assert_eq!(fs::read_link(format!("{proc}/cwd")).unwrap(), Path::new("/"));
    assert_eq!(fs::read_link(format!("{proc}/fd/1")).unwrap(), Path::new("/dev/null"));
    for fd in fs::read_dir(format!("{proc}/fd")).unwrap() {
        let link = fs::read_link(fd.unwrap().path()).unwrap_or_default();
        assert!(!link.starts_with("/run/sliverfs") && !link.starts_with("/var/run/sliverfs"), "{link:?}");
    }
    let sheet = node.json(&["show", "a", "--json"]);
    let memory = sheet["daemon"]["memory"].as_u64().unwrap();
    assert!((64 << 10..64 << 20).contains(&memory), "{memory}");
    assert!(node.json(&["list", "--space", "--json"])[0]["memory"].as_u64().unwrap() > 64 << 10);
    assert_eq!(node.json(&["list", "--json"])[0].get("memory"), None);
    assert!(node.ok(&["list", "--space"]).contains("MEMORY"));
    assert!(node.ok(&["show", "a"]).contains(&format!("process {}, ", it.0)));

    // Devices and set-id programs work, also for those who are not root.
    assert_eq!(fs::read(view.join("var/null")).unwrap(), b"");
    let id = "cp \"$(command -v id)\" \"$0/id\" && chown 7:8 \"$0/id\" && chmod 6755 \"$0/id\" && \
              setpriv --reuid 1000 --regid 1000 --clear-groups \"$0/id\"";
    let said = run(Command::new("sh").arg("-ec").arg(id).arg(&view));
    assert!(said.contains("euid=7") && said.contains("egid=8"), "{said}");
    node.fails(4, &["destroy", "a"]);
    node.ok(&["umount", "a"]);
    node.ok(&["umount", "a"]);
    assert_eq!(actual(&node), "unmounted");
    assert!(!Path::new(&proc).join("fd/3").exists(), "its daemon outlives the view");
    node.ok(&["destroy", "a"]);
    node.ok(&["base", "verify", "b"]);
}

/// fuse-overlayfs 1.10 writes to one name of a file that has several, and at the next mount shows none of it; a device whose mode is
/// changed becomes an empty file. So such entries start in the store.
#[test]
fn what_it_cannot_copy_up() {
    let Some(node) = node() else { return };
    assert!(node.store("a").join("upper/etc/a.hard").exists());
    assert!(node.store("a").join("upper/var/fifo").exists());
    for other in ["etc/b.txt", "var/big", "var/deep", "odd names", "empty"] {
        assert!(!node.store("a").join("upper").join(other).exists(), "{other}");
    }
    let attributes = |path: &Path| {
        let meta = fs::metadata(path).unwrap();
        (meta.mode(), meta.uid(), meta.mtime(), meta.nlink())
    };
    let (base, view) = (node.lxcpath.join(".base/b/tree"), node.view("a"));
    node.ok(&["mount", "a"]);
    for name in ["etc", "etc/a.txt"] {
        assert_eq!(attributes(&view.join(name)), attributes(&base.join(name)), "{name}");
    }
    run(Command::new("sh")
        .args([
            "-ec",
            "echo more >> etc/a.hard; mv etc/a.txt var/a; ln etc/a.hard c; chmod 600 var/null; mv var/fifo p",
        ])
        .current_dir(&view));
    for _ in 0..2 {
        for name in ["etc/a.hard", "var/a", "c"] {
            assert_eq!(fs::read_to_string(view.join(name)).unwrap(), "hello\nmore\n", "{name}");
            // The number of links is that of the names which were looked at until now.
            let inode = |name: &str| fs::metadata(view.join(name)).unwrap().ino();
            assert_eq!(inode(name), inode("c"), "{name}");
        }
        assert!(!view.join("etc/a.txt").exists());
        assert_eq!(fs::metadata(view.join("var/null")).unwrap().mode(), 0o20600);
        assert!(fs::metadata(view.join("p")).unwrap().file_type().is_fifo());
        node.ok(&["umount", "a"]);
        node.ok(&["mount", "a"]);
    }
    node.ok(&["umount", "a"]);
    // A name that it takes for a deletion would hide another one.
    let tree = node.dir().join("odd");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join(".wh.file"), "").unwrap();
    node.ok(&["base", "add", "odd", tree.to_str().unwrap()]);
    let said = node.fails(3, &["create", "odd", "--base", "odd", "--backend", KIND]);
    assert!(said.contains(".wh.file") && said.contains("another backend"), "{said}");
    assert!(!node.store("odd").exists());
}

#[test]
fn alive_anywhere() {
    let Some(node) = node() else { return };
    node.ok(&["mount", "a"]);
    let elsewhere = Holder::elsewhere();
    run(Command::new("umount").arg(node.view("a")));
    assert_eq!(actual(&node), "elsewhere");
    for command in ["mount", "destroy"] {
        assert!(node.fails(4, &[command, "a"]).contains("in the mount namespace of process"));
    }
    drop(elsewhere);
    node.ok(&["mount", "a"]);
    let inside =
        Holder::start(Command::new("sh").args(["-c", "echo ready; read x"]).current_dir(node.view("a")));
    assert!(node.fails(4, &["umount", "a"]).contains("is in use"));
    run(Command::new("umount").arg("-l").arg(node.view("a")));
    for command in ["mount", "destroy"] {
        let said = node.fails(4, &[command, "a"]);
        assert!(said.contains("a detached view of it is still held by process"), "{said}");
    }
    drop(inside);
    node.ok(&["destroy", "a"]);
}

/// Who waits for the end of what `sliverfs` writes must not wait for the daemon, nor for one that inherited something else.
#[test]
fn pipes_end() {
    let Some(node) = node() else { return };
    let mut command = node.command(&["mount", "a"]);
    let words: Vec<_> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(ToOwned::to_owned).collect();
    command = Command::new("timeout");
    command.args(["-s", "KILL", "60", "sh", "-c", "\"$@\" 2>&1 9>&1 | cat; echo ended", "sh"]).args(words);
    assert_eq!(run(&mut command), "ended\n");
    assert_eq!(actual(&node), "mounted");
    node.ok(&["umount", "a"]);
}

#[test]
fn without_the_program() {
    let Some(node) = node() else { return };
    let without = node.dir().join("bin");
    fs::create_dir(&without).unwrap();
    let run = |args: &[&str]| node.command(args).env("PATH", &without).output().unwrap();
    let verdicts: Value = serde_json::from_slice(&run(&["probe", "--fresh", "--json"]).stdout).unwrap();
    let verdict = verdicts.as_array().unwrap().last().unwrap();
    assert_eq!(verdict["kind"], KIND);
    assert_eq!(
        (&verdict["offered"], &verdict["works"], &verdict["lasting"]),
        (&false.into(), &false.into(), &false.into())
    );
    let reason = verdict["reason"].as_str().unwrap();
    assert!(reason.contains("install it (package fuse-overlayfs)"), "{reason}");
    let output = run(&["mount", "a"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("install it (package fuse-overlayfs)"), "{said}");
    assert!(!mounts().contains("fuse.fuse-overlayfs"));

    // The package was installed meanwhile.
    let verdicts = node.json(&["probe", "--json"]);
    let verdict = verdicts.as_array().unwrap().last().unwrap();
    assert_eq!((&verdict["works"], &verdict["auto"]), (&true.into(), &true.into()));
    assert!(verdict["reason"].as_str().unwrap().contains("of memory in the trial"), "{verdict}");
}

#[test]
fn a_start_that_fails_says_why() {
    let Some(node) = node() else { return };
    let work = node.store("a").join("work");
    fs::remove_dir_all(&work).unwrap();
    let said = node.fails(1, &["mount", "a"]);
    assert!(said.contains("does not serve") && said.contains("exit code 1"), "{said}");
    assert!(!mounts().contains("fuse.fuse-overlayfs"));
    assert_eq!(actual(&node), "unmounted");
    fs::create_dir(&work).unwrap();
    // Another program of that name.
    let other = node.dir().join("bin");
    fs::create_dir(&other).unwrap();
    busy::script(&other.join(KIND), "#!/bin/sh\necho first words >&2; echo 'last \x1b words' >&2; exit 3\n");
    let path = format!("{}:{}", other.display(), std::env::var("PATH").unwrap());
    let output = node.command(&["mount", "a"]).env("PATH", path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("last \\x1b words") && !said.contains("first words"), "{said}");
    assert!(!mounts().contains("fuse.fuse-overlayfs"));
    node.ok(&["mount", "a"]);
    node.ok(&["umount", "a"]);
}

#[test]
fn the_plan_can_be_typed() {
    let Some(node) = node() else { return };
    let plan = node.ok(&["mount", "a", "--dry-run"]);
    run(Command::new("sh").args(["-ec", &plan]));
    assert_eq!(actual(&node), "mounted");
    fs::write(node.view("a").join("typed"), "").unwrap();
    node.fails(4, &["destroy", "a"]);
    node.ok(&["umount", "a"]);
    assert!(node.store("a").join("upper/typed").exists());
    // The store, too: the same files start in it.
    node.ok(&["destroy", "a"]);
    node.ok(&["probe"]);
    let plan = node.ok(&["create", "a", "--base", "b", "--backend", KIND, "--dry-run"]);
    run(Command::new("sh").args(["-ec", &plan]));
    assert_eq!(fs::metadata(node.store("a").join("upper/etc/a.hard")).unwrap().nlink(), 2);
    node.ok(&["mount", "a"]);
    node.ok(&["umount", "a"]);
}

/// A node in a folder of any name, on another node's disk.
fn at(path: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sliverfs"));
    command.args(["--config", "/dev/null", "--lxcpath"]).arg(path).args(args).output().unwrap()
}

#[test]
fn names_are_no_options() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 64);
    let tree = node.dir().join("tree");
    for (name, taken) in [("a, b=c 'd'", true), ("a:b", false), ("a\\b", false)] {
        let odd = node.lxcpath.join(name);
        fs::create_dir(&odd).unwrap();
        let ok = |args: &[&str]| {
            let output = at(&odd, args);
            assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        ok(&["init"]);
        ok(&["base", "add", "b", tree.to_str().unwrap()]);
        let create = ["create", "a", "--base", "b", "--backend", KIND];
        if !taken {
            let output = at(&odd, &create);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{said}");
            assert!(said.contains("takes no path with `:` or `\\`"), "{said}");
            continue;
        }
        ok(&create);
        ok(&["mount", "a"]);
        fs::write(odd.join("a/rootfs/etc/b.txt"), "new").unwrap();
        assert_eq!(fs::read_to_string(odd.join(".store/a/upper/etc/b.txt")).unwrap(), "new");
        assert!(ok(&["list"]).contains("mounted"));
        assert!(ok(&["show", "a"]).contains("of memory"));
        ok(&["umount", "a"]);
        ok(&["destroy", "a"]);
    }
}

#[test]
fn on_an_image_and_with_data() {
    if !ready() {
        return;
    }
    let packs = Command::new("mksquashfs").arg("-version").output().map(drop);
    if !require("mksquashfs", packs.map_err(|err| err.to_string())) {
        return;
    }
    let node = Node::with_base("ext4", 64);
    let tree = node.dir().join("tree");
    node.ok(&["base", "add", "image", tree.to_str().unwrap(), "--pack", "squashfs"]);
    let data = node.dir().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "data").unwrap();
    symlink("etc", data.join("link")).unwrap();
    let archive = node.dir().join("data.tar");
    run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&data).arg("."));
    node.ok(&["create", "a", "--base", "image", "--backend", KIND, "--data", archive.to_str().unwrap()]);
    for _ in 0..3 {
        // The image is let go of as soon as the daemon has: at once.
        node.ok(&["mount", "a"]);
        assert_eq!(fs::read_to_string(node.view("a").join("file")).unwrap(), "data");
        assert_eq!(fs::read_to_string(node.view("a").join("link/a.hard")).unwrap(), "hello\n");
        node.ok(&["umount", "a"]);
        assert!(!mounts().contains("squashfs"));
    }
    node.ok(&["destroy", "a"]);
    node.ok(&["base", "remove", "image"]);
}

/// What `auto` takes where the disk is an overlay itself, as OpenWrt's /srv/lxc.
#[test]
fn on_an_overlay() {
    if !ready() {
        return;
    }
    let outer = Node::with_base("ext4", 64);
    outer.ok(&["create", "a", "--base", "b", "--backend", "overlay"]);
    outer.ok(&["mount", "a"]);
    let mut node = Node::new("ext4", 16);
    node.lxcpath = outer.view("a").join("lxc");
    fs::create_dir(&node.lxcpath).unwrap();
    node.ok(&["init"]);
    let tree = outer.dir().join("tree");
    node.ok(&["base", "add", "b", tree.to_str().unwrap()]);
    node.ok(&["create", "x", "--base", "b"]);
    assert_eq!(node.json(&["list", "--json"])[0]["backend"], KIND);
    let edit = "rm -r etc/dir var/deep; mkdir etc/dir; echo new > etc/dir/new; rm etc/b.txt; chmod 700 var/big; \
                echo more >> etc/a.txt; mv empty full; chown 5:6 full; \
                find . -newermt @1600000000 ! -type d -exec touch -h -d @2000000000 {} +";
    node.ok(&["mount", "x"]);
    for folder in [&node.view("x"), &tree] {
        run(Command::new("sh").args(["-ec", edit]).current_dir(folder));
    }
    for _ in 0..2 {
        assert_eq!(listing::of(&node.view("x"), false), listing::of(&tree, false));
        assert!(node.json(&["show", "x", "--json"])["daemon"]["memory"].as_u64().is_some());
        node.ok(&["umount", "x"]);
        node.ok(&["mount", "x"]);
    }
    node.ok(&["umount", "x"]);
    node.ok(&["destroy", "x"]);
}

#[test]
fn disks_that_cannot_carry_a_root_file_system() {
    if !ready() {
        return;
    }
    let node = Node::new("ext4", 64);
    let (image, disk) = (node.dir().join("disk/vfat.image"), node.dir().join("vfat"));
    fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
    fs::create_dir(&disk).unwrap();
    run(Command::new("mkfs.vfat").arg(&image));
    let mount = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&disk).output().unwrap();
    let said = String::from_utf8_lossy(&mount.stderr).into_owned();
    if !require("vfat", if mount.status.success() { Ok(()) } else { Err(said) }) {
        return;
    }
    assert!(at(&disk, &["init"]).status.success());
    let output = at(&disk, &["probe", "--json"]);
    let verdicts: Value = serde_json::from_slice(&output.stdout).unwrap();
    let verdict = verdicts.as_array().unwrap().last().unwrap();
    assert_eq!(verdict["works"], false, "{verdict}");
    assert!(verdict["reason"].as_str().unwrap().contains("vfat"), "{verdict}");
    assert_eq!(output.status.code(), Some(3));
}
