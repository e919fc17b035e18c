//! What goes on after a crash, and is cut, too: a repair that is killed, and a rebase of all slivers of a base that is begun again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "crash/made.rs"]
mod made;
#[path = "layer/shown.rs"]
mod shown;

use std::collections::BTreeSet;
use std::process::Command;

use common::layers::said;
use common::node::{Node, run};
use common::slivers::{Saved, base, in_stores, view};
use common::strace::{self, Point};
use common::tree::assert_same;
use made::{node, ready, seen, seen_of, sliver};

/// One in so many of the crashes is repaired, and one in so many of the calls of the rebase is tried.
const EACH: usize = 7;

fn step(each: usize) -> usize {
    if std::env::var("SLIVERFS_FAULTS").is_ok_and(|which| which == "all") { 1 } else { each }
}

/// The names of all that lies in the stores.
fn names(node: &Node) -> String {
    run(Command::new("sh").args(["-ec", "find . | sort"]).current_dir(node.lxcpath.join(".store")))
}

/// A repair that is cut anywhere is ended by the next one, and the command may be run then as if nothing had been.
fn repaired_twice(node: &Node, args: &[&str], each: usize) {
    let saved = Saved::of(node);
    let old = seen(node);
    let points = strace::points(node, args);
    let new = seen(node);
    let repair = ["check", "--repair"];
    // What a crash leaves is the same after many of the calls.
    let mut known = BTreeSet::new();
    let mut cut = 0;
    for point in points {
        saved.again();
        strace::kill(node, &point, args);
        if !known.insert(names(node)) || node.run(&["check"]).status.success() {
            continue;
        }
        let crashed = Saved::under(node, "crashed");
        // Not the first calls each time.
        let each = step(each);
        for again in strace::points(node, &repair).iter().skip(known.len() % each).step_by(each) {
            let what = format!("{args:?} killed at {point:?}, and its repair at {again:?}");
            crashed.again();
            strace::kill(node, again, &repair);
            let output = node.run(&repair);
            assert!(output.status.success(), "{what}: {}", said(&output));
            let output = node.run(&["check"]);
            assert!(output.status.success(), "{what}: {}", said(&output));
            let now = seen(node);
            if now != old {
                assert_same(&now, &new, &what);
            }
            cut += 1;
        }
        node.ok(args);
        assert_same(&seen(node), &new, &format!("{args:?} killed at {point:?}, repaired, and again"));
    }
    assert!(cut > 0, "{args:?}: {cut}");
    saved.again();
}

#[test]
fn a_repair_after_a_restore() {
    if ready() {
        repaired_twice(&node("ext4", 64, "overlay"), &["restore", "s", "b", "d"], EACH);
        repaired_twice(&node("ext4", 64, "copy"), &["restore", "s", "d"], EACH);
    }
}

#[test]
fn a_repair_after_a_new_store() {
    if ready() {
        let node = node("ext4", 64, "overlay");
        repaired_twice(&node, &["rebase", "s", "--onto", "c"], 2 * EACH);
        repaired_twice(&node, &["convert", "s", "--to", "mini_fo"], 2 * EACH);
    }
}

/// Each sliver is on the one base or on the other, whatever became of the command; and the same command brings the rest.
#[test]
fn all_slivers_of_a_base() {
    if !ready() {
        return;
    }
    let node = node("ext4", 64, "overlay");
    sliver(&node, "t", "copy");
    sliver(&node, "u", "overlay");
    let slivers = ["s", "t", "u"];
    let all = ["rebase", "--all", "--from", "b", "--onto", "c"];
    let saved = Saved::of(&node);
    let look = || slivers.map(|name| seen_of(&node, name));
    let old = look();
    let calls = strace::calls(&node, &all);
    let new = look();
    let views = slivers.map(|name| view(&node, name));
    let mut between = 0;
    let mut then = |what: &str| {
        let now = look();
        for at in 0..slivers.len() {
            assert!(now[at] == old[at] || now[at] == new[at], "{what}: {}: {}", slivers[at], now[at]);
        }
        between += usize::from(now != old && now != new);
        node.ok(&all);
        assert_eq!(look(), new, "{what}, then again");
        assert_eq!(in_stores(&node), [".old.s", ".old.t", ".old.u", "s", "t", "u"], "{what}");
        node.ok(&["check"]);
        for (name, wanted) in slivers.iter().zip(&views) {
            assert_same(&view(&node, name), wanted, &format!("{what}: {name} mounted"));
            assert_eq!(base(&node, name), "c", "{what}");
        }
    };
    let tried = |points: &[Point]| points.iter().step_by(step(4 * EACH)).cloned().collect::<Vec<_>>();
    for point in tried(&calls.points) {
        saved.again();
        strace::kill(&node, &point, &all);
        then(&format!("killed at {point:?}"));
    }
    for point in tried(&calls.writes) {
        saved.again();
        let (_code, said) = strace::no_space(&node, &point, &all);
        then(&format!("without space at {point:?}: {said}"));
    }
    assert!(between > 1, "{between}");
}
