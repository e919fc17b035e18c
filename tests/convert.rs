//! `convert`: the view is the same whatever kind of store it comes from, and a conversion that is cut or refused changed nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "layer/shown.rs"]
mod shown;

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::{Command, Output};

use common::node::{Node, run, small_tree};
use common::slivers::{backend, in_stores, view};
use common::tree::{assert_same, installed};
use common::{listing, require};
use sliverfs::kind::Kind;
use sliverfs::layer::Format;

/// A bit of everything that a sliver does.
const EDITS: &str = r#"
    echo new > new; mkdir -p d/e; echo x > d/f; ln d/f d/e/f2; ln -s a.txt etc/sym; mkfifo p; mknod dev b 7 200
    rm etc/b.txt; rm -r var/deep; mkdir var/deep; echo only > var/deep/only; rm var/fifo; mkdir var/fifo
    chmod 700 etc/dir; chown 5:6 etc/dir/c.txt; setfattr -n trusted.t -v one var/big; setcap cap_net_raw+ep new
    setfattr -n user.d -v two d; mv 'odd names' moved; truncate -s 3000000 hole; echo end >> hole; chmod 711 .; chown 3:4 .
    find . -newermt @1600000000 -exec touch -h -d @1700000000.5 {} +"#;

fn ready() -> bool {
    require("root", common::root())
        && ["setfattr", "setcap"].iter().all(|tool| require(tool, installed(tool)))
}

fn edit(folder: &Path) {
    run(Command::new("sh").args(["-ec", EDITS]).current_dir(folder));
}

/// A sliver with all the edits, unmounted, and the listing of its view.
fn sliver(node: &Node, name: &str, kind: &str) -> String {
    node.ok(&["create", name, "--base", "b", "--backend", kind]);
    node.ok(&["mount", name]);
    edit(&node.view(name));
    node.ok(&["umount", name]);
    view(node, name)
}

/// The view of a store as the layer engine reads it, without any mount.
fn read(node: &Node, name: &str) -> String {
    let kind = Kind::parse(&backend(node, name)).unwrap();
    let format = Format::of(kind);
    let layer = node.store(name).join(if kind.reads_base() { "upper" } else { "tree" });
    shown::whole(format, &layer, &node.lxcpath.join(".base/b/tree"))
}

/// Converts a sliver of each kind to each other one.
fn pairs(node: &Node, kinds: &[&str]) {
    for from in kinds {
        for to in kinds.iter().filter(|to| *to != from) {
            let what = format!("{from} to {to}");
            let wanted = sliver(node, "s", from);
            let said = node.json(&["convert", "s", "--to", to, "--json"]);
            assert_eq!([&said["from"], &said["to"], &said["state"]], [from, to, "converted"], "{what}");
            assert_eq!(backend(node, "s"), **to, "{what}");
            assert_eq!(in_stores(node), [".old.s", "s"], "{what}: the old store is kept");
            assert_same(&view(node, "s"), &wanted, &what);
            assert_eq!(in_stores(node), ["s"], "{what}: until the new one was mounted");
            // What else is written into it.
            node.ok(&["mount", "s"]);
            fs::write(node.view("s").join("etc/dir/more"), "more").unwrap();
            node.ok(&["umount", "s"]);
            node.ok(&["destroy", "s"]);
        }
    }
    node.ok(&["base", "verify", "b"]);
}

#[test]
fn every_pair_on_ext4() {
    if ready() {
        pairs(&Node::with_base("ext4", 96), &["overlay", "copy"]);
    }
}

#[test]
fn every_pair_with_a_daemon() {
    let tools = ["fuse-overlayfs", "fusermount3"];
    if ready() && tools.iter().all(|tool| require("fuse-overlayfs", installed(tool))) {
        pairs(&Node::with_base("ext4", 96), &["fuse-overlayfs", "overlay", "copy"]);
    }
}

#[test]
fn every_pair_on_btrfs() {
    if ready() && require("btrfs-snapshot", installed("mkfs.btrfs")) {
        pairs(&Node::with_base("btrfs", 300), &["overlay", "btrfs-snapshot", "reflink", "copy"]);
    }
}

#[test]
fn every_pair_on_a_seed() {
    if !ready() || !require("btrfs-seed", installed("mkfs.btrfs")) {
        return;
    }
    let node = Node::new("ext4", 400);
    let tree = node.dir().join("tree");
    small_tree(&tree);
    node.ok(&["base", "add", "b", tree.to_str().unwrap(), "--pack", "btrfs"]);
    pairs(&node, &["btrfs-seed", "overlay", "copy"]);
}

#[test]
fn an_image_is_a_base_too() {
    if !ready() || !require("mksquashfs", installed("mksquashfs")) {
        return;
    }
    let node = Node::new("ext4", 96);
    let tree = node.dir().join("tree");
    small_tree(&tree);
    node.ok(&["base", "add", "b", tree.to_str().unwrap(), "--pack", "squashfs"]);
    pairs(&node, &["overlay", "copy"]);
}

#[test]
fn through_all_unions_and_back() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 96);
    let wanted = sliver(&node, "s", "overlay");
    let seen = read(&node, "s");
    for to in ["aufs", "overlayfs", "mini_fo", "aufs", "overlay"] {
        let output = node.run(&["convert", "s", "--to", to]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        // Kinds that this kernel lacks are written all the same, and that is told.
        assert_eq!(said.contains("does not offer"), to != "overlay", "{said}");
        assert_eq!(said.contains("no extended attributes"), to == "mini_fo", "{said}");
        assert_same(&read(&node, "s"), &seen, to);
        // The store that was mounted last is the one that is kept.
        assert_eq!(in_stores(&node), [".old.s", "s"], "{to}");
        let kept = fs::read_to_string(node.lxcpath.join(".store/.old.s/sliver.json")).unwrap();
        assert!(kept.contains("\"backend\":\"overlay\"") && !kept.contains("converted"), "{kept}");
    }
    assert_same(&view(&node, "s"), &wanted, "the view");
    assert_eq!(in_stores(&node), ["s"]);
}

#[test]
fn a_plan_and_the_way_back() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 96);
    let wanted = sliver(&node, "s", "overlay");
    let plan = node.ok(&["convert", "s", "--to", "copy", "--dry-run"]);
    for step in ["cp -aT", "# write the changes of the overlay store", "mv -T --exchange", "sync -f"] {
        assert!(plan.contains(step), "{plan}");
    }
    let told = node.json(&["convert", "s", "--to", "copy", "--dry-run", "--json"]);
    assert_eq!(told["state"], "planned");
    assert!(told["entries"].as_u64().unwrap() > 10 && told["bytes"].as_u64().unwrap() > 3_000_000, "{told}");
    assert_eq!(in_stores(&node), ["s"]);
    assert_eq!(node.json(&["convert", "s", "--to", "overlay", "--json"])["state"], "unchanged");
    node.fails(2, &["convert", "s", "--undo"]);

    node.ok(&["mount", "s"]);
    let said = node.fails(4, &["convert", "s", "--to", "copy"]);
    assert!(said.contains("is mounted at"), "{said}");
    node.ok(&["umount", "s"]);

    node.ok(&["convert", "s", "--to", "copy"]);
    let sheet = node.json(&["show", "s", "--json"]);
    assert!(sheet["kept_store"].as_str().unwrap().ends_with("/.store/.old.s"), "{sheet}");
    node.ok(&["convert", "s", "--undo", "--dry-run"]);
    assert_eq!(backend(&node, "s"), "copy");
    node.ok(&["convert", "s", "--undo"]);
    assert_eq!((backend(&node, "s").as_str(), in_stores(&node)), ("overlay", vec!["s".to_owned()]));
    assert_same(&view(&node, "s"), &wanted, "brought back");
    // What cannot be removed of the store that was given up is told: it is undone all the same.
    node.ok(&["convert", "s", "--to", "copy"]);
    let immutable = node.store("s").join("tree/var/big");
    run(Command::new("chattr").arg("+i").arg(&immutable));
    let output = node.run(&["convert", "s", "--undo"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    run(Command::new("chattr").arg("-i").arg(node.lxcpath.join(".store/.rm.s/tree/var/big")));
    assert!(output.status.success() && said.contains("chattr -i"), "{said}");
    assert_eq!(backend(&node, "s"), "overlay");
    assert_same(&view(&node, "s"), &wanted, "brought back");
    node.ok(&["check", "--repair"]);
    assert_eq!(in_stores(&node), ["s"]);
    // Destroyed with what is kept of it.
    node.ok(&["convert", "s", "--to", "copy"]);
    node.ok(&["destroy", "s"]);
    assert_eq!(in_stores(&node), [""; 0]);

    for args in [
        &["convert", "s"][..],
        &["convert", "--to", "copy"],
        &["convert", "s", "--to", "nosuch"],
        &["convert", "s", "--to", "copy", "--undo"],
        &["convert", "s", "--to", "tree", "--format", "overlay"],
    ] {
        node.fails(2, args);
    }
}

/// What the new kind cannot keep is told by name, and nothing was begun.
#[test]
fn what_a_format_cannot_keep() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 96);
    node.ok(&["create", "s", "--base", "b", "--backend", "copy"]);
    let tree = node.store("s").join("tree");
    let long = "n".repeat(243);
    for name in [".wh.one", "META_dAfFgHE39ktF3HD2sr", &long, "etc/.wh..wh.x"] {
        fs::write(tree.join(name), name).unwrap();
    }
    run(Command::new("mknod").arg(tree.join("var/zero")).args(["c", "0", "0"]));
    run(Command::new("setfattr").args(["-n", "trusted.overlay.opaque", "-v", "y"]).arg(tree.join("etc/dir")));
    let before = listing::of(&tree, true);
    for (to, names) in [
        ("aufs", &[".wh.one", long.as_str(), "etc/.wh..wh.x"][..]),
        ("overlay", &["var/zero (a device 0:0"]),
        ("mini_fo", &["META_dAfFgHE39ktF3HD2sr"]),
        ("overlayfs", &["etc/dir (the driver would obey"]),
    ] {
        for args in [&["convert", "s", "--to", to][..], &["convert", "s", "--to", to, "--dry-run"]] {
            let said = node.fails(1, args);
            assert!(names.iter().all(|name| said.contains(name)), "{to}: {said}");
            assert!(said.contains("rename or remove them"), "{said}");
        }
        assert_eq!(in_stores(&node), ["s"], "{to}");
    }
    assert_eq!(backend(&node, "s"), "copy");
    assert_same(&listing::of(&tree, true), &before, "the old store");
    assert!(fs::symlink_metadata(tree.join("var/zero")).unwrap().file_type().is_char_device());

    // Nor what the base has, which a union of the new kind would hide.
    let odd = node.dir().join("odd");
    fs::create_dir_all(odd.join("etc")).unwrap();
    fs::write(odd.join("etc/.wh.hosts"), "").unwrap();
    node.ok(&["base", "add", "odd", odd.to_str().unwrap()]);
    node.ok(&["create", "o", "--base", "odd", "--backend", "overlay"]);
    assert!(node.fails(1, &["convert", "o", "--to", "aufs"]).contains("etc/.wh.hosts (names of whiteouts"));
    node.ok(&["convert", "o", "--to", "mini_fo"]);

    // A store that its own format does not explain is told, and not guessed at.
    node.ok(&["create", "t", "--base", "b", "--backend", "overlay"]);
    node.ok(&["convert", "t", "--to", "overlayfs"]);
    std::os::unix::fs::symlink("(overlay-whiteout)", node.store("t").join("upper/etc")).unwrap();
    let said = node.fails(5, &["convert", "t", "--to", "aufs"]);
    assert!(said.contains("etc (a whiteout without its attribute"), "{said}");
}

/// A folder of the view that a default ACL, an attribute or a mode was taken from has not got it again from the base.
#[test]
fn what_was_taken_away_stays_away() {
    if !ready() || !require("setfacl", installed("setfacl")) {
        return;
    }
    let node = Node::new("btrfs", 300);
    let tree = node.dir().join("tree");
    small_tree(&tree);
    let marks = "setfattr -n user.mark -v 1 etc var; setfacl -d -m u:5:rwx etc; setfacl -m u:6:r etc/b.txt";
    run(Command::new("sh").args(["-ec", marks]).current_dir(&tree));
    node.ok(&["base", "add", "b", tree.to_str().unwrap()]);
    node.ok(&["create", "s", "--base", "b", "--backend", "overlay"]);
    node.ok(&["mount", "s"]);
    let edits = "setfattr -x user.mark etc; echo n > plain; mv plain etc; setfacl -b etc/b.txt; setfacl -k var; echo a > etc/with";
    run(Command::new("sh").args(["-ec", edits]).current_dir(node.view("s")));
    let wanted = listing::of(&node.view("s"), true);
    node.ok(&["umount", "s"]);
    for to in ["btrfs-snapshot", "overlay", "reflink", "copy", "overlay"] {
        node.ok(&["convert", "s", "--to", to]);
        assert_same(&view(&node, "s"), &wanted, to);
    }
}

/// A whole tree is no reason for a store that has each folder of the base.
#[test]
fn folders_that_nobody_touched_are_not_copied_up() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 96);
    node.ok(&["create", "s", "--base", "b", "--backend", "copy"]);
    fs::write(node.store("s").join("tree/var/deep/er/new"), "n").unwrap();
    for to in ["overlay", "copy", "mini_fo"] {
        node.ok(&["convert", "s", "--to", to]);
    }
    let found =
        run(Command::new("find").args([".", "-mindepth", "1"]).current_dir(node.store("s").join("upper")));
    let mut found: Vec<&str> = found.lines().collect();
    found.sort_unstable();
    assert_eq!(found, ["./var", "./var/deep", "./var/deep/er", "./var/deep/er/new"]);
}

/// As many names as in the base are not the same ones.
#[test]
fn a_name_that_went_and_one_that_came() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 96);
    node.ok(&["create", "s", "--base", "b", "--backend", "copy"]);
    let edits = "ln etc/a.txt etc/zz; rm etc/a.hard; touch -d @1500000000 etc";
    run(Command::new("sh").args(["-ec", edits]).current_dir(node.store("s").join("tree")));
    let wanted = listing::uncounted(&view(&node, "s"));
    assert!(
        wanted.lines().any(|line| line.starts_with("etc/zz ") && line.contains(" with etc/a.txt ")),
        "{wanted}"
    );
    let told = node.ok(&["diff", "s"]);
    assert!(told.lines().any(|line| line.contains("etc/a.txt") && line.contains("links")), "{told}");
    for to in ["overlay", "copy"] {
        node.ok(&["convert", "s", "--to", to]);
        assert_same(&listing::uncounted(&view(&node, "s")), &wanted, to);
    }
}

#[test]
fn bare_directories() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 96);
    let wanted = sliver(&node, "s", "overlay");
    let base = node.lxcpath.join(".base/b/tree");
    let (mut format, mut store) = ("overlay", node.store("s").join("upper"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    for to in ["mini_fo", "tree", "overlayfs", "aufs", "overlay-userxattr", "tree"] {
        let out = node.lxcpath.join(format!("{to}-of-{format}"));
        let (base, from, new) = (text(&base), text(&store), text(&out));
        let args =
            ["convert", "--format", format, "--base", &base, "--store", &from, "--to", to, "--out", &new];
        node.ok(&[&args[..], &["--dry-run"]].concat());
        assert!(!out.exists());
        // What a run that was killed left.
        fs::create_dir(node.lxcpath.join(format!(".sliverfs-new.{to}-of-{format}"))).unwrap();
        node.ok(&args);
        assert!(node.fails(2, &args).contains("there already"));
        (format, store) = (to, out);
    }
    assert_same(&listing::of(&store, true), &wanted, "the tree");
    let lxcpath = fs::read_dir(&node.lxcpath).unwrap();
    let hidden =
        lxcpath.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("new"));
    assert_eq!(hidden.count(), 0);
    node.fails(2, &["convert", "--format", "aufs", "--base", "/", "--to", "tree"]);
}

/// A node whose kernel changed: its slivers are told what to do, or are converted by themselves.
#[test]
fn a_store_that_the_kernel_cannot_show() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 96);
    let wanted = sliver(&node, "s", "overlay");
    node.ok(&["convert", "s", "--to", "mini_fo"]);
    for command in ["mount", "apply"] {
        let said = with_config(&node, "", &[command, if command == "mount" { "s" } else { "--dry-run" }]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said.status.code(), Some(if command == "mount" { 3 } else { 1 }), "{text}");
        assert!(text.contains("sliverfs convert s --to auto"), "{text}");
    }
    assert_eq!(backend(&node, "s"), "mini_fo");
    let auto = "option convert 'auto'";
    let plan = with_config(&node, auto, &["mount", "s", "--dry-run"]);
    assert!(String::from_utf8_lossy(&plan.stdout).contains("as overlay"), "{plan:?}");
    assert_eq!(backend(&node, "s"), "mini_fo");
    assert!(with_config(&node, auto, &["mount", "s"]).status.success());
    assert_same(&listing::of(&node.view("s"), true), &wanted, "mounted");
    node.ok(&["umount", "s"]);
    assert_eq!((backend(&node, "s").as_str(), in_stores(&node)), ("overlay", vec!["s".to_owned()]));

    node.ok(&["convert", "s", "--to", "aufs"]);
    let plan = with_config(&node, auto, &["apply", "--dry-run"]);
    let steps = "sliverfs convert s --to auto\nsliverfs mount s\n";
    assert_eq!(String::from_utf8_lossy(&plan.stdout), steps, "{plan:?}");
    let done = with_config(&node, auto, &["apply"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_same(&listing::of(&node.view("s"), true), &wanted, "applied");
    node.ok(&["umount", "s"]);
}

fn with_config(node: &Node, option: &str, args: &[&str]) -> Output {
    let file = node.dir().join("config");
    let text = format!("config sliverfs main\n{option}\nconfig sliver s\noption base b\n");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sliverfs"));
    command.arg("--config").arg(file).arg("--lxcpath").arg(&node.lxcpath).args(args).output().unwrap()
}

#[test]
fn a_full_disk_leaves_the_old_state() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 32);
    let wanted = sliver(&node, "s", "overlay");
    let fill = |name: &str| {
        let file = node.lxcpath.join(name);
        let script = "cat /dev/zero > \"$1\" 2>/dev/null || true";
        run(Command::new("sh").args(["-c", script, "sh"]).arg(&file));
        fs::OpenOptions::new().write(true).open(file).unwrap()
    };
    let big = fill("big");
    big.set_len(big.metadata().unwrap().len() - (160 << 10)).unwrap();
    big.sync_all().unwrap();
    for to in ["copy", "aufs"] {
        // The second one needs few blocks: it finds none at all.
        if to == "aufs" {
            fill("rest");
        }
        let said = node.fails(1, &["convert", "s", "--to", to]);
        assert!(said.contains("No space left on device") && said.contains("the disk is full"), "{said}");
        assert!(!said.contains("take back"), "{said}");
        assert_eq!(in_stores(&node), ["s"], "{to}");
        assert_eq!(backend(&node, "s"), "overlay");
    }
    fs::remove_file(node.lxcpath.join("rest")).unwrap();
    assert_same(&view(&node, "s"), &wanted, "the old view");
    drop(big);
    fs::remove_file(node.lxcpath.join("big")).unwrap();
    node.ok(&["convert", "s", "--to", "copy"]);
    assert_same(&view(&node, "s"), &wanted, "the new view");
}

/// An empty store is one, too.
/// A restore was cut where the old folder is out of the way, and the new one not yet in its place: nobody takes that for the sliver.
#[test]
fn what_was_cut_is_ended_first() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 96);
    node.ok(&["create", "s", "--base", "b", "--backend", "copy"]);
    let wanted = view(&node, "s");
    let cut = "cd $1; mkdir .sliverfs-new .sliverfs-old; cp -a tree/etc .sliverfs-new/etc; mv tree/etc .sliverfs-old; echo P etc > .sliverfs-journal";
    let cut = || run(Command::new("sh").args(["-ec", cut, "sh"]).arg(node.store("s")));
    let lost = |text: &str| text.lines().filter(|line| line.starts_with("etc")).count();
    cut();
    for args in [&["diff", "s"][..], &["export", "s", "-o", "/dev/null"]] {
        assert!(node.fails(4, args).contains("sliverfs check --repair s"), "{args:?}");
    }
    node.ok(&["check", "--repair", "s"]);
    node.ok(&["diff", "s"]);
    cut();
    node.ok(&["convert", "s", "--to", "overlay"]);
    assert_eq!(lost(&view(&node, "s")), lost(&wanted));
    node.ok(&["convert", "s", "--to", "copy"]);
    node.ok(&["mount", "s"]);
    node.ok(&["umount", "s"]);
    cut();
    node.ok(&["base", "add", "c", node.dir().join("tree").to_str().unwrap()]);
    node.ok(&["rebase", "s", "--onto", "c"]);
    assert_eq!(lost(&view(&node, "s")), lost(&wanted));
}

#[test]
fn a_sliver_that_was_never_mounted() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 64);
    node.ok(&["create", "s", "--base", "b", "--backend", "overlay"]);
    node.ok(&["convert", "s", "--to", "copy"]);
    assert_same(&view(&node, "s"), &listing::of(&node.dir().join("tree"), true), "nothing was changed");
}
