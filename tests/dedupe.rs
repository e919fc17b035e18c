//! `sliverfs dedupe` on Btrfs and XFS: what is equal shares its place again, what is not stays apart, and the gain is real.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use common::node::{Node, run};
use common::{busy, listing, require};
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// A node on the file system, whose base `big` has files of random bytes.
fn node(fstype: &str) -> Option<Node> {
    if !require("root", common::root()) {
        return None;
    }
    let node = Node::with_base(fstype, 400);
    let tree = node.dir().join("big");
    let script = r#"cp -a "$1" "$2"; cd "$2"; mkdir -p usr/lib
        for n in 1 2 3 4; do head -c 3000001 /dev/urandom > usr/lib/$n; done; head -c 100 /dev/urandom > usr/small"#;
    run(Command::new("sh").args(["-ec", script, "sh"]).arg(node.dir().join("tree")).arg(&tree));
    node.ok(&["base", "add", "big", tree.to_str().unwrap()]);
    Some(node)
}

fn sh(dir: &Path, script: &str) {
    run(Command::new("sh").args(["-ec", script]).current_dir(dir));
}

/// The bytes that are free on the disk when everything is written and deleted.
fn free(node: &Node) -> u64 {
    sh(&node.lxcpath, "sync -f .; sync -f .");
    let text = run(Command::new("stat").args(["-f", "-c", "%a %S"]).arg(&node.lxcpath));
    text.split_whitespace().map(|word| word.parse::<u64>().unwrap()).product()
}

fn sliver<'a>(sheet: &'a Value, name: &str) -> &'a Value {
    sheet["slivers"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value}"))
}

#[test]
fn copies_share_with_the_base() {
    for fstype in ["btrfs", "xfs"] {
        let Some(node) = node(fstype) else { return };
        for name in ["a", "b"] {
            node.ok(&["create", name, "--base", "big", "--backend", "copy"]);
        }
        let wanted = listing::of(&node.store("a").join("tree"), true);
        let before = free(&node);
        let would = node.json(&["dedupe", "a", "--dry-run", "--json"]);
        assert!(free(&node).abs_diff(before) < MIB, "{fstype}: a dry run changes nothing");
        let did = node.json(&["dedupe", "a", "--json"]);
        let freed = free(&node) - before;
        assert!(freed > 11 * MIB && freed < 14 * MIB, "{fstype}: {freed} {did}");
        let gain = number(&did["gain"]);
        assert!(gain.abs_diff(freed) < MIB, "{fstype}: {gain} by FIEMAP, {freed} by statfs");
        assert_eq!(did["gain"], would["gain"], "{fstype}: {would}");
        assert_eq!((&would["dry_run"], &did["dry_run"]), (&true.into(), &false.into()));
        let row = sliver(&did, "a");
        assert_eq!(row["error"], Value::Null);
        assert!(number(&row["found"]) >= 5 && number(&row["files"]) > 10, "{fstype}: {row}");
        let told = number(&did["available_after"]) - number(&did["available_before"]);
        assert!(told.abs_diff(freed) < MIB, "{fstype}: {told} {freed}");
        assert_eq!(listing::of(&node.store("a").join("tree"), true), wanted, "{fstype}");
        // What shares is passed over; the rest is done by the call without names.
        let again = node.json(&["dedupe", "a", "--json"]);
        assert_eq!((number(&again["gain"]), number(&sliver(&again, "a")["found"])), (0, 0), "{fstype}");
        let rest = node.json(&["dedupe", "--json"]);
        assert_eq!(rest["slivers"].as_array().unwrap().len(), 2);
        assert_eq!((number(&sliver(&rest, "a")["gain"]), &sliver(&rest, "b")["gain"]), (0, &did["gain"]));
        node.ok(&["base", "verify", "big"]);
        node.ok(&["destroy", "a"]);
        assert_eq!(listing::of(&node.store("b").join("tree"), true), wanted, "{fstype}");
    }
}

/// A package upgrade in several slivers, a file that is as in the base again, one that only looks so, and one of a tenant's own.
#[test]
fn what_became_equal_and_what_did_not() {
    for (fstype, kinds) in [("btrfs", ["btrfs-snapshot", "reflink"]), ("xfs", ["reflink", "reflink"])] {
        let Some(node) = node(fstype) else { return };
        for (name, kind) in ["a", "b"].into_iter().zip(kinds) {
            node.ok(&["create", name, "--base", "big", "--backend", kind]);
            node.ok(&["mount", name]);
        }
        assert_eq!(
            number(&node.json(&["dedupe", "--json"])["gain"]),
            0,
            "{fstype}: all of it shares from the start"
        );
        let package = node.dir().join("package");
        sh(node.dir(), "mkdir package; head -c 4000000 /dev/urandom > package/1");
        for name in ["a", "b"] {
            fs::copy(package.join("1"), node.view(name).join("usr/lib/1")).unwrap();
        }
        let a = node.view("a");
        sh(&a, "cp --reflink=never usr/lib/2 x; mv x usr/lib/2");
        sh(
            &a,
            "cp --reflink=never usr/lib/3 x; printf y | dd of=x bs=1 seek=2999999 conv=notrunc 2>/dev/null; mv x usr/lib/3",
        );
        sh(&a, "head -c 3000001 /dev/urandom > x; mv x usr/lib/4; head -c 500000 /dev/urandom > own");
        let wanted = ["a", "b"].map(|name| listing::of(&node.view(name), true));
        let before = free(&node);
        // Mounted and in use: a running program, and a file that is open for writing.
        busy::program(Path::new("/bin/sleep"), &a.join("bin/sleep"));
        let mut program = Command::new(a.join("bin/sleep")).arg("600").spawn().unwrap();
        let open = fs::OpenOptions::new().append(true).open(a.join("usr/lib/2")).unwrap();
        let did = node.json(&["dedupe", "--json"]);
        drop(open);
        program.kill().unwrap();
        program.wait().unwrap();
        fs::remove_file(a.join("bin/sleep")).unwrap();
        // a: file 2 whole, and the first MiB of file 3; b: the package's file, with a.
        let (first, second) = (number(&sliver(&did, "a")["gain"]), number(&sliver(&did, "b")["gain"]));
        assert!(first.abs_diff(3_000_001 + 2 * MIB) < 8192, "{fstype}: {did}");
        assert!(second.abs_diff(4_000_000) < 8192, "{fstype}: {did}");
        let freed = free(&node) - before;
        // Btrfs gives an extent back when no part of it is used any more: file 3's is, by its last part.
        assert!(freed + MIB > 7_000_000, "{fstype}: {freed} of {first} and {second}");
        for (name, wanted) in ["a", "b"].iter().zip(wanted) {
            // The listing was made before the program came and went.
            let now = listing::of(&node.view(name), false);
            let line =
                |text: &str, file: &str| text.lines().find(|line| line.starts_with(file)).unwrap().to_owned();
            for file in ["usr/lib/1", "usr/lib/2", "usr/lib/3", "usr/lib/4", "usr/small", "var/sparse"] {
                assert_eq!(line(&now, file), line(&wanted, file), "{fstype} {name}");
            }
        }
        assert_eq!(number(&node.json(&["dedupe", "--json"])["gain"]), 0, "{fstype}");
        for name in ["a", "b"] {
            node.ok(&["umount", name]);
        }
        node.ok(&["base", "verify", "big"]);
    }
}

#[test]
fn what_a_tenant_puts_in_the_way() {
    let Some(node) = node("btrfs") else { return };
    for (name, kind) in [("a", "copy"), ("b", "btrfs-snapshot")] {
        node.ok(&["create", name, "--base", "big", "--backend", kind]);
    }
    let (a, b) = (node.store("a").join("tree"), node.store("b").join("tree"));
    let precious = node.dir().join("precious");
    fs::copy(a.join("usr/lib/1"), &precious).unwrap();
    // A link out, a FIFO, a device and a folder where others have a file; an immutable file; a nested subvolume; holes.
    sh(
        &a,
        &format!(
            "cd usr/lib; ln -sf {} 1; rm 2; mkfifo 2; mkdir -p ../../var/deep; chattr +i 3",
            precious.display()
        ),
    );
    sh(&b, &format!("rm -r usr/lib; ln -s {} usr/lib", node.dir().display()));
    sh(
        &a,
        "btrfs -q subvolume create var/nested; cp --reflink=never usr/lib/4 var/nested/4; truncate -s 5000000 holes",
    );
    sh(
        &b,
        "mkdir -p var/nested; cp --reflink=never ../../a/tree/var/nested/4 var/nested/4; truncate -s 5000000 holes",
    );
    let wanted = [&a, &b].map(|tree| listing::of(tree, true));
    let did = node.json(&["dedupe", "--json"]);
    assert_eq!((&sliver(&did, "a")["error"], &sliver(&did, "b")["error"]), (&Value::Null, &Value::Null));
    assert!(number(&sliver(&did, "a")["gain"]) >= 3_000_001, "{did}");
    assert!(number(&sliver(&did, "b")["gain"]) >= 3_000_001, "the file of the subvolume: {did}");
    assert_eq!([&a, &b].map(|tree| listing::of(tree, true)), wanted);
    assert_eq!(fs::metadata(&precious).unwrap().size(), 3_000_001);
    // Its record is damaged, or its tree is gone: it is told, and the other one is done.
    fs::rename(&b, node.store("b").join("moved")).unwrap();
    let output = node.run(&["dedupe", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let sheet: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(sliver(&sheet, "b")["error"].as_str().unwrap().contains(".store/b/tree"), "{sheet}");
    assert_eq!(sliver(&sheet, "a")["error"], Value::Null);
    sh(&a, "chattr -i usr/lib/3");
}

#[test]
fn where_there_is_nothing_to_share() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 64);
    assert!(node.ok(&["dedupe"]).contains("is a whole tree"));
    node.ok(&["create", "u", "--base", "b", "--backend", "overlay"]);
    let said = node.fails(2, &["dedupe", "u"]);
    assert!(said.contains("only what the sliver changed") && said.contains("reflink"), "{said}");
    node.fails(2, &["dedupe", "nobody"]);
    node.ok(&["create", "c", "--base", "b", "--backend", "copy"]);
    for args in [&["dedupe"][..], &["dedupe", "c", "--dry-run"]] {
        let said = node.fails(3, args);
        assert!(said.contains("cannot share extents") && said.contains("reflink=1"), "{said}");
    }
    let node = Node::with_base("btrfs", 256);
    node.ok(&["create", "c", "--base", "b", "--backend", "copy"]);
    let text = node.ok(&["dedupe", "c"]);
    assert!(text.contains("FOUND") && text.contains("(FIEMAP)") && text.contains("(statfs)"), "{text}");
}
