//! What a tenant who is root tries against his limit, as root of the machine and as root of a user namespace alone, while what he
//! deleted is still open.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use common::escapes::{LEAVES, LIFTS, TRIES, btrfs_taken, disk_taken};
use common::holder::Holder;
use common::node::{Node, run};
use common::require;
use common::slivers::simple_quotas;
use nix::fcntl::{FallocateFlags, fallocate};

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

/// Memory that direct writes take.
#[repr(align(4096))]
struct Page([u8; 8192]);

/// Writes a file in extents of that many bytes, which direct writes make, until the limit is reached; how many they are.
fn extents(file: &Path, bytes: usize) -> i64 {
    let page = Page([7; 8192]);
    let direct = nix::libc::O_DIRECT;
    let to = OpenOptions::new().create_new(true).write(true).custom_flags(direct).open(file).unwrap();
    for number in 0..1 << 17 {
        match to.write_all_at(&page.0[..bytes], number * bytes as u64) {
            Err(err) if err.raw_os_error() == Some(nix::libc::EDQUOT) => {
                return i64::try_from(number).unwrap();
            }
            done => done.unwrap(),
        }
    }
    panic!("nothing stops it");
}

/// What Btrfs writes down of small extents for the whole disk is in no qgroup.
#[test]
fn a_qgroup_holds_with_what_it_does_not_count() {
    const LIMIT: u64 = 128;
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("btrfs", 400);
    if !simple_quotas(&node) {
        return;
    }
    let (before, limit) = (btrfs_taken(&node), format!("{LIMIT}M"));
    let create =
        ["create", "a", "--base", "b", "--backend", "btrfs-snapshot", "--means", "qgroup", "--quota"];
    node.ok(&[&create[..], &[&limit]].concat());
    node.ok(&["mount", "a"]);
    let view = node.view("a");
    let used = || node.json(&["show", "a", "--json"])["used"].as_u64().unwrap();
    let held = |what: &str| {
        let (taken, used) = (btrfs_taken(&node) - before, used());
        assert!(taken <= (LIMIT + 1) * MIB, "{what}: {taken} bytes are taken, {used} are used");
        assert!(((LIMIT - 3) * MIB..=LIMIT * MIB).contains(&used), "{what}: {used} are used, {taken} taken");
        assert_eq!(node.json(&["usage", "a", "--json"])["slivers"][0]["used"], used, "{what}");
    };
    // A full disk has no room for the record of a hole.
    std::fs::write(view.join("room"), vec![7; 6 << 20]).unwrap();
    let sync = || drop(run(Command::new("sync").arg("-f").arg(&view)));
    sync();
    let number = extents(&view.join("small"), 4096);
    held("small extents");
    // Of every two one is left, so that half of each record's node is empty, and what comes then does not fit between them.
    std::fs::remove_file(view.join("room")).unwrap();
    sync();
    let small = OpenOptions::new().write(true).open(view.join("small")).unwrap();
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    for at in (0..number).step_by(2) {
        fallocate(&small, hole, at * 4096, 4096).unwrap();
    }
    small.sync_all().unwrap();
    drop(small);
    extents(&view.join("larger"), 8192);
    held("holes");
    // What a version told the kernel that did not know of this is told anew by the next mount.
    let groups = || run(Command::new("btrfs").args(["qgroup", "show", "-r", "--raw"]).arg(&node.lxcpath));
    let told = groups();
    let group = told.split_whitespace().find(|word| word.starts_with("1/")).unwrap();
    node.ok(&["umount", "a"]);
    run(Command::new("btrfs").args(["qgroup", "limit", &limit, group]).arg(&node.lxcpath));
    assert!(
        !told.contains(&(LIMIT * MIB).to_string()) && groups().contains(&(LIMIT * MIB).to_string()),
        "{told}"
    );
    node.ok(&["mount", "a"]);
    assert!(!groups().contains(&(LIMIT * MIB).to_string()), "{}", groups());
    // It fits into what it says to use, and into no less.
    assert!(node.fails(1, &["quota", "a", "124M"]).contains("does not fit into 124 MiB"));
    node.ok(&["quota", "a", &limit]);
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
        if !simple_quotas(&node) {
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
