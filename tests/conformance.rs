//! One suite for all backends: whatever is done in a view must leave what the same edits leave in a plain folder.
//!
//! A backend joins by its line in [`KINDS`]. It runs where the probe offers it; CI lists which must not be skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::path::Path;
use std::process::Command;

use common::{listing, node, require};

/// The backends, and what their drivers are known not to keep (left out of the scripts that would show it).
const KINDS: [(&str, &str, &[&str]); 10] = [
    // A copy-up takes a file out of its group of links (but with the index, which must stay off).
    ("overlay", "ext4", &["base links"]),
    ("overlayfs", "ext4", &["base links", "hardlinks"]),
    ("mini_fo", "ext4", &["base links", "hardlinks", "owners", "xattrs", "rmdir"]),
    ("aufs", "ext4", &[]),
    ("btrfs-snapshot", "btrfs", &[]),
    ("btrfs-seed", "ext4", &[]),
    ("reflink", "btrfs", &[]),
    ("reflink", "xfs", &[]),
    ("copy", "ext4", &[]),
    // A copy-up makes a symbolic link anew.
    ("fuse-overlayfs", "ext4", &["link times"]),
];

/// An edit script, run by `sh` in the view and in the plain folder.
struct Scenario {
    name: &'static str,
    /// What the driver must keep for the script to make sense.
    needs: &'static [&'static str],
    script: &'static str,
}

const fn scenario(name: &'static str, needs: &'static [&'static str], script: &'static str) -> Scenario {
    Scenario { name, needs, script }
}

/// All set times explicitly: two runs of a script are not at the same moment.
const SCENARIOS: &[Scenario] = &[
    scenario("create", &[], "echo new > new; mkdir d; echo x > d/f; ln -s a sym; mkfifo p; mknod dev c 1 5"),
    scenario("append", &[], "ln -s b.txt etc/b.sym; echo more >> etc/b.sym; echo more >> var/big"),
    scenario("append to one of two links", &["base links"], "echo more >> etc/a.sym"),
    scenario("chmod", &["owners"], "chmod 600 etc/b.txt; chmod 700 etc/dir; chmod 4711 var/big"),
    scenario("chown", &["owners"], "chown 5:6 etc/b.txt; chown 7:8 etc/dir"),
    scenario("chown of a link", &["owners", "link times"], "chown -h 9:10 etc/a.sym"),
    scenario(
        "xattr",
        &["xattrs"],
        "setfattr -n user.a -v one etc/b.txt; setfattr -n user.b -v two etc/dir; setfattr -n user.a -v three etc/b.txt; \
         setcap cap_net_raw+ep etc/dir/c.txt",
    ),
    scenario("times", &["owners"], "touch -d @1234567890.5 etc/b.txt; touch -h -d @5 etc/absolute"),
    scenario("rename file", &["owners"], "mv etc/b.txt etc/b2.txt; mv var/big var/deep/er/big"),
    // mv falls back to a copy where the driver says EXDEV.
    scenario(
        "rename folder",
        &["rmdir", "owners"],
        "mv var/deep etc/deep; mv etc/dir etc/dir2; mkdir n; mv n m",
    ),
    scenario("rename over", &["owners"], "mv etc/b.txt var/big; echo z > z; mv z etc/dir/c.txt"),
    scenario(
        "hard links",
        &["hardlinks"],
        "ln etc/b.txt etc/b.hard; echo more >> etc/b.hard; ln var/null var/null2",
    ),
    scenario(
        "delete and make again",
        &[],
        "rm etc/b.txt; echo again > etc/b.txt; rm var/fifo; mkdir var/fifo",
    ),
    scenario("file for a folder", &["rmdir"], "rm -r var/deep; echo file > var/deep"),
    scenario("folder for a file", &[], "rm etc/b.txt; mkdir etc/b.txt; echo in > etc/b.txt/in"),
    scenario(
        "there and back",
        &["rmdir"],
        "rm -r var/deep; echo file > var/deep; rm var/deep; mkdir var/deep; echo y > var/deep/new",
    ),
    scenario("whiteout, then new", &["rmdir"], "rm -r etc/dir; mkdir etc/dir; echo only > etc/dir/only"),
    scenario("emptied", &[], "rm var/deep/er/x var/deep/y 'odd names'/*"),
    scenario(
        "sparse",
        &[],
        "dd if=/dev/zero of=hole bs=1 count=1 seek=5000000 2>/dev/null; echo at >> var/sparse; truncate -s 2000000 var/big",
    ),
    scenario(
        "awkward names",
        &[],
        r#"n="$(printf 'l\ni, n:e\\\001\377')"; echo 1 > "$n"; mkdir "odd names/$n"; echo 2 > "odd names/$n/-rf"; rm "odd names/a, b:c\\d""#,
    ),
    scenario("long names", &[], r#"n="$(printf '%0200d' 7)"; echo 1 > "$n"; mkdir "d$n"; mv "$n" "d$n/$n""#),
    scenario("the root", &["owners"], "chmod 711 .; chown 3:4 ."),
];

/// What makes two runs comparable: whatever has a time of today gets one and the same. The base's times are older.
const SETTLE: &str = "find . -newermt @1600000000 ! -type d -exec touch -h -d @2000000000 {} +";

#[test]
fn a_view_is_a_folder() {
    if !require("root", common::root()) {
        return;
    }
    for (kind, disk, lacks) in KINDS {
        let node = node::Node::with_base(disk, if disk == "ext4" { 128 } else { 400 });
        // A seed is an image.
        let base = if kind == "btrfs-seed" { "seed" } else { "b" };
        let probed = node.run(&["probe", "--json"]).stdout;
        let verdicts: serde_json::Value = serde_json::from_slice(&probed).unwrap();
        let verdict = verdicts.as_array().unwrap().iter().find(|verdict| verdict["kind"] == kind).unwrap();
        let works = verdict["works"].as_bool().unwrap();
        let reason = verdict["reason"].as_str().unwrap_or("no reason").to_owned();
        if !require(kind, if works { Ok(()) } else { Err(reason) }) {
            continue;
        }
        let tree = node.dir().join("tree");
        if base == "seed" {
            node.ok(&["base", "add", base, tree.to_str().unwrap(), "--pack", "btrfs"]);
        }
        for scenario in
            SCENARIOS.iter().filter(|scenario| !scenario.needs.iter().any(|need| lacks.contains(need)))
        {
            check(&node, base, &tree, kind, scenario, !lacks.contains(&"owners"));
        }
        assert!(node.ok(&["base", "verify", base]).contains(base), "the base is as it was");
    }
}

fn check(node: &node::Node, base: &str, tree: &Path, kind: &str, scenario: &Scenario, times: bool) {
    let name = "s";
    node.ok(&["create", name, "--base", base, "--backend", kind]);
    node.ok(&["mount", name]);
    let plain = node.dir().join("plain");
    node::run(Command::new("cp").arg("-a").arg(tree).arg(&plain));
    assert_eq!(
        listing::of(&node.view(name), times),
        listing::of(&plain, times),
        "{kind}: the view starts as the base"
    );
    for folder in [&node.view(name), &plain] {
        node::run(Command::new("sh").args(["-ec", scenario.script]).current_dir(folder));
        node::run(Command::new("sh").args(["-ec", SETTLE]).current_dir(folder));
    }
    let wanted = listing::of(&plain, false);
    assert_eq!(listing::of(&node.view(name), false), wanted, "{kind}: {}", scenario.name);
    node.ok(&["umount", name]);
    node.ok(&["mount", name]);
    assert_eq!(listing::of(&node.view(name), false), wanted, "{kind}: {} after a remount", scenario.name);
    node.ok(&["umount", name]);
    node.ok(&["destroy", name]);
    std::fs::remove_dir_all(&plain).unwrap();
}
