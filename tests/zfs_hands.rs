//! A limit by a dataset of ZFS, and what an operator does to that by hand: it is unmounted, it has a snapshot, it has another limit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::process::Command;

use common::node::{Node, run, small_tree};
use common::zfs::{POOL, Zfs, tool};
use common::{busy, listing, require, strace};

const MIB: u64 = 1 << 20;

const CREATE: [&str; 8] = ["create", "a", "--base", "b", "--backend", "copy", "--quota", "16M"];

/// A node on a pool, with the base `b` and the sliver `a`, which is limited to 16 MiB and holds 6 MB. The name of its dataset.
fn pool() -> Option<(Zfs, Node, String)> {
    if !require("zfs-fuse", common::zfs::available()) {
        return None;
    }
    let mut node = Node::new("ext4", 16);
    let zfs = Zfs::on(&mut node, 192);
    let tree = node.dir().join("tree");
    small_tree(&tree);
    node.ok(&["base", "add", "b", tree.to_str().unwrap()]);
    node.ok(&CREATE);
    node.ok(&["mount", "a"]);
    write(&node, "head -c 6000000 /dev/urandom >held");
    node.ok(&["umount", "a"]);
    let datasets = tool(&["zfs", "list", "-H", "-o", "name", "-r", POOL]);
    let dataset = datasets.lines().nth(1).unwrap().to_owned();
    Some((zfs, node, dataset))
}

/// A script in the view, and all that came of it is counted.
fn write(node: &Node, script: &str) {
    run(Command::new("sh").args(["-ec", script]).current_dir(node.view("a")));
    settled();
}

/// A changed property waits until the pool has written what came before.
fn settled() {
    for value in ["one", "two"] {
        tool(&["zfs", "set", &format!("test:sync={value}"), POOL]);
    }
}

fn property(dataset: &str, name: &str) -> String {
    tool(&["zfs", "get", "-Hp", "-o", "value", name, dataset]).trim().to_owned()
}

#[test]
fn what_only_looks_mounts_nothing() {
    let Some((_zfs, node, dataset)) = pool() else { return };
    node.ok(&["mount", "a"]);
    let view = listing::of(&node.view("a"), false);
    node.ok(&["umount", "a"]);
    let tree = node.dir().join("tree").to_str().unwrap().to_owned();
    std::fs::write(node.dir().join("tree/etc/other"), "other").unwrap();
    node.ok(&["base", "add", "c", &tree]);
    tool(&["zfs", "umount", &dataset]);
    let way_out = format!("zfs mount {dataset}");
    let said = |args: &[&str]| {
        let output = node.run(args);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(property(&dataset, "mounted"), "no", "{args:?} mounts it: {said}");
        said
    };
    // What it takes is told as ever: ZFS knows it.
    for args in [&["show", "a", "--json"][..], &["list", "--space", "--json"]] {
        let sheet = node.json(args);
        let space = sheet.get(0).unwrap_or(&sheet)["space"].as_u64().unwrap();
        assert!(space > 6_000_000, "{args:?}: {sheet}");
        assert_eq!(property(&dataset, "mounted"), "no", "{args:?} mounts it");
    }
    let row = &node.json(&["usage", "--json"])["slivers"][0];
    assert!(row["used"].as_u64().unwrap() > 5_900_000 && row["error"].is_null(), "{row}");
    assert!(said(&["quota", "a"]).contains(" by zfs, "));
    // What is in it is told by none.
    for args in [
        &["mount", "a", "--dry-run"][..],
        &["check", "a"],
        &["diff", "a"],
        &["dedupe", "a", "--dry-run"],
        &["rebase", "a", "--onto", "c", "--plan"],
        &["convert", "a", "--to", "overlay", "--dry-run"],
        &["sync", "a", &tree, "--dry-run"],
    ] {
        let said = said(args);
        assert!(said.contains("is not mounted") && said.contains(&way_out), "{args:?}: {said}");
    }
    let planned = said(&["destroy", "a", "--dry-run"]);
    assert!(planned.contains(&format!("\nzfs destroy {dataset}\n")), "{planned}");
    // Its limit is changed all the same.
    node.ok(&["quota", "a", "20M"]);
    let base = node.json(&["show", "a", "--json"])["limit_base"].as_u64().unwrap();
    assert_eq!(property(&dataset, "refquota"), (20 * MIB + base).to_string());
    node.ok(&["mount", "a"]);
    assert_eq!(listing::of(&node.view("a"), false), view);
}

#[test]
fn a_snapshot_of_somebody_keeps_the_sliver() {
    let Some((_zfs, node, dataset)) = pool() else { return };
    tool(&["zfs", "snapshot", &format!("{dataset}@monday")]);
    let said = node.fails(4, &["destroy", "a"]);
    assert!(said.contains(&format!("zfs destroy {dataset}@monday")), "{said}");
    node.ok(&["mount", "a"]);
    run(Command::new("cmp").args(["-n", "1", "held", "held"]).current_dir(node.view("a")));
    assert_eq!(std::fs::metadata(node.view("a").join("held")).unwrap().len(), 6_000_000);
    node.ok(&["umount", "a"]);
    tool(&["zfs", "destroy", &format!("{dataset}@monday")]);
    // So does one of the dataset of a store that a crash left half made.
    let other = [&["create", "c"], &CREATE[2..]].concat();
    node.ok(&other);
    let new = node.store(".new.a");
    std::fs::rename(node.store("c"), &new).unwrap();
    let dataset = tool(&["zfs", "list", "-H", "-o", "name", "-r", POOL])
        .lines()
        .skip(1)
        .find(|name| *name != dataset)
        .unwrap()
        .to_owned();
    tool(&["zfs", "snapshot", &format!("{dataset}@tuesday")]);
    node.fails(4, &["destroy", "a"]);
    assert!(node.store("a").exists() && new.exists());
    tool(&["zfs", "destroy", &format!("{dataset}@tuesday")]);
    node.ok(&["destroy", "a"]);
    assert_eq!(tool(&["zfs", "list", "-H", "-o", "name", "-r", POOL]).lines().count(), 1);
}

#[test]
fn a_full_dataset_gets_no_more_with_each_mount() {
    let Some((_zfs, node, dataset)) = pool() else { return };
    let refquota = || property(&dataset, "refquota").parse::<u64>().unwrap();
    let limit = refquota();
    let fill = "! head -c 1G /dev/urandom 2>/dev/null >>fill";
    let again = || {
        node.ok(&["umount", "a"]);
        node.ok(&["mount", "a"]);
        refquota()
    };
    node.ok(&["mount", "a"]);
    write(&node, fill);
    assert_eq!(again(), limit);
    // More than that was written while it had no limit: it keeps what it has, and whatever it gets into that is no reason for more.
    tool(&["zfs", "set", "refquota=none", &dataset]);
    write(&node, "head -c 5000000 /dev/urandom >more");
    let first = again();
    assert!(first > limit, "{first} of {limit}");
    for _ in 0..3 {
        write(&node, fill);
        let now = again();
        assert!(now <= first, "{now} after {first}");
    }
    // With room again, when that is counted, it has what was promised.
    write(&node, "rm more fill");
    let back = (0..50).any(|_| {
        settled();
        again() == limit
    });
    assert!(back, "{} of {limit}", refquota());
}

#[test]
fn a_limit_that_is_refused_leaves_the_old_one() {
    let Some((_zfs, node, dataset)) = pool() else { return };
    node.ok(&["create", "c", "--base", "b", "--backend", "copy", "--quota", "100M"]);
    let before = property(&dataset, "refquota");
    for (size, why) in [("90M", "cannot be promised"), ("2M", "too small"), ("5M", "does not fit")] {
        let output = node.run(&["quota", "a", size]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{size}: {said}");
        assert_eq!(property(&dataset, "refquota"), before, "{size}");
        assert_eq!(node.json(&["show", "a", "--json"])["limit"], 16 * MIB, "{size}");
    }
    node.ok(&["quota", "a", "20M"]);
}

/// What can be written to a pool, and so what statfs(2) tells, may be less than a limit: that is no reason to set it again.
#[test]
fn a_full_pool_sets_no_limit_again() {
    let Some((_zfs, node, _)) = pool() else { return };
    let room = property(POOL, "available").parse::<u64>().unwrap() - 4 * MIB;
    tool(&["zfs", "create", "-o", &format!("reservation={room}"), &format!("{POOL}/other")]);
    let set = || tool(&["zpool", "history", POOL]).matches(" refquota=").count();
    let before = set();
    assert!(before > 0);
    for _ in 0..2 {
        node.ok(&["mount", "a"]);
        node.ok(&["umount", "a"]);
    }
    assert_eq!(set(), before);
}

/// Where neither a new limit can be told nor its promise taken back, no more is given than is promised.
#[test]
fn a_promise_that_stays_is_all_that_is_given() {
    let Some((_zfs, node, dataset)) = pool() else { return };
    if !require("strace", strace::works()) {
        return;
    }
    let less = ["quota", "a", "12M"];
    assert!(strace::command(&node, &["-e", "trace=statfs,/^rename"], &less).status().unwrap().success());
    let trace = strace::traced(&node);
    let (before, _) = trace.split_once("rename").unwrap();
    assert_eq!(trace.matches("rename").count(), 1, "{trace}");
    // Behind the promise the disk of the store's folder is looked at, and then that of its dataset, which is to have the limit.
    let told = format!("inject=statfs:error=EIO:when={}", before.matches("statfs(").count() + 2);
    node.ok(&["quota", "a", "16M"]);
    let options = ["-e", "trace=statfs,/^rename", "-e", &told, "-e", "inject=/^rename:error=EIO:when=2"];
    assert!(!strace::command(&node, &options, &less).status().unwrap().success());
    assert_eq!(strace::traced(&node).matches("(INJECTED)").count(), 2, "{}", strace::traced(&node));
    let sheet = node.json(&["show", "a", "--json"]);
    let base = sheet["limit_base"].as_u64().unwrap();
    assert_eq!(sheet["limit"], 12 * MIB);
    assert_eq!(property(&dataset, "refquota"), (12 * MIB + base).to_string());
    node.ok(&["quota", "a", "16M"]);
}

/// Where ZFS waits for no fsync(2), what it counted meanwhile is not taken for all of the base.
#[test]
fn what_is_counted_late_is_the_bases_all_the_same() {
    let (true, Some((_zfs, node, _))) = (require("strace", strace::works()), pool()) else { return };
    let big = node.dir().join("tree/big");
    run(Command::new("sh").args(["-c", "head -c 8000000 /dev/urandom >\"$1\"", "sh"]).arg(&big));
    node.ok(&["base", "add", "c", node.dir().join("tree").to_str().unwrap()]);
    // A first limit that is refused, since more is there, and one that is too small.
    for size in ["6M", "64M"] {
        let mut create = Command::new("strace");
        create.args(["-qq", "-f", "-e", "trace=fsync", "-e", "inject=fsync:retval=0", "-o", "/dev/null"]);
        create.arg(env!("CARGO_BIN_EXE_sliverfs")).arg("--lxcpath").arg(&node.lxcpath);
        run(create.args(["create", "c", "--base", "c", "--backend", "copy", "--quota", size]));
        let sheet = node.json(&["show", "c", "--json"]);
        let base = sheet["limit_base"].as_u64().unwrap();
        assert!((8_000_000..9_000_000).contains(&base), "{size}: {sheet}");
        assert!(sheet["used"].as_u64().unwrap() <= 64 << 10, "{size}: {sheet}");
        node.ok(&["destroy", "c"]);
    }
}

/// A ZFS that shows its disk and answers nobody, as in a container, leaves nothing that only it could take away.
#[test]
fn a_zfs_that_does_not_answer() {
    let Some((_zfs, node, _)) = pool() else { return };
    let programs = node.dir().join("programs");
    std::fs::create_dir(&programs).unwrap();
    busy::script(&programs.join("zfs"), "#!/bin/sh\necho nobody there >&2; exit 1\n");
    let create = ["create", "c", "--base", "b", "--backend", "copy", "--quota", "8M"];
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let failed = node.command(&create).env("PATH", path).output().unwrap();
    let said = String::from_utf8_lossy(&failed.stderr);
    assert!(failed.status.code() == Some(1) && said.contains("nobody there"), "{said}");
    assert!(!node.store(".new.c").exists(), "{said}");
    node.ok(&create);
}
