//! `sync`, killed anywhere or on a full disk: in a process of rsync's, too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "crash/made.rs"]
mod made;
#[path = "layer/shown.rs"]
mod shown;

use common::slivers::view;
use common::tree::{assert_same, copy, installed, sh_in};
use common::{listing, require};
use made::{node, ready, trial};

#[test]
fn a_sync() {
    if !ready() || !require("rsync", installed("rsync")) {
        return;
    }
    let node = node("ext4", 64, "overlay");
    let source = node.dir().join("source");
    copy(&node.dir().join("old"), &source);
    sh_in(&source, "echo new > new; rm d/e; touch -d @1700000000 new d .");
    trial(&node, &["sync", "s", source.to_str().unwrap()]);
    assert_same(&view(&node, "s"), &listing::of(&source, true), "synced");
}
