//! `sync`, killed anywhere or on a full disk: in a process of rsync's, too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "crash/made.rs"]
mod made;
#[path = "layer/shown.rs"]
mod shown;

use std::process::Command;

use common::slivers::{listed, view};
use common::tree::{assert_same, copy, installed, sh_in};
use common::{fuse, listing, require, strace};
use made::{back, node, ready, trial_each};

fn a_sync(kind: &str, step: usize) {
    if !ready() || !require("rsync", installed("rsync")) {
        return;
    }
    let node = node("ext4", 64, kind);
    let source = node.dir().join("source");
    copy(&node.dir().join("old"), &source);
    sh_in(&source, "echo new > new; rm d/e; touch -d @1700000000 new d .");
    trial_each(&node, &["sync", "s", source.to_str().unwrap()], step);
    assert_same(&view(&node, "s"), &listing::of(&source, true), "synced");
}

#[test]
fn a_sync_of_a_union() {
    a_sync("overlay", 1);
}

/// Its daemon is killed, and finds the disk full, too.
#[test]
fn a_sync_through_a_daemon() {
    if fuse::ready() {
        a_sync(fuse::KIND, 8);
    }
}

/// rsync may not wait for the other names of a file that it could not make.
#[test]
fn a_full_disk_and_files_of_several_names() {
    if !ready() || !require("rsync", installed("rsync")) {
        return;
    }
    let node = node("ext4", 64, "overlay");
    let source = node.dir().join("source");
    copy(&node.dir().join("old"), &source);
    sh_in(&source, "echo other > d/s; ln d/s d/t; echo z > d/z");
    let folder = node.store(".new.s").join(".view/d");
    let mut failed = 0;
    for number in 1..=6 {
        let full = format!("inject=openat:error=ENOSPC:when={number}");
        let options = ["-f", "-e", "trace=openat", "-e", &full, "-P", folder.to_str().unwrap()];
        let sync = strace::command(&node, &options, &["sync", "s", source.to_str().unwrap()]);
        // All of them are killed: they are one group.
        let mut timeout = Command::new("timeout");
        timeout.args(["-s", "KILL", "120"]).arg(sync.get_program()).args(sync.get_args());
        let output = timeout.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{number}: {:?} {said}", output.status);
        failed += usize::from(!output.status.success());
        back(&node);
    }
    assert!(failed > 0);
    node.ok(&["sync", "s", source.to_str().unwrap()]);
    assert_same(&listed(&node, "s", false), &listing::of(&source, false), "synced");
}
