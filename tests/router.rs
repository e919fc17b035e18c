//! Whole routers, emulated, with Debian's kernels: the router binaries live a sliver's life there on ext4, f2fs and
//! UBIFS, and refuse JFFS2. The work is done by `tests/router/`, which can be run by hand too.
//!
//! Needed: `tests/router/setup` and the binaries of `cross/build`. Where they are missing the tests say so and skip,
//! unless SLIVERFS_REQUIRE contains the word `router`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::require;

fn script(name: &str) -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/router").join(name))
}

/// Can `router` be booted here with `binary`? Why not, if it cannot.
fn bootable(router: &str, binary: &Path) -> Result<(), String> {
    common::root()?;
    if !binary.is_file() {
        return Err(format!("{} is missing: cross/build makes it", binary.display()));
    }
    let check = script("setup").args(["--check", router]).output().unwrap();
    if check.status.success() {
        return Ok(());
    }
    Err(format!("{}; tests/router/setup prepares it", String::from_utf8_lossy(&check.stderr).trim_end()))
}

/// Boots `router` with the binary for `target`; every check in the guest must hold.
fn boots(router: &str, target: &str) {
    let binary: PathBuf = [env!("CARGO_MANIFEST_DIR"), "dist", "bin", target, "sliverfs"].iter().collect();
    if !require("router", bootable(router, &binary)) {
        return;
    }
    let run = script("run").arg(router).arg(&binary).output().unwrap();
    let console = String::from_utf8_lossy(&run.stdout);
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{router}:\n{console}\n{said}");
    let verdict = console.lines().find(|line| line.starts_with("ROUTER PASS ")).unwrap();
    // Past the harness, which keeps to itself what a passing test prints with the macros.
    std::io::stderr().write_all(format!("{verdict}\n").as_bytes()).unwrap();
}

/// A 24Kc without a floating point unit, little endian.
#[test]
fn mipsel_router() {
    boots("mipsel", "mipsel-unknown-linux-musl");
}

/// A Cortex-A7, with the soft-float binary that serves every ARMv7.
#[test]
fn armhf_router() {
    boots("armhf", "armv7-unknown-linux-musleabi");
}
