//! A sliver that somebody uses: another namespace, a process, another tool, another command at the same moment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

use common::holder::{Holder, mount_waits_for};
use common::listing;
use common::node::run;
use common::slivers::node;

#[test]
fn a_store_alive_in_a_foreign_namespace_is_left_alone() {
    let Some(node) = node() else { return };
    node.ok(&["create", "a", "--base", "b"]);
    node.ok(&["mount", "a"]);
    let foreign = Holder::elsewhere();
    let said = node.fails(4, &["umount", "a"]);
    assert!(said.contains(&format!("process {}", foreign.0.id())), "{said}");
    assert_eq!(node.json(&["list", "--json"])[0]["actual"], "elsewhere");
    let before = listing::of(&node.store("a"), true);
    assert!(node.fails(4, &["mount", "a"]).contains("mount namespace of process"));
    assert!(node.fails(4, &["destroy", "a"]).contains("mount namespace of process"));
    assert_eq!(listing::of(&node.store("a"), true), before);
    drop(foreign);
    node.ok(&["mount", "a"]);
    node.ok(&["umount", "a"]);
    node.ok(&["destroy", "a"]);
}

#[test]
fn a_detached_view_held_by_a_cwd_is_found() {
    let Some(node) = node() else { return };
    node.ok(&["create", "a", "--base", "b"]);
    node.ok(&["mount", "a"]);
    let view = node.view("a");
    let holder =
        Holder::start(Command::new("sh").args(["-c", "echo ready; read x"]).current_dir(view.join("etc")));
    let who = format!("process {} (sh)", holder.0.id());
    assert!(node.fails(4, &["umount", "a"]).contains(&format!("is in use by {who}")));
    run(Command::new("umount").arg("-l").arg(&view));
    assert_eq!(node.json(&["show", "a", "--json"])["held_by"][0], who.as_str());
    for command in ["mount", "destroy"] {
        let said = node.fails(4, &[command, "a"]);
        assert!(said.contains("detached") && said.contains(&who), "{said}");
    }
    drop(holder);
    node.ok(&["mount", "a"]);
}

#[test]
fn who_keeps_a_view_from_being_unmounted_is_told() {
    let Some(node) = node() else { return };
    for backend in ["overlay", "copy"] {
        node.ok(&["create", "a", "--base", "b", "--backend", backend]);
        node.ok(&["mount", "a"]);
        let inside = node.view("a").join("empty/\u{1b}[2J");
        fs::create_dir(&inside).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&inside));
        // Names that clear the terminal, and begin a line of their own.
        let script = "printf '\\033[2J\\nx' > /proc/$$/comm; exec 3<\"$0\"; echo ready; read x";
        let holder =
            Holder::start(Command::new("sh").args(["-c", script]).arg(node.view("a").join("etc/a.txt")));
        let said = node.fails(4, &["umount", "a"]);
        let at = inside.to_str().unwrap().replace('\u{1b}', "\\x1b");
        let who = format!("the mount on {at}, process {} (\\x1b[2J\\x0ax);", holder.0.id());
        assert!(said.contains(&who), "{backend}: {said}");
        run(Command::new("umount").arg(&inside));
        drop(holder);
        node.ok(&["umount", "a"]);
        node.ok(&["destroy", "a"]);
    }
}

#[test]
fn a_wait_for_a_lock_is_told_once() {
    let Some(node) = node() else { return };
    node.ok(&["create", "a", "--base", "b"]);
    let lock = {
        let meta = fs::metadata(&node.lxcpath).unwrap();
        let run = fs::canonicalize("/var/run").unwrap();
        run.join(format!("sliverfs/{:x}-{:x}/lock/a", meta.dev(), meta.ino()))
    };
    mount_waits_for(&node, &lock);
}

#[test]
fn another_tools_mount_of_the_store_is_found() {
    let Some(node) = node() else { return };
    node.ok(&["create", "a", "--base", "b"]);
    let other = node.dir().join("other");
    fs::create_dir(&other).unwrap();
    let store = node.store("a");
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        node.lxcpath.join(".base/b/tree").display(),
        store.join("upper").display(),
        store.join("work").display()
    );
    run(Command::new("mount").args(["-t", "overlay", "-o", &options, "mine"]).arg(&other));
    node.fails(4, &["mount", "a"]);
    node.fails(4, &["destroy", "a"]);
    run(Command::new("umount").arg(&other));
    node.ok(&["mount", "a"]);
}

#[test]
fn the_same_disk_by_another_path_is_the_same_node() {
    let Some(node) = node() else { return };
    node.ok(&["create", "a", "--base", "b"]);
    node.ok(&["mount", "a"]);
    let alias = node.dir().join("alias");
    fs::create_dir(&alias).unwrap();
    run(Command::new("mount").arg("--bind").arg(&node.lxcpath).arg(&alias));
    let by_alias = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_sliverfs"))
            .arg("--lxcpath")
            .arg(&alias)
            .args(["--config", "/dev/null"])
            .args(args)
            .output()
            .unwrap()
    };
    assert_eq!(by_alias(&["destroy", "a"]).status.code(), Some(4));
    let list: serde_json::Value = serde_json::from_slice(&by_alias(&["list", "--json"]).stdout).unwrap();
    assert_ne!(list[0]["actual"], "unmounted");
    run(Command::new("umount").arg(&alias));
}

#[test]
fn thirty_two_at_once_leave_a_whole_catalog() {
    let Some(node) = node() else { return };
    node.ok(&["probe"]);
    let names = ["p", "q", "r", "s", "t", "u"];
    let workers: Vec<Child> = (0..32)
        .map(|worker| {
            let mut script = String::new();
            for turn in 0..8 {
                let name = names[(worker + turn) % names.len()];
                for step in ["create NAME --base b", "mount NAME", "umount NAME", "destroy NAME"] {
                    script += &format!("\"$@\" {} 2>/dev/null; ", step.replace("NAME", name));
                }
            }
            let mut shell = Command::new("sh");
            shell.args([
                "-c",
                &script,
                "sh",
                env!("CARGO_BIN_EXE_sliverfs"),
                "--config",
                "/dev/null",
                "--lxcpath",
            ]);
            shell.arg(&node.lxcpath).stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut worker in workers {
        worker.wait().unwrap();
    }
    for sliver in node.json(&["list", "--json"]).as_array().unwrap() {
        assert_eq!(sliver["recorded"], "created", "{sliver}");
        let name = sliver["name"].as_str().unwrap();
        node.ok(&["umount", name]);
        node.ok(&["mount", name]);
        node.ok(&["umount", name]);
        node.ok(&["destroy", name]);
    }
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(!mounts.contains(&format!("sliverfs:{}", node.lxcpath.display())), "a stray mount");
    assert_eq!(fs::read_dir(node.lxcpath.join(".store")).unwrap().count(), 0);
    let left: Vec<_> = fs::read_dir(&node.lxcpath).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
    node.ok(&["base", "verify", "b"]);
}
