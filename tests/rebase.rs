//! `rebase`: what the sliver changed stays, all else comes from the new base, and what both changed is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use common::node::{Node, small_tree};
use common::slivers::{base, in_stores, listed};
use common::tree::{assert_same, copy, installed, sh_in};
use common::{busy, require, seed};

/// What the new base has otherwise, and what the sliver did.
const NEW: &str = r#"echo new > etc/new; echo newer > etc/a.new; mv etc/a.new etc/b.txt; rm var/deep/y; chmod 711 var; echo status 2 > lib/apk/db/installed
    rm etc/a.sym; echo plain > etc/a.sym; echo deep > var/deep/er/z; rm var/fifo; echo x > empty/x; chmod 640 etc/dir/c.txt"#;
const MINE: &str = r#"echo mine > etc/mine; echo mine > etc/b.txt; echo status 3 > lib/apk/db/installed; rm -r var/deep/er; mkdir var/deep/er
    echo only > var/deep/er/only; ln etc/mine etc/mine2; rm etc/absolute; mkdir made; echo m > made/m; echo four > etc/dir/c.txt"#;

fn ready() -> bool {
    require("root", common::root())
}

/// A node with a base `b`, and one `c` that is newer.
fn node(fstype: &str, mib: u64, options: &[&str]) -> Node {
    let node = Node::new(fstype, mib);
    let (old, new) = (node.dir().join("tree"), node.dir().join("tree2"));
    small_tree(&old);
    sh_in(&old, "mkdir -p lib/apk/db; echo status 1 > lib/apk/db/installed");
    copy(&old, &new);
    sh_in(&new, NEW);
    for (name, tree) in [("b", &old), ("c", &new)] {
        node.ok(&[&["base", "add", name, tree.to_str().unwrap()], options].concat());
    }
    node
}

fn sliver(node: &Node, name: &str, kind: &str) -> String {
    node.ok(&["create", name, "--base", "b", "--backend", kind]);
    node.ok(&["mount", name]);
    sh_in(&node.view(name), MINE);
    node.ok(&["umount", name]);
    listed(node, name, false)
}

/// What must be seen in the mounted view after the rebase.
fn check_view(node: &Node, name: &str) {
    node.ok(&["mount", name]);
    let view = node.view(name);
    let read =
        |path: &str| fs::read_to_string(view.join(path)).unwrap_or_else(|err| format!("{path}: {err}"));
    for (path, content) in [
        ("etc/new", "new\n"),
        ("etc/mine", "mine\n"),
        ("etc/b.txt", "mine\n"),
        ("etc/b.txt.base-new", "newer\n"),
        ("lib/apk/db/installed", "status 3\n"),
        ("lib/apk/db/installed.base-new", "status 2\n"),
        ("etc/a.sym", "plain\n"),
        ("var/deep/er/only", "only\n"),
        ("empty/x", "x\n"),
        ("made/m", "m\n"),
        ("etc/dir/c.txt", "four\n"),
        ("etc/a.txt", "hello\n"),
    ] {
        assert_eq!(read(path), content, "{path}");
    }
    for path in ["var/deep/y", "var/fifo", "etc/absolute", "var/deep/er/x"] {
        assert!(view.join(path).symlink_metadata().is_err(), "{path}");
    }
    let meta = |path: &str| fs::symlink_metadata(view.join(path)).unwrap();
    assert_eq!(meta("etc/mine").ino(), meta("etc/mine2").ino());
    assert_eq!((meta("var").mode() & 0o7777, meta("etc/dir/c.txt").mode() & 0o7777), (0o711, 0o640));
    fs::write(view.join("var/written"), "w").unwrap();
    node.ok(&["umount", name]);
}

fn whole_way(node: &Node, kind: &str) {
    let before = sliver(node, "s", kind);
    let plan = node.ok(&["rebase", "s", "--onto", "c", "--plan"]);
    for line in [
        "keep etc/mine\n",
        "merge etc/dir/c.txt\n",
        "conflict etc/b.txt: changed here and in the new base; the new base's is put in as b.txt.base-new\n",
        "it is the package database of apk",
        "2 conflicts\n",
    ] {
        assert!(plan.contains(line), "{kind}: {line}: {plan}");
    }
    // A union says that the folder was made anew; of whole trees the rest of it is merged.
    let hidden = "keep var/deep/er: hides what the new base changed in it\n";
    assert_eq!(plan.contains(hidden), matches!(kind, "overlay" | "fuse-overlayfs"), "{kind}: {plan}");
    let planned = node.json(&["rebase", "s", "--onto", "c", "--plan", "--json"]);
    assert_eq!((in_stores(node), base(node, "s").as_str()), (vec!["s".to_owned()], "b"));
    let said = node.fails(1, &["rebase", "s", "--onto", "c", "--fail"]);
    assert!(said.contains("etc/b.txt") && said.contains("lib/apk/db/installed"), "{said}");
    assert!(!said.contains("is put in"), "{said}");
    assert_eq!((in_stores(node), base(node, "s").as_str()), (vec!["s".to_owned()], "b"));

    let done = node.json(&["rebase", "s", "--onto", "c", "--json"]);
    assert_eq!((&done["state"], &planned["state"]), (&"rebased".into(), &"planned".into()));
    for field in ["kept", "taken", "merged", "conflicts"] {
        assert_eq!(done[field], planned[field], "{field}");
    }
    let conflicts = done["conflicts"].as_array().unwrap();
    let paths: Vec<&str> = conflicts.iter().map(|line| line["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["etc/b.txt", "lib/apk/db/installed"]);
    assert_eq!(conflicts[1]["database"], "apk");
    check_view(node, "s");
    // Mounted or not, the old store stays.
    assert_eq!(in_stores(node), [".old.s", "s"]);
    assert!(node.fails(4, &["base", "remove", "b"]).contains("is used by s"));
    for (at, base) in ["b", "c"].into_iter().enumerate() {
        let row = &node.json(&["usage", "--json"])["bases"][at];
        assert_eq!((&row["name"], &row["slivers"]), (&base.into(), &1.into()), "{row}");
        assert_eq!(node.json(&["base", "show", base, "--json"])["slivers"], serde_json::json!(["s"]));
    }
    assert_eq!(node.json(&["rebase", "s", "--onto", "c", "--json"])["state"], "unchanged");
    assert!(node.fails(2, &["convert", "s", "--undo"]).contains("sliverfs rebase s --undo"));
    node.ok(&["rebase", "s", "--undo"]);
    assert_eq!((in_stores(node), base(node, "s").as_str()), (vec!["s".to_owned()], "b"));
    assert_same(&listed(node, "s", false), &before, "undone");
    node.fails(2, &["rebase", "s", "--undo"]);

    node.ok(&["rebase", "s", "--onto", "c", "--theirs"]);
    node.ok(&["mount", "s"]);
    assert_eq!(fs::read_to_string(node.view("s").join("etc/b.txt")).unwrap(), "newer\n");
    assert!(!node.view("s").join("etc/b.txt.base-new").exists());
    assert!(node.fails(4, &["rebase", "s", "--onto", "b"]).contains("is mounted at"));
    // What goes is not what is mounted.
    node.ok(&["rebase", "s", "--commit"]);
    assert_eq!(in_stores(node), ["s"]);
    assert_eq!(fs::read_to_string(node.view("s").join("etc/b.txt")).unwrap(), "newer\n");
    node.ok(&["umount", "s"]);
    node.fails(2, &["rebase", "s", "--commit"]);
    // And back again, twice: the newer one is kept.
    node.ok(&["rebase", "s", "--onto", "b", "--ours"]);
    node.ok(&["rebase", "s", "--onto", "c", "--ours"]);
    assert_eq!(in_stores(node), [".old.s", "s"]);
    node.ok(&["rebase", "s", "--undo"]);
    assert_eq!(base(node, "s"), "b");
    node.ok(&["rebase", "s", "--onto", "c"]);
    node.ok(&["destroy", "s"]);
    assert_eq!(in_stores(node), [""; 0]);
    node.ok(&["base", "remove", "b", "--dry-run"]);
}

#[test]
fn on_ext4() {
    if ready() {
        let node = node("ext4", 96, &[]);
        whole_way(&node, "overlay");
        whole_way(&node, "copy");
    }
}

#[test]
fn with_a_daemon() {
    let tools = ["fuse-overlayfs", "fusermount3"];
    if ready() && tools.iter().all(|tool| require("fuse-overlayfs", installed(tool))) {
        whole_way(&node("ext4", 96, &[]), "fuse-overlayfs");
    }
}

#[test]
fn on_btrfs() {
    if ready() && require("btrfs-snapshot", installed("mkfs.btrfs")) {
        let node = node("btrfs", 300, &[]);
        whole_way(&node, "btrfs-snapshot");
        whole_way(&node, "reflink");
    }
}

#[test]
fn bases_that_are_images() {
    if ready() && require("mksquashfs", installed("mksquashfs")) {
        whole_way(&node("ext4", 96, &["--pack", "squashfs"]), "overlay");
    }
}

/// What is kept from before a rebase outlives a conversion, and the conversion says what brings it back.
#[test]
fn a_conversion_after_it_names_the_way_back() {
    if !ready() {
        return;
    }
    let node = node("ext4", 96, &[]);
    node.ok(&["create", "s", "--base", "b", "--backend", "overlay"]);
    assert!(node.ok(&["convert", "s", "--to", "copy"]).contains("sliverfs convert s --undo"));
    node.ok(&["mount", "s"]);
    node.ok(&["umount", "s"]);
    node.ok(&["rebase", "s", "--onto", "c"]);
    let told = node.ok(&["convert", "s", "--to", "overlay"]);
    assert!(told.contains("sliverfs rebase s --undo") && !told.contains("convert s --undo"), "{told}");
    node.ok(&["rebase", "s", "--undo"]);
    assert!(node.ok(&["list"]).contains("copy"));
}

/// An import gives up what the sliver holds, and nothing that an earlier command keeps.
#[test]
fn an_import_after_it_leaves_the_way_back() {
    if !ready() {
        return;
    }
    let node = node("ext4", 96, &[]);
    let layer = node.dir().join("layer.tar").display().to_string();
    sliver(&node, "s", "overlay");
    node.ok(&["export", "s", "-o", &layer]);
    for change in [&["rebase", "s", "--onto", "c"][..], &["convert", "s", "--to", "copy"]] {
        node.ok(change);
        node.ok(&["import", "s", &layer, "--replace"]);
        node.ok(&[change[0], "s", "--undo"]);
        assert_eq!(base(&node, "s"), "b");
        assert!(node.ok(&["list"]).contains("overlay"));
    }
}

/// A file of several names that lost one and got another has as many as before: the new one stays a name of the same file.
#[test]
fn a_file_that_changed_names_stays_one() {
    if !ready() || !require("btrfs-snapshot", installed("mkfs.btrfs")) {
        return;
    }
    let node = Node::new("btrfs", 160);
    let tree = node.dir().join("tree");
    fs::create_dir(&tree).unwrap();
    sh_in(&tree, "echo text > a; ln a b; echo text > d; ln d e");
    node.ok(&["base", "add", "b", tree.to_str().unwrap()]);
    sh_in(&tree, "echo new > new; echo newer > d");
    node.ok(&["base", "add", "c", tree.to_str().unwrap()]);
    let fuse =
        ["fuse-overlayfs", "fusermount3"].iter().all(|tool| require("fuse-overlayfs", installed(tool)));
    for kind in
        ["overlay", "copy", "btrfs-snapshot", "fuse-overlayfs"].into_iter().take(3 + usize::from(fuse))
    {
        node.ok(&["create", kind, "--base", "b", "--backend", kind]);
        node.ok(&["mount", kind]);
        sh_in(&node.view(kind), "ln a c; rm b e");
        node.ok(&["umount", kind]);
        let plan = node.ok(&["rebase", kind, "--onto", "c", "--plan"]);
        assert!(plan.contains("keep a\n"), "{kind}: {plan}");
        node.ok(&["rebase", kind, "--onto", "c"]);
        node.ok(&["mount", kind]);
        let meta = |name: &str| fs::symlink_metadata(node.view(kind).join(name)).unwrap();
        assert_eq!(meta("a").ino(), meta("c").ino(), "{kind}");
        // One that has only lost a name comes from the new base.
        assert_eq!(fs::read_to_string(node.view(kind).join("d")).unwrap(), "newer\n", "{kind}");
        node.ok(&["umount", kind]);
    }
}

#[test]
fn on_a_seed() {
    if ready() && require("btrfs-seed", installed("mkfs.btrfs")) {
        let node = node("ext4", 400, &["--pack", "btrfs"]);
        whole_way(&node, "btrfs-seed");
        seed::is_clean(&node, "rebased");
        sliver(&node, "t", "btrfs-seed");
        node.ok(&["mount", "t"]);
        for plan in [&["--plan"][..], &[]] {
            let said = node.fails(4, &[&["rebase", "t", "--onto", "c"], plan].concat());
            assert!(said.contains("is mounted at"), "{said}");
        }
        node.ok(&["umount", "t"]);
        node.ok(&["create", "u", "--base", "c", "--backend", "overlay"]);
        node.ok(&["mount", "u"]);
        let said = node.fails(4, &["rebase", "t", "--onto", "c"]);
        assert!(said.contains("mounted as the base of u") && in_stores(&node) == ["t", "u"], "{said}");
        node.ok(&["umount", "u"]);
        seed::is_clean(&node, "refused");
    }
}

/// One that fails does not keep the others from their turn, and the same command goes on with it.
#[test]
fn all_slivers_of_a_base() {
    if !ready() {
        return;
    }
    let node = node("ext4", 96, &[]);
    for name in ["one", "two", "three"] {
        sliver(&node, name, "overlay");
    }
    node.ok(&["create", "other", "--base", "c", "--backend", "overlay"]);
    node.ok(&["mount", "two"]);
    let all = ["rebase", "--all", "--from", "b", "--onto", "c"];
    let said = node.fails(4, &all);
    assert!(said.contains("two: ") && said.contains("1 of 3 slivers failed"), "{said}");
    assert_eq!(["one", "two", "three"].map(|name| base(&node, name)), ["c", "b", "c"]);
    node.ok(&["umount", "two"]);
    let done = node.ok(&all);
    assert!(done.contains("`two` went from `b` to `c`") && !done.contains("`one`"), "{done}");
    check_view(&node, "two");
    node.ok(&all);
    for args in [
        &["rebase", "one"][..],
        &["rebase", "one", "--onto", "c", "--ours", "--theirs"],
        &["rebase", "--all", "--onto", "c"],
        &["rebase", "one", "--onto", "nosuch"],
        &["rebase", "one", "--onto", "c", "--undo"],
    ] {
        node.fails(2, args);
    }
}

#[test]
fn a_full_disk_leaves_the_old_state() {
    if !ready() {
        return;
    }
    let node = node("ext4", 32, &[]);
    let wanted = sliver(&node, "s", "overlay");
    let big = node.lxcpath.join("big");
    busy::fill(&big);
    let said = node.fails(1, &["rebase", "s", "--onto", "c"]);
    assert!(said.contains("the disk is full"), "{said}");
    assert_eq!((in_stores(&node), base(&node, "s").as_str()), (vec!["s".to_owned()], "b"));
    fs::remove_file(big).unwrap();
    assert_same(&listed(&node, "s", false), &wanted, "the old view");
    node.ok(&["rebase", "s", "--onto", "c"]);
    check_view(&node, "s");
}

/// Each place where a package manager notes what is installed is named as such where both sides changed it, and nowhere else.
#[test]
fn package_databases_are_named() {
    if !ready() {
        return;
    }
    let managers = [
        ("lib/apk/db/installed", "apk"),
        ("opt/lib/opkg/status", "opkg"),
        ("usr/lib/apk/db/installed", "apk"),
        ("usr/lib/opkg/status", "opkg"),
        ("var/lib/dpkg/status", "dpkg"),
        ("var/lib/opkg/status", "opkg"),
        ("var/opkg/status", "opkg"),
    ];
    let others = ["srv/dpkg/status", "usr/lib/opkg/status-old"];
    let node = Node::new("ext4", 32);
    let paths: Vec<&str> = managers.iter().map(|(path, _)| *path).chain(others).collect();
    let write = |tree: &Path, text: &str| {
        for path in &paths {
            let file = tree.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
    };
    for (base, text) in [("b", "one"), ("c", "two")] {
        let tree = node.dir().join(base);
        write(&tree, text);
        node.ok(&["base", "add", base, tree.to_str().unwrap()]);
    }
    for name in ["both", "none"] {
        node.ok(&["create", name, "--base", "b", "--backend", "overlay"]);
    }
    node.ok(&["mount", "both"]);
    write(&node.view("both"), "three");
    node.ok(&["umount", "both"]);
    let plan = node.ok(&["rebase", "both", "--onto", "c", "--plan"]);
    for (path, manager) in managers {
        let line = plan.lines().find(|line| line.starts_with(&format!("conflict {path}: "))).unwrap();
        let words =
            format!("it is the package database of {manager}: install the sliver's packages again after");
        assert!(line.ends_with(&words), "{line}");
    }
    assert_eq!(plan.matches("package database").count(), managers.len(), "{plan}");
    let done = node.json(&["rebase", "both", "--onto", "c", "--json"]);
    let told: Vec<(&str, Option<&str>)> = done["conflicts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| (line["path"].as_str().unwrap(), line["database"].as_str()))
        .collect();
    let mut wanted: Vec<(&str, Option<&str>)> =
        managers.map(|(path, manager)| (path, Some(manager))).to_vec();
    wanted.extend(others.map(|path| (path, None)));
    wanted.sort_unstable();
    assert_eq!(told, wanted);
    // What the new base alone changed is no conflict.
    assert_eq!(node.json(&["rebase", "none", "--onto", "c", "--json"])["conflicts"], serde_json::json!([]));
}
