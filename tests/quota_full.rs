//! A limit that was promised and not set aside: the disk below sparse images fills up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use common::node::{Node, run};
use common::slivers::{in_stores, view};
use common::tree::installed;
use common::{listing, require};

const MIB: u64 = 1 << 20;

/// Writes and syncs; what the kernel says.
fn write(path: &Path, bytes: u64) -> std::io::Result<()> {
    let mut file = fs::File::create(path)?;
    for number in 0..bytes / MIB {
        file.write_all(&vec![u8::try_from(number % 251).unwrap() + 1; 1 << 20])?;
    }
    file.sync_all()
}

/// Leaves this much of the node's disk.
fn leave(node: &Node, bytes: u64) {
    let free = nix::sys::statvfs::statvfs(&node.lxcpath).unwrap();
    let fill = free.blocks_available() * free.fragment_size() - bytes;
    run(Command::new("fallocate").args(["-l", &fill.to_string()]).arg(node.lxcpath.join("ballast")));
}

/// What does not fit is known only when the new image is written to the disk.
#[test]
fn a_store_that_is_made_anew_stays_as_it_was() {
    let ready = require("root", common::root()) && require("rsync", installed("rsync"));
    if !ready {
        return;
    }
    let node = Node::with_base("ext4", 280);
    let uci = node.dir().join("uci");
    fs::write(&uci, "config sliverfs main\n option overcommit '2'\n").unwrap();
    let with_sparse_images = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sliverfs"));
        command.arg("--config").arg(&uci).arg("--lxcpath").arg(&node.lxcpath).args(args).output().unwrap()
    };
    let create = ["create", "a", "--base", "b", "--backend", "overlay", "--quota", "150M"];
    assert!(with_sparse_images(&create).status.success());
    node.ok(&["mount", "a"]);
    write(&node.view("a").join("kept"), 3 * MIB).unwrap();
    let wanted = listing::of(&node.view("a"), true);
    node.ok(&["umount", "a"]);
    let (source, tar) = (node.dir().join("source"), node.dir().join("source.tar"));
    fs::create_dir(&source).unwrap();
    write(&source.join("big"), 50 * MIB).unwrap();
    run(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&source).arg("."));
    // Root may have another 14 MiB.
    leave(&node, 16 * MIB);
    let sync = ["sync", "a", source.to_str().unwrap()];
    let tar = tar.to_str().unwrap();
    let create = ["create", "c", "--base", "b", "--backend", "overlay", "--quota", "90M", "--data", tar];
    for args in [&sync[..], &create] {
        let output = with_sparse_images(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        // Not of what is written after the image.
        assert!(!said.contains("sliver.json"), "{said}");
        assert!(!said.contains("WARN"), "{said}");
        assert_eq!(in_stores(&node), ["a"], "{args:?}");
    }
    assert_eq!(view(&node, "a"), wanted);
}

/// The sliver gets an I/O error. With room again it mounts, is whole, and has what it had synced, as all others have.
#[test]
fn what_was_synced_outlives_a_full_disk() {
    if !require("root", common::root()) {
        return;
    }
    for fstype in ["ext4", "xfs", "btrfs"] {
        let node = Node::with_base(fstype, 320);
        let uci = node.dir().join("uci");
        fs::write(&uci, "config sliverfs main\n option overcommit '2'\n").unwrap();
        for name in ["a", "b"] {
            let mut create = Command::new(env!("CARGO_BIN_EXE_sliverfs"));
            create.arg("--config").arg(&uci).arg("--lxcpath").arg(&node.lxcpath);
            run(create.args(["create", name, "--base", "b", "--quota", "200M"]));
        }
        node.ok(&["create", "plain", "--base", "b", "--backend", "overlay"]);
        node.ok(&["mount", "a", "b", "plain"]);
        for name in ["a", "b", "plain"] {
            write(&node.view(name).join("kept"), 3 * MIB).unwrap();
        }
        let kept = fs::read(node.view("a").join("kept")).unwrap();
        run(Command::new("sync").arg("-f").arg(&node.lxcpath));
        leave(&node, 2 * MIB);
        let err = write(&node.view("a").join("lost"), 60 * MIB).expect_err("60 MiB fit into 2");
        let said = [nix::libc::EIO, nix::libc::ENOSPC, nix::libc::EROFS];
        assert!(err.raw_os_error().is_some_and(|errno| said.contains(&errno)), "{fstype}: {err}");
        // No harm to anything else, and the node's commands tell of it.
        assert_eq!(fs::read(node.view("b").join("kept")).unwrap(), kept, "{fstype}");
        node.ok(&["list"]);
        node.ok(&["usage", "b"]);
        node.ok(&["umount", "a"]);
        fs::remove_file(node.lxcpath.join("ballast")).unwrap();
        // Whatever the driver put right when it mounted it, nothing is left that is wrong.
        node.ok(&["mount", "a"]);
        node.ok(&["umount", "a"]);
        let image = node.store("a").join("quota.img");
        let check = Command::new("e2fsck").arg("-fn").arg(&image).output().unwrap();
        assert!(check.status.success(), "{fstype}: {}", String::from_utf8_lossy(&check.stdout));
        node.ok(&["mount", "a"]);
        for name in ["a", "b", "plain"] {
            assert_eq!(fs::read(node.view(name).join("kept")).unwrap(), kept, "{fstype}: {name}");
        }
        write(&node.view("a").join("lost"), 60 * MIB).unwrap();
        node.ok(&["diff", "a"]);
        node.ok(&["umount", "--all"]);
        node.ok(&["check"]);
    }
}
