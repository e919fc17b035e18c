//! Commands that write a limited sliver's store anew, killed anywhere or on a full disk: the limit and the view are as before or as
//! after, and no group of the disk's stays without a store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::process::Command;

use common::faults::Trial;
use common::layers::said;
use common::node::{Node, run};
use common::slivers::{in_stores, listed};
use common::tree::{copy, installed, sh_in};
use common::{require, strace};

fn ready() -> bool {
    require("root", common::root()) && require("strace", strace::works())
}

/// A sliver that is made anew for each try, limited by some means.
struct Limited {
    node: Node,
    create: Vec<&'static str>,
}

impl Limited {
    /// A node with the bases `b` and `c`, of which the second has more.
    fn new(fstype: &str, mib: u64, create: &[&'static str]) -> Self {
        let node = Node::with_base(fstype, mib);
        let tree = node.dir().join("tree");
        sh_in(&tree, "echo new >etc/new");
        node.ok(&["base", "add", "c", tree.to_str().unwrap()]);
        node.ok(&["probe"]);
        Self { node, create: [&["create", "s", "--base", "b"], create].concat() }
    }

    fn fresh(&self) {
        let node = &self.node;
        if node.store("s").exists() {
            node.ok(&["destroy", "s"]);
        }
        assert!(in_stores(node).is_empty(), "{:?}", in_stores(node));
        node.ok(&self.create);
        node.ok(&["mount", "s"]);
        let script = "echo s > etc/s; rm etc/b.txt; ln etc/s etc/t; echo a >> etc/a.txt; touch -d @1600000000 etc/?.txt etc/s";
        sh_in(&node.view("s"), script);
        node.ok(&["umount", "s"]);
    }

    /// The limit, what the store is, and what the view shows.
    fn seen(&self) -> String {
        if !self.node.store("s").exists() {
            return "none".to_owned();
        }
        let sheet = self.node.json(&["show", "s", "--json"]);
        let fields = ["backend", "base", "limit", "means"].map(|field| sheet[field].to_string()).join(" ");
        fields + "\n" + &listed(&self.node, "s", false)
    }

    /// Beside the store and the one that is kept there is nothing, nothing is mounted, and each store on Btrfs has its own group.
    fn tidy(&self, what: &str) {
        let (node, found) = (&self.node, in_stores(&self.node));
        assert!(found == ["s"] || found == [".old.s", "s"], "{what}: {found:?}");
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(!table.contains(node.lxcpath.join(".store").to_str().unwrap()), "{what}: {table}");
        let means = node.json(&["show", "s", "--json"])["means"].clone();
        assert_eq!(node.store("s").join("quota.img").exists(), means == "image", "{what}");
        if self.create.contains(&"qgroup") {
            let groups = self.groups();
            let stores: Vec<String> = found.iter().filter_map(|store| self.group(store)).collect();
            assert!(groups.iter().all(|group| stores.contains(group)), "{what}: {groups:?} of {stores:?}");
            assert!(means != "qgroup" || groups.len() == found.len(), "{what}: {groups:?} of {stores:?}");
        }
    }

    /// The groups of limited subvolumes.
    fn groups(&self) -> Vec<String> {
        let all = run(Command::new("btrfs").args(["qgroup", "show"]).arg(&self.node.lxcpath));
        let ids = all.lines().filter_map(|line| line.split_whitespace().next());
        ids.filter(|id| id.starts_with("1/")).map(str::to_owned).collect()
    }

    /// The one that a store's tree would have.
    fn group(&self, store: &str) -> Option<String> {
        let tree = self.node.store(store).join("tree");
        let id = Command::new("btrfs").args(["inspect-internal", "rootid"]).arg(tree).output().unwrap();
        id.status.success().then(|| format!("1/{}", String::from_utf8_lossy(&id.stdout).trim()))
    }

    fn repair(&self, what: &str) {
        let output = self.node.run(&["check", "--repair"]);
        assert!(output.status.success(), "{what}: {}", said(&output));
    }

    /// Tries one in so many of the calls.
    fn trial(&self, args: &[&str], each: usize) {
        Trial {
            node: &self.node,
            args,
            fresh: &|| self.fresh(),
            seen: &|| self.seen(),
            settle: &|what| self.repair(what),
            tidy: &|what| self.tidy(what),
        }
        .run_each(each);
    }

    /// A folder that `sync` takes.
    fn source(&self) -> String {
        let source = self.node.dir().join("source");
        copy(&self.node.dir().join("tree"), &source);
        sh_in(&source, "echo synced >etc/synced; rm etc/b.txt; touch -d @1600000000 etc/synced");
        source.to_str().unwrap().to_owned()
    }
}

#[test]
fn an_image() {
    if !ready() || !require("rsync", installed("rsync")) {
        return;
    }
    let limited = Limited::new("ext4", 64, &["--backend", "overlay", "--quota", "4M"]);
    let source = limited.source();
    limited.trial(&["sync", "s", &source], 110);
    limited.trial(&["convert", "s", "--to", "copy", "--means", "soft"], 70);
}

#[test]
fn a_qgroup() {
    if !ready()
        || !require("rsync", installed("rsync"))
        || !require("btrfs-snapshot", installed("mkfs.btrfs"))
    {
        return;
    }
    let create = ["--backend", "btrfs-snapshot", "--quota", "24M", "--means", "qgroup"];
    let limited = Limited::new("btrfs", 300, &create);
    let output = limited.node.run(&["quota", "--enable"]);
    if !require("simple-quotas", if output.status.success() { Ok(()) } else { Err(said(&output)) }) {
        return;
    }
    let source = limited.source();
    let layer = limited.node.dir().join("layer.tar");
    run(Command::new("tar").arg("-cf").arg(&layer).args(["-C", &source, "etc"]));
    limited.trial(&["quota", "s", "12M"], 4);
    limited.trial(&["quota", "s", "none"], 4);
    limited.trial(&["rebase", "s", "--onto", "c"], 70);
    limited.trial(&["sync", "s", &source], 110);
    limited.trial(&["import", "s", layer.to_str().unwrap(), "--replace"], 70);
    limited.trial(&["convert", "s", "--to", "overlay"], 70);
}
