//! The limit of a copy by a dataset of its own, on a real pool of zfs-fuse: who writes as root gets no more, and what is cut leaves none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::holder::Holder;
use common::node::{Node, run, small_tree};
use common::zfs::{POOL, Zfs, tool};
use common::{busy, listing, require, strace};

const MIB: u64 = 1 << 20;

/// Bytes by which what ZFS counts of a dataset at rest differs from one moment to the next: its own tables, as they are written.
const SETTLES: u64 = 64 << 10;

/// A node on a pool of so many MiB, with the base `b`.
fn pool(mib: u64) -> Option<(Zfs, Node)> {
    if !require("zfs-fuse", common::zfs::available()) {
        return None;
    }
    let mut node = Node::new("ext4", 16);
    let zfs = Zfs::on(&mut node, mib);
    let tree = node.dir().join("tree");
    small_tree(&tree);
    // zfs-fuse keeps whole seconds.
    run(Command::new("find").arg(&tree).args(["-exec", "touch", "-hd", "@1500000000", "{}", "+"]));
    node.ok(&["base", "add", "b", tree.to_str().unwrap()]);
    Some((zfs, node))
}

/// The datasets below the pool's own.
fn datasets() -> Vec<String> {
    let list = tool(&["zfs", "list", "-H", "-o", "name", "-r", POOL]);
    list.lines().skip(1).map(str::to_owned).collect()
}

/// A property of the one dataset, when all is written.
fn number(zfs: &Zfs, property: &str) -> u64 {
    zfs.number("allocated");
    let found = datasets();
    assert_eq!(found.len(), 1, "{found:?}");
    tool(&["zfs", "get", "-Hp", "-o", "value", property, &found[0]]).trim().parse().unwrap()
}

/// What a tenant who is root tries. All must end with a full disk.
const TRIES: &str = r#"
    no() { echo "no: $*"; exit 1; }
    full() { said=$(LC_ALL=C "$@" 2>&1 >>fill) && no "$*"; case $said in *"Disk quota exceeded"*) ;; *) no "$*: $said" ;; esac; }
    exec 9>gone && rm gone && head -c 5000000 /dev/urandom >&9 || no deleted file
    mkdir bound && mount --bind bound bound || no bind mount
    fallocate -l 1G too-much 2>/dev/null && no fallocate; rm -f too-much
    truncate -s 1T sparse && head -c 3000000 /dev/urandom | dd of=sparse bs=64k seek=1000 conv=notrunc 2>/dev/null || no sparse file
    ln sparse linked || no hard link
    ln sparse "$STORES/linked" 2>/dev/null && no link across
    i=0; while [ $i -lt 500 ]; do echo tiny >"tiny$i" || no tiny files; i=$((i+1)); done
    full head -c 1G /dev/urandom
    while echo tiny >"tiny$i"; do i=$((i+1)); [ $i -lt 100000 ] || no end of tiny files; done
    sync -f .; full head -c 1G /dev/urandom; full dd if=/dev/zero bs=1M count=1000 status=none
    umount bound || no umount; echo ready; read end"#;

#[test]
fn root_gets_no_more_than_the_limit() {
    let Some((zfs, node)) = pool(320) else { return };
    let probed = node.json(&["probe", "--json"]);
    let copy = probed.as_array().unwrap().iter().find(|kind| kind["kind"] == "copy").unwrap();
    assert_eq!(copy["limit"]["means"], "zfs", "{copy}");
    assert_eq!(datasets(), [""; 0], "a trial leaves nothing");
    let mut bare = node.command(&["probe", "--json"]);
    let bare = bare.env("PATH", "/nonexistent").output().unwrap().stdout;
    assert!(
        String::from_utf8_lossy(&bare)
            .contains("{\"means\":null,\"reason\":\"the program `zfs` is not installed\"}")
    );

    node.ok(&["create", "a", "--base", "b", "--backend", "copy", "--quota", "64M"]);
    node.ok(&["mount", "a"]);
    let sheet = node.json(&["show", "a", "--json"]);
    assert_eq!((&sheet["means"], &sheet["limit"]), (&"zfs".into(), &(64 * MIB).into()), "{sheet}");
    assert!(sheet["used"].as_u64().unwrap() <= SETTLES, "{sheet}");
    let base = sheet["limit_base"].as_u64().unwrap();
    assert!(number(&zfs, "referenced").abs_diff(base) <= SETTLES, "{sheet}");
    let size = || run(Command::new("df").args(["-B1", "--output=size"]).arg(node.view("a")));
    assert!(size().contains(&(64 * MIB + base).to_string()), "{} and {base}", size());
    let taken = zfs.number("allocated");
    let mut tries = Command::new("sh");
    tries.args(["-c", TRIES]).current_dir(node.view("a")).env("STORES", node.lxcpath.join(".store"));
    let held = Holder::start(tries.stderr(Stdio::null()));
    let (used, taken) = (number(&zfs, "used") - base, zfs.number("allocated") - taken);
    assert!((63 * MIB..=65 * MIB).contains(&used) && taken <= 66 * MIB, "{used} and {taken}");
    drop(held);
    // All of it still works: what was deleted is room again.
    let steps: [&[&str]; 6] = [
        &["umount", "a"],
        &["check", "a"],
        &["mount", "a"],
        &["diff", "a"],
        &["umount", "a"],
        &["mount", "a"],
    ];
    for args in steps {
        node.ok(args);
    }
    // Until all is written, what was deleted last still counts.
    let referenced = number(&zfs, "referenced");
    let row = &node.json(&["usage", "--json"])["slivers"][0];
    let exclusive = row["exclusive"].as_u64().unwrap();
    assert!(exclusive.abs_diff(referenced) <= SETTLES && row["by"] == "zfs", "{referenced}: {row}");
    assert_eq!(row["used"].as_u64().unwrap(), exclusive - base);
    assert!(node.fails(1, &["quota", "a", "8M"]).contains("does not fit into 8 MiB"));
    assert_eq!(number(&zfs, "refquota"), 64 * MIB + base);
    // More and less, while it is mounted.
    node.ok(&["quota", "a", "80M"]);
    run(Command::new("sh")
        .args(["-ec", "head -c 10000000 /dev/urandom > more; rm fill more tiny*"])
        .current_dir(node.view("a")));
    node.ok(&["quota", "a", "16M"]);
    assert_eq!(number(&zfs, "refquota"), 16 * MIB + base);
    // A store that was copied by hand is none, and takes nobody's dataset along.
    let stores = node.lxcpath.join(".store");
    run(Command::new("cp").arg("-a").arg(stores.join("a")).arg(stores.join(".rm.c")));
    node.ok(&["check", "--repair"]);
    assert!(!stores.join(".rm.c").exists() && datasets().len() == 1);
    node.fails(4, &["destroy", "a"]);
    node.ok(&["umount", "a"]);
    node.ok(&["destroy", "a"]);
    assert_eq!(datasets(), [""; 0]);
}

/// The view, and what it shows.
fn seen(node: &Node) -> String {
    node.ok(&["mount", "a"]);
    let list = listing::of(&node.view("a"), false);
    node.ok(&["umount", "a"]);
    list
}

fn change(node: &Node) {
    node.ok(&["mount", "a"]);
    run(Command::new("sh")
        .args(["-ec", "head -c 2000000 /dev/urandom > new; rm etc/b.txt; find . ! -type l -exec touch -d @1600000000 {} +"])
        .current_dir(node.view("a")));
    node.ok(&["umount", "a"]);
}

#[test]
fn the_means_is_switched_and_the_store_made_anew() {
    let Some((zfs, node)) = pool(256) else { return };
    let limit = || {
        let sheet = node.json(&["show", "a", "--json"]);
        (sheet["means"].as_str().map(str::to_owned), sheet["limit"].as_u64())
    };
    let by = |means: &str| (Some(means.to_owned()), Some(16 * MIB));
    node.ok(&["create", "a", "--base", "b", "--backend", "copy"]);
    change(&node);
    let view = seen(&node);
    for (args, means) in [
        (&["quota", "a", "16M"][..], Some("zfs")),
        (&["quota", "a", "16M", "--means", "soft"], Some("soft")),
        (&["quota", "a", "16M", "--means", "zfs"], Some("zfs")),
        (&["quota", "a", "none"], None),
        (&["quota", "a", "16M"], Some("zfs")),
        (&["convert", "a", "--to", "overlay"], Some("image")),
        (&["convert", "a", "--undo"], Some("zfs")),
    ] {
        node.ok(args);
        assert_eq!(limit(), means.map_or((None, None), by), "{args:?}");
        let kept = usize::from(node.lxcpath.join(".store/.old.a").exists());
        assert_eq!(datasets().len(), usize::from(means == Some("zfs")) + kept, "{args:?}");
        if means != Some("image") {
            assert_eq!(seen(&node), view, "{args:?}");
        }
    }
    let layer = node.dir().join("layer.tar");
    node.ok(&["export", "a", "-o", layer.to_str().unwrap()]);
    node.ok(&["import", "a", layer.to_str().unwrap(), "--replace"]);
    assert_eq!((limit(), seen(&node)), (by("zfs"), view.clone()));
    let used = node.json(&["show", "a", "--json"])["used"].as_u64().unwrap();
    assert!((1_990_000..2_200_000).contains(&used), "what it changed is counted, and not its base: {used}");
    // A change that was cut left another limit.
    tool(&["zfs", "set", "refquota=100M", &datasets()[0]]);
    assert_eq!(seen(&node), view);
    assert!(number(&zfs, "refquota") < 18 * MIB);
    // ZFS has it mounted nowhere: that is done first.
    tool(&["zfs", "umount", &datasets()[0]]);
    assert_eq!(seen(&node), view);
    let tree = node.dir().join("tree");
    run(Command::new("sh").args(["-ec", "echo new > etc/other"]).current_dir(&tree));
    node.ok(&["base", "add", "c", tree.to_str().unwrap()]);
    // It takes nothing, and looks larger than the limit.
    node.ok(&["mount", "a"]);
    fs::File::create(node.view("a").join("hole")).unwrap().set_len(100 << 20).unwrap();
    // Who has a folder of the view elsewhere would write into a store that is replaced.
    let (elsewhere, etc) = (node.dir().join("elsewhere"), node.view("a").join("etc"));
    fs::create_dir(&elsewhere).unwrap();
    run(Command::new("mount").arg("--bind").arg(etc).arg(&elsewhere));
    run(Command::new("umount").arg(node.view("a")));
    node.fails(4, &["rebase", "a", "--onto", "c"]);
    busy::umount(&elsewhere);
    node.ok(&["umount", "a"]);
    node.ok(&["rebase", "a", "--onto", "c"]);
    assert_eq!((limit(), datasets().len()), (by("zfs"), 2));
    node.ok(&["rebase", "a", "--commit"]);
    assert_eq!(datasets().len(), 1);
    node.fails(2, &["quota", "a", "8M", "--means", "image"]);
    node.ok(&["destroy", "a"]);
    assert_eq!(datasets(), [""; 0]);
}

/// So many calls of a command are tried; all of them where the environment has `SLIVERFS_FAULTS=all`.
const TRIED: usize = 9;

/// Kills a command anywhere: nothing is lost, and no dataset stays that is nobody's.
fn killed(node: &Node, args: &[&str], limits: [Option<u64>; 2], fresh: &dyn Fn()) {
    fresh();
    let view = if args[0] == "create" { None } else { Some(seen(node)) };
    let points = strace::points(node, args);
    assert!(points.len() > 15, "{args:?}: {}", points.len());
    let all = std::env::var("SLIVERFS_FAULTS").is_ok_and(|which| which == "all");
    for point in points.iter().step_by(if all { 1 } else { points.len().div_ceil(TRIED) }) {
        let what = format!("{args:?} killed at {point:?}");
        fresh();
        strace::kill(node, point, args);
        node.ok(&["check", "--repair"]);
        let there = node.store("a").exists();
        if there {
            let sheet = node.json(&["show", "a", "--json"]);
            assert!(limits.contains(&sheet["limit"].as_u64()), "{what}: {sheet}");
            // Where the exchange was cut, the old store is kept until the next change.
            let kept = usize::from(node.store(".old.a").exists() && args[0] == "quota" && args[2] == "none");
            assert_eq!(datasets().len(), kept + usize::from(sheet["means"] == "zfs"), "{what}");
            if let Some(view) = &view {
                assert_eq!(seen(node), *view, "{what}");
            }
        } else {
            assert!(
                ["create", "destroy"].contains(&args[0]) && datasets().is_empty(),
                "{what}: {:?}",
                datasets()
            );
        }
        let again = node.run(args);
        assert!(again.status.success(), "{what}: {}", String::from_utf8_lossy(&again.stderr));
    }
    node.ok(&["destroy", "a"]);
    assert_eq!(
        fs::read_dir(node.lxcpath.join(".store"))
            .unwrap()
            .filter(|entry| {
                !entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".promised")
            })
            .count(),
        0
    );
}

#[test]
fn killed_anywhere() {
    if !require("strace", strace::works()) {
        return;
    }
    let Some((_zfs, node)) = pool(256) else { return };
    let create = ["create", "a", "--base", "b", "--backend", "copy", "--quota", "8M"];
    let (eight, gone) = (Some(8 * MIB), || drop(node.ok(&["destroy", "a"])));
    let made = || {
        gone();
        node.ok(&create);
    };
    node.ok(&["probe"]);
    killed(&node, &create, [eight, None], &gone);
    killed(&node, &["destroy", "a"], [eight, None], &made);
    killed(&node, &["quota", "a", "12M"], [eight, Some(12 * MIB)], &made);
    killed(&node, &["quota", "a", "none"], [eight, None], &made);
    killed(&node, &["quota", "a", "8M"], [None, eight], &|| {
        gone();
        node.ok(&create[..6]);
    });
}
