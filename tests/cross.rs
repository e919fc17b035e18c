//! The binaries for routers, run here by qemu as the weakest processor of each target.
//!
//! Needed: `make cross`. Where a binary is missing its test says so, and fails where SLIVERFS_REQUIRE contains `cross`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "cross/kept.rs"]
mod kept;
#[path = "cross/targets.rs"]
mod targets;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::holder::Holder;
use common::node::{Node, run, small_tree};
use common::tree::{Temp, installed};
use common::{busy, require};
use targets::{Target, own_run_folder, repository};

#[test]
fn each_says_its_version() {
    for target in Target::ready() {
        let out = target.sliverfs(&["--version"]);
        assert!(out.status.success(), "{}: {out:?}", target.name);
        let said = String::from_utf8(out.stdout).unwrap();
        assert!(said.contains(env!("CARGO_PKG_VERSION")), "{}: {said}", target.name);
    }
}

#[test]
fn a_wrong_argument_is_told_and_is_a_usage_error() {
    for target in Target::ready() {
        let out = target.sliverfs(&["--nonsense"]);
        assert_eq!(out.status.code(), Some(2), "{}: {out:?}", target.name);
        assert!(String::from_utf8_lossy(&out.stderr).contains("--nonsense"), "{}: {out:?}", target.name);
    }
}

#[test]
fn each_is_what_its_routers_can_run() {
    for target in Target::ready() {
        let out = Command::new(repository().join("cross/check-abi")).arg(&target.name).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

/// A download or a disk that ended too early, and a bit that fell over: told, and not run.
#[test]
fn a_damaged_file_is_told() {
    let temp = Temp::new();
    for target in Target::ready().iter().filter(|target| target.unpacks()) {
        let whole = fs::read(&target.binary).unwrap();
        let (at, damaged) = (whole.len() / 2, temp.join("damaged"));
        let mut changed = whole.clone();
        changed[at] ^= 4;
        for content in [&whole[..at], &changed] {
            fs::copy(&target.binary, &damaged).unwrap();
            fs::write(&damaged, content).unwrap();
            let out = target.emulate(&damaged).arg("--version").output().unwrap();
            assert_eq!(out.status.code(), Some(5), "{}: {out:?}", target.name);
            assert_eq!(
                String::from_utf8_lossy(&out.stderr),
                "sliverfs: its own file is damaged: install the package again\n"
            );
            assert!(out.stdout.is_empty(), "{}: {out:?}", target.name);
        }
    }
}

/// The check must see what it is there for: here is this machine's own program in the place of each.
#[test]
fn another_machines_program_is_found_out() {
    if !require("cross", installed("readelf")) {
        return;
    }
    let temp = Temp::new();
    assert!(
        Command::new("cp").arg("-a").arg(repository().join("cross")).arg(&temp.0).status().unwrap().success()
    );
    for target in Target::all() {
        let binary = temp.join("dist/bin").join(&target.name).join("sliverfs");
        fs::create_dir_all(binary.parent().unwrap()).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_sliverfs"), &binary).unwrap();
        let out = Command::new(temp.join("cross/check-abi")).arg(&target.name).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success(), "{}", target.name);
        // Position independent, and with an interpreter.
        assert!(
            said.contains("is not there:  Type: +EXEC") && said.contains("must not be there:  INTERP"),
            "{said}"
        );
        assert_eq!(said.contains("Machine"), target.name != "x86_64-unknown-linux-musl", "{said}");
    }
}

/// What a HashMap does first (thread-local keys from the kernel's random numbers) is what killed MIPS binaries that were
/// linked as position independent. sliverfs itself may have no HashMap, so a program of its own is built the same way. It tells
/// its memory, too: whether it was unpacked, mapped or neither, nothing is there that can be written and run.
#[test]
fn a_hash_map_works_on_each() {
    const PROGRAM: &str = "fn main() {
        let words: std::collections::HashMap<String, usize> =
            std::env::args().skip(1).enumerate().map(|(at, word)| (word, at)).collect();
        println!(\"{} of {}\", words.get(\"b\").unwrap(), words.len());
        print!(\"{}\", std::fs::read_to_string(\"/proc/self/maps\").unwrap());
    }\n";
    let ready = Target::ready();
    let temp = Temp::new();
    let from = repository().join("cross");
    assert!(Command::new("cp").arg("-a").arg(&from).arg(&temp.0).status().unwrap().success());
    let manifest = "[package]\nname = \"hashmap\"\nversion = \"0.0.0\"\nedition = \"2024\"\n";
    fs::write(temp.join("Cargo.toml"), manifest).unwrap();
    fs::create_dir(temp.join("src")).unwrap();
    fs::write(temp.join("src/main.rs"), PROGRAM).unwrap();
    let venv = std::env::var_os("SLIVERFS_VENV").unwrap_or_else(|| repository().join(".venv").into());
    let python = Path::new(&venv).join("bin/python3");
    // Where cross/build works, which has built Rust's library with the same settings.
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("cross");
    for target in ready {
        let out = Command::new(temp.join("cross/cargo"))
            .args(["build", "--quiet", "--profile", "router", "--target", &target.name])
            .current_dir(&temp.0)
            .env("SLIVERFS_VENV", &venv)
            .env("CARGO_TARGET_DIR", &built)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}: {}", target.name, String::from_utf8_lossy(&out.stderr));
        let mut program = built.join(&target.name).join("router/hashmap");
        if target.unpacks() {
            let packed = temp.join("packed");
            let mut pack = Command::new(&python);
            run(pack.arg(temp.join("cross/pack.py")).arg(&program).arg(&packed).args(&target.unpacker));
            program = packed;
        }
        kept::runs(&target, &program);
        if target.unpacks() {
            kept::check(&target, &program);
        }
    }
}

/// A real probe, create and mount by each binary: system calls reach this machine's kernel, also those of a big-endian MIPS.
#[test]
fn a_sliver_lives_under_each() {
    let ready = Target::ready();
    if ready.is_empty() || !require("cross", installed("busybox")) {
        return;
    }
    own_run_folder();
    // Somebody's process that is locked into a folder of a mount namespace of its own.
    let script = "exec chroot \"$0\" /busybox sh -c 'echo ready; read x'";
    let jail = Temp::new();
    let found = Command::new("sh").args(["-c", "command -v busybox"]).output().unwrap().stdout;
    busy::program(Path::new(String::from_utf8(found).unwrap().trim()), &jail.join("busybox"));
    let _locked_in = Holder::start(Command::new("unshare").args(["-m", "sh", "-c", script]).arg(&jail.0));
    for target in ready {
        let node = Node::new("ext4", 48);
        let tree = node.dir().join("tree");
        small_tree(&tree);
        let image = node.dir().join("image.squashfs");
        let packed = installed("mksquashfs");
        if require("mksquashfs", packed) {
            run(Command::new("mksquashfs").arg(&tree).arg(&image).args(["-quiet", "-no-progress"]));
        }
        let run_it = |args: &[&str]| target.ok(&node, args);
        let verdicts: serde_json::Value =
            serde_json::from_str(&run_it(&["probe", "--fresh", "--json"])).unwrap();
        assert_eq!(verdicts[0]["kind"], "overlay");
        assert_eq!(verdicts[0]["works"], true, "{}: {}", target.name, verdicts[0]);
        for (base, source) in [("plain", &tree), ("packed", &image)] {
            run_it(&["base", "add", base, source.to_str().unwrap()]);
            run_it(&["create", "a", "--base", base]);
            run_it(&["mount", "a"]);
            fs::write(node.view("a").join("etc/b.txt"), "changed").unwrap();
            fs::remove_file(node.view("a").join("etc/a.txt")).unwrap();
            run_it(&["umount", "a"]);
            run_it(&["mount", "a"]);
            assert_eq!(fs::read_to_string(node.view("a").join("etc/b.txt")).unwrap(), "changed");
            assert!(!node.view("a").join("etc/a.txt").exists());
            let list: serde_json::Value = serde_json::from_str(&run_it(&["list", "--json"])).unwrap();
            assert_eq!((&list[0]["actual"], &list[0]["base"]), (&"mounted".into(), &base.into()));
            run_it(&["umount", "a"]);
            run_it(&["destroy", "a"]);
            run_it(&["base", "verify", base]);
        }
        // The same tree has the same digest, whatever the byte order of who computes it.
        let theirs = node.json(&["base", "show", "plain", "--json"]);
        node.ok(&["base", "verify", "plain"]);
        assert_eq!(
            theirs["digest"],
            node.json(&["base", "show", "packed", "--json"])["digest"],
            "{}",
            target.name
        );
    }
}
