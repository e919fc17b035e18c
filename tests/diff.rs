//! `sliverfs diff` on real views, mounted or not, and on bare directories.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "layer/recorded.rs"]
mod recorded;

use std::fs;
use std::process::{Command, Stdio};

use common::node::Node;
use common::tree::{Temp, installed, sh_in};
use common::{require, strace};
use recorded::Recording;
use serde_json::{Value, json};
use sliverfs::layer::Format;

/// One of each kind of change.
const EDITS: &str = r#"
    echo more >> var/deep/y; chmod 600 etc/b.txt; chown 7:8 etc/dir/c.txt; rm var/deep/er/x; rmdir var/deep/er
    echo new > etc/new; mkdir opt; ln -s new etc/link; rm var/fifo; mkdir var/fifo; setfattr -n trusted.t -v 1 var/big
    touch -d @1400000000 var/sparse; printf 'hellO\n' > "odd names/a, b:c\\d"; chmod 700 "odd names"
"#;

fn changes(node: &Node, args: &[&str]) -> Value {
    node.json(args)["changes"].take()
}

#[test]
fn a_mounted_view() {
    if !require("overlay", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 64);
    node.ok(&["create", "s", "--base", "b", "--backend", "overlay"]);
    assert_eq!(node.ok(&["diff", "s"]), "");
    assert_eq!(node.ok(&["diff", "s", "--json"]), "{\"format\":\"overlay\",\"changes\":[]}\n");
    node.ok(&["mount", "s"]);
    sh_in(&node.view("s"), EDITS);
    let said = node.ok(&["diff", "s"]);
    let wanted = "\
modified  etc/b.txt  mode  4 B
modified  etc/dir/c.txt  owner  6 B
added     etc/link
added     etc/new  4 B
modified  odd names  mode
modified  odd names/a, b:c\\\\d  content, time  4 B -> 6 B
added     opt
modified  var/big  xattr  293 KiB
deleted   var/deep/er
modified  var/deep/y  content, time  2 B -> 7 B
replaced  var/fifo  fifo -> directory
modified  var/sparse  time  1 MiB
";
    assert_eq!(said, wanted);
    node.ok(&["umount", "s"]);
    assert_eq!(node.ok(&["diff", "s"]), wanted);

    // A path in it, however it is written; and what lies beside it is not looked at.
    for path in ["etc/dir", "/etc/dir/", "./etc//dir/c.txt"] {
        assert_eq!(node.ok(&["diff", "s", path]), "modified  etc/dir/c.txt  owner  6 B\n", "{path}");
    }
    assert_eq!(node.ok(&["diff", "s", "etc/di"]), "");
    assert!(node.fails(2, &["diff", "s", "../s"]).contains("leads out of the sliver"));
    assert!(node.fails(2, &["diff"]).contains("name a sliver"));
    assert!(node.fails(2, &["diff", "s", "--format", "aufs"]).contains("--format, --base and --store"));
    assert!(node.fails(2, &["diff", "nobody"]).contains("there is no sliver"));
    assert_eq!(
        changes(&node, &["diff", "s", "var/deep/y", "--json"]),
        json!([{"path": "var/deep/y", "change": "modified", "type": "file", "size": 7, "old_size": 2, "what": ["content", "time"]}])
    );
    assert_eq!(
        changes(&node, &["diff", "s", "var/fifo", "--json"]),
        json!([{"path": "var/fifo", "change": "replaced", "type": "directory", "was": "fifo", "what": ["type"]}])
    );
}

/// A container at work is no reason to fail.
#[test]
fn a_view_that_changes_meanwhile() {
    if !require("overlay", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 64);
    node.ok(&["create", "s", "--base", "b", "--backend", "overlay"]);
    node.ok(&["mount", "s"]);
    let view = node.view("s");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Folders come, go, and become files and links, with some in them so that they are gone into.
            for number in (0..8).cycle() {
                if done.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                let path = view.join(format!("etc/n{number}"));
                fs::create_dir_all(path.join("a/b")).unwrap();
                fs::write(path.join("a/f"), [b'x'; 9000]).unwrap();
                fs::remove_dir_all(&path).unwrap();
                fs::write(&path, "x").unwrap();
                fs::remove_file(&path).unwrap();
                std::os::unix::fs::symlink("/etc", &path).unwrap();
                fs::remove_file(&path).unwrap();
            }
        });
        let outputs: Vec<_> = (0..100).map(|_| node.run(&["diff", "s"])).collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        for output in outputs {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    });
    assert_eq!(node.ok(&["diff", "s"]), "");
}

/// The same edits are told the same, whatever holds them.
#[test]
fn every_backend_tells_the_same() {
    if !require("overlay", common::root()) {
        return;
    }
    let mut all: Vec<(&str, Value)> = Vec::new();
    for (fstype, mib, backends) in [
        ("ext4", 64, &["overlay", "copy", "fuse-overlayfs"][..]),
        ("btrfs", 256, &["btrfs-snapshot", "reflink"]),
    ] {
        let node = Node::with_base(fstype, mib);
        for (backend, name) in backends.iter().zip(["s", "t", "u"]) {
            if *backend == "fuse-overlayfs" && !require(backend, installed(backend)) {
                continue;
            }
            node.ok(&["create", name, "--base", "b", "--backend", backend]);
            assert_eq!(changes(&node, &["diff", name, "--json"]), json!([]), "{backend}");
            node.ok(&["mount", name]);
            sh_in(&node.view(name), EDITS);
            all.push((backend, changes(&node, &["diff", name, "--json"])));
        }
    }
    if require("btrfs-seed", installed("btrfstune")) {
        let node = Node::with_base("ext4", 512);
        let tree = node.dir().join("tree");
        node.ok(&["base", "add", "seed", tree.to_str().unwrap(), "--pack", "btrfs"]);
        node.ok(&["create", "s", "--base", "seed", "--backend", "btrfs-seed", "--size", "256M"]);
        assert_eq!(changes(&node, &["diff", "s", "--json"]), json!([]), "not mounted");
        node.ok(&["mount", "s"]);
        assert_eq!(changes(&node, &["diff", "s", "--json"]), json!([]), "btrfs-seed");
        sh_in(&node.view("s"), EDITS);
        all.push(("btrfs-seed", changes(&node, &["diff", "s", "--json"])));
        node.ok(&["umount", "s"]);
        all.push(("btrfs-seed, not mounted", changes(&node, &["diff", "s", "--json"])));
        // A union on the same image, whose mount keeps everybody else from it.
        node.ok(&["create", "u", "--base", "seed", "--backend", "overlay"]);
        for command in ["diff", "mount", "diff"] {
            assert_eq!(node.ok(&[command, "u"]), "", "{command}");
        }
        sh_in(&node.view("u"), EDITS);
        all.push(("overlay on the seed", changes(&node, &["diff", "u", "--json"])));
        let said = node.fails(4, &["diff", "s"]);
        assert!(said.contains("mounted as the base of u"), "{said}");
    }
    for (backend, rows) in &all {
        assert_eq!(*rows, all[0].1, "{backend}");
    }
}

/// The base is looked into where nobody else sees it, mounted or not, and stays as it was.
#[test]
fn a_base_that_is_an_image() {
    if !require("mksquashfs", installed("mksquashfs").and(common::root())) {
        return;
    }
    let node = Node::with_base("ext4", 64);
    let tree = node.dir().join("tree");
    node.ok(&["base", "add", "q", tree.to_str().unwrap(), "--pack", "squashfs"]);
    node.ok(&["create", "s", "--base", "q", "--backend", "overlay"]);
    node.ok(&["mount", "s"]);
    sh_in(&node.view("s"), "echo x > etc/a.txt; rm etc/b.txt");
    let wanted = "modified  etc/a.txt  content, time  6 B -> 2 B\ndeleted   etc/b.txt  4 B\n";
    assert_eq!(node.ok(&["diff", "s"]), wanted);
    node.ok(&["umount", "s"]);
    assert_eq!(node.ok(&["diff", "s"]), wanted);
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(!table.contains(".base/q"), "{table}");
}

/// A disk out of a node whose kernel nobody has any more.
#[test]
fn bare_directories_of_every_union() {
    if !require("root", common::root()) {
        return;
    }
    for (format, wanted) in [
        (Format::Overlay, "replaced  d2f  directory -> file  5 B\n"),
        (Format::MiniFo, "deleted   d2f/q  2 B\n"),
        (Format::Aufs, "replaced  d2f  directory -> file  5 B\n"),
        (Format::Overlayfs, "replaced  d2f  directory -> file  5 B\n"),
    ] {
        let temp = Temp::new();
        recorded::base(&temp.join("base"));
        fs::create_dir(temp.join("store")).unwrap();
        Recording::of(format).build("combined", &temp.join("store"));
        let diff = |words: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_sliverfs"));
            command.args(["diff", "--format", format.name(), "--base"]).arg(temp.join("base"));
            command.arg("--store").arg(temp.join("store")).args(words).output().unwrap()
        };
        let told = |words: &[&str]| {
            let output = diff(words);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(told(&["d2f"]), wanted, "{}", format.name());
        let all = told(&[]);
        for line in ["deleted   del.txt  10 B", "added     opt/x/y/z  2 B", "deleted   sp ace.txt  2 B"] {
            assert!(all.lines().any(|other| other == line), "{}: {line}\n{all}", format.name());
        }
        // Whose owner it is and how old is told, and that the driver may have done it by itself.
        let chown = match format {
            Format::MiniFo => "modified  chown.txt  (owner), (time)  12 B",
            _ => "modified  chown.txt  owner  12 B",
        };
        assert!(all.lines().any(|line| line == chown), "{}: {all}", format.name());
        if format == Format::MiniFo {
            assert!(all.lines().any(|line| line == "moved     dirren2  from dirren"), "{all}");
            assert!(all.lines().any(|line| line == "deleted   dirren2/f2  2 B"), "{all}");
            assert!(!all.contains("dirren2/sub"), "{all}");
        }
    }
}

#[test]
fn what_nobody_understands_is_told_and_fails() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::new();
    sh_in(
        &temp.0,
        "mkdir base store; echo > base/f; echo > store/new; echo > base/u; \
         ln -s '(overlay-whiteout)' store/f; mkfifo store/u; ln -s /etc/passwd store/etc",
    );
    let output = Command::new(env!("CARGO_BIN_EXE_sliverfs"))
        .args(["diff", "--format", "overlayfs", "--base"])
        .arg(temp.join("base"))
        .arg("--store")
        .arg(temp.join("store"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "added     etc\nreplaced  f  file -> link  1 B  [a whiteout without its attribute: torn, or copied without attributes]\n\
         added     new  1 B\nreplaced  u  file -> fifo  1 B\n"
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("1 entries of the store are not what overlayfs writes"), "{said}");
}

/// A folder that goes while a view in use is looked through makes no difference, whichever look misses it: names of files are sought
/// in a walk of their own.
#[test]
fn a_folder_that_goes_is_passed_over() {
    if !require("root", common::root()) || !require("strace", strace::works()) {
        return;
    }
    let node = Node::new("ext4", 32);
    let tree = node.dir().join("tree");
    fs::create_dir(&tree).unwrap();
    sh_in(&tree, "echo text > a; ln a b; mkdir goes; echo in > goes/in; echo z > z");
    node.ok(&["base", "add", "b", tree.to_str().unwrap()]);
    node.ok(&["create", "s", "--base", "b", "--backend", "copy"]);
    node.ok(&["mount", "s"]);
    sh_in(&node.view("s"), "ln a c; rm b; echo zz > z");
    for number in 1.. {
        let inject = format!("inject=openat:error=ENOENT:when={number}");
        let options = ["-P", "goes", "-e", "trace=openat", "-e", &inject];
        let done = strace::command(&node, &options, &["diff", "s"]).stdout(Stdio::piped()).output().unwrap();
        let (said, trace) = (String::from_utf8_lossy(&done.stdout), strace::traced(&node));
        assert!(done.status.success(), "{number}: {trace}");
        assert!(said.contains("modified  a  links") && said.contains("modified  z"), "{number}: {said}");
        if !trace.contains("INJECTED") {
            assert!(number > 3, "{trace}");
            break;
        }
    }
}
