//! Real containers with a limit, and what root in one tries against it. Needed: as for `tests/lxc.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "lxc/host.rs"]
mod host;

use std::fs;

use common::escapes::{LEAVES, LIFTS, TRIES, btrfs_taken, disk_taken};
use common::holder::Holder;
use common::require;
use host::{Host, ready, text};

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
    if !ready() {
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
    if !ready() {
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

/// A container with a limit: inside, it is the size of the disk, a full disk is ENOSPC and no more, and it stops and boots again.
#[test]
fn on_a_limit() {
    if !ready() {
        return;
    }
    let host = Host::new();
    host.create_with("q", &["--quota", "64M"]);
    host.start("q");
    let df = |what: &str| -> u64 {
        host.inside("q", &format!("df -B1 --output={what} / | tail -n 1")).trim().parse().unwrap()
    };
    assert!((52 << 20..=64 << 20).contains(&df("size")), "{}", df("size"));
    let said = host.inside(
        "q",
        "for turn in 1 2 3 4; do if head -c 100000000 /dev/zero >>/root/fill 2>/tmp/said; then exit 1; fi; rm -f /tmp/said; \
        sync -f /root/fill; done; if head -c 100000 /dev/zero 2>&1 >/root/more; then exit 1; fi",
    );
    assert!(said.contains("No space left on device"), "{said}");
    assert!(df("avail") <= 64 << 10, "{}", df("avail"));
    assert_eq!(host.inside("q", "cat /etc/debian_version >/dev/null; ls /root"), "fill\nmore\n");

    // Full as it is.
    for _ in 0..2 {
        assert!(host.lxc("lxc-stop", "q").output().unwrap().status.success());
        host.wait_for_end("q");
        assert_eq!(host.actual("q"), "unmounted");
        assert_eq!(fs::read_dir(host.node.store("q").join("quota")).unwrap().count(), 0);
        host.start("q");
        assert_eq!(host.actual("q"), "running");
    }
    assert!(host.node.fails(4, &["quota", "q", "none"]).contains("running"));
    // It gets more while it runs, where root may let a file system grow (CAP_SYS_RESOURCE); less only when it does not.
    let more = host.node.run(&["quota", "q", "96M"]);
    match more.status.code() {
        Some(0) => assert!(df("size") > 80 << 20, "{}", df("size")),
        code => assert!(code == Some(3) && df("size") < 64 << 20, "{}", text(&more.stderr)),
    }
    host.inside("q", "rm /root/fill; head -c 20000000 /dev/zero >/root/more; echo kept >/root/kept");
    host.attach("q", "halt");
    host.wait_for_end("q");
    host.node.ok(&["quota", "q", "48M"]);
    host.start("q");
    assert!(df("size") < 48 << 20);
    assert_eq!(host.inside("q", "cat /root/kept"), "kept\n");
    host.attach("q", "halt");
    host.wait_for_end("q");
    host.node.ok(&["check", "q"]);
    host.node.ok(&["destroy", "q"]);
}
