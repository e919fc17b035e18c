//! Names as long as a disk takes them: a mark of their own, `.wh.NAME`, would be too long.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::layers::{bare, said};
use common::listing::{self, uncounted};
use common::node::{Node, run};
use common::require;
use common::slivers::{in_stores, view};
use common::tar::Tar;
use common::tree::{assert_same, installed, sh_in};
use sliverfs::layer::Format;

/// `name_of LETTER LENGTH`, for the scripts.
const NAME_OF: &str = r#"name_of() { printf "$1%0$(($2 - 1))d" 0; }"#;

/// Files and folders with names on both sides of what a mark can hold. Folders' times come last: what is made in them changes those.
const BASE: &str = r#"for n in 242 243 251 252 255; do
    for f in gone kept mine over; do echo base > d/$(name_of ${f%${f#?}} $n); done
    for f in removed emptied turned; do mkdir d/$(name_of ${f%${f#?}} $n); echo in > d/$(name_of ${f%${f#?}} $n)/$(name_of i $n); done
    done; find . -depth -exec touch -h -d @1500000000 {} +"#;

/// One of each kind of change for each length.
const EDIT: &str = r#"for n in 242 243 251 252 255; do cd d
    rm $(name_of g $n); echo mine > $(name_of m $n); rm $(name_of o $n); mkdir $(name_of o $n); echo x > $(name_of o $n)/$(name_of x $n)
    rm -r $(name_of r $n); rm $(name_of e $n)/*; rm -r $(name_of t $n); mkdir $(name_of t $n); ln $(name_of m $n) $(name_of t $n)/$(name_of l $n)
    cd ..; done; find . -depth -newermt 2025-01-01 -exec touch -h -d @1600000000 {} +"#;

fn name(letter: char, length: usize) -> String {
    format!("{letter}{}", "0".repeat(length - 1))
}

fn script(text: &str) -> String {
    format!("{NAME_OF}\n{text}")
}

/// A node with such a base, and a sliver `a` that was edited; its view.
fn node() -> (Node, String) {
    let node = Node::new("ext4", 64);
    let tree = node.dir().join("tree");
    fs::create_dir_all(tree.join("d")).unwrap();
    sh_in(&tree, &script(BASE));
    node.ok(&["base", "add", "b", tree.to_str().unwrap()]);
    node.ok(&["create", "a", "--base", "b", "--backend", "overlay"]);
    node.ok(&["mount", "a"]);
    sh_in(&node.view("a"), &script(EDIT));
    node.ok(&["umount", "a"]);
    let wanted = view(&node, "a");
    (node, wanted)
}

#[test]
fn out_as_a_layer_and_in_again() {
    if !require("root", common::root()) {
        return;
    }
    let (node, wanted) = node();
    let wanted = uncounted(&wanted);
    let [file, again] = ["layer.tar", "again.tar"].map(|name| node.dir().join(name));
    node.ok(&["export", "a", "-o", file.to_str().unwrap()]);
    let mut kinds = vec!["overlay", "copy"];
    if require("fuse-overlayfs", installed("fuse-overlayfs")) {
        kinds.push("fuse-overlayfs");
    }
    for kind in kinds {
        node.ok(&["create", "c", "--base", "b", "--backend", kind]);
        node.ok(&["import", "c", file.to_str().unwrap()]);
        assert_same(&uncounted(&view(&node, "c")), &wanted, kind);
        node.ok(&["export", "c", "-o", again.to_str().unwrap()]);
        node.ok(&["import", "c", again.to_str().unwrap(), "--replace"]);
        assert_same(&uncounted(&view(&node, "c")), &wanted, &format!("{kind}, once more"));
        node.ok(&["destroy", "c"]);
    }
    if !require("umoci", installed("umoci")) {
        return;
    }
    // umoci makes no file of a mark, either.
    sh_in(
        node.dir(),
        "tar --format=posix --pax-option=delete=atime,delete=ctime --numeric-owner -C tree -cf base.tar .
        umoci init --layout l; umoci new --image l:t; for tar in base layer; do umoci raw add-layer --image l:t $tar.tar; done
        umoci unpack --image l:t bundle",
    );
    let tree = listing::of(&node.dir().join("bundle/rootfs"), true);
    assert_same(&uncounted(&tree), &wanted, "umoci's tree");
}

/// Layers as nobody writes them: the name itself beside its mark, and marks that say nothing.
#[test]
fn marks_that_stand_beside_the_name() {
    if !require("root", common::root()) {
        return;
    }
    let (node, _) = node();
    let of = |letter| format!("d/{}", name(letter, 255)).into_bytes();
    let mark = |letter| format!("d/.wh.{}", name(letter, 255)).into_bytes();
    let import = |tar: Tar| {
        let file = node.dir().join("given.tar");
        fs::write(&file, tar.end()).unwrap();
        node.run(&["import", "a", file.to_str().unwrap(), "--replace"])
    };
    let long = |name: &[u8], body: &[u8]| {
        let path: &[(&[u8], &[u8])] = &[(b"path", name)];
        Tar::default().pax(path).file(b"short", body)
    };
    let both = |one: Tar, other: Tar| Tar([one.0, other.0].concat());
    for (one, other) in [(true, false), (false, true)] {
        let part = |marked: bool| if marked { long(&mark('g'), b"") } else { long(&of('g'), b"new") };
        let done = import(both(part(one), part(other)));
        assert!(done.status.success(), "{}", said(&done));
        node.ok(&["mount", "a"]);
        let path = node.view("a").join(String::from_utf8(of('g')).unwrap());
        assert_eq!(fs::read_to_string(path).unwrap(), "new");
        node.ok(&["umount", "a"]);
    }
    // What goes with all that is in it needs no mark inside; twice is once; of a name that nobody has, it is none.
    let marks = both(both(long(&mark('g'), b""), long(&mark('g'), b"")), Tar::default().file(b".wh.d", b""));
    assert!(import(marks).status.success());
    assert!(!view(&node, "a").lines().any(|line| line.starts_with("d ")));
    assert!(import(long(&mark('n'), b"")).status.success());
    assert_eq!(node.ok(&["diff", "a"]).lines().filter(|line| line.contains("d/")).count(), 0);
    // A dump of overlayfs has the name itself.
    let path = of('g');
    let head: &[(&[u8], &[u8])] = &[(b"path", &path)];
    assert!(import(Tar::default().pax(head).link(b"short", b"(overlay-whiteout)")).status.success());
    let found = node.ok(&["diff", "a"]);
    assert!(found.contains("deleted") && found.contains(&name('g', 255)), "{found}");
    // Refused, and the old store stays.
    let dir = |name: &[u8]| {
        let path: &[(&[u8], &[u8])] = &[(b"path", name)];
        Tar::default().pax(path).dir(b"short")
    };
    let linked: &[(&[u8], &[u8])] = &[(b"linkpath", &path)];
    let hard = Tar::default().pax(linked).hard(b"d/x", b"short");
    let way = "leave the whiteout out of the layer";
    for (tar, words) in [
        (
            both(long(&mark('g'), b""), dir(&of('g'))),
            &["a directory in the place of something else", way][..],
        ),
        (both(dir(&of('g')), long(&mark('g'), b"")), &["would replace a directory", way]),
        (both(long(&mark('g'), b""), hard), &["`d/x` is a hard link to what is not there"]),
    ] {
        let done = import(tar);
        let told = words.iter().all(|words| said(&done).contains(words));
        assert!(done.status.code() == Some(1) && told, "{words:?}: {}", said(&done));
        assert_eq!(in_stores(&node), ["a"]);
    }
}

#[test]
fn through_the_unions_and_back() {
    if !require("root", common::root()) {
        return;
    }
    let (node, wanted) = node();
    for to in ["overlayfs", "mini_fo", "copy", "overlay"] {
        node.ok(&["convert", "a", "--to", to]);
        if matches!(to, "copy" | "overlay") {
            assert_same(&view(&node, "a"), &wanted, to);
        }
    }
    // aufs itself refuses such names, in the base, too.
    let told = node.fails(1, &["convert", "a", "--to", "aufs"]);
    assert!(told.contains(&name('g', 243)) && told.contains("the name is too long for a whiteout"), "{told}");
    assert!(!told.contains(&format!("{} ", name('g', 242))), "{told}");
    assert_eq!(in_stores(&node), ["a"]);
}

/// What is as in the base again goes, and what the base has comes back, whatever marks it is told by.
#[test]
fn compacted_and_restored() {
    if !require("root", common::root()) {
        return;
    }
    let (node, _) = node();
    let base = node.dir().join("tree");
    let paths: Vec<String> = [242, 243, 251, 252, 255]
        .iter()
        .flat_map(|length| "gmoret".chars().map(|letter| format!("d/{}", name(letter, *length))))
        .collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let from = node.store("a").join("upper");
    for format in [Format::Overlay, Format::Overlayfs, Format::MiniFo] {
        let store = node.lxcpath.join(format.name());
        let out = store.to_str().unwrap();
        if format == Format::Overlay {
            run(Command::new("cp").arg("-aT").arg(&from).arg(&store));
        } else {
            let done = bare("convert", Format::Overlay, &base, &from, &["--to", format.name(), "--out", out]);
            assert!(done.status.success(), "{}", said(&done));
        }
        for (command, words) in
            [("compact", &["--ignore-times"][..]), ("restore", &paths[..]), ("compact", &["--ignore-times"])]
        {
            let done = bare(command, format, &base, &store, words);
            assert!(done.status.success(), "{}: {command}: {}", format.name(), said(&done));
        }
        let done = bare("diff", format, &base, &store, &[]);
        assert_eq!(lines(&store), Vec::<String>::new(), "{}: {}", format.name(), said(&done));
    }
}

/// All names in a folder.
fn lines(store: &Path) -> Vec<String> {
    let found = run(Command::new("find").args([".", "-mindepth", "1"]).current_dir(store));
    found.lines().map(str::to_owned).collect()
}

#[test]
fn onto_another_base() {
    if !require("root", common::root()) {
        return;
    }
    let (node, _) = node();
    let newer = node.dir().join("newer");
    run(Command::new("cp").arg("-aT").arg(node.dir().join("tree")).arg(&newer));
    let change = r#"for n in 252 255; do echo newer > d/$(name_of m $n); echo newer > d/$(name_of k $n); rm d/$(name_of g $n)
        echo newer > d/$(name_of r $n)/$(name_of n $n); done"#;
    sh_in(&newer, &script(change));
    node.ok(&["base", "add", "c", newer.to_str().unwrap()]);
    node.ok(&["rebase", "a", "--onto", "c"]);
    node.ok(&["mount", "a"]);
    let d = node.view("a").join("d");
    let read = |letter, length| fs::read_to_string(d.join(name(letter, length))).unwrap();
    for length in [252, 255] {
        assert_eq!((read('m', length).as_str(), read('k', length).as_str()), ("mine\n", "newer\n"));
        for gone in ['g', 'r'] {
            assert!(!d.join(name(gone, length)).exists(), "{gone} {length}");
        }
    }
    // The new version of each beside it, by a name that fits.
    let beside: Vec<_> = fs::read_dir(&d).unwrap().map(|entry| entry.unwrap()).collect();
    let beside = beside.iter().filter(|entry| entry.file_name().to_string_lossy().ends_with(".base-new"));
    assert_eq!(
        beside.filter(|entry| fs::read_to_string(entry.path()).is_ok_and(|text| text == "newer\n")).count(),
        2
    );
}
