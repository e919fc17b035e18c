//! Stores that are alive where one does not look at once, and those that only seem to be; trees that are hard to remove.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::holder::Holder;
use common::node::{Node, run};
use common::{busy, require};

fn btrfs() -> Option<Node> {
    require("root", common::root()).then(|| Node::with_base("btrfs", 160))
}

/// A folder with a shell to be locked into: the machine's own root, but for what is mounted below it.
fn jail(node: &Node) -> PathBuf {
    let jail = node.dir().join("jail");
    fs::create_dir(&jail).unwrap();
    run(Command::new("mount").arg("--bind").arg("/").arg(&jail));
    jail
}

#[test]
fn a_namespace_whose_only_process_is_locked_into_a_folder() {
    let Some(node) = btrfs() else { return };
    let jail = jail(&node);
    for backend in ["btrfs-snapshot", "reflink", "overlay"] {
        node.ok(&["create", "a", "--base", "b", "--backend", backend]);
        node.ok(&["mount", "a"]);
        let script = "exec chroot \"$0\" /bin/sh -c 'echo ready; read x'";
        let holder = Holder::start(
            Command::new("unshare").args(["-m", "--propagation", "private", "sh", "-c", script]).arg(&jail),
        );
        run(Command::new("umount").arg(node.view("a")));
        assert_eq!(node.json(&["list", "--json"])[0]["actual"], "elsewhere", "{backend}");
        for command in ["mount", "destroy"] {
            let said = node.fails(4, &[command, "a"]);
            // Whose it is: the holder's, or that of another test's sliverfs which looks into it at this moment.
            let whose =
                ["(sliverfs)", &format!("process {} ", holder.0.id())].iter().any(|who| said.contains(who));
            assert!(said.contains("in the mount namespace of process") && whose, "{backend}: {said}");
        }
        drop(holder);
        node.ok(&["destroy", "a"]);
    }
    run(Command::new("umount").arg(&jail));
}

/// Keeps a new mount namespace without a process on the file `on`. The kernel refuses one that it thinks to be older than
/// ours (EINVAL), which with the numbers that it deals out per processor happens by chance.
fn keep_namespace(on: &Path) {
    let kept = (0..100).any(|_| {
        let mut unshare = Command::new("unshare");
        unshare.arg(format!("--mount={}", on.display())).args(["--propagation", "private", "true"]);
        unshare.stderr(Stdio::null()).status().unwrap().success()
    });
    assert!(kept, "no mount namespace could be kept on {}", on.display());
}

#[test]
fn a_namespace_that_is_kept_without_a_process() {
    let Some(node) = btrfs() else { return };
    let folder = node.dir().join("kept");
    fs::create_dir(&folder).unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&folder));
    let file = folder.join("namespace");
    fs::write(&file, "").unwrap();
    for backend in ["btrfs-snapshot", "reflink", "overlay"] {
        node.ok(&["create", "a", "--base", "b", "--backend", backend]);
        node.ok(&["mount", "a"]);
        keep_namespace(&file);
        run(Command::new("umount").arg(node.view("a")));
        let said = node.fails(4, &["destroy", "a"]);
        assert!(said.contains(file.to_str().unwrap()), "{backend}: {said}");
        assert!(node.store("a").join("sliver.json").exists());
        run(Command::new("umount").arg(&file));
        node.ok(&["destroy", "a"]);
    }
}

#[test]
fn a_namespace_that_only_a_thread_is_in() {
    use nix::mount::{MsFlags, mount};
    use std::sync::mpsc::channel;
    let Some(node) = btrfs() else { return };
    for backend in ["btrfs-snapshot", "reflink", "overlay"] {
        node.ok(&["create", "a", "--base", "b", "--backend", backend]);
        node.ok(&["mount", "a"]);
        let (leave, end) = channel::<()>();
        let (inside, ready) = channel();
        let thread = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            inside.send(()).unwrap();
            end.recv().unwrap_err();
        });
        ready.recv().unwrap();
        run(Command::new("umount").arg(node.view("a")));
        let said = node.run(&["destroy", "a"]);
        let here = format!("in the mount namespace of process {} ", std::process::id());
        // What is destroyed is gone for the thread as well: it must end in any case.
        drop(leave);
        thread.join().unwrap();
        let text = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.code() == Some(4) && text.contains(&here), "{backend}: {text}");
        node.ok(&["destroy", "a"]);
    }
}

/// Maps the file, and holds it no other way.
const MAP: &str = "import ctypes, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
assert libc.mmap(None, ctypes.c_size_t(4096), 1, 2, fd, ctypes.c_long(0)) != 2**64 - 1
os.close(fd)
print('ready', flush=True)
sys.stdin.readline()";

#[test]
fn files_of_a_detached_view_are_found() {
    let Some(node) = btrfs() else { return };
    let wait = "echo ready; read x";
    for backend in ["btrfs-snapshot", "reflink", "copy", "overlay"] {
        for how in ["open", "run", "mapped"] {
            node.ok(&["create", "a", "--base", "b", "--backend", backend]);
            node.ok(&["mount", "a"]);
            let file = node.view("a").join("etc/dir/sh");
            busy::program(Path::new("/bin/sh"), &file);
            let open = format!("exec 3<\"$0\"; {wait}");
            let (program, script) = match how {
                "open" => (Path::new("sh"), &*open),
                "run" => (&*file, wait),
                _ => (Path::new("python3"), MAP),
            };
            let holder = Holder::start(Command::new(program).args(["-c", script]).arg(&file));
            run(Command::new("umount").arg("-l").arg(node.view("a")));
            let who = format!("process {} (", holder.0.id());
            assert!(node.ok(&["show", "a", "--json"]).contains(&who), "{backend}, {how}");
            let said = node.fails(4, &["destroy", "a"]);
            assert!(said.contains("detached") && said.contains(&who), "{backend}, {how}: {said}");
            drop(holder);
            node.ok(&["destroy", "a"]);
        }
    }
}

/// A link that a tenant made must not make a sliver seem held by who uses the machine's own files.
#[test]
fn a_tenants_link_holds_nothing() {
    let Some(node) = btrfs() else { return };
    node.ok(&["create", "a", "--base", "b", "--backend", "reflink"]);
    let outside = node.dir().join("disk/outside");
    fs::write(&outside, "x").unwrap();
    let first = outside.iter().nth(1).unwrap();
    std::os::unix::fs::symlink(Path::new("/").join(first), node.store("a").join("tree").join(first)).unwrap();
    let script = "exec 3<\"$0\"; echo ready; read x";
    let _holder = Holder::start(Command::new("sh").args(["-c", script]).arg(&outside));
    assert_eq!(node.json(&["show", "a", "--json"])["held_by"].as_array().map(Vec::len), Some(0));
    node.ok(&["destroy", "a"]);
}

#[test]
fn the_number_of_a_device_that_went_to_another_view() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 64);
    node.ok(&["create", "a", "--base", "b"]);
    node.ok(&["create", "c", "--base", "b"]);
    // As on a kernel before 4.13, whose overlay does not tell whether a store is in use.
    let key = {
        use std::os::unix::fs::MetadataExt;
        let meta = fs::metadata(&node.lxcpath).unwrap();
        format!("{:x}-{:x}", meta.dev(), meta.ino())
    };
    let remembered = Path::new("/var/run/sliverfs").join(key).join("probe.json");
    let text = fs::read_to_string(&remembered).unwrap();
    assert!(text.contains("\"index\":true"), "{text}");
    let text = text.replace("\"index\":true", "\"index\":false");
    fs::write(&remembered, text.replace("\"tells_in_use\":true", "\"tells_in_use\":false")).unwrap();
    node.ok(&["mount", "a"]);
    node.ok(&["umount", "a"]);
    node.ok(&["mount", "c"]);
    let _holder =
        Holder::start(Command::new("sh").args(["-c", "echo ready; read x"]).current_dir(node.view("c")));
    node.ok(&["mount", "a"]);
    node.ok(&["umount", "a"]);
    node.ok(&["destroy", "a"]);
}

#[test]
fn the_folder_of_the_stores_is_a_link() {
    let Some(node) = btrfs() else { return };
    let stores = node.dir().join("disk/elsewhere");
    fs::rename(node.lxcpath.join(".store"), &stores).unwrap();
    std::os::unix::fs::symlink(&stores, node.lxcpath.join(".store")).unwrap();
    for backend in ["btrfs-snapshot", "reflink", "overlay"] {
        node.ok(&["create", "a", "--base", "b", "--backend", backend]);
        node.ok(&["mount", "a"]);
        assert_eq!(node.json(&["list", "--json"])[0]["actual"], "mounted", "{backend}");
        node.fails(4, &["destroy", "a"]);
        node.ok(&["umount", "a"]);
        node.ok(&["destroy", "a"]);
    }
}

#[test]
fn subvolumes_that_a_tenant_made_are_removed() {
    let Some(node) = btrfs() else { return };
    node.ok(&["create", "a", "--base", "b", "--backend", "btrfs-snapshot"]);
    node.ok(&["mount", "a"]);
    let view = node.view("a");
    let subvolume = |path: &Path| run(Command::new("btrfs").args(["subvolume", "create"]).arg(path));
    subvolume(&view.join("var/machines"));
    fs::create_dir(view.join("var/machines/folder")).unwrap();
    subvolume(&view.join("var/machines/folder/inner"));
    fs::write(view.join("var/machines/folder/inner/file"), "x").unwrap();
    for read_only in ["var/machines/folder/inner", "var/machines"] {
        run(Command::new("btrfs").args(["property", "set"]).arg(view.join(read_only)).args(["ro", "true"]));
    }
    node.ok(&["umount", "a"]);
    node.ok(&["destroy", "a"]);
    assert_eq!(fs::read_dir(node.lxcpath.join(".store")).unwrap().count(), 0);
}

#[test]
fn a_removal_that_was_stopped_is_ended_by_the_next() {
    let Some(node) = btrfs() else { return };
    node.ok(&["create", "a", "--base", "b", "--backend", "reflink"]);
    let file = node.store("a").join("tree/var/big");
    run(Command::new("chattr").arg("+i").arg(&file));
    assert!(node.fails(1, &["destroy", "a"]).contains("chattr -i"));
    assert!(!node.store("a").exists());
    let left = node.lxcpath.join(".store/.rm.a");
    // What is left is told again and again, until it can be removed.
    assert!(node.fails(1, &["destroy", "a"]).contains("chattr -i"));
    assert!(node.ok(&["destroy", "a", "--dry-run"]).contains(".rm.a"));
    run(Command::new("chattr").arg("-i").arg(left.join("tree/var/big")));
    node.ok(&["destroy", "a"]);
    assert!(!left.exists() && !node.lxcpath.join(".rm.a").exists());
}

#[test]
fn the_last_views_on_an_image_come_down_at_once() {
    if !require("root", common::root()) {
        return;
    }
    let packs = Command::new("mksquashfs").arg("-version").output().map(drop);
    if !require("mksquashfs", packs.map_err(|err| err.to_string())) {
        return;
    }
    let node = Node::with_base("ext4", 64);
    let tree = node.dir().join("tree");
    node.ok(&["base", "add", "image", tree.to_str().unwrap(), "--pack", "squashfs"]);
    let names = ["p", "q", "r", "s"];
    for name in names {
        node.ok(&["create", name, "--base", "image"]);
    }
    for turn in 0..20 {
        let all: Vec<Child> = names
            .iter()
            .map(|name| {
                let script = "\"$@\" mount $0 && \"$@\" umount $0";
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(script).arg(name).arg(env!("CARGO_BIN_EXE_sliverfs"));
                shell.args(["--config", "/dev/null", "--lxcpath"]).arg(&node.lxcpath).spawn().unwrap()
            })
            .collect();
        for mut one in all {
            assert!(one.wait().unwrap().success(), "turn {turn}");
        }
    }
    node.ok(&["base", "verify", "image"]);
    for name in names {
        node.ok(&["destroy", name]);
    }
    node.ok(&["base", "remove", "image"]);
}

/// Whether a store is in use is asked by a mount that is refused, which the kernel calls an error: where its console is a serial
/// line, printing that takes longer than all the rest. Silence that an operator asked for is not ended.
#[test]
fn the_question_is_not_printed_on_the_console() {
    if !require("root", common::root()) {
        return;
    }
    const LEVELS: &str = "/proc/sys/kernel/printk";
    struct Restore(String);
    impl Drop for Restore {
        fn drop(&mut self) {
            let _shown_by_the_next_test = fs::write(LEVELS, &self.0);
        }
    }
    // A test that kills a mount may have left a console without sound, and a level that the kernel would restore.
    assert!(Command::new("dmesg").arg("--console-on").status().unwrap().success());
    let before = Restore(fs::read_to_string(LEVELS).unwrap());
    let node = Node::with_base("ext4", 32);
    node.ok(&["create", "a", "--base", "b"]);
    let calls = || {
        let trace = node.dir().join("trace");
        let mut strace = Command::new("strace");
        strace.args(["-e", "trace=syslog,mount", "-o"]).arg(&trace).arg(env!("CARGO_BIN_EXE_sliverfs"));
        strace.args(["--config", "/dev/null", "--lxcpath"]).arg(&node.lxcpath).args(["mount", "a"]);
        assert!(strace.status().unwrap().success());
        node.ok(&["umount", "a"]);
        let text = fs::read_to_string(trace).unwrap();
        let name = |line: &str| match line {
            _ if line.contains("CONSOLE_OFF") => "off",
            _ if line.contains("CONSOLE_ON") => "on",
            _ if line.contains("sliverfs:in-use") => "question",
            _ => "mount",
        };
        text.lines().filter(|line| line.contains('(')).map(name).collect::<Vec<_>>().join(" ")
    };
    for (levels, wanted) in [
        ("4 4 1 7", "off question on mount"),
        ("3 4 1 7", "question mount"),
        ("15 4 1 7", "off question on mount"),
    ] {
        fs::write(LEVELS, levels).unwrap();
        assert_eq!(calls(), wanted, "{levels}");
        let now = fs::read_to_string(LEVELS).unwrap();
        assert_eq!(now.split_whitespace().collect::<Vec<_>>().join(" "), levels);
    }
    // Killed while it was quiet: the next one ends that, and still knows the level.
    fs::write(LEVELS, "5 4 1 7").unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-o", "/dev/null", "-e", "trace=mount", "-e", "inject=mount:signal=KILL:when=1"]);
    strace.arg(env!("CARGO_BIN_EXE_sliverfs")).args(["--config", "/dev/null", "--lxcpath"]);
    assert!(!strace.arg(&node.lxcpath).args(["mount", "a"]).status().unwrap().success());
    assert!(fs::read_to_string(LEVELS).unwrap().starts_with('1'));
    assert_eq!(calls(), "off question on mount");
    assert!(fs::read_to_string(LEVELS).unwrap().starts_with('5'));
    drop(before);
}
