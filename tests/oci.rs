//! What a sliver changed, as an OCI image layer and back: by Debian's umoci and skopeo, and by ourselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::node::{Node, run};
use common::tar::{Header, Tar};
use common::tree::{assert_same, full_tree, installed, sh_in};
use common::{listing, require, strace};

/// A node whose base has everything.
fn node(fstype: &str, mib: u64) -> Node {
    let node = Node::new(fstype, mib);
    let tree = node.dir().join("tree");
    full_tree(&tree, true);
    node.ok(&["base", "add", "b", tree.to_str().unwrap()]);
    node
}

/// Makes a folder of the base anew: a union says that it is opaque, a whole tree what is gone from it.
const ANEW: &str = "rm -r dev; mkdir dev; mknod dev/other c 5 7; mkfifo dev/pipe";

/// Changes of every kind, with times that no clock gave.
fn edit(view: &Path) {
    edit_with(view, ANEW);
}

fn edit_with(view: &Path, anew: &str) {
    run(Command::new("sh").arg("-ec").arg(
        r#"cd "$1"
        eval "$2"; echo new > etc/new; rm etc/relative dangling
        rm -r usr/bin; echo file > usr/bin; rm etc/file; mkdir etc/file; echo in > etc/file/in; rm -r etc/file; mkdir etc/file
        echo in > etc/file/inside; mkdir -p var/empty/deep/new; chmod 4711 var/random; chown 70000:3000000 var/zeros
        ln etc/new hard; ln etc/new "odd names/hard too"; ln -s "$(printf '%0150d' 3)" long-link; mkdir -p "$(printf '%0120d' 9)/x"
        echo n > "$(printf '%0120d' 9)/x/$(printf '%0200d' 8)"; printf z > "$(printf 'n\n\377')"; truncate -s 2000000 holes
        printf x | dd of=holes bs=1 seek=1000000 conv=notrunc 2>/dev/null
        setfattr -n user.x -v "$(printf 'a\nb=')" etc/new; setfattr -n trusted.t -v 0xff00 etc/file
        cp /bin/true cap; setcap cap_net_raw+ep cap; echo more >> var/random; rm -r var/empty/deep
        find . -depth -newermt 2025-01-01 -exec touch -h -d @1600000000.123456789 {} +; touch -d @-5.25 etc/new"#,
    ).arg("sh").arg(view).arg(anew));
}

/// A tree's listing, but for the numbers of names.
fn listed(view: &Path) -> String {
    listing::uncounted(&listing::of(view, true))
}

/// The view's listing, with the sliver mounted for it.
fn view(node: &Node, name: &str) -> String {
    node.ok(&["mount", name]);
    let text = listed(&node.view(name));
    node.ok(&["umount", name]);
    text
}

/// A sliver that was edited; its listing.
fn edited(node: &Node, name: &str, backend: &str) -> String {
    node.ok(&["create", name, "--base", "b", "--backend", backend]);
    node.ok(&["mount", name]);
    edit(&node.view(name));
    node.ok(&["umount", name]);
    view(node, name)
}

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

/// Exports from one kind of store and imports into another; the view must be the same.
fn through(node: &Node, from: &str, to: &[&str]) {
    let wanted = edited(node, "a", from);
    let file = node.dir().join("layer.tar");
    let file = file.to_str().unwrap();
    node.ok(&["export", "a", "-o", file]);
    for to in to {
        node.ok(&["create", "c", "--base", "b", "--backend", to]);
        let plan = node.ok(&["import", "c", file, "--dry-run", "--replace"]);
        assert!(plan.contains(".new.c"), "{plan}");
        node.ok(&["import", "c", file, "--replace"]);
        assert_same(&view(node, "c"), &wanted, &format!("{from} to {to}"));
        let again = node.dir().join("again.tar");
        node.ok(&["export", "c", "-o", again.to_str().unwrap()]);
        node.ok(&["import", "c", again.to_str().unwrap(), "--replace"]);
        assert_same(&view(node, "c"), &wanted, &format!("{from} to {to}, once more"));
        node.ok(&["destroy", "c"]);
    }
    node.ok(&["destroy", "a"]);
}

#[test]
fn from_store_to_store_on_ext4() {
    if !require("root", common::root()) || !require("setcap", installed("setcap")) {
        return;
    }
    let node = node("ext4", 96);
    let mut kinds = vec!["overlay", "copy"];
    if require("fuse-overlayfs", installed("fuse-overlayfs")) {
        kinds.push("fuse-overlayfs");
    }
    through(&node, "overlay", &kinds);
    through(&node, "copy", &["overlay", "copy"]);
}

#[test]
fn from_store_to_store_on_btrfs() {
    if !require("root", common::root()) || !require("btrfs-snapshot", installed("mkfs.btrfs")) {
        return;
    }
    let node = node("btrfs", 160);
    through(&node, "btrfs-snapshot", &["btrfs-snapshot", "reflink", "overlay"]);
}

#[test]
fn from_seed_to_seed() {
    if !require("root", common::root()) || !require("btrfs-seed", installed("mkfs.btrfs")) {
        return;
    }
    let node = Node::new("ext4", 400);
    let tree = node.dir().join("tree");
    full_tree(&tree, true);
    node.ok(&["base", "add", "b", tree.to_str().unwrap(), "--pack", "btrfs"]);
    let wanted = edited(&node, "a", "btrfs-seed");
    let file = node.dir().join("layer.tar");
    let file = file.to_str().unwrap();
    let said = node.fails(1, &["export", "a", "-o", file]);
    assert!(said.contains("mount it"), "{said}");
    node.ok(&["mount", "a"]);
    node.ok(&["export", "a", "-o", file]);
    node.ok(&["umount", "a"]);
    node.ok(&["create", "c", "--base", "b", "--backend", "btrfs-seed", "--size", "300M"]);
    assert!(node.fails(2, &["import", "c", file]).contains("--replace"));
    node.ok(&["import", "c", file, "--replace"]);
    assert_same(&view(&node, "c"), &wanted, "the other seed");
    assert_eq!(node.json(&["show", "c", "--json"])["limit"], 300 << 20);
}

/// A sliver on a small base, and what a layer makes of it.
fn import(node: &Node, tar: Vec<u8>, options: &[&str]) -> std::process::Output {
    let file = node.dir().join("given.tar");
    fs::write(&file, tar).unwrap();
    node.run(&[&["import", "a", file.to_str().unwrap()], options].concat())
}

/// All names in the folder of the stores, hidden ones too.
fn stores(node: &Node) -> Vec<String> {
    let names = fs::read_dir(node.lxcpath.join(".store")).unwrap();
    names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect()
}

fn small() -> Node {
    let node = Node::with_base("ext4", 32);
    node.ok(&["create", "a", "--base", "b", "--backend", "overlay"]);
    node
}

#[test]
fn layers_as_others_write_them() {
    if !require("root", common::root()) {
        return;
    }
    let node = small();
    let base = view(&node, "a");
    let taken = |tar: Vec<u8>, options: &[&str]| {
        let done = import(&node, tar, &[&["--replace"], options].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        view(&node, "a")
    };
    let without = |gone: &dyn Fn(&str) -> bool| {
        let keep = |line: &&str| !gone(line.split(' ').next().unwrap());
        base.lines().filter(keep).collect::<Vec<_>>().join("\n")
    };
    // Folders that are not named are the base's.
    assert_same(&taken(Tar::default().end(), &[]), &base, "nothing");
    let var = without(&|name| name.starts_with("var/deep/er"));
    assert_same(&taken(Tar::default().file(b"var/deep/.wh.er", b"").end(), &[]), &var, "a whiteout");
    let tar = Tar::default().file(b"var/.wh.deep", b"").file(b"var/deep/er/.wh.x", b"").end();
    let deep = without(&|name| name.starts_with("var/deep"));
    assert_same(&taken(tar, &[]), &deep, "a whiteout, and one below it");
    // An opaque mark hides the base's, wherever it stands.
    let tar = Tar::default().file(b"var/deep/new", b"n").file(b"var/deep/.wh..wh..opq", b"").end();
    let shown = taken(tar, &[]);
    assert!(shown.contains("var/deep/new ") && !shown.contains("var/deep/y "), "{shown}");
    let tar = Tar::default().file(b"var/deep/new", b"n").file(b"var/.wh.deep", b"").end();
    let shown = taken(tar, &[]);
    assert!(shown.contains("var/deep/new ") && !shown.contains("var/deep/y "), "{shown}");
    // A whiteout beside what replaces it; a folder in the place of a file, and the other way round.
    let tar = Tar::default().file(b"etc/b.txt", b"other").file(b"etc/.wh.b.txt", b"").dir(b"etc/a.txt");
    let shown = taken(tar.file(b"etc/dir", b"f").end(), &[]);
    assert!(shown.contains("etc/b.txt 100644") && shown.contains("etc/a.txt 40755"), "{shown}");
    assert!(shown.contains("etc/dir 100644"), "{shown}");
    // What aufs has for itself.
    let tar = Tar::default().file(b".wh..wh.aufs", b"").dir(b".wh..wh.plnk").file(b".wh..wh.plnk/1.2", b"x");
    assert_same(&taken(tar.end(), &[]), &base, "aufs's own");
    // The dump of an overlayfs store: found out, or told.
    let dump = |tar: Tar| tar.dir(b"./").dir(b"./lost+found").link(b"./etc/b.txt", b"(overlay-whiteout)");
    for options in [&[][..], &["--format", "overlayfs"]] {
        let shown = taken(dump(Tar::default()).file(b"./etc/new", b"n").end(), options);
        assert!(shown.contains("etc/new ") && !shown.contains("etc/b.txt"), "{shown}");
        assert!(!shown.contains("lost+found"), "{shown}");
    }
    let opaque: &[(&[u8], &[u8])] = &[(b"SCHILY.xattr.trusted.overlay.opaque", b"y")];
    let tar = || Tar::default().pax(opaque).dir(b"./etc/dir").end();
    assert!(!taken(tar(), &[]).contains("etc/dir/"));
    let done = import(&node, tar(), &["--replace", "--format", "oci"]);
    assert!(String::from_utf8_lossy(&done.stderr).contains("`./etc/dir` carries trusted.overlay.opaque"));
    let shown = taken(dump(Tar::default()).end(), &["--format", "oci"]);
    assert!(shown.contains("-> (overlay-whiteout)") && shown.contains("lost+found"), "{shown}");
}

#[test]
fn hostile_layers_are_refused_whole() {
    if !require("root", common::root()) {
        return;
    }
    let node = small();
    let tar = |name: &[u8]| Tar::default().file(b"good", b"x").file(name, b"");
    let whiteout = Header::new(b"etc/dev", b'3', 0).device(0, 0);
    let opaque: &[(&[u8], &[u8])] = &[(b"SCHILY.xattr.trusted.overlay.opaque", b"x")];
    let marked: &[(&[u8], &[u8])] = &[(b"SCHILY.xattr.trusted.overlay.opaque", b"y")];
    for (tar, words) in [
        (tar(b"../out"), "`../out` has a path that climbs with `..`"),
        (tar(b"/out"), "`/out` has a path that is absolute"),
        (tar(b".wh..wh..opq"), "`.wh..wh..opq` hides the whole base"),
        (tar(b"etc/.wh."), "`etc/.wh.` is a whiteout of no name"),
        (tar(b"etc/.wh.."), "`etc/.wh..` is a whiteout of no name"),
        (tar(b".wh..."), "`.wh...` is a whiteout of no name"),
        (tar(b"etc/.wh..wh.x"), "`etc/.wh..wh.x` is a whiteout of no name"),
        (tar(b"etc/.wh.d/f"), "lies in a folder with the name of a whiteout"),
        (Tar::default().file(b".wh.x", b"full"), "`.wh.x` has the name of a whiteout, and is no empty file"),
        (Tar::default().dir(b"etc/.wh.x"), "and is no empty file"),
        (Tar::default().link(b"etc/.wh.x", b"/etc/passwd"), "and is no empty file"),
        (Tar::default().add(whiteout, b""), "`etc/dev` is a whiteout (character device 0:0)"),
        (Tar::default().pax(opaque).dir(b"etc"), "`etc` carries trusted.overlay.opaque, which a union"),
        (Tar::default().pax(marked).file(b"etc", b""), "`etc` carries trusted.overlay.opaque, which a union"),
        (tar(b".wh.x").pax(marked).dir(b"etc"), "beside others of OCI"),
        (Tar::default().pax(marked).dir(b"etc").file(b".wh.x", b""), "in a dump of overlayfs"),
        (Tar::default().link(b"x", b"/tmp").file(b"x/f", b""), "leads through the link"),
        (Tar::default().hard(b"x", b"../../../etc/passwd"), "climbs with `..`"),
        (Tar::default().hard(b"x", b"nothing"), "is a hard link to what is not there"),
        (tar(b".wh.etc").link(b"x", b"(overlay-whiteout)"), "beside others of OCI"),
        (Tar::default().link(b"x", b"(overlay-whiteout)").file(b".wh.etc", b""), "in a dump of overlayfs"),
    ] {
        let before = view(&node, "a");
        let done = import(&node, tar.end(), &[]);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{words}: {said}");
        assert!(said.contains(words), "{words}: {said}");
        assert_same(&view(&node, "a"), &before, words);
        assert_eq!(stores(&node), ["a"], "{words}");
    }
    let mut torn = tar(b"f").file(b"long", &[7; 5000]).end();
    torn.truncate(3000);
    let done = import(&node, torn, &[]);
    assert!(String::from_utf8_lossy(&done.stderr).contains("ends too early"));
}

#[test]
fn what_an_operator_is_asked() {
    if !require("root", common::root()) {
        return;
    }
    let node = small();
    let layer = || Tar::default().file(b"new", b"n").end();
    assert!(import(&node, layer(), &[]).status.success());
    let done = import(&node, layer(), &[]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(2) && said.contains("--replace"), "{said}");
    assert!(import(&node, layer(), &["--replace"]).status.success());
    node.ok(&["mount", "a"]);
    assert_eq!(import(&node, layer(), &["--replace"]).status.code(), Some(4));
    node.ok(&["umount", "a"]);
    assert_eq!(import(&node, layer(), &["--replace", "--format", "x"]).status.code(), Some(2));
    assert_eq!(node.run(&["import", "a", "/nonexistent", "--replace"]).status.code(), Some(1));
    // From standard input, compressed.
    let mut child = node.command(&["import", "a", "-", "--replace"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut gzip = Vec::new();
    let tar = Tar::default().file(b"piped", b"p").end();
    flate2::read::GzEncoder::new(&*tar, flate2::Compression::fast()).read_to_end(&mut gzip).unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &gzip).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(view(&node, "a").contains("piped "));
}

#[test]
fn a_full_disk_leaves_the_old_store() {
    if !require("root", common::root()) {
        return;
    }
    let node = small();
    let before = view(&node, "a");
    let done = import(&node, Tar::default().file(b"big", &vec![7; 40 << 20]).end(), &[]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(1) && said.contains("full"), "{said}");
    assert_same(&view(&node, "a"), &before, "the old store");
    assert_eq!(stores(&node), ["a"]);
    // Nor does an export leave half a file.
    node.ok(&["mount", "a"]);
    fs::write(node.view("a").join("big"), vec![7; 12 << 20]).unwrap();
    node.ok(&["umount", "a"]);
    for name in ["x.tar", "x.tgz"] {
        let file = node.lxcpath.parent().unwrap().join(name);
        let fill = node.lxcpath.parent().unwrap().join("fill");
        let _full = Command::new("dd").arg("if=/dev/zero").arg(format!("of={}", fill.display())).output();
        node.fails(1, &["export", "a", "-o", file.to_str().unwrap()]);
        fs::remove_file(fill).unwrap();
        assert!(!file.exists() && !file.with_file_name(format!(".{name}.new")).exists());
    }
}

/// Before Linux 3.15, and on some disks: two renames.
#[test]
fn killed_where_two_names_cannot_be_exchanged() {
    if !require("root", common::root()) || !require("strace", strace::works()) {
        return;
    }
    let node = small();
    let layer = node.dir().join("new.tar");
    fs::write(&layer, Tar::default().file(b"which", b"new").end()).unwrap();
    let empty = node.dir().join("empty.tar");
    fs::write(&empty, Tar::default().end()).unwrap();
    let args = ["import", "a", layer.to_str().unwrap(), "--replace"];
    let refuse = "inject=renameat2:error=EINVAL";
    let mut missing = false;
    for call in ["rename", "fsync", "unlinkat"] {
        for number in 1..=6 {
            node.ok(&["import", "a", empty.to_str().unwrap(), "--replace"]);
            let kill = format!("inject={call}:signal=KILL:when={number}");
            let trace = format!("trace={call},renameat2");
            let options = ["-f", "-e", &trace, "-e", refuse, "-e", &kill];
            let _killed = strace::command(&node, &options, &args).status().unwrap();
            missing |= !node.store("a").exists();
            node.ok(&args);
            assert!(view(&node, "a").contains("which "), "{call} {number}");
            assert_eq!(stores(&node), ["a"], "{call} {number}");
        }
    }
    assert!(missing, "nothing was killed between the two renames");
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
