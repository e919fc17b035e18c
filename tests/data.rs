//! What a sliver is created from beside its base: an archive of its own; and bases that are images.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use common::node::{Node, run, small_tree};
use common::{listing, require};

/// A node with a base `b` whose /bin is a link, as on a merged-/usr system, and whose /escape leads to the host's /tmp.
fn merged_usr(pack: &[&str]) -> Node {
    let node = Node::new("ext4", 64);
    let tree = node.dir().join("tree");
    small_tree(&tree);
    let script = "cd \"$1\"; rmdir bin; mkdir -p usr/bin; ln -s usr/bin bin; ln -s /usr/bin sbin; ln -s /tmp escape; \
                  ln -s ../../../../../../tmp up; mkdir tmp";
    run(Command::new("sh").args(["-ec", script, "sh"]).arg(&tree));
    node.ok(&[&["base", "add", "b", tree.to_str().unwrap()], pack].concat());
    node
}

/// Packs what a script makes as a tar.gz.
fn archive(node: &Node, script: &str) -> String {
    let from = node.dir().join("data");
    let _gone = fs::remove_dir_all(&from);
    fs::create_dir(&from).unwrap();
    run(Command::new("sh").args(["-ec", script]).current_dir(&from));
    let tgz = node.dir().join("data.tgz");
    run(Command::new("tar").arg("-czf").arg(&tgz).arg("-C").arg(&from).arg("."));
    tgz.to_str().unwrap().to_owned()
}

#[test]
fn data_land_where_the_base_leads() {
    if !require("root", common::root()) {
        return;
    }
    for pack in [&[][..], &["--pack", "squashfs"]] {
        let node = merged_usr(pack);
        let mark = format!("sliverfs-mark-{}", std::process::id());
        let data = archive(
            &node,
            &format!(
                "mkdir -p bin sbin etc escape up; echo x > bin/x; chown 7:8 bin/x; chmod 4755 bin/x; echo s > sbin/s; \
                 echo mine > etc/a.txt; echo e > escape/{mark}; echo u > up/{mark}2"
            ),
        );
        node.ok(&["create", "a", "--base", "b", "--data", &data]);
        assert_eq!(node.json(&["show", "a", "--json"])["actual"], "unmounted");
        node.ok(&["mount", "a"]);
        let view = node.view("a");
        let x = fs::symlink_metadata(view.join("usr/bin/x")).unwrap();
        assert_eq!((x.mode() & 0o7777, x.uid(), x.gid()), (0o4755, 7, 8));
        assert!(fs::symlink_metadata(view.join("bin")).unwrap().is_symlink(), "the base's link stays");
        assert!(view.join("usr/bin/s").exists(), "an absolute link starts at the view's root");
        assert_eq!(fs::read_to_string(view.join("etc/a.txt")).unwrap(), "mine\n");
        assert!(view.join("tmp").join(&mark).exists() && view.join(format!("tmp/{mark}2")).exists());
        assert!(!std::path::Path::new("/tmp").join(&mark).exists(), "nothing was written outside");
        node.ok(&["umount", "a"]);
        node.ok(&["base", "verify", "b"]);
    }
}

#[test]
fn refused_data_leave_no_sliver() {
    if !require("root", common::root()) {
        return;
    }
    let node = merged_usr(&[]);
    let before = listing::of(&node.lxcpath, false);
    let outside = node.dir().join("outside");
    let hostile = node.dir().join("hostile.tar");
    for (name, script) in [
        ("..", "echo x > f; tar -cPf \"$1\" --transform 's,^f,../../../outside,' f"),
        ("/", "echo x > f; tar -cPf \"$1\" --transform \"s,^f,$2,\" f"),
        ("0:0", "mknod gone c 0 0; tar -cf \"$1\" gone"),
        (
            "trusted.overlay",
            "mkdir d; setfattr -n trusted.overlay.opaque -v y d; tar --xattrs --xattrs-include='*' -cf \"$1\" d",
        ),
        ("cut", "head -c 100000 /dev/urandom > big; tar -cf whole big; head -c 50000 whole > \"$1\""),
    ] {
        let work = node.dir().join("work");
        fs::create_dir(&work).unwrap();
        run(Command::new("sh").args(["-ec", script, "sh"]).arg(&hostile).arg(&outside).current_dir(&work));
        fs::remove_dir_all(&work).unwrap();
        let said = node.run(&["create", "a", "--base", "b", "--data", hostile.to_str().unwrap()]);
        assert!(!said.status.success(), "{name}");
        assert!(!outside.exists(), "{name}");
        assert_eq!(
            listing::of(&node.lxcpath, false),
            before,
            "{name}: {}",
            String::from_utf8_lossy(&said.stderr)
        );
    }
    // What has no end is no archive.
    let fifo = node.dir().join("fifo");
    run(Command::new("mkfifo").arg(&fifo));
    assert!(
        node.fails(2, &["create", "a", "--base", "b", "--data", fifo.to_str().unwrap()])
            .contains("not a file")
    );
    node.fails(2, &["create", "a", "--base", "b", "--data", "/dev/zero"]);
    assert!(node.fails(2, &["base", "add", "z", "/dev/zero"]).contains("neither a folder nor a file"));
    node.ok(&["create", "a", "--base", "b"]);
}

#[test]
fn an_image_base_is_mounted_once_and_let_go() {
    if !require("root", common::root()) {
        return;
    }
    for form in ["squashfs", "erofs"] {
        let tool = format!("mk{}", if form == "squashfs" { "squashfs" } else { "fs.erofs" });
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {tool} >/dev/null")])
            .status()
            .unwrap()
            .success();
        if !require(&tool, if found { Ok(()) } else { Err("it is not installed".into()) }) {
            continue;
        }
        let node = merged_usr(&["--pack", form]);
        let images = || {
            let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            table.lines().filter(|line| line.contains(&format!(" - {form} /dev/loop"))).count()
        };
        let before = images();
        for name in ["a", "c"] {
            node.ok(&["create", name, "--base", "b"]);
            node.ok(&["mount", name]);
            assert_eq!(fs::read_to_string(node.view(name).join("etc/b.txt")).unwrap(), "two\n");
            fs::write(node.view(name).join("etc/b.txt"), name).unwrap();
        }
        assert_eq!(images(), before + 1, "{form}: one mount for both");
        node.ok(&["umount", "a"]);
        assert_eq!(images(), before + 1, "{form}: `c` still needs it");
        assert_eq!(fs::read_to_string(node.view("c").join("etc/b.txt")).unwrap(), "c");
        node.ok(&["umount", "c"]);
        assert_eq!(images(), before, "{form}: nobody needs it");
        node.ok(&["mount", "--all"]);
        assert_eq!(fs::read_to_string(node.view("a").join("etc/b.txt")).unwrap(), "a");
        node.fails(4, &["base", "remove", "b"]);
        node.ok(&["umount", "--all"]);
        node.ok(&["destroy", "a"]);
        node.ok(&["destroy", "c"]);
        node.ok(&["base", "remove", "b"]);
    }
}
