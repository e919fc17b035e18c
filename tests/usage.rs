//! `usage`: its numbers are those of the disk's own tools, on each kind of disk and for each kind of store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use common::counted::{du, edit, number, shell};
use common::node::{Node, run, small_tree};
use common::slivers::simple_quotas;
use common::tree::installed;
use common::{require, strace};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Inodes, each once.
fn inodes(path: &Path) -> u64 {
    shell("find \"$1\" -printf '%D:%i\\n' | sort -u | wc -l", path).trim().parse().unwrap()
}

/// Total and exclusive bytes by `btrfs filesystem du`.
fn btrfs_du(path: &Path) -> (u64, u64) {
    let text = run(Command::new("btrfs").args(["filesystem", "du", "-s", "--raw"]).arg(path));
    let numbers: Vec<u64> =
        text.lines().last().unwrap().split_whitespace().filter_map(|word| word.parse().ok()).collect();
    (numbers[0], numbers[1])
}

/// Within a block for each file.
#[track_caller]
fn close(found: u64, wanted: u64, files: u64, what: &str) {
    assert!(found.abs_diff(wanted) <= files * 4 * KIB, "{what}: {found}, and it is {wanted}");
}

/// The only sliver of the document.
fn one(node: &Node, args: &[&str]) -> Value {
    let sheet = node.json(&[&["usage", "--json"], args].concat());
    assert_eq!(sheet["slivers"].as_array().unwrap().len(), 1, "{sheet}");
    assert_eq!(sheet["slivers"][0]["error"], Value::Null, "{sheet}");
    sheet["slivers"][0].clone()
}

/// A union's store, while its view is mounted, and a full copy.
#[test]
fn as_du_counts() {
    if !require("root", common::root()) {
        return;
    }
    for fstype in ["ext4", "xfs", "btrfs"] {
        let node = Node::with_base(fstype, 320);
        for backend in ["overlay", "copy"] {
            let what = format!("{backend} on {fstype}");
            node.ok(&["create", "a", "--base", "b", "--backend", backend]);
            node.ok(&["mount", "a"]);
            edit(&node.view("a"));
            let (row, store) = (one(&node, &["a"]), node.store("a"));
            let shared = if backend == "copy" { number(&row["shared"]) } else { 0 };
            let files = inodes(&store);
            assert_eq!(number(&row["inodes"]), files, "{what}");
            assert_eq!(
                (row["by"].as_str(), &row["limit"], &row["kept"]),
                (Some("walk"), &Value::Null, &Value::Null)
            );
            match fstype {
                // On the others overlay lets what it copies up share its place with the base's.
                "ext4" => assert_eq!(number(&row["exclusive"]) + shared, du(&store), "{what}"),
                "xfs" => close(number(&row["exclusive"]) + shared, du(&store), 80, &what),
                _ => close(number(&row["exclusive"]), btrfs_du(&store).1, files, &what),
            }
            assert!((5_000_000..9_000_000).contains(&number(&row["exclusive"])), "{what}: {row}");
            if backend == "overlay" {
                let base = &node.json(&["base", "list", "--json"])[0];
                assert_eq!(row["shared"], base["disk"], "{what}");
                close(number(&base["disk"]), du(&node.lxcpath.join(".base/b/tree")), 0, &what);
            }
            node.ok(&["umount", "a"]);
            node.ok(&["destroy", "a"]);
        }
    }
}

/// Extents that a snapshot or a copy shares with the base, and those that it has for itself.
#[test]
fn what_whole_trees_share() {
    if !require("root", common::root()) {
        return;
    }
    for (fstype, backend) in [("btrfs", "btrfs-snapshot"), ("btrfs", "reflink"), ("xfs", "reflink")] {
        let what = format!("{backend} on {fstype}");
        let node = Node::new(fstype, 320);
        let tree = node.dir().join("tree");
        small_tree(&tree);
        shell("head -c 20000000 /dev/urandom > \"$1/var/large\"", &tree);
        node.ok(&["base", "add", "b", tree.to_str().unwrap()]);
        node.ok(&["create", "a", "--base", "b", "--backend", backend]);
        let fresh = one(&node, &["a"]);
        assert!(number(&fresh["exclusive"]) < 300 * KIB, "{what}: {fresh}");
        assert!(number(&fresh["shared"]) > 20_000_000, "{what}: {fresh}");
        node.ok(&["mount", "a"]);
        edit(&node.view("a"));
        // Its own subvolumes are a tenant's, too.
        if fstype == "btrfs" {
            shell(
                "btrfs -q subvolume create \"$1/sub\"; head -c 3000000 /dev/urandom > \"$1/sub/f\"; sync -f \"$1\"",
                &node.view("a"),
            );
        }
        let (row, store) = (one(&node, &["a"]), node.store("a"));
        let (exclusive, shared, files) = (number(&row["exclusive"]), number(&row["shared"]), inodes(&store));
        close(exclusive + shared, du(&store), 0, &what);
        if fstype == "btrfs" {
            let (total, alone) = btrfs_du(&store);
            close(exclusive, alone, files, &what);
            close(exclusive + shared, total, files, &what);
        } else {
            // As filefrag(8) is told: the lengths of the extents that are not marked as shared, in blocks.
            let script = "find \"$1\" -type f -links 1 -exec filefrag -v {} + | \
                awk '/^ *[0-9]+:/ && !/shared/ { gsub(\":\", \"\"); n += $6 } END { print n * 4096 }'";
            let alone: u64 = shell(script, &store).trim().parse().unwrap();
            close(exclusive, alone + 5_000_000, files, &what);
        }
        assert_eq!(number(&row["inodes"]), files, "{what}");
        node.ok(&["umount", "a"]);
        node.ok(&["destroy", "a"]);
    }
}

/// Where quota groups are enabled they tell, until a subvolume of the tenant's makes them tell a part only.
#[test]
fn as_quota_groups_count() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("btrfs", 320);
    node.ok(&["create", "a", "--base", "b", "--backend", "btrfs-snapshot"]);
    node.ok(&["create", "c", "--base", "b", "--backend", "overlay"]);
    node.ok(&["mount", "a"]);
    edit(&node.view("a"));
    let walked = one(&node, &["a"]);
    shell("btrfs quota enable \"$1\"; btrfs quota rescan -w \"$1\" >/dev/null", &node.lxcpath);
    let tree = node.store("a").join("tree");
    let script = "btrfs -q subvolume sync \"$1\" 2>/dev/null; id=$(btrfs inspect-internal rootid \"$1\"); \
        btrfs qgroup show --sync --raw -f \"$1\" | awk -v id=\"0/$id\" '$1 == id { print $2, $3 }'";
    let numbers: Vec<u64> =
        shell(script, &tree).split_whitespace().map(|word| word.parse().unwrap()).collect();
    let row = one(&node, &["a"]);
    assert_eq!(row["by"], "qgroup", "{row}");
    assert_eq!(number(&row["exclusive"]), numbers[1], "{row}");
    assert_eq!(number(&row["exclusive"]) + number(&row["shared"]), numbers[0], "{row}");
    assert_eq!(row["inodes"], Value::Null);
    close(
        number(&row["exclusive"]),
        number(&walked["exclusive"]),
        number(&walked["inodes"]),
        "group and walk",
    );
    assert_eq!(one(&node, &["c"])["by"], "walk");
    // They know no inodes, and nothing of what was not committed yet: --deep looks.
    let deep = one(&node, &["a", "--deep"]);
    assert_eq!((deep["by"].as_str(), &deep["inodes"]), (Some("walk"), &walked["inodes"]));
    shell(
        "btrfs -q subvolume create \"$1/sub\"; head -c 3000000 /dev/urandom > \"$1/sub/f\"; sync -f \"$1\"",
        &node.view("a"),
    );
    let row = one(&node, &["a"]);
    assert_eq!(row["by"], "walk", "{row}");
    assert!(number(&row["exclusive"]) > 3_000_000 + number(&walked["exclusive"]) - 64 * KIB, "{row}");
    node.ok(&["umount", "a"]);
}

/// Simple quotas count what a subvolume wrote, and not what it shares with the base: by their own tool's numbers, and as a walk does.
#[test]
fn as_simple_quotas_count() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("btrfs", 320);
    if !simple_quotas(&node) {
        return;
    }
    let create =
        ["create", "a", "--base", "b", "--backend", "btrfs-snapshot", "--quota", "32M", "--means", "qgroup"];
    node.ok(&create);
    node.ok(&["mount", "a"]);
    edit(&node.view("a"));
    let tree = node.store("a").join("tree");
    let script = "id=$(btrfs inspect-internal rootid \"$1\"); \
        btrfs qgroup show --sync --raw \"$1\" | awk -v own=\"0/$id\" -v limited=\"1/$id\" '$1 == own || $1 == limited { print $2, $3 }'";
    let told = || -> Vec<u64> {
        shell(script, &tree).split_whitespace().map(|word| word.parse().unwrap()).collect()
    };
    let (numbers, row) = (told(), one(&node, &["a"]));
    assert_eq!(numbers.len(), 4, "{numbers:?}");
    assert_eq!((row["by"].as_str(), &row["means"]), (Some("qgroup"), &"qgroup".into()));
    assert_eq!([number(&row["exclusive"]), number(&row["used"])], [numbers[1], numbers[2]], "{row}");
    // Its own metadata counts here, too, and lies in blocks of 16 KiB.
    let deep = one(&node, &["a", "--deep"]);
    let (exclusive, files) = (number(&deep["exclusive"]), number(&deep["inodes"]));
    close(number(&row["exclusive"]), exclusive, files, "group and walk");
    close(exclusive, btrfs_du(&tree).1, files, "walk and du");
    // What lies in a subvolume of the tenant's counts for his limit, and is seen by a walk alone.
    shell(
        "btrfs -q subvolume create \"$1/sub\"; head -c 3000000 /dev/urandom > \"$1/sub/f\"; sync -f \"$1\"",
        &node.view("a"),
    );
    let (numbers, row) = (told(), one(&node, &["a"]));
    assert_eq!((row["by"].as_str(), number(&row["used"])), (Some("walk"), numbers[2]), "{row}");
    assert!(numbers[2] >= numbers[0] + 3_000_000, "{numbers:?}");
    close(number(&row["exclusive"]), exclusive + 3_000_000, files, "with the subvolume");
    node.ok(&["umount", "a"]);
}

/// Of each sliver it is asked which subvolume it is, and whether it has others: what all of them take comes at once.
#[test]
fn quota_groups_are_read_at_once() {
    if !require("root", common::root()) || !require("strace", strace::works()) {
        return;
    }
    let node = Node::with_base("btrfs", 320);
    let names = ["a", "c", "d"];
    for name in names {
        node.ok(&["create", name, "--base", "b", "--backend", "btrfs-snapshot"]);
    }
    shell("btrfs quota enable \"$1\"; btrfs quota rescan -w \"$1\" >/dev/null", &node.lxcpath);
    let calls = |slivers: usize| {
        let args = [&["usage"], &names[..slivers]].concat();
        assert!(strace::command(&node, &["-e", "trace=ioctl"], &args).status().unwrap().success());
        strace::traced(&node).lines().filter(|line| line.contains("BTRFS_IOC")).count()
    };
    assert_eq!(one(&node, &["a"])["by"], "qgroup");
    assert_eq!(calls(3), calls(1) + 4);
}

/// Images: a squashfs that all slivers share, and a store that is an image with a limit.
#[test]
fn images() {
    if !require("root", common::root())
        || !require("btrfs-seed", installed("btrfstune"))
        || !require("mksquashfs", installed("mksquashfs"))
    {
        return;
    }
    let node = Node::new("ext4", 900);
    let tree = node.dir().join("tree");
    small_tree(&tree);
    node.ok(&["base", "add", "s", tree.to_str().unwrap(), "--pack", "squashfs"]);
    node.ok(&["base", "add", "seed", tree.to_str().unwrap(), "--pack", "btrfs"]);
    node.ok(&["create", "a", "--base", "s"]);
    node.ok(&["create", "g", "--base", "seed", "--backend", "btrfs-seed", "--size", "256M"]);
    node.ok(&["mount", "a", "g"]);
    edit(&node.view("a"));
    edit(&node.view("g"));
    shell("sync -f \"$1\"", &node.lxcpath);
    let sheet = node.json(&["usage", "--json"]);
    let (a, g, bases) = (&sheet["slivers"][0], &sheet["slivers"][1], &sheet["bases"]);
    assert_eq!(number(&a["exclusive"]), du(&node.store("a")));
    assert_eq!(number(&g["exclusive"]), du(&node.store("g")));
    assert!((5_000_000..30_000_000).contains(&number(&g["exclusive"])), "{g}");
    assert_eq!(number(&g["limit"]), 256 * MIB);
    assert_eq!(a["limit"], Value::Null);
    let recorded = node.json(&["base", "list", "--json"]);
    for (at, file) in [(0, "s/image.squashfs"), (1, "seed/image.btrfs")] {
        let blocks = fs::metadata(node.lxcpath.join(".base").join(file)).unwrap().blocks();
        assert_eq!(number(&bases[at]["disk"]), blocks * 512, "{file}");
        assert_eq!(number(&bases[at]["slivers"]), 1);
        // A copy would be of the files, and not of what they are packed into.
        assert_eq!(sheet["slivers"][at]["shared"], recorded[at]["bytes"]);
    }
    node.ok(&["umount", "--all"]);
}
