//! Daemons that end or are stuck, and commands that are killed around one: nobody waits for them, and none is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::fuse::{KIND, Killed, actual, daemon, kill, mounts, node, ready, soon, until};
use common::holder::Holder;
use common::node::{Node, run};
use common::require;
use serde_json::Value;

#[test]
fn its_death() {
    let Some(node) = node() else { return };
    for command in ["mount", "umount"] {
        node.ok(&["mount", "a"]);
        fs::write(node.view("a").join("kept"), command).unwrap();
        let holder =
            Holder::start(Command::new("sh").args(["-c", "echo ready; read x"]).current_dir(node.view("a")));
        kill(&node, &daemon(&node, "a"));
        assert_eq!(actual(&node), "dead");
        assert!(node.ok(&["show", "a"]).contains("it ended"));
        assert!(node.fails(4, &["destroy", "a"]).contains("is mounted at"));
        node.ok(&["create", "a", "--base", "b"]);
        assert!(node.ok(&[command, "a", "--dry-run"]).contains("umount -l"));
        assert_eq!(actual(&node), "dead", "a plan changes nothing");
        node.ok(&[command, "a"]);
        assert_eq!(actual(&node), if command == "mount" { "mounted" } else { "unmounted" });
        node.ok(&["mount", "a"]);
        assert_eq!(fs::read_to_string(node.view("a").join("kept")).unwrap(), command);
        assert_eq!(mounts().matches("fuse.fuse-overlayfs").count(), 1);
        node.ok(&["umount", "a"]);
        drop(holder);
    }
    node.ok(&["destroy", "a"]);
}

/// A disk in user space makes up modes: none is written back to it, as it is to zfs-fuse.
#[test]
fn no_mode_of_another_disk_in_user_space_is_rewritten() {
    let Some(mut node) = node() else { return };
    if !require("strace", common::strace::works()) {
        return;
    }
    node.ok(&["mount", "a"]);
    let inner = node.view("a").join("lxc");
    let outer = std::mem::replace(&mut node.lxcpath, inner);
    fs::create_dir(&node.lxcpath).unwrap();
    let (calls, tree) = (node.dir().join("calls"), node.dir().join("tree"));
    for args in [
        &["init"][..],
        &["base", "add", "inner", tree.to_str().unwrap()],
        &["create", "c", "--base", "inner", "--backend", "copy"],
    ] {
        let plain = node.command(args);
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", "trace=fchmod,fsync", "-e", "signal=none", "-o"]).arg(&calls);
        run(strace.arg(plain.get_program()).args(plain.get_args()));
        let calls = fs::read_to_string(&calls).unwrap();
        assert!(!calls.contains("fchmod"), "{args:?}: {calls}");
        assert!(calls.contains("fsync") || args[0] == "init", "{args:?}: {calls}");
    }
    node.lxcpath = outer;
    node.ok(&["umount", "a"]);
}

#[test]
fn a_daemon_that_is_stuck() {
    let Some(node) = node() else { return };
    node.ok(&["create", "t", "--base", "b", "--backend", "copy"]);
    node.ok(&["mount", "a"]);
    let it = daemon(&node, "a");
    let _inside =
        Holder::start(Command::new("sh").args(["-c", "echo ready; read x"]).current_dir(node.view("a")));
    it.signal("-STOP");
    assert_eq!(actual(&node), "mounted");
    for (args, code) in [
        (&["show", "a"][..], 0),
        (&["list", "--space"], 0),
        (&["mount", "a"], 0),
        (&["create", "a", "--base", "b"], 0),
        (&["umount", "a"], 4),
        (&["destroy", "a"], 4),
        // Whoever stands in it stands in no other sliver.
        (&["show", "t"], 0),
        (&["destroy", "t"], 0),
    ] {
        assert_eq!(soon(&node, args).status.code(), Some(code), "{args:?}");
    }
    run(Command::new("umount").arg("-l").arg(node.view("a")));
    let said = String::from_utf8(soon(&node, &["show", "a"]).stdout).unwrap();
    assert!(said.contains("held by"), "{said}");
    for command in ["mount", "destroy"] {
        let output = soon(&node, &[command, "a"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{said}");
        assert!(said.contains("held by process"), "{said}");
    }
    drop(it);
    until("the store is still held", || node.json(&["show", "a", "--json"])["daemon"] == Value::Null);
    node.ok(&["mount", "a"]);
    node.ok(&["umount", "a"]);
}

/// What a tenant's process holds may be served by a daemon of the tenant's, which answers when it likes. Such a process is no
/// holder of a sliver, and whether it is one must be seen without a question to that daemon.
#[test]
fn a_tenants_own_daemon_that_is_stuck() {
    let Some(node) = node() else { return };
    let [tree, own] = ["tree", "own"].map(|name| node.dir().join(name));
    fs::create_dir(&own).unwrap();
    // Nothing that it told is remembered by the kernel.
    let options = format!("timeout=0,lowerdir={}", tree.display());
    run(Command::new(KIND).args(["-o", &options]).arg(&own).stderr(Stdio::null()));
    let served =
        run(Command::new("pgrep").args(["-f", &format!("^{KIND} -o timeout=0.*{}$", own.display())]));
    let it = Killed(served.trim().parse().unwrap());
    let _inside =
        Holder::start(Command::new("sh").args(["-c", "exec 8<etc; echo ready; read x"]).current_dir(&own));
    it.signal("-STOP");
    node.ok(&["create", "t", "--base", "b", "--backend", "copy"]);
    node.ok(&["mount", "t"]);
    for args in [["umount", "t"], ["show", "t"], ["mount", "t"], ["umount", "t"], ["destroy", "t"]] {
        assert_eq!(soon(&node, &args).status.code(), Some(0), "{args:?}");
    }
    drop(it);
    run(Command::new("umount").arg("-l").arg(&own));
}

#[test]
fn unmounted_and_still_stuck() {
    let Some(node) = node() else { return };
    node.ok(&["mount", "a"]);
    let it = daemon(&node, "a");
    it.signal("-STOP");
    let output = soon(&node, &["umount", "a"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains(&format!("its daemon, process {}", it.0)), "{said}");
    let sheet = node.json(&["show", "a", "--json"]);
    // Beside who has what got the view's device meanwhile.
    let held_by = sheet["held_by"].as_array().unwrap();
    assert!(held_by.contains(&format!("its daemon, process {}", it.0).into()), "{sheet}");
    it.signal("-CONT");
    node.ok(&["mount", "a"]);
    node.ok(&["umount", "a"]);
}

/// A daemon in the private mount namespace of a process that was killed would keep the namespace, and it the daemon, for ever.
#[test]
fn a_creation_that_was_killed_leaves_no_daemon() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 128);
    let big = node.dir().join("big");
    fs::create_dir(&big).unwrap();
    for number in 0..2000 {
        fs::write(big.join(number.to_string()), [b'x'; 8192]).unwrap();
    }
    let archive = node.dir().join("big.tar");
    run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&big).arg("."));
    let mut create = node
        .command(&["create", "a", "--base", "b", "--backend", KIND, "--data", archive.to_str().unwrap()])
        .spawn()
        .unwrap();
    let upper = node.lxcpath.join(".store/.new.a/upper");
    let served = || {
        let free = Command::new("flock").args(["-s", "-n"]).arg(&upper).arg("true").output().unwrap();
        upper.exists() && !free.status.success()
    };
    until("the data are unpacked by no daemon", || served() || create.try_wait().unwrap().is_some());
    // The process and the child that does its work.
    let children =
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", create.id())).unwrap_or_default();
    let _gone = Command::new("kill")
        .arg("-9")
        .arg(create.id().to_string())
        .args(children.split_whitespace())
        .output();
    let _gone = create.wait();
    until("a daemon outlives its creation", || !served());
    node.ok(&["create", "a", "--base", "b", "--backend", KIND, "--data", archive.to_str().unwrap()]);
    node.ok(&["mount", "a"]);
    assert!(node.view("a").join("1999").exists());
    node.ok(&["umount", "a"]);
}

/// The command is killed at each of its own calls; the daemon is not, unless it ends with it.
#[test]
fn killed_at_every_step() {
    let Some(node) = node() else { return };
    let traced = Command::new("strace").args(["-qq", "-e", "trace=none", "true"]).output().map(drop);
    if !require("strace", traced.map_err(|err| err.to_string())) {
        return;
    }
    let trace = node.dir().join("trace");
    let strace = |options: &[&str], args: &[&str]| {
        let plain = node.command(args);
        let mut strace = Command::new("strace");
        strace.args(["-qq", "-o"]).arg(&trace).args(options).arg("--").arg(plain.get_program());
        strace.args(plain.get_args()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap()
    };
    node.ok(&["mount", "a"]);
    fs::write(node.view("a").join("kept"), "kept").unwrap();
    node.ok(&["umount", "a"]);
    for (command, other) in [("mount", "umount"), ("umount", "mount")] {
        let calls =
            "trace=mount,umount2,?fork,?vfork,clone,?clone3,chdir,fchdir,flock,write,?rename,exit_group";
        node.ok(&[other, "a"]);
        assert!(strace(&["-e", calls], &[command, "a"]).success());
        node.ok(&[other, "a"]);
        let text = fs::read_to_string(&trace).unwrap();
        let calls: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once('(')?.0)).collect();
        assert!(calls.contains(&if command == "mount" { "mount" } else { "umount2" }), "{text}");
        for (at, call) in calls.iter().enumerate() {
            let number = calls[..=at].iter().filter(|other| *other == call).count();
            let (kill, only) = (format!("inject={call}:signal=KILL:when={number}"), format!("trace={call}"));
            strace(&["-e", &only, "-e", &kill], &[command, "a"]);
            for args in [&["list", "--json"][..], &["show", "a"], &[command, "a"]] {
                let output = soon(&node, args);
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(
                    output.status.success(),
                    "{command} killed at {call} {number}, then {args:?}: {said}"
                );
            }
            assert_eq!(
                mounts().matches("fuse.fuse-overlayfs").count(),
                usize::from(command == "mount"),
                "{call} {number}"
            );
            node.ok(&["mount", "a"]);
            assert_eq!(fs::read_to_string(node.view("a").join("kept")).unwrap(), "kept");
            if command == "mount" {
                node.ok(&["umount", "a"]);
            }
        }
    }
    node.ok(&["umount", "a"]);
    node.ok(&["destroy", "a"]);
}
