//! A sliver whose store a command makes anew: what is seen of it, and what may stay beside it.
#![allow(dead_code)]

use std::fs;
use std::process::Command;

use sliverfs::kind::Kind;
use sliverfs::layer::Format;

use crate::common::faults::Trial;
use crate::common::layers::said;
use crate::common::node::{Node, run};
use crate::common::slivers::in_stores;
use crate::common::tree::{copy, sh_in};
use crate::common::{require, strace};
use crate::shown;

pub fn ready() -> bool {
    require("root", crate::common::root()) && require("strace", strace::works())
}

/// A node with a base `b`, a newer one `c`, and a sliver `s` on the older one that changed something.
pub fn node(fstype: &str, mib: u64, kind: &str) -> Node {
    let node = Node::new(fstype, mib);
    let (old, new) = (node.dir().join("old"), node.dir().join("new"));
    fs::create_dir(&old).unwrap();
    sh_in(&old, "mkdir d; for f in a b c d/e; do echo $f > $f; done; touch -d @1500000000 * d/* .");
    copy(&old, &new);
    sh_in(&new, "echo n > a; echo n > d/n; rm c");
    for (name, tree) in [("b", &old), ("c", &new)] {
        node.ok(&["base", "add", name, tree.to_str().unwrap()]);
    }
    node.ok(&["probe"]);
    sliver(&node, "s", kind);
    node
}

/// Another such sliver.
pub fn sliver(node: &Node, name: &str, kind: &str) {
    node.ok(&["create", name, "--base", "b", "--backend", kind]);
    node.ok(&["mount", name]);
    sh_in(&node.view(name), "echo s > a; rm b; echo s > d/s; ln d/s d/t; touch -d @1600000000 a d/s d .");
    node.ok(&["umount", name]);
}

/// The sliver's backend and base, and its view as the layer engine reads it, without any mount.
pub fn seen(node: &Node) -> String {
    seen_of(node, "s")
}

/// The same of any sliver.
pub fn seen_of(node: &Node, name: &str) -> String {
    let record = fs::read(node.store(name).join("sliver.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let [kind, base] = ["backend", "base"].map(|field| record[field].as_str().unwrap());
    let backend = Kind::parse(kind).unwrap();
    let layer = node.store(name).join(if backend.reads_base() { "upper" } else { "tree" });
    let tree = node.lxcpath.join(format!(".base/{base}/tree"));
    format!("{kind} on {base}\n{}", shown::whole(Format::of(backend), &layer, &tree))
}

/// What is there of the stores after a command, whether it did its work or not.
pub fn only(node: &Node, names: &[&[&str]], what: &str) {
    let found = in_stores(node);
    assert!(
        names.contains(&found.iter().map(String::as_str).collect::<Vec<_>>().as_slice()),
        "{what}: {found:?}"
    );
}

pub fn check(node: &Node, what: &str) {
    let output = node.run(&["check", "s", "--repair"]);
    assert!(output.status.success(), "{what}: {}", said(&output));
}

/// Puts the kept store back as `--undo` does, in less time.
pub fn back(node: &Node) {
    let stores = node.lxcpath.join(".store");
    if stores.join(".old.s").exists() {
        run(Command::new("sh").args(["-ec", "mv s .new.s; mv .old.s s; rm -rf .new.s"]).current_dir(stores));
    }
}

/// Lets a command that keeps the old store try all of it.
pub fn trial(node: &Node, args: &[&str]) {
    trial_each(node, args, 1);
}

/// The same with one in so many of its calls.
pub fn trial_each(node: &Node, args: &[&str], step: usize) {
    Trial {
        node,
        args,
        fresh: &|| back(node),
        seen: &|| seen(node),
        settle: &|what| {
            // Nothing is to be settled before it is seen.
            seen(node);
            check(node, what);
        },
        tidy: &|what| {
            // A command that failed leaves nothing, and one that did not keeps the old store.
            only(node, &[&["s"], &[".old.s", "s"]], what);
            let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            assert!(!table.contains(node.lxcpath.join(".store").to_str().unwrap()), "{what}: {table}");
        },
    }
    .run_each(step);
}
