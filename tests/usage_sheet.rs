//! `usage`: limits, the node's sum, what `--deep` looks at, and what a person sees of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::process::Command;

use serde_json::Value;

use common::counted::{du, edit, number, shell};
use common::node::{Node, run, small_tree};
use common::require;
use common::tree::installed;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Limits: what is used of them, and the image that holds a store to one.
#[test]
fn limits() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 300);
    node.ok(&["create", "a", "--base", "b", "--backend", "overlay", "--quota", "64M"]);
    node.ok(&["create", "c", "--base", "b", "--backend", "overlay"]);
    node.ok(&["quota", "c", "100M", "--means", "soft"]);
    for mounted in [true, false] {
        node.ok(&[if mounted { "mount" } else { "umount" }, "a", "c"]);
        if mounted {
            edit(&node.view("a"));
            edit(&node.view("c"));
        }
        let sheet = node.json(&["usage", "--json"]);
        let (a, c) = (&sheet["slivers"][0], &sheet["slivers"][1]);
        assert_eq!(
            (number(&a["limit"]), a["means"].as_str(), a["by"].as_str()),
            (64 * MIB, Some("image"), Some("image"))
        );
        // All of it is taken from the disk, whatever is in there.
        let taken = shell("du -xs -B1 \"$1\" | cut -f 1", &node.store("a")).trim().parse::<u64>().unwrap();
        assert_eq!(number(&a["exclusive"]), taken);
        assert_eq!(a["inodes"], Value::Null);
        let shown = node.json(&["show", "a", "--json"]);
        assert_eq!(a["used"], shown["used"], "mounted: {mounted}");
        assert!((5_000_000..20_000_000).contains(&number(&a["used"])), "{a}");
        assert_eq!((number(&c["limit"]), c["means"].as_str()), (100 * MIB, Some("soft")));
        assert_eq!((number(&c["used"]), c["used"].clone()), (du(&node.store("c")), c["exclusive"].clone()));
        let deep = node.json(&["usage", "--json", "--deep", "a"]);
        assert_eq!(deep["slivers"][0]["error"], Value::Null, "{deep}");
        assert!(number(&deep["slivers"][0]["shared"]) < number(&a["shared"]), "{deep}");
    }
    let plain = node.ok(&["usage"]);
    assert!(plain.contains("USED") && plain.contains("100 MiB (soft)"), "{plain}");
}

/// The node's sum, what was kept, and what comes of a record that cannot be read.
#[test]
fn the_sum_of_a_node() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 64);
    let nothing = node.json(&["usage", "--json"]);
    assert_eq!((number(&nothing["node"]["separate"]), number(&nothing["node"]["saved"])), (0, 0));
    for name in ["a", "c", "d"] {
        node.ok(&["create", name, "--base", "b", "--backend", "overlay"]);
    }
    node.ok(&["mount", "a"]);
    edit(&node.view("a"));
    node.ok(&["umount", "a"]);
    node.ok(&["convert", "a", "--to", "copy"]);
    let sheet = node.json(&["usage", "--json"]);
    let of = |at: usize, field: &str| number(&sheet["slivers"][at][field]);
    assert_eq!(of(0, "kept"), du(&node.lxcpath.join(".store/.old.a")));
    let disk = number(&sheet["bases"][0]["disk"]);
    assert_eq!(sheet["bases"].as_array().unwrap().len(), 1);
    assert_eq!(number(&sheet["bases"][0]["slivers"]), 3);
    let own = of(0, "exclusive") + of(1, "exclusive") + of(2, "exclusive");
    let sum = &sheet["node"];
    assert_eq!(number(&sum["taken"]), disk + own + of(0, "kept"));
    // What was converted to a full copy shares nothing.
    assert_eq!((of(0, "shared"), of(1, "shared")), (0, disk));
    assert_eq!(number(&sum["separate"]), own + 2 * disk);
    let saved = (own + 2 * disk).saturating_sub(number(&sum["taken"]));
    assert_eq!(number(&sum["saved"]), saved);
    assert_eq!(number(&sum["percent"]), saved * 100 / (own + 2 * disk));
    assert_eq!(sum["page_cache_saved"], Value::Null, "nothing looked at it");
    // Those that are named have no node.
    let named = node.json(&["usage", "--json", "c"]);
    assert_eq!((named["node"].clone(), named["slivers"].as_array().unwrap().len()), (Value::Null, 1));
    node.fails(2, &["usage", "nobody"]);
    fs::write(node.store("c").join("sliver.json"), "{").unwrap();
    let output = node.run(&["usage", "--json"]);
    assert_eq!(output.status.code(), Some(5));
    let sheet: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(sheet["slivers"][1]["error"].as_str().unwrap().contains("damaged"), "{sheet}");
    assert_eq!(sheet["slivers"][1]["backend"], Value::Null);
    let table = node.run(&["usage"]).stdout;
    let table = String::from_utf8_lossy(&table);
    let row: Vec<_> = table.lines().nth(2).unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["c", "failed", "-", "-"], "{table}");
    assert_eq!(sheet["slivers"][2]["error"], Value::Null);
    assert_eq!(number(&sheet["bases"][0]["slivers"]), 2);
}

/// What compact would give back, what of the base is covered, and what views share of the page cache.
#[test]
fn deep() {
    if !require("root", common::root()) || !require("mksquashfs", installed("mksquashfs")) {
        return;
    }
    for pack in [&[][..], &["--pack", "squashfs"]] {
        let node = Node::new("ext4", 64);
        let tree = node.dir().join("tree");
        small_tree(&tree);
        node.ok(&[&["base", "add", "b", tree.to_str().unwrap()], pack].concat());
        for name in ["a", "c"] {
            node.ok(&["create", name, "--base", "b", "--backend", "overlay"]);
        }
        node.ok(&["mount", "--all"]);
        // A file that is as the base's again, one that is covered, and a folder that is gone.
        let script = "cd \"$1\"; touch -d @1500000000 etc/dir/c.txt; echo y > var/deep/y; rm -r var/deep/er; cat var/big > /dev/null";
        shell(script, &node.view("a"));
        let sheet = node.json(&["usage", "--json", "--deep"]);
        let (a, c, base) = (&sheet["slivers"][0], &sheet["slivers"][1], &sheet["bases"][0]);
        let copy = number(&c["shared"]);
        assert!(number(&c["compact"]) <= 4 * KIB, "{c}");
        let covered = copy - number(&a["shared"]);
        let whole = number(&base["disk"]);
        if pack.is_empty() {
            assert_eq!(copy, whole);
            // c.txt, y and x with a block each, and the folder er.
            assert_eq!(covered, 4 * 4 * KIB, "{a}");
        } else {
            assert!((3..4096).contains(&covered), "{a}");
        }
        assert_eq!(number(&base["mounted"]), 2);
        let cached = number(&base["cached"]);
        assert!(cached >= 300_000 - 300_000 % (4 * KIB), "{base}");
        assert_eq!(number(&sheet["node"]["page_cache_saved"]), cached, "two views, so once");
        node.ok(&["umount", "--all"]);
        let compact = node.json(&["compact", "a", "--dry-run", "--json"]);
        assert_eq!(a["compact"], compact["bytes"], "{compact}");
        assert!(number(&a["compact"]) >= 4 * KIB, "{compact}");
        if !pack.is_empty() {
            assert_eq!(node.json(&["usage", "--json", "--deep"])["bases"][0]["cached"], Value::Null);
        }
    }
}

/// A tenant that makes and removes folders while they are counted does not stop the count.
#[test]
fn a_store_in_motion() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 64);
    node.ok(&["create", "a", "--base", "b", "--backend", "overlay"]);
    node.ok(&["mount", "a"]);
    let script = "cd \"$1\"; while [ ! -e stop ]; do mkdir -p x/y/z w/v; echo 1 > x/y/z/f; rm -r x w; done";
    let mut tenant = Command::new("sh").args(["-c", script, "sh"]).arg(node.view("a")).spawn().unwrap();
    let outputs: Vec<_> = (0..20).map(|_| node.run(&["usage", "--json"])).collect();
    fs::write(node.view("a").join("stop"), "").unwrap();
    tenant.wait().unwrap();
    for output in outputs {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Bars are for a terminal; a pipe gets the table.
#[test]
fn bars_on_a_terminal_alone() {
    if !require("root", common::root()) || !require("script", installed("script")) {
        return;
    }
    let node = Node::with_base("ext4", 64);
    for name in ["a", "c"] {
        node.ok(&["create", name, "--base", "b", "--backend", "overlay"]);
    }
    shell("head -c 1000000 /dev/zero > \"$1/upper/f\"", &node.store("a"));
    let plain = node.ok(&["usage"]);
    assert!(plain.starts_with("NAME  BACKEND  BASE  OWN      SHARED   INODES  BY\n"), "{plain}");
    assert!(!plain.contains('#') && plain.contains("separate copies would take "), "{plain}");
    let usage = format!("{:?}", node.command(&["usage"])).replace('"', "'");
    let seen = run(Command::new("script").args(["-qec", &usage, "/dev/null"]));
    let bars: Vec<_> = seen.lines().filter(|line| line.contains('#')).collect();
    assert_eq!(bars.len(), 2, "{seen}");
    assert!(bars[0].contains(&"#".repeat(20)) && bars[1].contains("#..................."), "{seen}");
    assert!(!seen.contains('\x1b'), "{seen}");
}
