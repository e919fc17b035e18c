//! Commands that make a store and put it in its place, killed anywhere or on a full disk: the sliver is as before or as after, and
//! nothing stays beside it but what is kept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "crash/made.rs"]
mod made;
#[path = "layer/shown.rs"]
mod shown;

use std::fs;
use std::process::Command;

use common::faults::Trial;
use common::layers::said;
use common::node::run;
use common::slivers::{Saved, in_stores};
use common::tar::Tar;
use made::{check, node, only, ready, seen, trial};

/// A rebase, the way back from it, and its end.
#[test]
fn a_rebase() {
    if !ready() {
        return;
    }
    let node = node("ext4", 64, "overlay");
    trial(&node, &["rebase", "s", "--onto", "c"]);
    // And one that gives up what an earlier one kept.
    assert_eq!(in_stores(&node), [".old.s", "s"]);
    for (args, ends) in [
        (&["rebase", "s", "--undo"][..], &["s"][..]),
        (&["rebase", "s", "--commit"], &["s"]),
        (&["rebase", "s", "--onto", "b"], &[".old.s", "s"]),
    ] {
        let saved = Saved::of(&node);
        Trial {
            node: &node,
            args,
            fresh: &|| saved.again(),
            // An end changes nothing but what is kept.
            seen: &|| match args.last() {
                Some(&"--commit") => format!("{}\n{}", node.store(".old.s").exists(), seen(&node)),
                _ => seen(&node),
            },
            settle: &|what| check(&node, what),
            tidy: &|what| only(&node, &[ends, &[".old.s", "s"]], what),
        }
        .run();
        saved.again();
        run(Command::new("rm").arg("-rf").arg(node.lxcpath.with_file_name("saved")));
    }
}

#[test]
fn an_import() {
    if !ready() {
        return;
    }
    let node = node("ext4", 64, "overlay");
    let layer = node.dir().join("layer.tar");
    fs::write(&layer, Tar::default().file(b"which", b"new").file(b"d/.wh.e", b"").end()).unwrap();
    let saved = Saved::of(&node);
    Trial {
        node: &node,
        args: &["import", "s", layer.to_str().unwrap(), "--replace"],
        fresh: &|| saved.again(),
        seen: &|| seen(&node),
        settle: &|what| {
            seen(&node);
            check(&node, what);
        },
        tidy: &|what| only(&node, &[&["s"]], what),
    }
    .run();
}

/// A creation with data: there is none, or the whole of it.
#[test]
fn a_creation_with_data() {
    if !ready() {
        return;
    }
    let node = node("ext4", 64, "overlay");
    let data = node.dir().join("data.tar");
    fs::write(&data, Tar::default().file(b"which", b"new").file(b"d/e", b"new").end()).unwrap();
    node.ok(&["destroy", "s"]);
    Trial {
        node: &node,
        args: &["create", "s", "--base", "b", "--backend", "overlay", "--data", data.to_str().unwrap()],
        fresh: &|| {
            node.ok(&["destroy", "s"]);
        },
        seen: &|| if node.store("s").exists() { seen(&node) } else { "none".to_owned() },
        settle: &|what| {
            let output = node.run(&["check", "--repair"]);
            assert!(output.status.success(), "{what}: {}", said(&output));
        },
        tidy: &|what| only(&node, &[&[], &["s"]], what),
    }
    .run();
}
