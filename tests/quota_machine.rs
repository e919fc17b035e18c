//! A machine with Debian's kernel, emulated: what holds a tenant who is root to a project quota, and what does not, on ext4, XFS
//! and f2fs; and an image that grows while it is mounted, which root of a container may not have it do. The work is done by
//! `tests/quota-machine/`, which can be run by hand too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::io::Write;
use std::path::Path;
use std::process::Command;

use common::require;

fn ready() -> Result<(), String> {
    common::root()?;
    let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/router/setup");
    let check = Command::new(setup).args(["--check", "amd64"]).output().unwrap();
    if check.status.success() {
        return Ok(());
    }
    Err(format!("{}; tests/router/setup prepares it", String::from_utf8_lossy(&check.stderr).trim_end()))
}

/// Each try to get past a quota ends as `guest/facts` says.
#[test]
fn what_project_quotas_hold() {
    if !require("quota-machine", ready()) {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/quota-machine/run");
    let run = Command::new(script).arg(env!("CARGO_BIN_EXE_sliverfs")).output().unwrap();
    let console = String::from_utf8_lossy(&run.stdout);
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{console}\n{said}");
    let verdict = console.lines().find(|line| line.starts_with("MACHINE PASS ")).unwrap();
    // Past the harness, which keeps to itself what a passing test prints with the macros.
    std::io::stderr().write_all(format!("{verdict}\n").as_bytes()).unwrap();
}
