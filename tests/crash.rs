//! A command that is killed at any step: what was there is whole, what it began it or the next run ends, and nothing stays in
//! the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::node::{Node, run, small_tree};
use common::require;
use common::tree::installed;

/// Every call that changes something on the disk, in the kernel or in another process. Between two of them a command can be
/// killed where it wants: what it leaves is the same. A `?` stands before what not every architecture has.
const CHANGES: &str = "?mkdir,mkdirat,?rmdir,?unlink,unlinkat,?rename,?renameat,renameat2,?link,linkat,?symlink,symlinkat,\
    mknodat,write,pwrite64,ftruncate,fsync,syncfs,mount,umount2,unshare,?fork,?vfork,clone,?clone3,ioctl,?chown,fchownat,\
    ?chmod,?fchmod,fchmodat,utimensat,lsetxattr,lremovexattr,flock,exit_group";

/// Where to kill: the name of a call, its number among the calls of that name of one process, and whether only the command
/// itself is killed, and not a child of it that comes to that number first.
type Point = (String, u32, bool);

struct Crash {
    node: Node,
    backend: &'static str,
}

impl Crash {
    fn strace(&self, options: &[&str], args: &[&str]) -> Command {
        let plain = self.node.command(args);
        let mut command = Command::new("strace");
        command.args(["-qq", "-o"]).arg(self.trace()).args(options).arg("--").arg(plain.get_program());
        command.args(plain.get_args()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn trace(&self) -> PathBuf {
        self.node.dir().join("trace")
    }

    /// Runs the command once, and lists where it can be killed.
    fn points(&self, args: &[&str]) -> Vec<Point> {
        let trace = format!("trace={CHANGES}");
        assert!(self.strace(&["-f", "-e", &trace], args).status().unwrap().success(), "{args:?}");
        let text = fs::read_to_string(self.trace()).unwrap();
        let mut counts: BTreeMap<&str, BTreeMap<&str, u32>> = BTreeMap::new();
        let mut first = None;
        for line in text.lines() {
            let (pid, call) = line.split_once(' ').unwrap();
            let Some((name, _)) = call.trim_start().split_once('(') else { continue };
            let command = *first.get_or_insert(pid);
            if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                let who = if pid == command { "command" } else { pid };
                *counts.entry(name).or_default().entry(who).or_default() += 1;
            }
        }
        let mut points = Vec::new();
        for (name, by_whom) in counts {
            let most = by_whom.values().copied().max().unwrap_or(0);
            points.extend((1..=most).map(|number| (name.to_owned(), number, false)));
            if by_whom.len() > 1 {
                let own = by_whom.get("command").copied().unwrap_or(0);
                points.extend((1..=own).map(|number| (name.to_owned(), number, true)));
            }
        }
        points
    }

    fn kill(&self, (call, number, alone): &Point, args: &[&str]) {
        let inject = format!("inject={call}:signal=KILL:when={number}");
        let trace = format!("trace={call}");
        let options = ["-e", &trace, "-e", &inject, "-f"];
        let options = if *alone { &options[..4] } else { &options[..] };
        let _killed = self.strace(options, args).status().unwrap();
    }

    /// A sliver that holds something.
    fn make(&self) {
        self.node.ok(&["create", "a", "--base", "b", "--backend", self.backend]);
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
            .collect();
        names.sort();
        names
    }

    fn all(&self) {
        let create = ["create", "a", "--base", "b", "--backend", self.backend];
        let node = &self.node;
        let empty = self.names();
        self.creation();
        // Destroyed by name where the creation was cut, instead of created again.
        for point in self.during(&create, || node.ok(&["destroy", "a"])) {
            self.kill(&point, &create);
            self.then(&point, &["destroy", "a"]);
            assert_eq!(self.names(), empty, "{point:?}");
        }
        self.make();
        self.mounting();
        node.ok(&["mount", "a"]);
        for point in self.during(&["umount", "a"], || node.ok(&["mount", "a"])) {
            self.kill(&point, &["umount", "a"]);
            self.then(&point, &["umount", "a"]);
            assert_eq!(self.mounts(), [""; 0], "{point:?}");
            node.ok(&["mount", "a"]);
            assert!(self.holds(), "{point:?}");
        }
        node.ok(&["umount", "a"]);
        for point in self.during(&["destroy", "a"], || self.make()) {
            self.kill(&point, &["destroy", "a"]);
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
        let create = ["create", "a", "--base", "b", "--backend", self.backend];
        let node = &self.node;
        let empty = self.names();
        for point in self.during(&create, || node.ok(&["destroy", "a"])) {
            self.kill(&point, &create);
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
            self.kill(&point, &["mount", "a"]);
            self.then(&point, &["mount", "a"]);
            assert!(self.holds(), "{point:?}");
            assert_eq!(self.mounts().len(), 1, "{point:?}");
            node.ok(&["umount", "a"]);
        }
    }

    /// The points of a command, which is run for that; `back` takes back what it did.
    fn during<T>(&self, args: &[&str], back: impl Fn() -> T) -> Vec<Point> {
        let points = self.points(args);
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
    let traced = Command::new("strace").args(["-qq", "-e", "trace=none", "true"]).output();
    let works = match traced {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(err) => Err(format!("strace is not installed ({err})")),
    };
    require("root", common::root()) && require("strace", works)
}

fn crash(fstype: &str, backend: &'static str, mib: u64) {
    if !ready() {
        return;
    }
    let crash = Crash { node: Node::with_base(fstype, mib), backend };
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
fn killed_at_every_step_with_a_seed() {
    if !ready() || !require("btrfs-seed", installed("mkfs.btrfs")) {
        return;
    }
    let node = Node::new("ext4", 300);
    let tree = node.dir().join("tree");
    small_tree(&tree);
    node.ok(&["base", "add", "b", tree.to_str().unwrap(), "--pack", "btrfs"]);
    node.ok(&["probe"]);
    let crash = Crash { node, backend: "btrfs-seed" };
    crash.creation();
    crash.make();
    crash.mounting();
    crash.node.ok(&["destroy", "a"]);
    crash.node.ok(&["base", "verify", "b"]);
    let loops = run(Command::new("losetup").args(["-nO", "BACK-FILE"]));
    let inside = |file: &str| crash.node.lxcpath.join(file).to_str().unwrap().to_owned();
    for file in [".base", ".store"] {
        assert!(!loops.contains(&inside(file)), "{loops}");
    }
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
