//! What a tenant who is root tries against his limit, as root of the machine and as root of a user namespace alone, while what he
//! deleted is still open.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::process::{Command, Stdio};

use common::escapes::{LEAVES, LIFTS, TRIES, btrfs_taken, disk_taken};
use common::holder::Holder;
use common::node::{Node, run};
use common::require;

const MIB: u64 = 1 << 20;

/// Root of the machine, and root of a user namespace alone, who owns what root owns.
const PLAIN: &[&str] = &["sh", "-c"];
const MAPPED: &[&str] = &["unshare", "-U", "-r", "-m", "sh", "-c"];

/// A script in the view.
fn command(node: &Node, how: &[&str], script: &str) -> Command {
    let mut command = Command::new(how[0]);
    command.args(&how[1..]).arg(script).current_dir(node.view("a"));
    command
}

/// Fills the view, and holds it so.
fn fill(node: &Node, how: &[&str], full: &str, subvolumes: &str) -> Holder {
    let mut tries = command(node, how, &format!("{TRIES}echo ready; read end"));
    Holder::start(tries.env("FULL", full).env("SUBVOLUMES", subvolumes).stderr(Stdio::null()))
}

#[test]
fn an_image_holds_root_of_a_user_namespace() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("btrfs", 320);
    let before = disk_taken(&node);
    node.ok(&["create", "a", "--base", "b", "--quota", "32M"]);
    node.ok(&["mount", "a"]);
    let held = fill(&node, MAPPED, "No space left", "");
    let taken = disk_taken(&node) - before;
    assert!((32 * MIB..=33 * MIB).contains(&taken), "{taken} bytes are taken");
    drop(held);
    node.ok(&["umount", "a"]);
    node.ok(&["mount", "a"]);
}

#[test]
fn a_qgroup_holds_whoever_does_not_leave_it() {
    if !require("root", common::root()) {
        return;
    }
    for how in [MAPPED, PLAIN] {
        let node = Node::with_base("btrfs", 400);
        let output = node.run(&["quota", "--enable"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !require("simple-quotas", if output.status.success() { Ok(()) } else { Err(said) }) {
            return;
        }
        let before = btrfs_taken(&node);
        node.ok(&[
            "create",
            "a",
            "--base",
            "b",
            "--backend",
            "btrfs-snapshot",
            "--quota",
            "16M",
            "--means",
            "qgroup",
        ]);
        node.ok(&["mount", "a"]);
        let lifts = |which: &str| run(&mut command(&node, how, &format!("perl -e '{LIFTS}' {which}")));
        if how == MAPPED {
            let refused = ["assign", "remove", "disable", "limit"];
            assert_eq!(lifts(""), refused.map(|lift| format!("{lift}: Operation not permitted\n")).concat());
        }
        let held = fill(&node, how, "Disk quota exceeded", "1");
        // One copy of the metadata, of which the disk keeps two, is what is counted.
        let taken = btrfs_taken(&node) - before;
        let used = node.json(&["show", "a", "--json"])["used"].as_u64().unwrap();
        assert!(taken <= 17 * MIB, "{how:?}: {taken} bytes are taken");
        assert!(
            (15 * MIB..=16 * MIB).contains(&used),
            "{how:?}: {used}: what is deleted and open counts, too"
        );
        drop(held);
        // As the documentation says of containers that may call ioctls of Btrfs: nobody needs a privilege for it.
        run(&mut command(&node, how, "rm -rf fill tiny* bound allocated"));
        let said = run(&mut command(&node, how, &format!("perl -e '{LEAVES}'")));
        assert!(said.lines().all(|line| line.ends_with(": done")), "{how:?}: {said}");
        run(&mut command(&node, how, "head -c 20M /dev/zero >outside/fill"));
        if how == PLAIN {
            assert_eq!(lifts("limit"), "limit: done\n");
            run(&mut command(&node, how, "head -c 20M /dev/zero >fill"));
        }
        node.ok(&["umount", "a"]);
        node.ok(&["destroy", "a"]);
    }
}
