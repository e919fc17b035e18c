//! OCI image layers as slivers: our own, those of others, and hostile ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;

use common::node::Node;
use common::oci::{edited, import, node, small, view};
use common::slivers::in_stores;
use common::tar::{Header, Tar};
use common::tree::{assert_same, full_tree, installed};
use common::{busy, require, strace};

/// Exports from one kind of store and imports into another; the view must be the same.
fn through(node: &Node, from: &str, to: &[&str]) {
    let wanted = edited(node, "a", from);
    let file = node.dir().join("layer.tar");
    let file = file.to_str().unwrap();
    node.ok(&["export", "a", "-o", file]);
    for to in to {
        node.ok(&["create", "c", "--base", "b", "--backend", to]);
        let plan = node.ok(&["import", "c", file, "--dry-run", "--replace"]);
        // What tar unpacks has no whiteouts yet.
        let lines = ["/layer.tar -C ", ".new.c/layer\n# write the changes of the aufs store "];
        assert!(lines.iter().all(|line| plan.contains(line)), "{plan}");
        assert_eq!(node.ok(&["import", "c", file, "--replace"]), "`c` holds the layer\n");
        assert_same(&view(node, "c"), &wanted, &format!("{from} to {to}"));
        let again = node.dir().join("again.tar");
        node.ok(&["export", "c", "-o", again.to_str().unwrap()]);
        node.ok(&["import", "c", again.to_str().unwrap(), "--replace"]);
        assert_same(&view(node, "c"), &wanted, &format!("{from} to {to}, once more"));
        node.ok(&["destroy", "c"]);
    }
    node.ok(&["destroy", "a"]);
}

#[test]
fn from_store_to_store_on_ext4() {
    if !require("root", common::root()) || !require("setcap", installed("setcap")) {
        return;
    }
    let node = node("ext4", 96);
    let mut kinds = vec!["overlay", "copy"];
    if require("fuse-overlayfs", installed("fuse-overlayfs")) {
        kinds.push("fuse-overlayfs");
    }
    through(&node, "overlay", &kinds);
    through(&node, "copy", &["overlay", "copy"]);
}

#[test]
fn from_store_to_store_on_btrfs() {
    if !require("root", common::root()) || !require("btrfs-snapshot", installed("mkfs.btrfs")) {
        return;
    }
    let node = node("btrfs", 160);
    through(&node, "btrfs-snapshot", &["btrfs-snapshot", "reflink", "overlay"]);
}

#[test]
fn from_seed_to_seed() {
    if !require("root", common::root()) || !require("btrfs-seed", installed("mkfs.btrfs")) {
        return;
    }
    let node = Node::new("ext4", 400);
    let tree = node.dir().join("tree");
    full_tree(&tree, true);
    node.ok(&["base", "add", "b", tree.to_str().unwrap(), "--pack", "btrfs"]);
    let wanted = edited(&node, "a", "btrfs-seed");
    let file = node.dir().join("layer.tar");
    let file = file.to_str().unwrap();
    node.ok(&["mount", "a"]);
    node.ok(&["export", "a", "-o", file]);
    node.ok(&["umount", "a"]);
    let mounted = fs::read(file).unwrap();
    node.ok(&["export", "a", "-o", file]);
    assert!(fs::read(file).unwrap() == mounted, "mounted or not");
    node.ok(&["create", "c", "--base", "b", "--backend", "btrfs-seed", "--size", "300M"]);
    assert!(node.fails(2, &["import", "c", file]).contains("--replace"));
    node.ok(&["import", "c", file, "--replace"]);
    assert_same(&view(&node, "c"), &wanted, "the other seed");
    assert_eq!(node.json(&["show", "c", "--json"])["limit"], 300 << 20);
}

#[test]
fn layers_as_others_write_them() {
    if !require("root", common::root()) {
        return;
    }
    let node = small();
    let base = view(&node, "a");
    let taken = |tar: Vec<u8>, options: &[&str]| {
        let done = import(&node, tar, &[&["--replace"], options].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        view(&node, "a")
    };
    let without = |gone: &dyn Fn(&str) -> bool| {
        let keep = |line: &&str| !gone(line.split(' ').next().unwrap());
        base.lines().filter(keep).collect::<Vec<_>>().join("\n")
    };
    // Folders that are not named are the base's.
    assert_same(&taken(Tar::default().end(), &[]), &base, "nothing");
    let var = without(&|name| name.starts_with("var/deep/er"));
    assert_same(&taken(Tar::default().file(b"var/deep/.wh.er", b"").end(), &[]), &var, "a whiteout");
    let tar = Tar::default().file(b"var/.wh.deep", b"").file(b"var/deep/er/.wh.x", b"").end();
    let deep = without(&|name| name.starts_with("var/deep"));
    assert_same(&taken(tar, &[]), &deep, "a whiteout, and one below it");
    // An opaque mark hides the base's, wherever it stands.
    let tar = Tar::default().file(b"var/deep/new", b"n").file(b"var/deep/.wh..wh..opq", b"").end();
    let shown = taken(tar, &[]);
    assert!(shown.contains("var/deep/new ") && !shown.contains("var/deep/y "), "{shown}");
    let tar = Tar::default().file(b"var/deep/new", b"n").file(b"var/.wh.deep", b"").end();
    let shown = taken(tar, &[]);
    assert!(shown.contains("var/deep/new ") && !shown.contains("var/deep/y "), "{shown}");
    // A whiteout beside what replaces it; a folder in the place of a file, and the other way round.
    let tar = Tar::default().file(b"etc/b.txt", b"other").file(b"etc/.wh.b.txt", b"").dir(b"etc/a.txt");
    let shown = taken(tar.file(b"etc/dir", b"f").end(), &[]);
    assert!(shown.contains("etc/b.txt 100644") && shown.contains("etc/a.txt 40755"), "{shown}");
    assert!(shown.contains("etc/dir 100644"), "{shown}");
    // What aufs has for itself.
    let tar = Tar::default().file(b".wh..wh.aufs", b"").dir(b".wh..wh.plnk").file(b".wh..wh.plnk/1.2", b"x");
    assert_same(&taken(tar.end(), &[]), &base, "aufs's own");
    // The dump of an overlayfs store: found out, or told.
    let dump = |tar: Tar| tar.dir(b"./").dir(b"./lost+found").link(b"./etc/b.txt", b"(overlay-whiteout)");
    for options in [&[][..], &["--format", "overlayfs"]] {
        let shown = taken(dump(Tar::default()).file(b"./etc/new", b"n").end(), options);
        assert!(shown.contains("etc/new ") && !shown.contains("etc/b.txt"), "{shown}");
        assert!(!shown.contains("lost+found"), "{shown}");
    }
    let opaque: &[(&[u8], &[u8])] = &[(b"SCHILY.xattr.trusted.overlay.opaque", b"y")];
    let tar = || Tar::default().pax(opaque).dir(b"./etc/dir").end();
    assert!(!taken(tar(), &[]).contains("etc/dir/"));
    let done = import(&node, tar(), &["--replace", "--format", "oci"]);
    assert!(String::from_utf8_lossy(&done.stderr).contains("`./etc/dir` carries trusted.overlay.opaque"));
    let shown = taken(dump(Tar::default()).end(), &["--format", "oci"]);
    assert!(shown.contains("-> (overlay-whiteout)") && shown.contains("lost+found"), "{shown}");
}

#[test]
fn hostile_layers_are_refused_whole() {
    if !require("root", common::root()) {
        return;
    }
    let node = small();
    let tar = |name: &[u8]| Tar::default().file(b"good", b"x").file(name, b"");
    let whiteout = Header::new(b"etc/dev", b'3', 0).device(0, 0);
    let opaque: &[(&[u8], &[u8])] = &[(b"SCHILY.xattr.trusted.overlay.opaque", b"x")];
    let marked: &[(&[u8], &[u8])] = &[(b"SCHILY.xattr.trusted.overlay.opaque", b"y")];
    for (tar, words) in [
        (tar(b"../out"), "`../out` has a path that climbs with `..`"),
        (tar(b"/out"), "`/out` has a path that is absolute"),
        (tar(b".wh..wh..opq"), "`.wh..wh..opq` hides the whole base"),
        (tar(b"etc/.wh."), "`etc/.wh.` is a whiteout of no name"),
        (tar(b"etc/.wh.."), "`etc/.wh..` is a whiteout of no name"),
        (tar(b".wh..."), "`.wh...` is a whiteout of no name"),
        (tar(b"etc/.wh..wh.x"), "`etc/.wh..wh.x` is a whiteout of no name"),
        (tar(b"etc/.wh.d/f"), "lies in a folder with the name of a whiteout"),
        (Tar::default().file(b".wh.x", b"full"), "`.wh.x` has the name of a whiteout, and is no empty file"),
        (Tar::default().dir(b"etc/.wh.x"), "and is no empty file"),
        (Tar::default().link(b"etc/.wh.x", b"/etc/passwd"), "and is no empty file"),
        (Tar::default().add(whiteout, b""), "`etc/dev` is a whiteout (character device 0:0)"),
        (Tar::default().pax(opaque).dir(b"etc"), "`etc` carries trusted.overlay.opaque, which a union"),
        (Tar::default().pax(marked).file(b"etc", b""), "`etc` carries trusted.overlay.opaque, which a union"),
        (tar(b".wh.x").pax(marked).dir(b"etc"), "beside others of OCI"),
        (Tar::default().pax(marked).dir(b"etc").file(b".wh.x", b""), "in a dump of overlayfs"),
        (Tar::default().link(b"x", b"/tmp").file(b"x/f", b""), "leads through the link"),
        (Tar::default().hard(b"x", b"../../../etc/passwd"), "climbs with `..`"),
        (Tar::default().hard(b"x", b"nothing"), "is a hard link to what is not there"),
        (tar(b".wh.etc").link(b"x", b"(overlay-whiteout)"), "beside others of OCI"),
        (Tar::default().link(b"x", b"(overlay-whiteout)").file(b".wh.etc", b""), "in a dump of overlayfs"),
    ] {
        let before = view(&node, "a");
        let done = import(&node, tar.end(), &[]);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{words}: {said}");
        assert!(said.contains(words), "{words}: {said}");
        assert_same(&view(&node, "a"), &before, words);
        assert_eq!(in_stores(&node), ["a"], "{words}");
    }
    let mut torn = tar(b"f").file(b"long", &[7; 5000]).end();
    torn.truncate(3000);
    let done = import(&node, torn, &[]);
    assert!(String::from_utf8_lossy(&done.stderr).contains("ends too early"));
}

#[test]
fn what_an_operator_is_asked() {
    if !require("root", common::root()) {
        return;
    }
    let node = small();
    let layer = || Tar::default().file(b"new", b"n").end();
    assert!(import(&node, layer(), &[]).status.success());
    let done = import(&node, layer(), &[]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(2) && said.contains("--replace"), "{said}");
    assert!(import(&node, layer(), &["--replace"]).status.success());
    node.ok(&["mount", "a"]);
    assert_eq!(import(&node, layer(), &["--replace"]).status.code(), Some(4));
    node.ok(&["umount", "a"]);
    assert_eq!(import(&node, layer(), &["--replace", "--format", "x"]).status.code(), Some(2));
    assert_eq!(node.run(&["import", "a", "/nonexistent", "--replace"]).status.code(), Some(1));
    // From standard input, compressed.
    let mut child = node.command(&["import", "a", "-", "--replace"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut gzip = Vec::new();
    let tar = Tar::default().file(b"piped", b"p").end();
    flate2::read::GzEncoder::new(&*tar, flate2::Compression::fast()).read_to_end(&mut gzip).unwrap();
    child.stdin.take().unwrap().write_all(&gzip).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(view(&node, "a").contains("piped "));
}

#[test]
fn a_full_disk_leaves_the_old_store() {
    if !require("root", common::root()) {
        return;
    }
    let node = small();
    let before = view(&node, "a");
    let done = import(&node, Tar::default().file(b"big", &vec![7; 40 << 20]).end(), &[]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(1) && said.contains("full"), "{said}");
    assert_same(&view(&node, "a"), &before, "the old store");
    assert_eq!(in_stores(&node), ["a"]);
    // Nor does an export leave half a file.
    node.ok(&["mount", "a"]);
    fs::write(node.view("a").join("big"), vec![7; 12 << 20]).unwrap();
    node.ok(&["umount", "a"]);
    for name in ["x.tar", "x.tgz"] {
        let file = node.lxcpath.parent().unwrap().join(name);
        let fill = node.lxcpath.parent().unwrap().join("fill");
        busy::fill(&fill);
        node.fails(1, &["export", "a", "-o", file.to_str().unwrap()]);
        fs::remove_file(fill).unwrap();
        assert!(!file.exists() && !file.with_file_name(format!(".{name}.new")).exists());
    }
}

/// Before Linux 3.15, and on some disks: two renames.
#[test]
fn killed_where_two_names_cannot_be_exchanged() {
    if !require("root", common::root()) || !require("strace", strace::works()) {
        return;
    }
    let node = small();
    let layer = node.dir().join("new.tar");
    fs::write(&layer, Tar::default().file(b"which", b"new").end()).unwrap();
    let empty = node.dir().join("empty.tar");
    fs::write(&empty, Tar::default().end()).unwrap();
    let args = ["import", "a", layer.to_str().unwrap(), "--replace"];
    let refuse = "inject=renameat2:error=EINVAL";
    let mut missing = false;
    for call in ["rename", "fsync", "unlinkat"] {
        for number in 1..=6 {
            node.ok(&["import", "a", empty.to_str().unwrap(), "--replace"]);
            let kill = format!("inject={call}:signal=KILL:when={number}");
            let trace = format!("trace={call},renameat2");
            let options = ["-f", "-e", &trace, "-e", refuse, "-e", &kill];
            let _killed = strace::command(&node, &options, &args).status().unwrap();
            missing |= !node.store("a").exists();
            node.ok(&args);
            assert!(view(&node, "a").contains("which "), "{call} {number}");
            assert_eq!(in_stores(&node), ["a"], "{call} {number}");
        }
    }
    assert!(missing, "nothing was killed between the two renames");
}
