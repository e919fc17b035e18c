//! Btrfs seeds: a store's size as its limit, as a promise, and another one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::process::Command;

use common::node::run;
use common::seed::{create, is_clean, node};
use common::slivers::in_stores;
use common::{busy, listing};

#[test]
fn a_limit_is_kept_and_named() {
    let Some(node) = node(500) else { return };
    let args = ["create", "a", "--base", "b", "--backend", "btrfs-seed"];
    for (size, says) in
        [("24M", "256 MiB or more"), ("0", "too small"), ("255M", "too small"), ("x", "no size")]
    {
        let said = node.fails(2, &[&args[..], &["--size", size]].concat());
        assert!(said.contains(says), "{size}: {said}");
    }
    let said = node.fails(2, &["create", "a", "--base", "b", "--backend", "overlay", "--size", "1G"]);
    assert!(said.contains("keeps no limit"), "{said}");
    let plan = node.ok(&[&args[..], &["--dry-run"]].concat());
    assert!(
        plan.contains(&format!("truncate -s {}", 1u64 << 30)) && plan.contains("btrfs device add"),
        "{plan}"
    );
    assert_eq!(in_stores(&node), [""; 0]);
    create(&node, "a");
    create(&node, "a");
    node.ok(&args);
    let said = node.fails(2, &[&args[..], &["--size", "1G"]].concat());
    assert!(said.contains("limit is 256 MiB, and not 1 GiB"), "{said}");
    node.ok(&["mount", "a"]);
    let view = node.view("a");
    let full = fs::write(view.join("big"), vec![1; 257 << 20]).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(28), "{full}");
    fs::remove_file(view.join("big")).unwrap();
    fs::write(view.join("small"), "still writable").unwrap();
    node.ok(&["umount", "a"]);
    is_clean(&node, "full");
    // Freed space comes back by fstrim, as the documentation says.
    let space = || node.json(&["show", "a", "--json"])["space"].as_u64().unwrap();
    node.ok(&["mount", "a"]);
    run(Command::new("fstrim").arg(&view));
    node.ok(&["umount", "a"]);
    assert!(space() < 64 << 20, "{}", space());
    node.ok(&["destroy", "a"]);
}

/// What was asked for is promised, as a quota is; what nobody asked for holds up no other.
#[test]
fn a_size_is_a_promise() {
    let Some(node) = node(600) else { return };
    let create = |name, more: &'static str| {
        let args = ["create", name, "--base", "b", "--backend", "btrfs-seed"];
        [&args[..], &more.split_whitespace().collect::<Vec<_>>()].concat()
    };
    let uci = node.dir().join("uci");
    fs::write(&uci, "config sliverfs main\n option overcommit '4'\n").unwrap();
    let overcommitted = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sliverfs"));
        run(command.arg("--config").arg(&uci).arg("--lxcpath").arg(&node.lxcpath).args(args))
    };
    node.ok(&create("usual", ""));
    node.ok(&create("a", "--size 300M"));
    for more in ["--size 300M", "--quota 300M"] {
        let said = node.fails(1, &create("c", more));
        assert!(
            said.contains("300 MiB more cannot be promised") && said.contains("and 300 MiB are"),
            "{said}"
        );
        assert!(said.contains("option overcommit") && !node.lxcpath.join("c").exists(), "{said}");
    }
    let said = node.fails(2, &create("c", "--size 300M --quota 256M"));
    assert!(said.contains("two were given"), "{said}");
    assert_eq!(in_stores(&node), ["a", "usual"]);
    node.ok(&["create", "c", "--base", "b", "--backend", "overlay"]);
    let said = node.fails(1, &["convert", "c", "--to", "btrfs-seed", "--size", "300M"]);
    assert!(said.contains("cannot be promised"), "{said}");
    // The size that it was made with, and which was none of the promises.
    let said = node.fails(2, &create("usual", "--quota 300M"));
    assert!(said.contains("sliverfs quota usual 300M changes it"), "{said}");
    let said = node.fails(1, &["quota", "usual", "1G"]);
    assert!(said.contains("1 GiB more cannot be promised"), "{said}");
    assert!(overcommitted(&["quota", "usual", "1G"]).contains("limited to 1 GiB by seed"));
    let said = node.fails(1, &create("d", "--size 256M"));
    assert!(said.contains("and 1.3 GiB are"), "{said}");
    overcommitted(&create("d", "--size 256M"));
    // The end of a promise is no end of the size.
    for name in ["usual", "d"] {
        let told = node.ok(&["quota", name, "none"]);
        assert!(told.contains("by seed") && told.contains("; not promised"), "{name}: {told}");
    }
    node.ok(&["convert", "c", "--to", "btrfs-seed", "--size", "256M"]);
    assert!(node.fails(1, &["quota", "d", "256M"]).contains("and 556 MiB are"));
    node.ok(&["destroy", "a"]);
    node.ok(&["quota", "d", "256M"]);
    is_clean(&node, "at the end");
}

/// What a store has as a limit though nothing was promised is told where it comes back.
#[test]
fn a_size_that_comes_back() {
    let Some(node) = node(600) else { return };
    node.ok(&["create", "a", "--base", "b", "--backend", "btrfs-seed"]);
    node.ok(&["convert", "a", "--to", "overlay"]);
    node.ok(&["quota", "a", "16M"]);
    let undone = node.run(&["convert", "a", "--undo"]);
    let said = String::from_utf8_lossy(&undone.stderr);
    assert!(undone.status.success() && said.contains("limit of before again (1 GiB by seed)"), "{said}");
}

/// A store gets another size by being written anew, and is never cut.
#[test]
fn another_size() {
    let Some(node) = node(1200) else { return };
    let size = || node.json(&["show", "a", "--json"])["limit"].as_u64().unwrap() >> 20;
    node.ok(&["create", "a", "--base", "b", "--backend", "btrfs-seed", "--size", "256M"]);
    node.ok(&["mount", "a"]);
    let view = node.view("a");
    fs::write(view.join("etc/b.txt"), "mine\n").unwrap();
    let wanted = listing::of(&view, true);
    let said = node.fails(4, &["quota", "a", "512M"]);
    assert!(said.contains("is mounted"), "{said}");
    node.ok(&["umount", "a"]);
    // Who asks for it by another command hears by which one.
    for (args, way) in [
        (&["convert", "a", "--to", "btrfs-seed", "--size", "512M"][..], "sliverfs quota a 512M changes it"),
        (&["create", "a", "--base", "b", "--size", "512M"], "sliverfs quota a 512M"),
        (&["convert", "a", "--to", "btrfs-seed", "--size", "16M"], "too small"),
    ] {
        let said = node.fails(2, args);
        assert!(said.contains(way), "{said}");
    }
    assert!(node.ok(&["convert", "a", "--to", "btrfs-seed", "--size", "256M"]).contains("already"));
    assert_eq!(size(), 256);
    assert!(node.ok(&["quota", "a", "512M"]).contains("limited to 512 MiB by seed"));
    assert_eq!(size(), 512);
    node.ok(&["mount", "a"]);
    assert_eq!(listing::of(&view, true), wanted);
    run(Command::new("sh").args(["-ec", "head -c 300M /dev/zero > full; sync full"]).current_dir(&view));
    node.ok(&["umount", "a"]);
    let said = node.fails(1, &["quota", "a", "256M"]);
    assert!(said.contains("uses 30") && said.contains("does not fit into 256 MiB"), "{said}");
    assert!(node.fails(2, &["quota", "a", "128M"]).contains("too small"));
    assert_eq!(size(), 512);
    is_clean(&node, "after what did not fit");
    node.ok(&["mount", "a"]);
    fs::remove_file(view.join("full")).unwrap();
    let wanted = listing::of(&view, true);
    node.ok(&["umount", "a"]);
    assert!(node.ok(&["quota", "a", "256M"]).contains("limited to 256 MiB by seed"));
    assert_eq!((size(), in_stores(&node)), (256, vec!["a".to_owned()]));
    node.ok(&["mount", "a"]);
    assert_eq!(listing::of(&view, true), wanted);
    node.ok(&["umount", "a"]);
}

#[test]
fn a_store_that_is_made_smaller() {
    let Some(node) = node(600) else { return };
    create(&node, "a");
    // What each store begins with stays.
    let given = |args: &[&str]| {
        let compact = [&["compact", "a", "--json"], args].concat();
        node.json(&compact)["bytes"].as_u64().unwrap()
    };
    assert_eq!(given(&["--dry-run"]), 0);
    node.ok(&["mount", "a"]);
    let view = node.view("a");
    // By itself the kernel may give some of it back at any moment.
    busy::remount("nodiscard", &view);
    let edits = "cp -a var/big x; mv x var/big; echo a > etc/b.txt; truncate -s 200M hole; head -c 20M /dev/urandom > junk; sync -f .; rm junk";
    run(Command::new("sh").args(["-ec", edits]).current_dir(&view));
    let wanted = listing::of(&view, true);
    let said = node.fails(4, &["compact", "a"]);
    assert!(said.contains("is mounted"), "{said}");
    node.ok(&["umount", "a"]);
    let space = || node.json(&["show", "a", "--json"])["space"].as_u64().unwrap();
    let before = space();
    let told = given(&["--dry-run"]);
    assert!(told > 16 << 20, "{told} of {before}: a hole takes nothing");
    assert!(node.ok(&["compact", "a", "--dry-run"]).contains("would be written anew"));
    assert_eq!(space(), before);
    node.fails(2, &["compact", "a", "--ignore-times"]);
    let given = given(&[]);
    assert!(given >= told && space() < 4 << 20, "{before} {given} {}", space());
    is_clean(&node, "smaller");
    assert_eq!(in_stores(&node), ["a"]);
    assert_eq!(node.json(&["show", "a", "--json"])["limit"], 256 << 20);
    node.ok(&["mount", "a"]);
    assert_eq!(listing::of(&view, true), wanted);
    node.ok(&["umount", "a"]);
}
