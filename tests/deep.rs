//! Each command on trees of folders in one another, as deep as a tenant makes them: it takes no more descriptors than on flat
//! ones, no stack, and a time that grows with the depth and not with its square.
//!
//! `SLIVERFS_DEPTH=20000 cargo test --test deep -- --nocapture` takes another depth, and tells what each command took.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use common::node::{Node, run};
use common::require;
use common::tree::{Temp, installed};
use sliverfs::tree::{Chain, Dir, Kind, Meta, SELF, Time};

/// What is promised.
const DEPTH: usize = 100_000;
/// For what takes more than some five seconds then, most of them the kernel's for 100,000 new folders.
const LESS: usize = 20_000;
/// For tars, whose entries begin with their whole paths: they grow with the square of the depth, to 10 GB for [`DEPTH`].
const TAR: usize = 2000;

fn depth(otherwise: usize) -> usize {
    std::env::var("SLIVERFS_DEPTH").map_or(otherwise, |text| text.parse().unwrap())
}

/// Folders in one another, each with the same time, and a file in the last one.
fn deep(top: &Path, depth: usize, content: &str) {
    fs::create_dir(top).unwrap();
    let mut chain = Chain::new(Dir::open(top).unwrap()).unwrap();
    for _ in 0..depth {
        chain.here().make_dir(c"d").unwrap();
        let child = chain.here().child(c"d").unwrap();
        chain.down(child).unwrap();
    }
    fs::write(chain.here().proc_path(SELF).join("file"), content).unwrap();
    let meta = Meta { mode: 0o755, mtime: Time { seconds: 1_000_000_000, nanos: 0 }, ..Meta::default() };
    meta.apply(chain.here(), c"file", Kind::File, b"").unwrap();
    meta.apply(chain.here(), SELF, Kind::Dir, b"").unwrap();
    while chain.up().unwrap() {
        meta.apply(chain.here(), SELF, Kind::Dir, b"").unwrap();
    }
}

/// The content of the file in the last folder, and how deep that is.
fn bottom(top: &Path) -> (usize, String) {
    let mut chain = Chain::new(Dir::open(top).unwrap()).unwrap();
    while let Ok(child) = chain.here().child(c"d") {
        chain.down(child).unwrap();
    }
    let file = fs::read_to_string(chain.here().proc_path(SELF).join("file"));
    (chain.depth(), file.unwrap_or_default())
}

/// What is too deep for `rm`'s patience, removed when the test ends.
struct Deep(Temp);

impl Deep {
    fn new() -> Self {
        Self(Temp::quick())
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Runs the binary as a shell starts it that may have 64 descriptors open; what it says.
    fn run(&self, code: i32, args: &[&str]) -> String {
        let began = Instant::now();
        let output = Command::new("sh")
            .args(["-ec", "ulimit -n 64; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_sliverfs")])
            .args(["--config", "/dev/null"])
            .args(args)
            .current_dir(&self.0.0)
            .stdout(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let words: String = args.join(" ").chars().take(100).collect();
        println!("{:>8} ms {words}", began.elapsed().as_millis());
        assert_eq!(output.status.code(), Some(code), "{words}: {said:.1000}");
        said
    }

    /// On the base and the store of bare directories.
    fn bare(&self, words: &[&str]) {
        let layers = ["--format", "overlay", "--base", "base", "--store", "store"];
        self.run(0, &[&words[..1], &layers, &words[1..]].concat());
    }

    /// On the slivers in `lxc`.
    fn of(&self, code: i32, words: &[&str]) -> String {
        self.run(code, &[&["--lxcpath", self.join("lxc").to_str().unwrap()], words].concat())
    }

    /// Slivers `s` and `t` on a base `b` that is `base`.
    fn slivers(&self) {
        fs::create_dir(self.join("lxc")).unwrap();
        for words in [
            &["init"][..],
            &["base", "add", "b", "base"],
            &["create", "s", "--base", "b", "--backend", "overlay"],
            &["create", "t", "--base", "b", "--backend", "overlay"],
        ] {
            self.of(0, words);
        }
    }

    fn upper(&self, name: &str) -> PathBuf {
        self.join("lxc/.store").join(name).join("upper")
    }
}

impl Drop for Deep {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.0.0).unwrap() {
            let _told_by_the_temp = sliverfs::tree::remove_path(&entry.unwrap().path());
        }
    }
}

fn ready() -> bool {
    require("root", common::root())
}

#[test]
fn commands_that_look() {
    if !ready() {
        return;
    }
    let (deep_one, depth) = (Deep::new(), depth(DEPTH));
    deep(&deep_one.join("base"), depth, "base");
    deep_one.slivers();
    fs::remove_dir(deep_one.upper("s")).unwrap();
    deep(&deep_one.upper("s"), depth, "sliver");
    for words in [
        &["diff", "s"][..],
        &["check", "s"],
        &["usage"],
        &["show", "s"],
        &["base", "verify", "b"],
        // What is kept of the store is the file and the way to it.
        &["compact", "s"],
    ] {
        deep_one.of(0, words);
    }
    assert_eq!(bottom(&deep_one.upper("s")), (depth, "sliver".into()));
    // As long a path as a command line takes.
    let path = vec!["d"; depth.min(60_000)].join("/");
    deep_one.of(0, &["restore", "s", &path]);
    assert!(bottom(&deep_one.upper("s")).0 < depth);
    // rsync takes no path longer than 4096 bytes.
    let source = deep_one.join("base");
    let said = deep_one.of(1, &["sync", "t", source.to_str().unwrap()]);
    assert!(said.contains("the sliver is as it was"), "{said:.1000}");
    assert_eq!(fs::read_dir(deep_one.upper("t")).unwrap().count(), 0);
    deep_one.of(0, &["destroy", "s"]);
    deep_one.of(0, &["destroy", "t"]);
    deep_one.of(0, &["base", "remove", "b"]);
    assert_eq!(fs::read_dir(deep_one.join("lxc/.base")).unwrap().count(), 0);
}

#[test]
fn commands_that_write() {
    if !ready() {
        return;
    }
    let (deep_one, depth) = (Deep::new(), depth(LESS));
    for name in ["base", "newer", "store"] {
        deep(&deep_one.join(name), depth, name);
    }
    for to in ["aufs", "mini_fo", "tree"] {
        deep_one.bare(&["convert", "--to", to, "--out", to]);
        let (deepest, file) = bottom(&deep_one.join(to));
        assert_eq!((deepest, file.as_str()), (depth, "store"), "{to}");
    }
    deep_one.run(0, &["diff", "--format", "tree", "--base", "base", "--store", "tree"]);
    deep_one.slivers();
    fs::remove_dir(deep_one.upper("s")).unwrap();
    fs::rename(deep_one.join("store"), deep_one.upper("s")).unwrap();
    for words in [
        &["base", "add", "c", "newer"][..],
        &["usage", "--deep"],
        &["rebase", "s", "--onto", "c", "--plan"],
        &["rebase", "s", "--onto", "c"],
        &["rebase", "s", "--undo"],
        &["rebase", "s", "--onto", "c"],
        &["rebase", "s", "--commit"],
        &["convert", "s", "--to", "copy"],
        &["convert", "s", "--to", "overlay"],
    ] {
        deep_one.of(0, words);
    }
    assert_eq!(bottom(&deep_one.upper("s")), (depth, "store".into()));
}

#[test]
fn layers_as_tars() {
    if !ready() {
        return;
    }
    let (deep_one, depth) = (Deep::new(), depth(TAR));
    for name in ["base", "store"] {
        deep(&deep_one.join(name), depth, name);
    }
    deep_one.slivers();
    deep_one.bare(&["export", "-o", "layer.tar"]);
    deep_one.of(0, &["import", "t", "layer.tar"]);
    assert_eq!(bottom(&deep_one.upper("t")), (depth, "store".into()));
    deep_one.of(0, &["base", "add", "c", "layer.tar"]);
    assert_eq!(bottom(&deep_one.join("lxc/.base/c/tree")), (depth, "store".into()));
}

/// What shares with its base.
#[test]
fn whole_trees() {
    if !ready() || !require("reflink", installed("mkfs.xfs")) {
        return;
    }
    let depth = depth(LESS / 4);
    let node = Node::new("xfs", 400);
    let source = Deep::new();
    deep(&source.join("base"), depth, &"base".repeat(20_000));
    node.ok(&["base", "add", "b", source.join("base").to_str().unwrap()]);
    for words in [
        &["create", "s", "--base", "b", "--backend", "copy"][..],
        &["dedupe"],
        &["diff", "s"],
        &["destroy", "s"],
        &["create", "s", "--base", "b", "--backend", "reflink"],
        &["destroy", "s"],
        &["base", "remove", "b"],
    ] {
        let began = Instant::now();
        node.ok(words);
        println!("{:>8} ms {}", began.elapsed().as_millis(), words.join(" "));
    }
    assert_eq!(run(Command::new("find").arg(&node.lxcpath).args(["-name", "d"])), "");
}
