//! `make bench-seeds` and `make bench-stores`, small: everything has its row, and whenever it is interrupted, nothing of it stays. What
//! they measure on a machine that runs tests is nothing to rely on, so figures that are missed are none of this test's concern.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use common::node::{run, small_tree};
use common::{busy, require};

fn tools() -> Result<(), String> {
    common::root()?;
    ["python3", "unshare", "strace", "mksquashfs", "mkfs.btrfs"]
        .into_iter()
        .try_for_each(common::tree::installed)
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// There is room for one bench at a time.
static ONE: Mutex<()> = Mutex::new(());

/// A folder with a tar to measure with, which goes with the value.
struct Base(PathBuf);

impl Base {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("sliverfs-bench-{}", std::process::id()));
        let tree = dir.join("tree");
        fs::create_dir_all(&tree).unwrap();
        small_tree(&tree);
        fs::copy(env!("CARGO_BIN_EXE_sliverfs"), tree.join("program")).unwrap();
        for number in 0..60 {
            fs::write(tree.join(format!("file-{number}")), format!("{number}\n")).unwrap();
        }
        run(Command::new("tar").arg("-C").arg(&tree).arg("-cf").arg(dir.join("base.tar")).arg("."));
        Self(dir)
    }

    /// The bench, quick, on some disks, in a process group of its own, as a shell starts it.
    fn bench(&self, disks: &str) -> Command {
        let mut bench = self.run("seeds");
        bench.env("SLIVERFS_BENCH_DISKS", disks);
        bench
    }

    fn run(&self, what: &str) -> Command {
        let mut bench = Command::new(repository().join("tests/bench/run"));
        bench.args([what, "quick"]).process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
        bench.env("SLIVERFS_BENCH_BASE", self.0.join("base.tar"));
        bench.env("SLIVERFS_BENCH_BINARY", env!("CARGO_BIN_EXE_sliverfs"));
        bench
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

/// What a bench leaves that was not ended as it should: its folder, a loop device over an image in it, its cgroup.
fn left() -> Vec<String> {
    let mut left = Vec::new();
    for entry in fs::read_dir(repository().join("target")).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("bench.work") {
            left.push(name);
        }
    }
    for entry in fs::read_dir("/sys/block").unwrap().flatten() {
        let image = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if image.contains("/bench.work.") {
            left.push(image);
        }
    }
    left
}

/// The kernel takes down the mounts of a namespace some time after its last process.
fn nothing_left() {
    busy::until("something of a bench is left", || left().is_empty());
}

/// What a bench prints; it must have measured everything, whatever it found.
fn measured(mut bench: Command, rows: &[&str]) {
    let output = bench.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let measured =
        matches!(output.status.code(), Some(0 | 1)) && !err.contains("Traceback") && !out.contains("FAILED");
    assert!(measured, "{}\n{out}{err}", output.status);
    for row in rows {
        assert!(out.contains(row), "{row}\n{out}{err}");
    }
    nothing_left();
}

#[test]
fn all_work_on_stores_has_its_row_and_nothing_stays() {
    if !require("rsync", tools().and_then(|()| common::tree::installed("rsync"))) {
        return;
    }
    let _alone = ONE.lock();
    let base = Base::new();
    let mut bench = base.run("stores");
    bench.env("SLIVERFS_BENCH_ENTRIES", "2000");
    measured(
        bench,
        &[
            "| 1%, warm | `sliverfs compact`, 1% of the base `ten` | ",
            "| 1%, warm | `sliverfs rebase`, 1% of the base `one` | ",
            "| 1%, no cache | `rsync -aHAX --delete` of two views, 1% of the base `one` | ",
            "| 10%, warm | `tar` of the upper folder, 10% of the base `one` | ",
            "| peak memory of `sync`, a store of 2,000 entries | ",
            "| peak memory of `restore`, a store of 2,000 entries | ",
        ],
    );
}

#[test]
fn every_way_of_a_disk_has_its_row_and_nothing_stays() {
    if !require("mkfs.btrfs", tools()) {
        return;
    }
    let _alone = ONE.lock();
    let base = Base::new();
    measured(
        base.bench("btrfs"),
        &[
            "| btrfs-snapshot, btrfs | ",
            "| by hand: `btrfs subvolume snapshot`, btrfs | ",
            "| by hand: `btrfs subvolume snapshot`, same fsyncs, btrfs | ",
            "| reflink, btrfs | ",
            "| by hand: `cp -a --reflink=always`, `sync -f`, btrfs | ",
            "| the page: lessfs | ",
        ],
    );

    // Ended while it is at work: what it mounted and started goes with its namespaces.
    let mut bench = base.bench("ext4").spawn().unwrap();
    let mut line = String::new();
    BufReader::new(bench.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "on ext4\n");
    kill(Pid::from_raw(bench.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(bench.wait().unwrap().code(), Some(143));
    nothing_left();
}
