//! What the node promises: never more than it may, whoever asks at once and wherever a command is cut, and without all records being
//! read each time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::process::{Child, Command, Stdio};

use common::node::{Node, run};
use common::{require, strace};

const MIB: u64 = 1 << 20;

/// A node that may promise twice what its disk has, so that images are sparse.
fn node(mib: u64) -> Node {
    let node = Node::with_base("ext4", mib);
    fs::write(node.dir().join("uci"), "config sliverfs main\n option overcommit '2'\n").unwrap();
    node.ok(&["probe"]);
    node
}

fn command(node: &Node, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sliverfs"));
    command.arg("--config").arg(node.dir().join("uci")).arg("--lxcpath").arg(&node.lxcpath).args(args);
    command
}

fn create<'a>(name: &'a str, bytes: &'a str) -> [&'a str; 8] {
    ["create", name, "--base", "b", "--backend", "overlay", "--quota", bytes]
}

/// How many of some processes, started at once, come to a good end. The others must have been refused for want of room.
fn good(children: Vec<Child>) -> u64 {
    let mut good = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() || said.contains("cannot be promised"), "{said}");
        good += u64::from(output.status.success());
    }
    good
}

fn start(node: &Node, args: &[&str]) -> Child {
    command(node, args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What may be promised.
fn most(node: &Node) -> u64 {
    let numbers = run(Command::new("stat").args(["-f", "-c", "%b %S"]).arg(&node.lxcpath));
    let numbers: Vec<u64> = numbers.split_whitespace().map(|word| word.parse().unwrap()).collect();
    numbers[0] * numbers[1] * 2
}

/// What is noted, and what is recorded.
fn promised(node: &Node) -> (Option<u64>, u64) {
    let mut recorded = 0;
    for entry in fs::read_dir(node.lxcpath.join(".store")).unwrap() {
        let entry = entry.unwrap();
        let staged = entry.file_name().to_str().unwrap().starts_with('.');
        if let (false, Ok(text)) = (staged, fs::read(entry.path().join("sliver.json"))) {
            let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
            recorded += record["quota"]["bytes"].as_u64().unwrap_or(0);
        }
    }
    let note = fs::read_to_string(node.lxcpath.join(".store/.promised")).unwrap_or_default();
    let noted = note.strip_suffix('\n').and_then(|line| line.rsplit_once(' '));
    (noted.map(|(_, bytes)| bytes.parse().unwrap()), recorded)
}

#[test]
fn of_many_at_once_as_many_come_in_as_there_is_room_for() {
    if !require("root", common::root()) {
        return;
    }
    let node = node(96);
    let names: Vec<String> = (0..32).map(|number| format!("s{number}")).collect();
    let all = || names.iter().map(String::as_str);
    let made = good(all().map(|name| start(&node, &create(name, "16M"))).collect());
    assert_eq!(made, most(&node) / (16 * MIB));
    let mut there: Vec<&str> = all().filter(|name| node.store(name).exists()).collect();
    assert_eq!(there.len() as u64, made);
    // What is destroyed makes room, and the note that is too high then refuses nobody.
    for name in there.split_off(4) {
        node.ok(&["destroy", name]);
    }
    assert_eq!(promised(&node), (Some(made * 16 * MIB), 64 * MIB));
    let grown = good(there.iter().map(|name| start(&node, &["quota", name, "64M"])).collect());
    assert_eq!(grown, (most(&node) - 64 * MIB) / (48 * MIB));
    let (noted, recorded) = promised(&node);
    assert_eq!(recorded, (64 + 48 * grown) * MIB);
    assert!(noted.is_none() || noted >= Some(recorded), "{noted:?} {recorded}");
}

#[test]
fn of_two_conversions_one_gets_what_is_left() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 200);
    let reserve = most(&node) / 2 - 50 * MIB;
    fs::write(node.dir().join("uci"), format!("config sliverfs main\n option reserve '{reserve}'\n"))
        .unwrap();
    node.ok(&["probe"]);
    let names = ["a", "c"];
    for name in names {
        // What is only measured is promised nothing.
        node.ok(&["create", name, "--base", "b", "--backend", "copy", "--quota", "40M", "--means", "soft"]);
    }
    let convert = |name| start(&node, &["convert", name, "--to", "overlay", "--means", "image"]);
    assert_eq!(good(names.map(convert).into()), 1);
    let means = names.map(|name| node.json(&["show", name, "--json"])["means"].as_str().unwrap().to_owned());
    assert!(means.contains(&"image".into()) && means.contains(&"soft".into()), "{means:?}");
}

#[test]
fn a_note_spares_reading_all_records() {
    if !require("root", common::root()) || !require("strace", strace::works()) {
        return;
    }
    let node = node(96);
    let good = |args: &[&str]| assert!(command(&node, args).status().unwrap().success(), "{args:?}");
    for name in ["a", "c", "d", "e"] {
        good(&create(name, "8M"));
    }
    let note = node.lxcpath.join(".store/.promised");
    let others = || {
        let args = create("f", "8M");
        assert!(
            strace::command(&node, &["-f", "-e", "trace=open,openat"], &args).status().unwrap().success()
        );
        node.ok(&["destroy", "f"]);
        strace::traced(&node).lines().filter(|line| line.contains("/sliver.json\", O_RDONLY")).count()
    };
    assert_eq!(others(), 0, "none is read where there is a note");
    // A note of another boot, or half of one, is none. Both times the records are read, and the second time it is noted.
    for text in [
        "00000000-0000-0000-0000-000000000000 0\n".to_owned(),
        fs::read_to_string(&note).unwrap().replace('\n', ""),
    ] {
        fs::write(&note, text).unwrap();
        assert_eq!(others(), 8);
        assert_eq!(promised(&node), (Some(40 * MIB), 32 * MIB));
    }
    // What is put there by hand counts after a check.
    let full = (most(&node) / MIB - 40).to_string() + "M";
    let record = node.store("a").join("sliver.json");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace(&(8 * MIB).to_string(), &(32 * MIB).to_string())).unwrap();
    // Its findings are none of this: another test's node may have had the same run folder.
    node.run(&["check"]);
    let refused = command(&node, &create("f", &full)).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("cannot be promised") && said.contains("56 MiB are"), "{said}");
}

/// Wherever a command is cut, no more is recorded than is noted.
#[test]
fn a_cut_leaves_no_promise_that_is_not_noted() {
    if !require("root", common::root()) || !require("strace", strace::works()) {
        return;
    }
    let node = node(96);
    node.ok(&create("a", "8M"));
    let mut seen = [false; 2];
    for (args, back) in
        [(&create("c", "8M")[..], &["destroy", "c"][..]), (&["quota", "a", "16M"], &["quota", "a", "8M"])]
    {
        let points = strace::points(&node, args);
        node.ok(back);
        for point in points.iter().filter(|point| ["write", "rename", "exit_group"].contains(&&*point.call)) {
            // The note is exact before.
            let _none = fs::remove_file(node.lxcpath.join(".store/.promised"));
            node.ok(&create("d", "8M"));
            node.ok(&["destroy", "d"]);
            let (before, _) = promised(&node);
            strace::kill(&node, point, args);
            let (noted, recorded) = promised(&node);
            assert!(noted.is_none() || noted >= Some(recorded), "{point:?}: {noted:?} {recorded}");
            seen[0] |= noted > before && recorded == 8 * MIB;
            seen[1] |= recorded == 16 * MIB;
            node.ok(args);
            node.ok(back);
        }
    }
    assert_eq!(seen, [true; 2], "some cut lay between the note and the record, and some behind it");
}

/// A record that may promise something counts, or nothing is promised; one that is none does not stand in the way.
#[test]
fn a_record_that_cannot_be_read_is_no_room() {
    if !require("root", common::root()) {
        return;
    }
    let node = node(96);
    node.ok(&create("a", "8M"));
    let stores = node.lxcpath.join(".store");
    fs::write(stores.join("stray"), "").unwrap();
    let record = node.store("a").join("sliver.json");
    let text = fs::read_to_string(&record).unwrap();
    for (version, code) in [("\"version\":1", 0), ("\"version\":99", 3), ("", 0)] {
        fs::write(&record, text.replace("\"version\":1", version)).unwrap();
        let _none = fs::remove_file(stores.join(".promised"));
        let output = node.run(&create("c", "8M"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{version}: {said}");
        assert!(code == 0 || said.contains("has version 99"), "{said}");
        if code == 0 {
            node.ok(&["destroy", "c"]);
        }
    }
}

/// A store that comes back has the limit that it had, where that can still be promised.
#[test]
fn what_comes_back_is_promised_again() {
    if !require("root", common::root()) {
        return;
    }
    let node = node(96);
    let tree = node.dir().join("tree");
    fs::write(tree.join("new"), "new").unwrap();
    node.ok(&["base", "add", "c", tree.to_str().unwrap()]);
    let said = |args: &[&str], code: i32| {
        let output = command(&node, args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        said
    };
    let rest = (most(&node) / MIB - 8).to_string() + "M";
    said(&create("a", "16M"), 0);
    for (there, back) in [
        (["convert", "a", "--to", "aufs"], ["convert", "a", "--undo"]),
        (["rebase", "a", "--onto", "c"], ["rebase", "a", "--undo"]),
    ] {
        said(&there, 0);
        assert!(!said(&back, 0).contains("limit"), "it is the same");
        said(&there, 0);
        said(&["quota", "a", "4M"], 0);
        said(&create("full", &rest), 0);
        assert!(said(&back, 1).contains("12 MiB more cannot be promised"));
        let limit = || node.json(&["show", "a", "--json"])["limit"].as_u64();
        assert_eq!(limit(), Some(4 * MIB));
        said(&["destroy", "full"], 0);
        assert!(said(&back, 0).contains("the limit of before again (16 MiB by image)"));
        assert_eq!(limit(), Some(16 * MIB));
    }
}
