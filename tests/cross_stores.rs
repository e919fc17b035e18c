//! The binaries for routers work on stores as this machine's does: another byte order and words of 32 bits change no byte of a
//! layer, nor a number.
//!
//! Needed: `make cross`. Where a binary is missing its test says so, and fails where SLIVERFS_REQUIRE contains `cross`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "cross/targets.rs"]
mod targets;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::layers::{UNIONS, bare, words};
use common::node::{Node, run};
use common::scripts;
use common::slivers;
use common::tree::Temp;
use sliverfs::layer::Format;
use targets::{Target, own_run_folder};

/// What a command that must succeed prints.
fn printed(who: &str, output: Output) -> Vec<u8> {
    assert!(output.status.success(), "{who}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Bare layers, which a real overlay made: a target and this machine tell the same of them, make the same of them, and each
/// reads what the other made.
#[test]
fn layers_are_the_same_to_each() {
    let ready = Target::ready();
    if ready.is_empty() {
        return;
    }
    own_run_folder();
    let temp = Temp::new();
    let [base, plain, store] = ["base", "plain", "store"].map(|name| temp.join(name));
    scripts::base(&base);
    run(Command::new("cp").arg("-a").arg(&base).arg(&plain));
    fs::create_dir(&store).unwrap();
    // All kinds of edits: with capabilities, access lists and holes.
    let edits = scripts::edits_of(&temp.0, &base, &plain, &store, 7, 21);
    assert!(edits.len() > 14, "{edits:?}");
    let host = |command: &str, format, store: &Path, more: &[&str]| {
        printed("here", bare(command, format, &base, store, more))
    };
    let layer = |format, store: &Path| host("export", format, store, &["-o", "-"]);
    for target in ready {
        let theirs = |command: &str, format, store: &Path, more: &[&str]| {
            let mut all = words(command, format, &base, store);
            all.extend(more.iter().map(|word| (*word).to_owned()));
            printed(&format!("{} {all:?}", target.name), target.sliverfs(&all))
        };
        let what = |command: &str| format!("{}: {command}", target.name);
        for (command, more) in [("diff", &["--json"][..]), ("export", &["-o", "-"])] {
            let (here, there) = (
                host(command, Format::Overlay, &store, more),
                theirs(command, Format::Overlay, &store, more),
            );
            assert!(here == there && here.len() > 500, "{}", what(command));
        }
        for format in UNIONS.into_iter().filter(|format| *format != Format::Overlay) {
            let [here, there] = ["here", "there"].map(|name| temp.join(name));
            let to = |out: &Path| ["--to", format.name(), "--out", out.to_str().unwrap()].map(str::to_owned);
            let (ours, others) = (to(&here), to(&there));
            host("convert", Format::Overlay, &store, &ours.each_ref().map(String::as_str));
            theirs("convert", Format::Overlay, &store, &others.each_ref().map(String::as_str));
            let made = layer(format, &here);
            assert!(made == layer(format, &there), "{} {}", what("convert"), format.name());
            let read = theirs("export", format, &here, &["-o", "-"]);
            assert!(made == read, "{} {}", what("export"), format.name());
            for dir in [here, there] {
                fs::remove_dir_all(dir).unwrap();
            }
        }
        let [here, there] = ["here", "there"].map(|name| temp.join(name));
        for copy in [&here, &there] {
            run(Command::new("cp").arg("-a").arg(&store).arg(copy));
        }
        let compacted = host("compact", Format::Overlay, &here, &["--json"]);
        assert!(compacted == theirs("compact", Format::Overlay, &there, &["--json"]), "{}", what("compact"));
        assert!(layer(Format::Overlay, &here) == layer(Format::Overlay, &there), "{}", what("compact"));
        for dir in [here, there] {
            fs::remove_dir_all(dir).unwrap();
        }
    }
}

/// A layer comes in, the sliver goes to another base and is limited beyond what 32 bits count.
#[test]
fn slivers_are_the_same_to_each() {
    let ready = Target::ready();
    if ready.is_empty() {
        return;
    }
    own_run_folder();
    let node = |of: &Path| {
        let node = Node::with_base("ext4", 64);
        run(Command::new("cp").arg("-aT").arg(node.dir().join("tree")).arg(of));
        run(Command::new("sh")
            .args(["-ec", "cd \"$1\"; echo new > etc/b.txt; rm var/big; echo n > bin/n; find . -exec touch -h -d @1600000000 {} +", "sh"])
            .arg(of));
        node.ok(&["base", "add", "c", of.to_str().unwrap()]);
        node
    };
    let temp = Temp::new();
    let layer = temp.join("layer.tar");
    let here = node(&temp.join("here"));
    here.ok(&["create", "a", "--base", "b"]);
    here.ok(&["mount", "a"]);
    run(Command::new("sh")
        .args([
            "-ec",
            "cd \"$1\"; echo mine > etc/b.txt; rm -r var/deep; mkdir own; echo o > own/o; ln own/o own/p",
            "sh",
        ])
        .arg(here.view("a")));
    here.ok(&["umount", "a"]);
    here.ok(&["export", "a", "-o", layer.to_str().unwrap()]);
    let does: [&[&str]; 6] = [
        &["create", "s", "--base", "b", "--means", "soft", "--quota", "6G"],
        &["import", "s", layer.to_str().unwrap()],
        &["rebase", "s", "--onto", "c", "--json"],
        &["quota", "s"],
        &["check", "s"],
        &["diff", "s", "--json"],
    ];
    let paths = |said: &str, node: &Node| said.replace(node.lxcpath.to_str().unwrap(), "LXCPATH");
    let told = does.map(|args| paths(&here.ok(args), &here));
    assert!(told[3].contains("6 GiB"), "{}", told[3]);
    // What is promised is counted beyond 4 GiB: 4.5 GiB is not 512 MiB.
    let much = ["create", "t", "--base", "b", "--quota", "4608M"];
    let refused = here.fails(1, &much);
    let view = slivers::view(&here, "s");
    for target in ready {
        let there = node(&temp.join(&target.name));
        for (args, told) in does.iter().zip(&told) {
            assert_eq!(&paths(&target.ok(&there, args), &there), told, "{} {args:?}", target.name);
        }
        let output = target.run(&there, &much);
        assert_eq!(output.status.code(), Some(1), "{}", target.name);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(paths(&said, &there), paths(&refused, &here), "{}", target.name);
        assert_eq!(slivers::view(&there, "s"), view, "{}", target.name);
    }
}
