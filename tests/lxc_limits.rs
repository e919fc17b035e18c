//! What root in a real container tries against his limit. Needed: as for `tests/lxc.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[allow(dead_code)] // tests/lxc.rs takes all of it
#[path = "lxc/host.rs"]
mod host;

use common::escapes::{LEAVES, LIFTS, TRIES, btrfs_taken, disk_taken};
use common::holder::Holder;
use common::require;
use host::Host;

const MIB: u64 = 1 << 20;
/// What each container may add to its base, in MiB.
const LIMIT: u64 = 48;

/// Runs all tries in the container, and holds what they have.
fn fill(host: &Host, full: &str, subvolumes: &str) -> Holder {
    let script = format!("cd /; FULL='{full}'; SUBVOLUMES={subvolumes}; {TRIES}echo ready; read end");
    let mut attach = host.lxc("lxc-attach", "q");
    attach.args(["--", "sh", "-c", &script]).stderr(std::process::Stdio::null());
    Holder::start(&mut attach)
}

/// Bytes of the disk that `df` shows in the container.
fn size(host: &Host) -> u64 {
    host.inside("q", "df -B1 --output=size / | tail -n 1").trim().parse().unwrap()
}

fn end(host: &Host) {
    assert!(host.lxc("lxc-stop", "q").arg("-k").status().unwrap().success());
    host.wait_for_end("q");
    host.node.ok(&["destroy", "q"]);
}

#[test]
fn an_image_holds_root_in_a_container() {
    if !require("lxc", host::available()) {
        return;
    }
    let host = Host::new();
    let before = disk_taken(&host.node);
    host.create_with("q", &["--quota", &format!("{LIMIT}M")]);
    host.start("q");
    let held = fill(&host, "No space left", "");
    let taken = disk_taken(&host.node) - before;
    assert!((LIMIT * MIB..=(LIMIT + 1) * MIB).contains(&taken), "{taken} bytes are taken");
    assert!(size(&host) < LIMIT * MIB, "{}", size(&host));
    drop(held);
    end(&host);
}

#[test]
fn a_qgroup_holds_root_in_a_container_with_the_profile() {
    if !require("lxc", host::available()) {
        return;
    }
    let mut host = Host::on("btrfs");
    host.node.install();
    let output = host.node.run(&["quota", "--enable"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !require("simple-quotas", if output.status.success() { Ok(()) } else { Err(said) }) {
        return;
    }
    let before = btrfs_taken(&host.node);
    let limit = format!("{LIMIT}M");
    host.create_with("q", &["--backend", "btrfs-snapshot", "--quota", &limit]);
    host.start("q");
    // What root of the machine's own user namespace could do to it, and anybody (tests/quota_escapes.rs), is refused.
    let words = |lines: String| lines.replace(": Inappropriate ioctl for device", "").replace('\n', " ");
    let said = host.inside("q", &format!("mkdir /try; cd /try; perl -e '{LEAVES}'"));
    let x86 = cfg!(target_arch = "x86_64");
    let ends = if x86 {
        "outside half old clone range same copy: Invalid cross-device link "
    } else {
        "outside old clone range same "
    };
    assert_eq!(words(said), ends);
    assert_eq!(
        words(host.inside("q", &format!("cd /; perl -e '{}'", LIFTS.replace("or die", "or print")))),
        "look assign remove disable limit "
    );
    host.inside("q", "cd /try; cp --reflink=auto cloned other && cmp cloned other; rm -r /try");
    let held = fill(&host, "Disk quota exceeded", "''");
    // One copy of the metadata, of which the disk keeps two, is what is counted.
    let taken = btrfs_taken(&host.node) - before;
    let used = host.node.json(&["show", "q", "--json"])["used"].as_u64().unwrap();
    assert!(taken <= (LIMIT + 1) * MIB, "{taken} bytes are taken");
    assert!(((LIMIT - 1) * MIB..=LIMIT * MIB).contains(&used), "{used} bytes are counted");
    assert!(size(&host) > 1000 * MIB, "df shows the whole disk, as the documentation says: {}", size(&host));
    drop(held);
    end(&host);
}
