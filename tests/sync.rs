//! `sync`: the view is what the source is, only differences are stored, and what is cut or fails changed nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::node::{Node, run};
use common::slivers::{in_stores, view};
use common::tree::{assert_same, installed};
use common::{busy, fuse, listing, require, seed};

/// A bit of everything that a source may have.
const EDITS: &str = r#"
    echo new > new; mkdir -p d/e; echo x > d/f; ln d/f d/e/f2; ln -s /etc/passwd etc/out; ln -s ../../../.. up; mkfifo p
    mknod dev b 7 200; rm etc/b.txt; rm -r var/deep; mkdir var/deep; rm var/fifo; mkdir var/fifo
    chmod 700 etc/dir; chown 5:6 etc/dir/c.txt; setfattr -n trusted.t -v one d/f; setcap cap_net_raw+ep new
    setfattr -n user.d -v two d; setfacl -m u:7:rw new; setfacl -d -m u:7:rwx d; truncate -s 3000000 hole; echo end >> hole
    echo o > ' -odd *$(x)'; echo q > "$(printf 'l\nine')"; printf c > '.~tmp~'; chmod 711 .; chown 3:4 .
    find . -newermt @1600000000 -exec touch -h -d @1700000000 {} +"#;

fn ready() -> bool {
    require("root", common::root())
        && ["setfattr", "setcap", "setfacl", "rsync"].iter().all(|tool| require(tool, installed(tool)))
}

/// A copy of the base's tree with all the edits.
fn source(node: &Node) -> PathBuf {
    let source = node.dir().join("source");
    run(Command::new("cp").arg("-a").arg(node.dir().join("tree")).arg(&source));
    run(Command::new("sh").args(["-ec", EDITS]).current_dir(&source));
    source
}

/// A real daemon for each of so many connections, started as inetd does: nothing to wait for, and none is left.
fn daemon(node: &Node, module: &Path, connections: usize) -> String {
    let config = node.dir().join("rsyncd.conf");
    let text =
        format!("use chroot = no\nuid = 0\ngid = 0\n[m]\npath = {}\nread only = yes\n", module.display());
    fs::write(&config, text).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for _ in 0..connections {
            let (socket, _) = listener.accept().unwrap();
            let mut daemon = Command::new("rsync");
            daemon.arg("--daemon").arg(format!("--config={}", config.display()));
            daemon.stdin(OwnedFd::from(socket)).stdout(Stdio::null()).stderr(Stdio::null());
            let _gone = daemon.status();
        }
    });
    format!("rsync://127.0.0.1:{port}/m")
}

fn kinds(node: &Node, kinds: &[&str]) {
    let source = source(node);
    let wanted = listing::of(&source, true);
    let remote = daemon(node, &source, kinds.len());
    for kind in kinds {
        node.ok(&["create", "s", "--base", "b", "--backend", kind]);
        let old = view(node, "s");
        let list = node.ok(&["sync", "s", source.to_str().unwrap(), "--dry-run"]);
        assert!(list.contains("*deleting") && list.contains("d/e/f2"), "{list}");
        assert_eq!(in_stores(node), ["s"]);
        assert_same(&view(node, "s"), &old, "a dry run");
        let done = node.json(&["sync", "s", &remote, "--json"]);
        assert!(done["files"].as_u64().unwrap() >= 6 && done["deleted"].as_u64().unwrap() >= 4, "{done}");
        assert_same(&view(node, "s"), &wanted, kind);
        assert_eq!(in_stores(node), ["s"]);
        let again = node.json(&["sync", "s", source.to_str().unwrap(), "--json"]);
        assert_eq!([&again["files"], &again["created"], &again["deleted"]], [0, 0, 0], "{again}");
        assert_same(&view(node, "s"), &wanted, kind);
        if *kind == "overlay" {
            let upper = node.store("s").join("upper");
            for untouched in ["var/big", "var/sparse", "etc/a.txt", "bin", "odd names"] {
                assert!(!upper.join(untouched).exists(), "{untouched} is stored");
            }
        }
        // Back to the base: nothing is left in the store, and one way to undo it.
        node.ok(&["sync", "s", node.dir().join("tree").to_str().unwrap()]);
        node.ok(&["convert", "s", "--undo"]);
        assert_same(&view(node, "s"), &wanted, "undone");
        node.ok(&["sync", "s", node.dir().join("tree").to_str().unwrap()]);
        assert_same(&view(node, "s"), &old, "the base's");
        if *kind == "overlay" {
            assert_eq!(fs::read_dir(node.store("s").join("upper")).unwrap().count(), 0);
        }
        node.ok(&["destroy", "s"]);
    }
}

#[test]
fn kinds_on_ext4() {
    if ready() {
        kinds(&Node::with_base("ext4", 96), &["overlay", "copy"]);
    }
}

#[test]
fn kinds_on_btrfs() {
    if ready() && require("btrfs-snapshot", installed("mkfs.btrfs")) {
        kinds(&Node::with_base("btrfs", 300), &["btrfs-snapshot", "reflink"]);
    }
}

/// It shows what the base has in a folder that was deleted and made anew, once that was listed.
#[test]
fn a_view_that_a_daemon_serves() {
    if ready() && fuse::ready() {
        kinds(&Node::with_base("ext4", 96), &[fuse::KIND]);
    }
}

#[test]
fn a_store_on_a_seed() {
    if ready() {
        if let Some(node) = seed::node(400) {
            kinds(&node, &["btrfs-seed"]);
            seed::is_clean(&node, "synced");
        }
    }
}

#[test]
fn what_is_refused() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 96);
    node.ok(&["create", "s", "--base", "b", "--backend", "overlay"]);
    for source in [
        "",
        "rsync://",
        "rsync://h",
        "-oX:p",
        "u@-oX:p",
        "a b:p",
        ":p",
        "h:",
        "h::",
        "/nosuch/..",
        "/",
        "/dev/null",
    ] {
        let code = if source == "/nosuch/.." { 1 } else { 2 };
        node.fails(code, &["sync", "s", "--", source]);
    }
    let absent = node.command(&["sync", "s", "/etc"]).env("PATH", "/nosuch").output().unwrap();
    let said = String::from_utf8_lossy(&absent.stderr);
    assert!(absent.status.code() == Some(3) && said.contains("package rsync"), "{said}");
    // One that was built without, and brings not everything.
    let tools = node.dir().join("tools");
    fs::create_dir(&tools).unwrap();
    busy::script(
        &tools.join("rsync"),
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'no ACLs, no xattrs' && exit\nexit 23\n",
    );
    let partial = node.command(&["sync", "s", "/etc"]).env("PATH", &tools).output().unwrap();
    let said = String::from_utf8_lossy(&partial.stderr);
    assert!(partial.status.code() == Some(1) && said.contains("without ACLs and extended"), "{said}");
    assert!(said.contains("not everything came over") && said.contains("is as it was"), "{said}");
    assert_eq!(in_stores(&node), ["s"]);
    node.ok(&["mount", "s"]);
    node.fails(4, &["sync", "s", "/etc"]);
    // What takes ssh's place gets the host as a word, and the path not by its shell.
    let shell = tools.join("shell");
    busy::script(&shell, "#!/bin/sh\n[ \"$1\" = h ] && shift && exec sh -c \"$*\"\n");
    let odd = node.dir().join("a b;$(touch pwned)");
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join("by-shell"), "x").unwrap();
    // rsync takes times within one second for the same.
    run(Command::new("touch").args(["-d", "@1700000000"]).arg(&odd));
    node.ok(&["create", "r", "--base", "b", "--backend", "overlay"]);
    let remote = format!("h:{}", odd.display());
    let mut command = node.command(&["sync", "r", &remote]);
    let output = command.env("RSYNC_RSH", &shell).current_dir(node.dir()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_same(&view(&node, "r"), &listing::of(&odd, true), "by a shell");
    assert!(!node.dir().join("pwned").exists());
    // The view of another sliver is a source, too.
    fs::write(node.view("s").join("mark"), "m").unwrap();
    run(Command::new("touch").args(["-d", "@1700000000"]).arg(node.view("s")));
    node.ok(&["create", "t", "--base", "b", "--backend", "overlay"]);
    node.ok(&["sync", "t", node.view("s").to_str().unwrap()]);
    let wanted = listing::of(&node.view("s"), true);
    node.ok(&["umount", "s"]);
    assert_same(&view(&node, "t"), &wanted, "of a view");
    // Of one that is not mounted there is nothing to see, and nothing would be left.
    let empty = node.view("s");
    for args in [&["sync", "t", empty.to_str().unwrap()][..], &["base", "add", "c", empty.to_str().unwrap()]]
    {
        let said = node.fails(1, args);
        assert!(said.contains("is empty") && said.contains("sliverfs mount"), "{said}");
    }
    assert_same(&view(&node, "t"), &wanted, "as it was");
    // What is kept from before a rebase would be all that is kept.
    node.ok(&["base", "add", "c", "/etc"]);
    node.ok(&["rebase", "t", "--onto", "c", "--ours"]);
    for args in [&["sync", "t", "/etc"][..], &["sync", "t", "/etc", "--dry-run"]] {
        assert!(node.fails(1, args).contains("sliverfs rebase t --commit"), "{args:?}");
    }
    node.ok(&["rebase", "t", "--commit"]);
    node.ok(&["sync", "t", "/etc", "--dry-run"]);
}

#[test]
fn a_full_disk_leaves_the_old_state() {
    if !ready() {
        return;
    }
    let node = Node::with_base("ext4", 32);
    node.ok(&["create", "s", "--base", "b", "--backend", "overlay"]);
    let wanted = view(&node, "s");
    let source = source(&node);
    run(Command::new("sh").args(["-c", "head -c 40M /dev/urandom > huge"]).current_dir(&source));
    let said = node.fails(1, &["sync", "s", source.to_str().unwrap()]);
    assert!(said.contains("No space left") && said.contains("is as it was"), "{said}");
    assert_eq!(in_stores(&node), ["s"]);
    assert_same(&view(&node, "s"), &wanted, "a full disk");
}
