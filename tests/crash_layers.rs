//! Commands that change a store where it lies, killed anywhere or on a full disk: what is seen is old or new, and nothing stays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "layer/shown.rs"]
mod shown;

use std::path::Path;
use std::process::Command;

use common::faults::Trial;
use common::layers::{META, UNIONS, bare, cases, said, sh, words};
use common::node::{Node, run};
use common::scripts::base;
use common::slivers::Saved;
use common::tree::{Temp, assert_same, copy};
use common::{require, strace};
use sliverfs::layer::Format;

fn ready() -> bool {
    require("root", common::root()) && require("strace", strace::works())
}

/// The view of a store, without what is not in its place yet: in bare directories it lies in the store itself.
fn seen(format: Format, store: &Path, base: &Path) -> String {
    let view = shown::whole(format, store, base);
    view.lines().filter(|line| !line.contains(" .sliverfs-")).collect::<Vec<_>>().join("\n")
}

fn check(node: &Node, more: &[&str], what: &str) {
    let output = node.run(&[&["check", "a"], more].concat());
    assert!(output.status.success(), "{what}: {}", said(&output));
}

#[test]
fn a_restore() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 32);
    let tree = node.lxcpath.join(".base/b/tree");
    node.ok(&["create", "a", "--base", "b", "--backend", "overlay"]);
    node.ok(&["mount", "a"]);
    sh(
        "cd $1; rm -r var; rm -r etc; mkdir etc; echo mine > etc/mine; echo file > etc/dir; echo x > empty/x",
        &[&node.view("a")],
    );
    node.ok(&["umount", "a"]);
    let (saved, store) = (Saved::of(&node), node.store("a").join("upper"));
    // A copy below a deleted folder, a folder in place of a file, a folder that is taken away.
    for path in ["var/deep/er", "etc/dir", "empty"] {
        Trial {
            node: &node,
            args: &["restore", "a", path],
            fresh: &|| saved.again(),
            seen: &|| shown::whole(Format::Overlay, &store, &tree),
            settle: &|what| check(&node, &["--repair"], what),
            tidy: &|what| check(&node, &[], what),
        }
        .run();
    }
}

/// mini_fo, whose records are rewritten, aufs, overlayfs, and a whole tree: settled by the next run.
#[test]
fn a_restore_in_bare_directories() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 32);
    for (format, paths) in [
        (Format::MiniFo, &["a", "d/e"][..]),
        (Format::Aufs, &["d/e"]),
        (Format::Overlayfs, &["a", "d/e"]),
        (Format::Tree, &["a"]),
    ] {
        let temp = Temp::quick();
        let (lower, master, store) = (temp.join("base"), temp.join("master"), temp.join("store"));
        base(&lower);
        cases(format, &master);
        if format == Format::Tree {
            copy(&lower.join("empty"), &master.join("empty"));
        }
        for path in paths {
            let words = words("restore", format, &lower, &store);
            let mut args: Vec<&str> = words.iter().map(String::as_str).collect();
            args.push(path);
            Trial {
                node: &node,
                args: &args,
                fresh: &|| sh("rm -rf $2; cp -a $1 $2", &[&master, &store]),
                seen: &|| seen(format, &store, &lower),
                // Nothing to do, but to end what was begun.
                settle: &|what| {
                    let done = bare("restore", format, &lower, &store, &["empty"]);
                    assert!(done.status.success(), "{what}: {}", said(&done));
                },
                tidy: &|_| (),
            }
            .run();
        }
    }
}

/// A base that has links, too.
fn linked_base(lower: &Path) {
    base(lower);
    sh("cd $1; mkdir -p h/i; echo h > h/a; ln h/a h/i/b; touch -d @1500000000 h/a h/i h .", &[lower]);
}

/// A store with what `compact` drops: copies of the base's, whiteouts of nothing, a mark that hides nothing, a directory of links.
fn droppable(format: Format, lower: &Path, store: &Path) {
    sh(
        "mkdir $2; cd $2; cp -a $1/d $1/f $1/h .; echo mine > mine; mkdir -p a; echo > a/mine; touch -r $1 .",
        &[lower, store],
    );
    match format {
        Format::Aufs => sh(
            ": > $1/.wh.nothing; : > $1/.wh.empty; : > $1/d/.wh..wh..opq; touch -r $2/d $1/d",
            &[store, lower],
        ),
        Format::MiniFo => sh(&format!("printf 'D f\\nD nothing\\nD d\\nD l\\n' > $1/{META}"), &[store]),
        Format::Overlayfs => sh(
            "cd $1; for f in nothing empty; do ln -s '(overlay-whiteout)' $f; setfattr -h -n trusted.overlay.whiteout -v y $f; done; \
             setfattr -n trusted.overlay.opaque -v y d",
            &[store],
        ),
        _ => sh(
            "mknod $1/nothing c 0 0; mknod $1/empty c 0 0; setfattr -n trusted.overlay.opaque -v y $1/d",
            &[store],
        ),
    }
}

/// The view never changes; and the next run ends in the same place.
#[test]
fn a_compaction() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 32);
    for format in UNIONS {
        let temp = Temp::quick();
        let (lower, master, store) = (temp.join("base"), temp.join("master"), temp.join("store"));
        linked_base(&lower);
        droppable(format, &lower, &master);
        let fresh = || sh("rm -rf $2; cp -a $1 $2", &[&master, &store]);
        let names = || run(Command::new("sh").args(["-ec", "cd $1; find . | sort", "sh"]).arg(&store));
        let words = words("compact", format, &lower, &store);
        let args: Vec<&str> = words.iter().map(String::as_str).collect();
        fresh();
        let before = seen(format, &store, &lower);
        assert!(node.run(&args).status.success());
        let end = names();
        assert!(!end.contains("./h"), "{end}");
        Trial {
            node: &node,
            args: &args,
            fresh: &fresh,
            seen: &|| seen(format, &store, &lower),
            settle: &|what| assert_same(&seen(format, &store, &lower), &before, what),
            tidy: &|what| {
                // A directory whose time a kill kept from being set back is not as the base's any more.
                let cut = end.contains("\n./d\n") != store.join("d").exists();
                assert!(cut || what.contains("without space") || names() == end, "{what}: {}", names());
            },
        }
        .run();
    }
}

/// The same of a sliver, whose records and work lie beside the store.
#[test]
fn a_compaction_of_a_sliver() {
    if !ready() {
        return;
    }
    let node = Node::new("ext4", 32);
    let (lower, store) = (node.dir().join("lower"), node.store("a").join("upper"));
    linked_base(&lower);
    node.ok(&["base", "add", "b", lower.to_str().unwrap()]);
    let tree = node.lxcpath.join(".base/b/tree");
    node.ok(&["create", "a", "--base", "b", "--backend", "overlay"]);
    node.ok(&["convert", "a", "--to", "mini_fo"]);
    droppable(Format::MiniFo, &tree, &node.dir().join("master"));
    sh(
        "rm -r $1; cp -a $2 $1; rm -rf $3/.old.a",
        &[&store, &node.dir().join("master"), &node.lxcpath.join(".store")],
    );
    let saved = Saved::of(&node);
    Trial {
        node: &node,
        args: &["compact", "a"],
        fresh: &|| saved.again(),
        seen: &|| shown::whole(Format::MiniFo, &store, &tree),
        settle: &|what| check(&node, &["--repair"], what),
        tidy: &|what| check(&node, &[], what),
    }
    .run();
}
