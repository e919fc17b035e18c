//! What the integration tests share.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod bases;
pub mod busy;
pub mod counted;
pub mod edited;
pub mod escapes;
pub mod faults;
pub mod fuse;
pub mod holder;
pub mod layers;
pub mod listing;
pub mod node;
pub mod oci;
pub mod power;
pub mod scripts;
pub mod seed;
pub mod slivers;
pub mod strace;
pub mod tar;
pub mod tree;
pub mod unpack;
pub mod zfs;

use std::io::Write;

/// Says whether a test can run here. Where it cannot, the reason is printed; where `SLIVERFS_REQUIRE` lists the word,
/// a skip is a failure.
pub fn require(what: &str, available: Result<(), String>) -> bool {
    let Err(reason) = available else { return true };
    let required = std::env::var("SLIVERFS_REQUIRE").unwrap_or_default();
    assert!(!required.split([',', ' ']).any(|word| word == what), "{what}: {reason}");
    // Past the harness, which keeps to itself what a passing test prints with the macros.
    std::io::stderr().write_all(format!("skipped: {what}: {reason}\n").as_bytes()).unwrap();
    false
}

/// Most of what is tested needs mounts.
pub fn root() -> Result<(), String> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err("not root".into()) }
}
