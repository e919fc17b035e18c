//! `check`: what a crash left is found and settled, and what could be lost by that is only told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "layer/shown.rs"]
mod shown;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::node::{Node, run};
use common::require;
use sliverfs::layer::Format;

fn sh(script: &str, args: &[&Path]) {
    run(Command::new("sh").arg("-ec").arg(script).arg("sh").args(args));
}

/// A node without the notes of an earlier one, whose disk had the same numbers.
fn new_node(mib: u64) -> Node {
    let node = Node::with_base("ext4", mib);
    let _none_yet = fs::remove_dir_all(notes(&node));
    node
}

fn notes(node: &Node) -> PathBuf {
    let key = fs::metadata(&node.lxcpath).unwrap();
    PathBuf::from(format!("/run/sliverfs/{:x}-{:x}/mounted", key.dev(), key.ino()))
}

/// What is found, as (sliver, what, repaired).
fn found(node: &Node, args: &[&str], code: i32) -> Vec<(String, String, bool)> {
    let output = node.run(&[&["check", "--json"], args].concat());
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut all = Vec::new();
    for sliver in json.as_array().unwrap() {
        let name = sliver["name"].as_str().unwrap_or("-");
        for finding in sliver["findings"].as_array().unwrap() {
            let what = finding["what"].as_str().unwrap();
            all.push((name.to_owned(), what.to_owned(), finding["repaired"].as_bool().unwrap()));
        }
    }
    all
}

fn wanted(list: &[(&str, &str)], repaired: bool) -> Vec<(String, String, bool)> {
    list.iter().map(|(name, what)| ((*name).to_owned(), (*what).to_owned(), repaired)).collect()
}

/// A sliver whose record says that it is of another kind: there is no kernel with all of them.
fn disguised(node: &Node, name: &str, backend: &str) {
    node.ok(&["create", name, "--base", "b", "--backend", "overlay"]);
    let record = node.store(name).join("sliver.json");
    let text = fs::read_to_string(&record).unwrap().replace("\"overlay\"", &format!("\"{backend}\""));
    fs::write(record, text).unwrap();
}

#[test]
fn a_clean_node_is_clean_and_what_is_in_use_is_passed_over() {
    if !require("root", common::root()) {
        return;
    }
    let node = new_node(32);
    assert_eq!(found(&node, &[], 0), []);
    for kind in ["overlay", "copy"] {
        node.ok(&["create", kind, "--base", "b", "--backend", kind]);
        node.ok(&["mount", kind]);
        sh("cd $1; rm etc/a.txt etc/b.txt; rm -r var; mkdir var; echo x > x; mv x y", &[&node.view(kind)]);
    }
    assert_eq!(found(&node, &[], 0), []);
    assert!(node.ok(&["check", "--json"]).contains("\"in_use\":true"));
    assert!(node.fails(4, &["check", "overlay"]).contains("is mounted at"));
    node.ok(&["umount", "--all"]);
    assert_eq!(found(&node, &[], 0), []);
    assert_eq!(found(&node, &["overlay", "copy", "--repair"], 0), []);
}

#[test]
fn what_a_crash_left_is_settled() {
    if !require("root", common::root()) {
        return;
    }
    let node = new_node(32);
    node.ok(&["create", "a", "--base", "b", "--backend", "overlay"]);
    node.ok(&["create", "c", "--base", "b", "--backend", "copy"]);
    let note = notes(&node).join("a");
    sh(
        "cd $1; mkdir -p .store/.new.x/upper .store/.rm.a/upper .store/.old.a/upper .store/.old.gone/upper .rm.y/rootfs .base/.new.z.1/tree .store/a/work/work; \
         echo half > .store/a/work/work/#1; echo > .store/a/.sliver.json.new; mkdir .store/a/.sliverfs-new .store/c/.sliverfs-old .store/c/tree/.sliverfs-old; \
         printf 'P etc/a.t' > .store/a/.sliverfs-journal; \
         echo '{\"version\":1,\"backend\":\"overlay\",\"source\":\"sliverfs:x\",\"device\":999999}' > $2",
        &[&node.lxcpath, &note],
    );
    let list = [
        ("-", "left_over"),
        ("-", "left_over"),
        ("-", "left_over"),
        ("-", "left_over"),
        ("-", "left_over"),
        ("a", "left_over"),
        ("a", "note"),
        ("a", "left_over"),
        ("a", "left_over"),
        ("a", "left_over"),
        ("a", "left_over"),
        ("c", "left_over"),
    ];
    assert_eq!(found(&node, &[], 5), wanted(&list, false));
    // Nothing was changed by looking.
    assert!(node.lxcpath.join(".store/.new.x").exists());
    let repaired = [&list[..5], &list[6..]].concat();
    // What is left of `a` goes with the node's.
    assert_eq!(found(&node, &["--repair"], 0), wanted(&repaired, true));
    // What a conversion kept is no left-over.
    assert!(node.lxcpath.join(".store/.old.a/upper").exists());
    // What a tenant has in a tree of its own is the tenant's.
    assert!(node.store("c").join("tree/.sliverfs-old").exists());
    assert_eq!(found(&node, &[], 0), []);
    node.ok(&["mount", "--all"]);
    node.ok(&["umount", "--all"]);
}

/// What cannot be removed is told with its reason, and keeps nothing else from being put right; the document is whole.
#[test]
fn what_is_immutable_does_not_end_a_repair() {
    if !require("root", common::root()) {
        return;
    }
    let node = new_node(32);
    for name in ["a", "m", "z"] {
        node.ok(&["create", name, "--base", "b", "--backend", "overlay"]);
    }
    fs::write(
        node.store("m").join("sliver.json"),
        fs::read_to_string(node.store("m").join("sliver.json")).unwrap().replace("\"overlay\"", "\"aufs\""),
    )
    .unwrap();
    let made = "cd $1/.store; mkdir -p .new.x .new.y a/work/work z/.sliverfs-new m/upper/.wh..wh.x.1 m/upper/.wh..wh.y.1; \
        for d in .new.x .new.y a/work/work z/.sliverfs-new m/upper/.wh..wh.x.1 m/upper/.wh..wh.y.1; do echo > $d/f; done; \
        echo > a/.sliver.json.new";
    sh(made, &[&node.lxcpath]);
    let stuck = [".new.x/f", "a/work/work/f", "z/.sliverfs-new/f", "m/upper/.wh..wh.x.1/f"];
    let stuck: Vec<_> = stuck.iter().map(|path| node.lxcpath.join(".store").join(path)).collect();
    let chattr = |how: &str| stuck.iter().for_each(|path| sh(&format!("chattr {how} $1"), &[path]));
    chattr("+i");
    let output = node.run(&["check", "--repair", "--json"]);
    let plain = node.run(&["check", "--repair"]);
    chattr("-i");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut all = Vec::new();
    for sliver in json.as_array().unwrap() {
        for finding in sliver["findings"].as_array().unwrap() {
            let told = finding["error"].as_str().unwrap_or("");
            assert!(told.is_empty() || told.contains("chattr -i"), "{finding}");
            assert_eq!(told.is_empty(), finding["repaired"] == true, "{finding}");
            let path = finding["path"].as_str().unwrap().rsplit_once(".store/");
            all.push((
                path.map_or(finding["path"].as_str().unwrap(), |path| path.1).to_owned(),
                told.is_empty(),
            ));
        }
    }
    all.sort();
    let mut wanted = [
        (".new.x", false),
        (".new.y", true),
        ("a/work/work/f", false),
        ("a/.sliver.json.new", true),
        (".wh..wh.x.1", false),
        (".wh..wh.y.1", true),
        (".sliverfs-new", false),
    ];
    wanted.sort_unstable();
    assert_eq!(all, wanted.map(|(path, done)| (path.to_owned(), done)));
    let lines = String::from_utf8_lossy(&plain.stdout).into_owned();
    assert_eq!((plain.status.code(), lines.lines().count()), (Some(1), 4), "{lines}");
    assert!(lines.lines().all(|line| line.contains("left over by a crash: not put right: ")), "{lines}");
    node.ok(&["check", "--repair"]);
    assert_eq!(found(&node, &[], 0), []);
}

#[test]
fn what_no_driver_writes_is_told_and_put_right_where_nothing_is_lost() {
    if !require("root", common::root()) {
        return;
    }
    let node = new_node(32);
    for (backend, format, script, list, mended) in [
        (
            "overlayfs",
            Format::Overlayfs,
            "mkdir etc; ln -s '(overlay-whiteout)' etc/b.txt; ln -s '(overlay-whiteout)' mine",
            &["torn_whiteout", "torn_whiteout"][..],
            &[true, false][..],
        ),
        (
            "mini_fo",
            Format::MiniFo,
            "mkdir etc; printf 'D b.txt\\nD a.t' > etc/META_dAfFgHE39ktF3HD2sr",
            &["record"],
            &[true],
        ),
        (
            "mini_fo",
            Format::MiniFo,
            "printf 'what\\nD empty\\n' > META_dAfFgHE39ktF3HD2sr",
            &["record"],
            &[false],
        ),
        (
            "aufs",
            Format::Aufs,
            "mkdir -p .wh..wh.x.1 etc; : > etc/.wh.b.txt; echo > .wh..wh.x.1/f; : > .wh.mine; echo mine > mine",
            &["garbage", "both"],
            &[true, false],
        ),
    ] {
        disguised(&node, "s", backend);
        let (upper, tree) = (node.store("s").join("upper"), node.lxcpath.join(".base/b/tree"));
        sh(&format!("cd $1; {script}"), &[&upper]);
        let told: Vec<_> = list.iter().map(|what| ("s", *what)).collect();
        assert_eq!(found(&node, &["s"], 5), wanted(&told, false), "{backend}");
        let all = mended.iter().all(|done| *done);
        let mut expected = wanted(&told, true);
        expected.iter_mut().zip(mended).for_each(|(entry, done)| entry.2 = *done);
        assert_eq!(found(&node, &["s", "--repair"], if all { 0 } else { 5 }), expected, "{backend}");
        let left: Vec<_> =
            told.iter().zip(mended).filter(|(_, done)| !**done).map(|(entry, _)| *entry).collect();
        assert_eq!(found(&node, &["s"], if all { 0 } else { 5 }), wanted(&left, false), "{backend}");
        // What is told only, and what was said before it, is as it was.
        if script.contains("mine") {
            assert!(upper.join("mine").symlink_metadata().is_ok(), "{backend}");
        }
        if script.contains("b.txt") {
            assert!(!shown::whole(format, &upper, &tree).contains("etc/b.txt"), "{backend}");
        }
        node.ok(&["destroy", "s"]);
    }
}

#[test]
fn a_damaged_record_is_told() {
    if !require("root", common::root()) {
        return;
    }
    let node = new_node(32);
    node.ok(&["create", "a", "--base", "b", "--backend", "overlay"]);
    node.ok(&["create", "z", "--base", "b", "--backend", "overlay"]);
    fs::write(node.store("a").join("sliver.json"), "{").unwrap();
    fs::create_dir(node.store("z").join(".sliverfs-new")).unwrap();
    let said = node.fails(5, &["check", "--repair"]);
    assert!(said.contains("sliver.json is damaged"), "{said}");
    // The others have their turn all the same.
    assert!(!node.store("z").join(".sliverfs-new").exists());
}

/// A base that is an image is looked at in a child: the document is whole all the same.
#[test]
fn slivers_on_an_image() {
    let packs = Command::new("mksquashfs").arg("-version").output().map(drop).map_err(|err| err.to_string());
    if !require("root", common::root()) || !require("mksquashfs", packs) {
        return;
    }
    let node = new_node(48);
    let tree = node.dir().join("tree");
    node.ok(&["base", "add", "image", tree.to_str().unwrap(), "--pack", "squashfs"]);
    node.ok(&["create", "i", "--base", "image", "--backend", "overlay"]);
    node.ok(&["mount", "i"]);
    let view = node.view("i");
    sh(
        "cd $1; rm -r etc/dir; touch -d @1 var/big; echo x > bin/x; rm bin/x; touch -d @1500000000 var/big",
        &[&view],
    );
    node.ok(&["umount", "i"]);
    assert_eq!(node.json(&["compact", "i", "--json"])["files"], 1);
    assert_eq!(node.ok(&["restore", "i", "etc/dir/c.txt"]), "etc/dir/c.txt: copied from the base\n");
    sh(
        "mkdir $1/.sliverfs-new; mkdir -p $1/upper/etc; setfattr -n trusted.overlay.whiteout -v y $1/upper/etc/dir/c.txt; : > $1/upper/etc/dir/c.txt",
        &[&node.store("i")],
    );
    let list = [("i", "left_over"), ("i", "stray_whiteout")];
    assert_eq!(found(&node, &["i"], 5), wanted(&list, false));
    let repaired = found(&node, &["i", "--repair"], 5);
    assert_eq!(repaired.iter().map(|entry| entry.2).collect::<Vec<_>>(), [true, false]);
    node.ok(&["restore", "i", "etc/dir"]);
    node.ok(&["check", "i"]);
    node.ok(&["mount", "i"]);
    assert_eq!(fs::read_to_string(view.join("etc/dir/c.txt")).unwrap(), "three\n");
    node.ok(&["umount", "i"]);
}

/// A store that is a whole tree and holds nothing looks like one whose tenant deleted all: it is told, and left alone.
#[test]
fn a_tree_that_is_empty() {
    if !require("root", common::root()) {
        return;
    }
    let node = new_node(32);
    node.ok(&["create", "a", "--base", "b", "--backend", "copy"]);
    assert_eq!(found(&node, &[], 0), []);
    sh("rm -r $1/.store/a/tree/*", &[&node.lxcpath]);
    assert_eq!(found(&node, &["--repair"], 5), wanted(&[("a", "empty")], false));
    node.ok(&["restore", "a", "etc"]);
    assert_eq!(found(&node, &[], 0), []);
}

/// What is left of one is no finding of the next, and what fails is in the document.
#[test]
fn each_sliver_answers_for_itself() {
    if !require("root", common::root()) {
        return;
    }
    let node = new_node(32);
    for name in ["a", "b"] {
        node.ok(&["create", name, "--base", "b", "--backend", "overlay"]);
    }
    sh("mkdir -p $1/.base/.new.z.1/tree $1/.store/a/.sliverfs-new", &[&node.lxcpath]);
    let output = node.run(&["check"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(5) && said.contains("a: 1 findings are left"), "{said}");
    assert_eq!(said.matches("1 findings are left").count(), 2, "{said}");
    fs::write(node.store("b").join("sliver.json"), "{").unwrap();
    let output = node.run(&["check", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let errors: Vec<_> = json.as_array().unwrap().iter().map(|part| part["error"].as_str()).collect();
    assert!(errors[0].is_some_and(|error| error.contains("1 findings")), "{errors:?}");
    assert!(errors[2].is_some_and(|error| error.contains("sliver.json")), "{errors:?}");
}
