//! Dumps of overlayfs stores, as nodes wrote them: a tgz of the upper folder, by GNU tar, of each store that a real kernel made.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "layer/recorded.rs"]
mod recorded;
#[path = "layer/shown.rs"]
mod shown;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::node::{Node, run};
use common::require;
use common::tree::assert_same;
use recorded::Recording;
use sliverfs::layer::Format;

/// A dump of the store; `options` are tar's.
fn dump(store: &Path, options: &[&str], file: &Path) {
    run(Command::new("tar").args(options).arg("-czf").arg(file).arg("-C").arg(store).arg("."));
}

/// Has the store what a tar without attributes cannot tell?
fn opaque(store: &Path) -> bool {
    let names = ["-R", "-h", "-m", "^trusted.overlay.opaque$", "--absolute-names"];
    !run(Command::new("getfattr").args(names).arg(store)).is_empty()
}

#[test]
fn each_recorded_store_comes_in_as_it_was_seen() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::new("ext4", 64);
    let (base, store, file) =
        (node.dir().join("base"), node.lxcpath.join("store"), node.dir().join("dump.tgz"));
    recorded::base(&base);
    node.ok(&["base", "add", "b", base.to_str().unwrap()]);
    node.ok(&["create", "a", "--base", "b", "--backend", "overlay"]);
    let tree = node.lxcpath.join(".base/b/tree");
    let upper = node.store("a").join("upper");
    let untouched = shown::view(Format::Overlay, &upper, &tree);
    let recording = Recording::of(Format::Overlayfs);
    let (mut taken, mut plain, mut hidden) = (0, 0, Vec::new());
    for name in recording.scenarios() {
        fs::create_dir(&store).unwrap();
        recording.build(name, &store);
        // What a disk of its own has in its root.
        fs::create_dir(store.join("lost+found")).unwrap();
        let wanted = recording.view(name, &untouched).join("\n");
        for options in [&["--xattrs", "--xattrs-include=*"][..], &["--exclude=lost+found"]] {
            let kept = options.len() == 2;
            dump(&store, options, &file);
            // What it is is found out by a whiteout, if there is one.
            let told = if kept { &["--format", "overlayfs"][..] } else { &[] };
            let done = node.run(&[&["import", "a", file.to_str().unwrap(), "--replace"], told].concat());
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            if name == "metaname" {
                // A file with the name of an OCI whiteout, and a device 0:0: the disk's order says which one tar writes first.
                let first = ["`./.wh.foo` has the name of a", "`./fakewh2` is a whiteout"];
                let named = first.iter().any(|words| said.contains(words));
                assert!(done.status.code() == Some(1) && named, "{said}");
                continue;
            }
            assert!(done.status.success(), "{name}: {said}");
            let found = shown::view(Format::Overlay, &upper, &tree).join("\n");
            if !kept && opaque(&store) {
                hidden.push(name);
                continue;
            }
            assert_same(&found, &wanted, &format!("{name} {options:?}"));
            if kept {
                // All else: contents, times, attributes.
                fs::remove_dir(store.join("lost+found")).unwrap();
                let wanted = shown::whole(Format::Overlayfs, &store, &tree);
                assert_same(&shown::whole(Format::Overlay, &upper, &tree), &wanted, name);
            }
            taken += usize::from(kept);
            plain += usize::from(!kept);
        }
        fs::remove_dir_all(&store).unwrap();
    }
    assert_eq!((taken, plain), (46, 41));
    assert_eq!(hidden, ["repldir", "repldir_same", "file2dir", "rmall_some", "combined"]);
}
