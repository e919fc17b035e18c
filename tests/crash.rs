//! A command that is killed at any step: what was there is whole, what it began it or the next run ends, and nothing stays in
//! the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::path::PathBuf;

use common::node::{Node, run, small_tree};
use common::strace::{self, Point};
use common::tree::installed;
use common::{require, seed};

struct Crash {
    node: Node,
    backend: &'static str,
    /// A limit, where its layers lie in an image.
    quota: Option<&'static str>,
}

impl Crash {
    /// The command that creates it.
    fn create(&self) -> Vec<&'static str> {
        let mut args = vec!["create", "a", "--base", "b", "--backend", self.backend];
        args.extend(self.quota.iter().flat_map(|size| ["--quota", size]));
        args
    }

    /// A sliver that holds something.
    fn make(&self) {
        self.node.ok(&self.create());
        self.node.ok(&["mount", "a"]);
        let view = self.node.view("a");
        fs::create_dir_all(view.join("new/deep")).unwrap();
        fs::write(view.join("new/deep/kept"), "kept").unwrap();
        fs::remove_file(view.join("etc/b.txt")).unwrap();
        self.node.ok(&["umount", "a"]);
    }

    fn holds(&self) -> bool {
        let view = self.node.view("a");
        fs::read_to_string(view.join("new/deep/kept")).is_ok_and(|text| text == "kept")
            && view.join("etc/a.txt").exists()
            && !view.join("etc/b.txt").exists()
    }

    /// What is mounted on this node's disk, but for the disk.
    fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let lxcpath = self.node.lxcpath.to_str().unwrap();
        let targets = table.lines().filter_map(|line| line.split(' ').nth(4));
        targets.filter(|target| target.starts_with(lxcpath)).map(str::to_owned).collect()
    }

    /// All names of stores and containers, hidden ones too.
    fn names(&self) -> Vec<String> {
        let list = |dir: PathBuf| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = list(self.node.lxcpath.clone())
            .chain(list(self.node.lxcpath.join(".store")))
            .map(|name| name.into_string().unwrap())
            // What was promised stays noted as more than it is.
            .filter(|name| name != ".promised")
            .collect();
        names.sort();
        names
    }

    fn all(&self) {
        let create = self.create();
        let node = &self.node;
        let empty = self.names();
        self.creation();
        // Destroyed by name where the creation was cut, instead of created again.
        for point in self.during(&create, || node.ok(&["destroy", "a"])) {
            strace::kill(&self.node, &point, &create);
            self.then(&point, &["destroy", "a"]);
            assert_eq!(self.names(), empty, "{point:?}");
        }
        self.use_and_end(&empty);
    }

    /// Mounted, unmounted and destroyed.
    fn use_and_end(&self, empty: &[String]) {
        let node = &self.node;
        self.make();
        self.mounting();
        node.ok(&["mount", "a"]);
        for point in self.during(&["umount", "a"], || node.ok(&["mount", "a"])) {
            strace::kill(&self.node, &point, &["umount", "a"]);
            self.then(&point, &["umount", "a"]);
            assert_eq!(self.mounts(), [""; 0], "{point:?}");
            node.ok(&["mount", "a"]);
            assert!(self.holds(), "{point:?}");
        }
        node.ok(&["umount", "a"]);
        for point in self.during(&["destroy", "a"], || self.make()) {
            strace::kill(&self.node, &point, &["destroy", "a"]);
            // All of it, or nothing: never a sliver with a part of what it held.
            if node.store("a").exists() {
                node.ok(&["mount", "a"]);
                assert!(self.holds(), "{point:?}");
                node.ok(&["umount", "a"]);
            }
            self.then(&point, &["destroy", "a"]);
            assert_eq!(self.names(), empty, "{point:?}");
            self.make();
        }
        node.ok(&["base", "verify", "b"]);
    }

    /// Killed while it is created, and created again.
    fn creation(&self) {
        let create = self.create();
        let node = &self.node;
        let empty = self.names();
        for point in self.during(&create, || node.ok(&["destroy", "a"])) {
            strace::kill(&self.node, &point, &create);
            self.then(&point, &create);
            assert_eq!(self.mounts(), [""; 0], "{point:?}");
            node.ok(&["mount", "a"]);
            assert!(node.view("a").join("etc/a.txt").exists(), "{point:?}");
            node.ok(&["umount", "a"]);
            node.ok(&["destroy", "a"]);
            assert_eq!(self.names(), empty, "{point:?}");
        }
    }

    fn mounting(&self) {
        let node = &self.node;
        for point in self.during(&["mount", "a"], || node.ok(&["umount", "a"])) {
            strace::kill(&self.node, &point, &["mount", "a"]);
            self.then(&point, &["mount", "a"]);
            assert!(self.holds(), "{point:?}");
            assert_eq!(self.mounts().len(), 1 + usize::from(self.quota.is_some()), "{point:?}");
            node.ok(&["umount", "a"]);
        }
    }

    /// The points of a command, which is run for that; `back` takes back what it did.
    fn during<T>(&self, args: &[&str], back: impl Fn() -> T) -> Vec<Point> {
        let points = strace::points(&self.node, args);
        assert!(points.len() >= 3, "{args:?}: {points:?}");
        back();
        points
    }

    /// After a crash the catalog can be listed, and the next command does its work.
    fn then(&self, point: &Point, args: &[&str]) {
        for args in [&["list", "--json"][..], args] {
            let output = self.node.run(args);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "killed at {point:?}, then {args:?}: {said}");
        }
    }
}

fn ready() -> bool {
    require("root", common::root()) && require("strace", strace::works())
}

fn crash(fstype: &str, backend: &'static str, mib: u64) {
    if !ready() {
        return;
    }
    let crash = Crash { node: Node::with_base(fstype, mib), backend, quota: None };
    crash.node.ok(&["probe"]);
    crash.all();
}

#[test]
fn killed_at_every_step_with_an_overlay_on_ext4() {
    crash("ext4", "overlay", 64);
}

#[test]
fn killed_at_every_step_with_a_snapshot_on_btrfs() {
    crash("btrfs", "btrfs-snapshot", 128);
}

#[test]
fn killed_at_every_step_with_an_image() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 64);
    node.ok(&["probe"]);
    let crash = Crash { node, backend: "overlay", quota: Some("4M") };
    // Its creation is tests/crash_quota.rs's.
    crash.use_and_end(&crash.names());
    seed::is_clean(&crash.node, "at the end");
}

#[test]
fn killed_at_every_step_with_a_seed() {
    if !ready() || !require("btrfs-seed", installed("mkfs.btrfs")) {
        return;
    }
    let node = Node::new("ext4", 300);
    let tree = node.dir().join("tree");
    small_tree(&tree);
    node.ok(&["base", "add", "b", tree.to_str().unwrap(), "--pack", "btrfs"]);
    node.ok(&["probe"]);
    let crash = Crash { node, backend: "btrfs-seed", quota: None };
    crash.creation();
    crash.make();
    crash.mounting();
    crash.node.ok(&["destroy", "a"]);
    crash.node.ok(&["base", "verify", "b"]);
    seed::is_clean(&crash.node, "at the end");
}

#[test]
fn a_message_that_nobody_can_read_stops_nothing() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 32);
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let create = ["create", "a", "--base", "b"];
    assert!(node.command(&create).stderr(full()).status().unwrap().success());
    assert_eq!(node.command(&["--nosuch"]).stderr(full()).status().unwrap().code(), Some(2));
    assert!(node.command(&["--help"]).stdout(full()).status().unwrap().success());
    run(&mut node.command(&["mount", "a"]));
    node.ok(&["umount", "a"]);
}
