//! What a sliver changed, as an OCI image layer: by Debian's umoci and skopeo, and by ourselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::node::{Node, run};
use common::oci::{ANEW, edit, edit_with, edited, import, listed, node, small};
use common::tar::Tar;
use common::tree::{assert_same, full_tree, installed, sh_in};
use common::{listing, require, strace};

fn sha256(file: &Path) -> String {
    run(Command::new("sha256sum").arg(file)).split(' ').next().unwrap().to_owned()
}

#[test]
fn umoci_and_skopeo_unpack_the_same_tree() {
    let tools = installed("umoci").and(installed("skopeo")).and(installed("setcap"));
    if !require("root", common::root()) || !require("umoci", tools) {
        return;
    }
    let node = node("ext4", 96);
    let wanted = edited(&node, "a", "overlay");
    let dir = node.dir();
    let layer = dir.join("layer.tar.gz");
    let told = node.json(&["export", "a", "-o", layer.to_str().unwrap(), "--json"]);
    sh_in(dir, "gunzip -c layer.tar.gz > layer.tar");
    umoci(dir);
    run(Command::new("sh")
        .arg("-ec")
        .arg(
            r#"cd "$1"
        skopeo --insecure-policy copy -q oci:l:t oci:m:t; skopeo inspect --config oci:m:t > config
        rm -r bundle; umoci unpack --image m:t bundle"#,
        )
        .arg("sh")
        .arg(dir));
    let config = fs::read_to_string(dir.join("config")).unwrap();
    assert!(config.contains(told["diff_id"].as_str().unwrap()), "{config} {told}");
    assert_same(&listed(&dir.join("bundle/rootfs")), &wanted, "umoci's tree");
}

/// What umoci makes of the tree and the layer in a folder.
fn umoci(dir: &Path) {
    sh_in(
        dir,
        "rm -rf l bundle; umoci init --layout l; umoci new --image l:t
        tar --format=posix --pax-option=delete=atime,delete=ctime --xattrs --xattrs-include='*' --numeric-owner -C tree -cf base.tar .
        for tar in base layer; do umoci raw add-layer --image l:t $tar.tar; done; umoci unpack --image l:t bundle",
    );
}

/// The same changes, held by each kind of store, are the same bytes; and umoci makes of them what a plain copy shows, with as many names
/// of each file.
#[test]
fn layers_of_every_kind_are_one() {
    let tools = installed("umoci").and(installed("mkfs.btrfs")).and(installed("setcap"));
    if !require("root", common::root()) || !require("umoci", tools) {
        return;
    }
    let node = Node::new("btrfs", 300);
    let dir = node.dir();
    full_tree(&dir.join("tree"), true);
    // A whole tree tells, too, of what has fewer names than in the base, which is nothing to a union.
    sh_in(&dir.join("tree"), "rm zz usr/same-link; ln var/holes other-name; touch -d @1234567890 . usr");
    node.ok(&["base", "add", "b", dir.join("tree").to_str().unwrap()]);
    let (base, layer) = (node.lxcpath.join(".base/b/tree"), dir.join("layer.tar"));
    let export = |args: &[&str]| {
        let done = node.run(&[&["export"], args].concat());
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        done.stdout
    };
    for kind in ["copy", "reflink", "btrfs-snapshot", "overlay"] {
        node.ok(&["create", kind, "--base", "b", "--backend", kind]);
        node.ok(&["mount", kind]);
        // What is touched and put back is no change.
        let view = node.view(kind);
        sh_in(&view, "chmod 600 var/random; chmod 644 var/random; chmod 700 var; chmod 755 var");
        edit_with(&view, "");
        let text = listing::of(&view, true);
        node.ok(&["umount", kind]);
        let told = export(&[kind]);
        if kind == "copy" {
            fs::write(&layer, &told).unwrap();
            umoci(dir);
            assert_same(&listing::of(&dir.join("bundle/rootfs"), true), &text, "umoci's tree");
        }
        assert!(told == fs::read(&layer).unwrap(), "the layer of {kind}: {}", difference(dir, &told));
    }
    // Stores of kinds that this kernel lacks.
    for format in ["overlayfs", "mini_fo"] {
        let (base, upper) = (base.to_str().unwrap(), node.store("overlay").join("upper"));
        let out = node.lxcpath.join(format);
        let [upper, out] = [&upper, &out].map(|path| path.to_str().unwrap());
        node.ok(&[
            "convert", "--format", "overlay", "--base", base, "--store", upper, "--to", format, "--out", out,
        ]);
        let told = export(&["--format", format, "--base", base, "--store", out]);
        assert!(told == fs::read(&layer).unwrap(), "the layer of {format}: {}", difference(dir, &told));
    }
    // A folder that was made anew is told in two ways, which come to the same. fuse-overlayfs gives a link that it copies up to root.
    let mut kinds = vec!["copy", "overlay"];
    if require("fuse-overlayfs", installed("fuse-overlayfs")) {
        node.ok(&["create", "fuse-overlayfs", "--base", "b", "--backend", "fuse-overlayfs"]);
        kinds.push("fuse-overlayfs");
    }
    for kind in kinds {
        node.ok(&["mount", kind]);
        if kind == "fuse-overlayfs" {
            edit(&node.view(kind));
        } else {
            sh_in(&node.view(kind), ANEW);
        }
        let text = listed(&node.view(kind));
        node.ok(&["umount", kind]);
        fs::write(&layer, export(&[kind])).unwrap();
        umoci(dir);
        assert_same(&listed(&dir.join("bundle/rootfs")), &text, kind);
    }
}

/// Who unpacks a layer into an empty folder, as engines do, finds the folders on the way to each change in it, as the base has them; and no
/// others.
#[test]
fn the_folders_above_a_change_are_in_the_layer() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::new("ext4", 32);
    let (tree, folders) =
        (node.dir().join("tree"), "find etc var -type d -printf '%p %m %U %G %T@\n' | sort");
    fs::create_dir(&tree).unwrap();
    sh_in(
        &tree,
        "mkdir -p etc/none var/deep/er/none usr/none; for file in etc/hosts var/deep/er/gone var/z; do echo 1 > $file; done
        chmod 2750 etc; chown 7:8 etc/none var var/deep; chmod 700 var/deep/er; find . -exec touch -d @1500000000 {} +",
    );
    node.ok(&["base", "add", "b", tree.to_str().unwrap()]);
    for kind in ["overlay", "copy"] {
        node.ok(&["create", kind, "--base", "b", "--backend", kind]);
        node.ok(&["mount", kind]);
        sh_in(
            &node.view(kind),
            "echo 2 >> etc/hosts; rm var/deep/er/gone; touch -d @1500000000 var/deep/er; echo 2 >> var/z",
        );
        node.ok(&["umount", kind]);
        let (layer, empty) = (node.dir().join("layer.tar"), node.dir().join(kind));
        let told = node.json(&["export", kind, "-o", layer.to_str().unwrap(), "--json"]);
        let names = run(Command::new("tar").arg("-tf").arg(&layer));
        let wanted = "./ etc/ etc/hosts var/ var/deep/ var/deep/er/ var/deep/er/.wh.gone var/z";
        assert_eq!(names.split_whitespace().collect::<Vec<_>>().join(" "), wanted, "{kind}");
        assert_eq!(told["entries"], 8, "{told}");
        fs::create_dir(&empty).unwrap();
        run(Command::new("tar").args(["--numeric-owner", "-xpf"]).arg(&layer).arg("-C").arg(&empty));
        let list = |tree: &Path| run(Command::new("sh").args(["-ec", folders]).current_dir(tree));
        let wanted: String =
            list(&tree).lines().filter(|line| !line.contains("none")).flat_map(|line| [line, "\n"]).collect();
        assert_same(&list(&empty), &wanted, kind);
    }
}

/// A new name of a file that has lost one, or whose other name came again in a folder that was made anew, is a link in the layer; and a
/// file that has its names as in the base is none of it.
#[test]
fn a_file_that_changed_names_is_one_in_the_layer() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::new("ext4", 32);
    let tree = node.dir().join("tree");
    fs::create_dir(&tree).unwrap();
    sh_in(&tree, "mkdir d; for file in a k d/x; do echo $file > $file; done; ln a b; ln k l; ln d/x y");
    node.ok(&["base", "add", "b", tree.to_str().unwrap()]);
    let fuse =
        ["fuse-overlayfs", "fusermount3"].iter().all(|tool| require("fuse-overlayfs", installed(tool)));
    for kind in ["copy", "fuse-overlayfs"].into_iter().take(if fuse { 2 } else { 1 }) {
        node.ok(&["create", kind, "--base", "b", "--backend", kind]);
        node.ok(&["mount", kind]);
        sh_in(&node.view(kind), "ln a c; rm b; rm -r d; mkdir d; ln y d/x");
        node.ok(&["umount", kind]);
        let layer = node.dir().join("layer.tar");
        node.ok(&["export", kind, "-o", layer.to_str().unwrap()]);
        let listed = run(Command::new("tar").arg("-tvf").arg(&layer));
        assert!(listed.contains(" c link to a\n") && !listed.contains(" k\n"), "{kind}: {listed}");
        // In a whole tree they are the base's two names again.
        let again = kind == "copy" || listed.contains(" y link to d/x\n");
        assert!(again, "{kind}: {listed}");
    }
}

/// In what tar sees a layer differ from the one that is there.
fn difference(dir: &Path, other: &[u8]) -> String {
    fs::write(dir.join("other.tar"), other).unwrap();
    let script = "cd $1; for tar in layer other; do tar -tvf $tar.tar > $tar.list; done; diff layer.list other.list || true";
    run(Command::new("sh").args(["-ec", script, "sh"]).arg(dir))
}

#[test]
fn an_export_is_the_same_each_time_and_says_its_digest() {
    if !require("root", common::root()) {
        return;
    }
    let node = node("ext4", 96);
    edited(&node, "a", "overlay");
    let path = |name: &str| node.dir().join(name);
    let export = |name: &str| {
        let file = path(name);
        node.json(&["export", "a", "-o", file.to_str().unwrap(), "--json"])
    };
    let told = export("1.tar");
    assert_eq!(told["diff_id"], format!("sha256:{}", sha256(&path("1.tar"))));
    assert_eq!(told["size"], fs::metadata(path("1.tar")).unwrap().len());
    assert_eq!(fs::metadata(path("1.tar")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(export("2.tgz")["gzip"], true);
    export("3.tgz");
    assert_eq!(sha256(&path("2.tgz")), sha256(&path("3.tgz")));
    // Into a pipe, while it is mounted.
    node.ok(&["mount", "a"]);
    let piped = node.command(&["export", "a"]).stdout(Stdio::piped()).output().unwrap();
    assert_eq!(piped.stdout, fs::read(path("1.tar")).unwrap());
    let zipped = node.run(&["export", "a", "--gzip", "-o", "-"]).stdout;
    assert_eq!(zipped, fs::read(path("2.tgz")).unwrap());
    node.ok(&["umount", "a"]);
    // Bare directories; nothing stays beside the file.
    let (base, upper) = (node.lxcpath.join(".base/b/tree"), node.store("a").join("upper"));
    let bare = ["--base", base.to_str().unwrap(), "--store", upper.to_str().unwrap(), "-o", "/dev/stdout"];
    let bare = node.run(&[&["export", "--format", "overlay"], &bare[..]].concat()).stdout;
    assert_eq!(bare, piped.stdout);
    assert!(!path(".1.tar.new").exists());
    node.fails(2, &["export", "a", "--json"]);
    let said = node.fails(1, &["export", "a", "-o", "/dev/full"]);
    assert!(said.contains("/dev/full"), "{said}");
    // A reader of a tar sees no more than what changed.
    let names = run(Command::new("tar").arg("-tf").arg(path("1.tar")));
    assert!(names.contains(".wh.dangling\n") && names.contains("dev/.wh..wh..opq\n"), "{names}");
    assert!(!names.contains("var/all-hole"), "{names}");
}

#[test]
fn names_that_read_as_whiteouts_are_refused() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 32);
    node.ok(&["create", "a", "--base", "b", "--backend", "overlay"]);
    node.ok(&["mount", "a"]);
    fs::write(node.view("a").join("etc/.wh.x"), "").unwrap();
    let file = node.dir().join("x.tar");
    let said = node.fails(1, &["export", "a", "-o", file.to_str().unwrap()]);
    assert!(said.contains("etc/.wh.x cannot be in a layer"), "{said}");
    assert!(!file.exists() && !node.dir().join(".x.tar.new").exists());
}

#[test]
fn killed_at_every_step_of_an_export() {
    if !require("root", common::root()) || !require("strace", strace::works()) {
        return;
    }
    let node = small();
    let tar = Tar::default().file(b"which", b"new").end();
    assert!(import(&node, tar, &[]).status.success());
    let file = node.dir().join("x.tgz");
    let args = ["export", "a", "-o", file.to_str().unwrap()];
    node.ok(&args);
    let whole = fs::read(&file).unwrap();
    for point in strace::points(&node, &args) {
        fs::write(&file, "old").unwrap();
        strace::kill(&node, &point, &args);
        let found = fs::read(&file).unwrap();
        assert!(found == b"old" || found == whole, "{point:?}");
        node.ok(&args);
        assert_eq!(fs::read(&file).unwrap(), whole, "{point:?}");
        assert!(!node.dir().join(".x.tgz.new").exists());
    }
}
