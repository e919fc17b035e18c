//! On a terminal what takes long shows how far it is, and clears that line; elsewhere it is silent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::node::{Node, run};
use common::tree::installed;
use common::{require, strace};

/// A disk that takes longer to list some folders than it takes until something is shown.
const SLOW: &[&str] = &["-f", "-qq", "-o", "/dev/null", "-e", "inject=getdents64:delay_exit=260000:when=1+2"];

/// Folders with a file each.
const TREE: &str = "for n in 1 2 3; do mkdir -p \"$0/$n\"; head -c 9000 /dev/urandom >\"$0/$n/f\"; done";

#[test]
fn each_long_command_shows_its_progress() {
    let ready = require("root", common::root())
        && require("script", installed("script"))
        && require("rsync", installed("rsync"))
        && require("strace", strace::works());
    if !ready {
        return;
    }
    let node = Node::new("btrfs", 256);
    let dir = node.dir().to_str().unwrap().to_owned();
    for tree in ["base", "newer", "edits"] {
        run(Command::new("sh").args(["-ec", TREE, &format!("{dir}/{tree}")]));
    }
    for base in ["base", "newer"] {
        node.ok(&["base", "add", base, &format!("{dir}/{base}")]);
    }
    for (name, backend) in [("a", "overlay"), ("whole", "copy")] {
        node.ok(&["create", name, "--base", "base", "--backend", backend]);
        node.ok(&["mount", name]);
        run(Command::new("cp").args(["-r", "-T", &format!("{dir}/edits")]).arg(node.view(name)));
        node.ok(&["umount", name]);
    }
    let (lxcpath, mut slow) = (node.lxcpath.to_str().unwrap(), SLOW.to_vec());
    let folders = [
        ".base/base/tree",
        ".store/a/upper",
        ".store/.new.a/upper",
        ".store/.new.a/layer",
        ".store/whole/tree",
    ];
    let folders = folders.map(|folder| format!("{lxcpath}/{folder}/2"));
    slow.extend(folders.iter().flat_map(|folder| ["-P", folder]));
    let layer = format!("{dir}/layer.tar");
    let screen = format!("{dir}/screen");
    for (shown, args) in [
        ("comparing", &["compact", "a"][..]),
        ("exporting", &["export", "a", "-o", &layer]),
        ("writing", &["import", "a", &layer, "--replace"]),
        ("rebasing", &["rebase", "a", "--onto", "newer"]),
        ("converting", &["convert", "a", "--to", "copy"]),
        ("copying", &["restore", "whole", "1", "2", "3"]),
        ("whole", &["dedupe", "whole"]),
        ("verifying", &["base", "verify", "base"]),
    ] {
        let slow = strace::command(&node, &slow, args);
        let words = [slow.get_program()].into_iter().chain(slow.get_args());
        let line: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        let mut script = Command::new("script");
        run(script.args(["-qec", &line.join(" "), &screen]).stdin(Stdio::null()).stdout(Stdio::null()));
        let said = String::from_utf8_lossy(&fs::read(&screen).unwrap()).into_owned();
        let begins = format!("\r\x1b[K{shown}: ");
        let at = said.rfind(&begins).unwrap_or_else(|| panic!("{args:?} shows nothing: {said:?}"));
        let (count, rest) = said[at + begins.len()..].split_once("/s").unwrap();
        assert!(count.contains("B, "), "{args:?}: {said:?}");
        assert!(rest.contains("\r\x1b[K"), "{args:?} leaves it there: {said:?}");
    }
    // What rsync tells is its own.
    let sync = node.command(&["sync", "whole", &format!("{dir}/newer/")]);
    let line: Vec<_> =
        [sync.get_program()].into_iter().chain(sync.get_args()).map(|word| word.to_str().unwrap()).collect();
    run(Command::new("script")
        .args(["-qec", &line.join(" "), &screen])
        .stdin(Stdio::null())
        .stdout(Stdio::null()));
    let said = String::from_utf8_lossy(&fs::read(&screen).unwrap()).into_owned();
    assert!(said.contains("to-chk="), "{said:?}");
    // Without a terminal there is nothing of it.
    let output = strace::command(&node, &slow, &["base", "verify", "base"]).output().unwrap();
    assert!(output.status.success() && !String::from_utf8_lossy(&output.stderr).contains('\r'), "{output:?}");
}
