//! Commands that write a limited sliver's store anew: the limit goes with it, what does not fit changes nothing, and nothing stays
//! mounted or beside the store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use common::node::{Node, PROFILE, run};
use common::slivers::simple_quotas;
use common::tree::sh_in;
use common::{listing, require};

const MIB: u64 = 1 << 20;

/// A node with the bases `b` and `c`, of which the second has more, and a sliver `a` on `b` that changed something.
fn node(fstype: &str, create: &[&str]) -> Node {
    let node = Node::with_base(fstype, 512);
    let tree = node.dir().join("tree");
    sh_in(&tree, "echo new >etc/new; echo two, again >etc/b.txt");
    node.ok(&["base", "add", "c", tree.to_str().unwrap()]);
    node.ok(&[&["create", "a", "--base", "b"], create].concat());
    node.ok(&["mount", "a"]);
    sh_in(
        &node.view("a"),
        "rm etc/a.txt etc/a.hard; rm -r var/deep; mkdir -p var/deep/own; head -c 3M /dev/urandom >big; ln big var/other",
    );
    node.ok(&["umount", "a"]);
    node
}

/// What the view shows.
fn seen(node: &Node) -> String {
    node.ok(&["mount", "a"]);
    let list = listing::of(&node.view("a"), true);
    node.ok(&["umount", "a"]);
    list
}

/// The sliver is limited by that, and nothing is mounted; of stores there are those.
fn limited(node: &Node, means: &str, bytes: u64, stores: &[&str], what: &str) {
    let sheet = node.json(&["show", "a", "--json"]);
    assert_eq!((&sheet["limit"], &sheet["means"]), (&bytes.into(), &means.into()), "{what}: {sheet}");
    let mut found: Vec<_> = fs::read_dir(node.lxcpath.join(".store"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    // What was promised in all.
    found.retain(|name| name != ".promised");
    found.sort();
    assert_eq!(found, stores, "{what}");
    assert_eq!(node.store("a").join("quota.img").exists(), means == "image", "{what}");
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(!table.contains(node.lxcpath.join(".store").to_str().unwrap()), "{what}: {table}");
}

/// More than 24 MiB are not written to the view, and what is then in it is removed again.
fn holds(node: &Node, what: &str) {
    node.ok(&["mount", "a"]);
    let output = Command::new("head").args(["-c", "24M", "/dev/urandom"]).output().unwrap();
    let (view, file) = (node.view("a"), node.view("a").join("fill"));
    let time = run(Command::new("stat").args(["-c", "%y"]).arg(&view));
    assert!(
        fs::write(&file, output.stdout).and_then(|()| fs::File::open(&file)?.sync_all()).is_err(),
        "{what}"
    );
    fs::remove_file(file).unwrap();
    run(Command::new("touch").args(["-d", time.trim()]).arg(&view));
    node.ok(&["umount", "a"]);
}

/// All of them on a sliver with a limit of 24 MiB by that means.
fn all(node: &Node, means: &str, create: &[&str]) {
    let dir = node.dir().to_str().unwrap().to_owned();
    let (layer, source) = (dir.clone() + "/layer.tar", dir.clone() + "/source");
    let sized = |stores: &[&str], what: &str| limited(node, means, 24 * MIB, stores, what);
    let (own, kept) = (&["a"][..], &[".old.a", "a"][..]);
    let first = seen(node);
    node.ok(&["export", "a", "-o", &layer]);
    // Onto another base, back, and there for good.
    let plan = node.ok(&["rebase", "a", "--onto", "c", "--plan"]);
    assert!(plan.contains("`a` would go from `b` to `c`"), "{plan}");
    sized(own, "rebase --plan");
    node.ok(&["rebase", "a", "--onto", "c"]);
    sized(kept, "rebase");
    let rebased = seen(node);
    assert!(
        rebased.contains("etc/new") && rebased.contains("var/deep/own") && !rebased.contains("etc/a.txt")
    );
    holds(node, "rebase");
    node.ok(&["rebase", "a", "--undo"]);
    sized(own, "rebase --undo");
    assert_eq!(seen(node), first);
    node.ok(&["rebase", "a", "--onto", "c"]);
    node.ok(&["rebase", "a", "--commit"]);
    sized(own, "rebase --commit");
    assert_eq!(seen(node), rebased);
    // What rsync brings, and more of it than fits.
    fs::create_dir(&source).unwrap();
    sh_in(node.dir(), "cp -a tree/. source; echo synced >source/etc/synced; rm source/etc/b.txt");
    node.ok(&["sync", "a", &source, "--dry-run"]);
    assert_eq!(seen(node), rebased);
    node.ok(&["sync", "a", &source]);
    sized(kept, "sync");
    let synced = seen(node);
    node.ok(&["mount", "a"]);
    // rsync gives some folders their time before it is done with them.
    assert_eq!(listing::of(&node.view("a"), false), listing::of(source.as_ref(), false));
    node.ok(&["umount", "a"]);
    holds(node, "sync");
    sh_in(source.as_ref(), "head -c 30M /dev/urandom >fill");
    let said = node.fails(1, &["sync", "a", &source]);
    assert!(said.contains("rsync"), "{said}");
    sized(own, "sync of too much");
    assert_eq!(seen(node), synced);
    // A layer, and one that does not fit.
    let said = node.fails(2, &["import", "a", &layer]);
    assert!(said.contains("has changes already"), "{said}");
    node.ok(&["import", "a", &layer, "--replace"]);
    sized(own, "import");
    let imported = seen(node);
    assert!(imported.contains("var/other") && !imported.contains("etc/synced"));
    holds(node, "import");
    run(Command::new("tar").args(["-cf", &(dir.clone() + "/large.tar"), "-C", &source, "fill"]));
    let said = node.fails(1, &["import", "a", &(dir + "/large.tar"), "--replace"]);
    assert!(said.contains("`a` may have 24 MiB") && said.contains("sliverfs quota a SIZE"), "{said}");
    sized(own, "import of too much");
    assert_eq!(seen(node), imported);
    node.ok(&["destroy", "a"]);
    node.ok(&[&["create", "a", "--base", "b"], create].concat());
    node.ok(&["import", "a", &layer]);
    assert_eq!(seen(node), first);
}

#[test]
fn an_image_goes_with_each_new_store() {
    if !require("root", common::root()) {
        return;
    }
    let create = ["--backend", "overlay", "--quota", "24M"];
    let node = node("ext4", &create);
    all(&node, "image", &create);
    // What a crash left mounted is in nobody's way.
    run(Command::new("mount")
        .args(["-o", "loop"])
        .arg(node.store("a").join("quota.img"))
        .arg(node.store("a").join("quota")));
    let before = seen(&node);
    let kept = &[".old.a", "a"];
    node.ok(&["convert", "a", "--to", "aufs"]);
    limited(&node, "image", 24 * MIB, kept, "to another union");
    node.ok(&["convert", "a", "--to", "overlay"]);
    limited(&node, "image", 24 * MIB, kept, "and back");
    assert_eq!(seen(&node), before);
    // Where the limit would stay as it is, or does not go with it, nothing is left for a means to say.
    for rest in [&["overlay"][..], &["btrfs-seed", "--size", "256M"]] {
        let said = node.fails(2, &[&["convert", "a", "--means", "image", "--to"], rest].concat());
        assert!(said.contains("sliverfs quota a SIZE --means"), "{said}");
    }
    // A kind that nothing keeps to a limit, and one that is only measured.
    let said = node.fails(3, &["convert", "a", "--to", "copy"]);
    assert!(said.contains("sliverfs quota a none") && said.contains("--means"), "{said}");
    limited(&node, "image", 24 * MIB, &["a"], "refused");
    let planned = node.ok(&["convert", "a", "--to", "copy", "--means", "soft", "--dry-run"]);
    assert!(planned.contains("\"means\":\"soft\"") && planned.contains("quota.img"), "{planned}");
    node.ok(&["convert", "a", "--to", "copy", "--means", "soft"]);
    limited(&node, "soft", 24 * MIB, kept, "measured only");
    assert_eq!(seen(&node), before);
    // To hold it to that is a promise.
    let (config, back) = (node.dir().join("uci"), ["convert", "a", "--to", "overlay", "--means", "image"]);
    fs::write(&config, "config sliverfs 'main'\n option reserve '500M'\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sliverfs"));
    let output =
        command.arg("--config").arg(&config).arg("--lxcpath").arg(&node.lxcpath).args(back).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("cannot be promised"), "{said}");
    node.ok(&back);
    limited(&node, "image", 24 * MIB, kept, "limited again");
    assert_eq!(seen(&node), before);
    holds(&node, "converted");
    node.ok(&["convert", "a", "--to", "aufs"]);
    node.ok(&["convert", "a", "--undo"]);
    assert_eq!(seen(&node), before);
}

#[test]
fn a_qgroup_goes_with_each_new_store() {
    if !require("root", common::root()) {
        return;
    }
    let plain = ["--backend", "btrfs-snapshot"];
    let node = node("btrfs", &plain);
    if !simple_quotas(&node) {
        return;
    }
    // What is only measured is the same wherever it is told, and nothing of the base is in it.
    node.ok(&[
        "create",
        "s",
        "--base",
        "b",
        "--backend",
        "btrfs-snapshot",
        "--quota",
        "24M",
        "--means",
        "soft",
    ]);
    node.ok(&["mount", "s"]);
    sh_in(&node.view("s"), "head -c 3M /dev/urandom >big; sync -f .");
    node.ok(&["umount", "s"]);
    let used = |args: &[&str]| {
        let sheet = node.json(args);
        sheet.get("slivers").map_or(&sheet, |rows| &rows[0])["used"].as_u64().unwrap()
    };
    let deep = used(&["usage", "s", "--json", "--deep"]);
    assert_eq!(used(&["show", "s", "--json"]), deep);
    let fast = used(&["usage", "s", "--json"]);
    assert!(deep >= 3 * MIB && fast.abs_diff(deep) < MIB / 4, "{fast} {deep}");
    node.ok(&["destroy", "s"]);
    node.ok(&["quota", "a", "24M", "--means", "qgroup"]);
    all(&node, "qgroup", &["--backend", "btrfs-snapshot", "--quota", "24M", "--means", "qgroup"]);
    let before = seen(&node);
    node.ok(&["convert", "a", "--to", "overlay"]);
    limited(&node, "image", 24 * MIB, &[".old.a", "a"], "to an image");
    assert_eq!(seen(&node), before);
    let said = node.fails(3, &["convert", "a", "--to", "btrfs-snapshot"]);
    assert!(said.contains("lxc.seccomp.profile") && said.contains("--means"), "{said}");
    sh_in(&node.lxcpath, &format!("echo 'lxc.seccomp.profile = {PROFILE}' >>a/config"));
    node.ok(&["convert", "a", "--to", "btrfs-snapshot"]);
    limited(&node, "qgroup", 24 * MIB, &[".old.a", "a"], "to a qgroup");
    assert_eq!(seen(&node), before);
    holds(&node, "converted");
    node.ok(&["destroy", "a"]);
    let groups = || run(Command::new("btrfs").args(["qgroup", "show", "-re"]).arg(&node.lxcpath));
    assert!(!groups().contains("24.00MiB"), "{}", groups());
    // What a layer calls as a store calls its own leads nowhere.
    for (name, limit) in [("own", &["--quota", "24M", "--means", "qgroup"][..]), ("other", &[])] {
        node.ok(&[&["create", name, "--base", "b", "--backend", "btrfs-snapshot"], limit].concat());
    }
    let limits = groups();
    assert!(limits.contains("24.00MiB"), "{limits}");
    let (layer, tar) = (node.dir().join("layer"), node.dir().join("layer.tar"));
    fs::create_dir(&layer).unwrap();
    std::os::unix::fs::symlink(node.store("own").join("tree"), layer.join("tree")).unwrap();
    run(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&layer).arg("tree"));
    node.ok(&["import", "other", tar.to_str().unwrap()]);
    assert!(groups().contains("24.00MiB"), "{}", groups());
}

/// What a program of e2fsprogs says of an image, or does with it.
fn debugfs(image: &Path, request: &str) -> String {
    run(Command::new("debugfs").args(["-w", "-R", request]).arg(image))
}

#[test]
fn an_image_without_a_journal_is_checked_after_a_power_cut() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 128);
    let config = node.dir().join("uci");
    fs::write(&config, "config sliverfs 'main'\n option image_journal '0'\n").unwrap();
    let create = ["create", "a", "--base", "b", "--backend", "overlay", "--quota", "8M"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_sliverfs"));
    run(command.arg("--config").arg(&config).arg("--lxcpath").arg(&node.lxcpath).args(create));
    let (image, kept) = (node.store("a").join("quota.img"), node.dir().join("kept"));
    let has_journal = || debugfs(&image, "stats").contains("has_journal");
    assert!(!has_journal());
    // A new store in the place of an old one is made like it.
    node.ok(&["convert", "a", "--to", "aufs"]);
    node.ok(&["convert", "a", "--to", "overlay"]);
    assert!(!has_journal());
    node.ok(&["quota", "a", "6M"]);
    assert!(!has_journal());
    node.ok(&["quota", "a", "8M"]);
    node.ok(&["mount", "a"]);
    let view = node.view("a");
    sh_in(&view, "echo kept >file; sync -f .");
    // What a disk has when the power goes.
    fs::copy(&image, &kept).unwrap();
    node.ok(&["umount", "a"]);
    assert!(debugfs(&image, "stats").contains("Filesystem state:         clean"));
    fs::copy(&kept, &image).unwrap();
    assert!(debugfs(&image, "stats").contains("not clean"));
    debugfs(&image, "sif upper/file links_count 7");
    let before = node.run(&["mount", "a"]);
    let said = String::from_utf8_lossy(&before.stderr).into_owned();
    assert!(before.status.success() && said.contains("has no journal: it is checked"), "{said}");
    assert_eq!(fs::metadata(view.join("file")).unwrap().nlink(), 1);
    assert_eq!(fs::read_to_string(view.join("file")).unwrap(), "kept\n");
    node.ok(&["umount", "a"]);
    let again = node.run(&["mount", "a"]);
    assert!(!String::from_utf8_lossy(&again.stderr).contains("is checked"), "once is enough");
    node.ok(&["umount", "a"]);
    // What cannot be put right without losing something is not mounted.
    fs::copy(&kept, &image).unwrap();
    debugfs(&image, "clri <2>");
    let said = node.fails(1, &["mount", "a"]);
    assert!(said.contains("e2fsck failed") && said.contains("exit code 4"), "{said}");
    limited(&node, "image", 8 * MIB, &["a"], "damaged");
    // Where the program is not there, neither.
    fs::copy(&kept, &image).unwrap();
    let output = node.command(&["mount", "a"]).env("PATH", "/nonexistent").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(3) && said.contains("e2fsck is not installed"), "{said}");
}
