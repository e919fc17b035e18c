//! What `rebase` waits for before it is done: the files that it wrote, where the disk keeps the order of all else, or the whole disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::process::Command;

use common::node::{Node, run};
use common::slivers::{base, listed};
use common::tree::{copy, sh_in};
use common::{require, strace};

/// More files than are held open at once.
const FILES: usize = 300;

fn ready() -> bool {
    require("root", common::root()) && require("strace", strace::works())
}

/// A node with a sliver `s` of as many files, and a base `c` that is newer than its own.
fn node(fstype: &str) -> Node {
    let node = Node::with_base(fstype, 64);
    let next = node.dir().join("next");
    copy(&node.dir().join("tree"), &next);
    sh_in(&next, "echo new > etc/new");
    node.ok(&["base", "add", "c", next.to_str().unwrap()]);
    node.ok(&["create", "s", "--base", "b", "--backend", "overlay"]);
    node.ok(&["mount", "s"]);
    sh_in(
        &node.view("s"),
        &format!("mkdir many; for n in $(seq {FILES}); do echo $n > many/$n; done; rm etc/b.txt"),
    );
    node.ok(&["umount", "s"]);
    node
}

/// Runs the rebase below strace with these options more, which must succeed; what it called to have something on the disk.
fn waited(node: &Node, options: &[&str]) -> Vec<String> {
    let options = [&["-f", "-y", "-e", "trace=syncfs,fsync,sync_file_range,renameat2"], options].concat();
    assert!(strace::command(node, &options, &["rebase", "s", "--onto", "c"]).status().unwrap().success());
    let calls = strace::traced(node);
    calls.lines().filter_map(|line| Some(line.split_once(' ')?.1.trim_start().to_owned())).collect()
}

fn whole_disk(calls: &[String]) -> bool {
    calls.iter().any(|call| call.starts_with("syncfs("))
}

#[test]
fn on_ext4_with_a_journal_each_file_is_waited_for_and_then_the_names() {
    if !ready() {
        return;
    }
    let node = node("ext4");
    let calls = waited(&node, &[]);
    assert!(!whole_disk(&calls), "{calls:#?}");
    let place = |what: &dyn Fn(&String) -> bool| calls.iter().rposition(what).unwrap();
    let exchanged = place(&|call| call.starts_with("renameat2("));
    let waits = |call: &&String| call.starts_with("sync_file_range(") && call.contains("WAIT_AFTER");
    let files = calls[..exchanged].iter().filter(waits);
    let of = |name: &str| files.clone().filter(|call| call.contains(name)).count();
    assert_eq!((of("/many/"), of("/sliver.json>")), (FILES, 1), "{calls:#?}");
    assert!(place(&|call| call.starts_with("fsync(") && call.contains("/.store>")) > exchanged, "{calls:#?}");
    assert_eq!(base(&node, "s"), "c");
}

#[test]
fn with_few_descriptors_fewer_files_are_held() {
    if !ready() {
        return;
    }
    let node = node("ext4");
    let plain = node.command(&["rebase", "s", "--onto", "c"]);
    let mut few = Command::new("sh");
    few.args(["-ec", "ulimit -n 48; exec \"$@\"", "sh"]).arg(plain.get_program()).args(plain.get_args());
    run(&mut few);
    assert_eq!(base(&node, "s"), "c");
}

#[test]
fn without_a_journal_the_whole_disk_is_written_first() {
    if !ready() {
        return;
    }
    // The driver is the same.
    let node = node("ext2");
    let calls = waited(&node, &[]);
    let place = |what: &str| calls.iter().rposition(|call| call.starts_with(what)).unwrap();
    assert!(place("syncfs(") < place("renameat2("), "{calls:#?}");
}

#[test]
fn what_cannot_be_waited_for_by_itself_lets_the_whole_disk_be_written() {
    if !ready() {
        return;
    }
    let node = node("ext4");
    for refused in ["ENOSYS", "EPERM"] {
        let calls = waited(&node, &["-e", &format!("inject=sync_file_range:error={refused}:when=7+")]);
        assert!(whole_disk(&calls), "{refused}: {calls:#?}");
        node.ok(&["rebase", "s", "--undo"]);
    }
    // No file is written but the record.
    node.ok(&["create", "bare", "--base", "b", "--backend", "overlay"]);
    let options = ["-f", "-e", "trace=syncfs,sync_file_range", "-e", "inject=sync_file_range:error=ENOSYS"];
    let done = strace::command(&node, &options, &["rebase", "bare", "--onto", "c"]).status();
    assert!(done.unwrap().success());
    let calls = strace::traced(&node);
    assert!(calls.contains("(INJECTED)") && calls.contains("syncfs("), "{calls}");
    for (what, made) in [
        // Its target is content.
        ("a long link", "ln -s $(printf %060d 1) long"),
        // A folder of the new base goes beside the sliver's own.
        ("a folder of the base", "rm -r var/deep; echo mine > var/deep"),
    ] {
        let next = node.dir().join("next");
        sh_in(&next, "echo more >> var/deep/y");
        let next_name = what.replace(' ', "-");
        node.ok(&["base", "add", &next_name, next.to_str().unwrap()]);
        node.ok(&["mount", "s"]);
        sh_in(&node.view("s"), made);
        node.ok(&["umount", "s"]);
        let options = ["-f", "-e", "trace=syncfs"];
        let done = strace::command(&node, &options, &["rebase", "s", "--onto", &next_name]).status();
        assert!(done.unwrap().success(), "{what}");
        assert!(strace::traced(&node).contains("syncfs("), "{what}: {}", strace::traced(&node));
        node.ok(&["rebase", "s", "--undo"]);
    }
}

#[test]
fn a_file_that_did_not_reach_the_disk_fails_the_rebase() {
    if !ready() {
        return;
    }
    let node = node("ext4");
    let before = listed(&node, "s", true);
    // Begun with as it is written, and waited for.
    for number in [5, FILES / 2, FILES, 2 * FILES] {
        let options =
            ["-f".to_owned(), "-e".to_owned(), format!("inject=sync_file_range:error=EIO:when={number}")];
        let done = strace::command(&node, &options, &["rebase", "s", "--onto", "c"]).status().unwrap();
        assert_eq!(done.code(), Some(1), "{number}");
        assert_eq!(base(&node, "s"), "b", "{number}");
        assert!(!node.store(".new.s").exists(), "{number}");
        assert_eq!(listed(&node, "s", true), before, "{number}");
    }
}
