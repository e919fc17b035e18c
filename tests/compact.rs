//! `compact`: what the base has again is dropped, and the view stays as it is, whatever happens on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "layer/recorded.rs"]
mod recorded;
#[path = "layer/shown.rs"]
mod shown;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::layers::{UNIONS, bare, sh};
use common::node::{Node, run};
use common::require;
use common::scripts::{Overlay, PLAIN, Random, base, edits, own_namespace};
use common::tree::{Temp, assert_same};
use recorded::Recording;
use sliverfs::layer::{Aspects, Compact, Compacted, Format, Scratch};
use sliverfs::tree;

const SCRIPTS: u64 = 60;

/// Compacts bare directories by the library; and no dry run says anything else before, or anything after.
fn compact(format: Format, store: &Path, base: &Path) -> Compacted {
    let once = |dry_run| {
        let dir = tree::open(store).unwrap();
        let scratch = Scratch::inside(&dir).unwrap();
        let (mut tell, mut compared) = (|_: &str, _: &[u8]| Ok(()), |_| ());
        let compact = Compact::new(format, &scratch, Aspects::NONE, dry_run, &mut tell, &mut compared);
        compact.run(dir, &tree::open(base).unwrap()).unwrap()
    };
    let planned = once(true);
    let done = once(false);
    if format != Format::MiniFo {
        assert_eq!(serde_json::to_string(&planned).unwrap(), serde_json::to_string(&done).unwrap());
    }
    let again = once(false);
    let dropped = again.files + again.directories + again.whiteouts + again.marks + again.garbage;
    assert_eq!(dropped, 0, "{again:?}");
    done
}

/// Compacts, and looks whether the view is what it was.
fn keeps_view(format: Format, store: &Path, base: &Path, what: &str) -> Compacted {
    let before = shown::exact(format, store, base);
    let done = compact(format, store, base);
    assert_same(&shown::exact(format, store, base), &before, what);
    done
}

fn script(temp: &Path, lower: &Path, seed: u64) -> usize {
    let here = temp.join(seed.to_string());
    let (plain, store) = (here.join("plain"), here.join("upper"));
    fs::create_dir_all(&store).unwrap();
    run(Command::new("cp").arg("-a").arg(lower).arg(&plain));
    edits(&here, lower, &plain, &store, seed);
    {
        // Some of it becomes again what it was, or is removed and made anew from the base.
        let view = Overlay::mount(&here, lower, &store, PLAIN);
        let mut random = Random(seed);
        for path in ["f", "a/f", "a/b", "a", "d/e/x", "d", "d/a", "empty", "l", "a/l", "d/p"] {
            if random.below(3) == 0 {
                let script =
                    r#"rm -rf "$2/$3"; mkdir -p "$2/${3%/*}" 2>/dev/null && cp -a "$1/$3" "$2/$3" || true"#;
                sh(script, &[lower, &view.0, Path::new(path)]);
            }
        }
    }
    // Whiteouts of nothing.
    sh(
        "cd $1; mknod nothing c 0 0; for d in */; do [ ! -d \"$d\" ] || [ -L \"${d%/}\" ] || mknod \"$d/nothing\" c 0 0; done",
        &[&store],
    );
    let mut dropped = 0;
    for to in UNIONS.into_iter().chain([Format::FuseOverlayfs]) {
        let new = here.join(to.name());
        shown::convert(Format::Overlay, &store, lower, to, &new).unwrap();
        if to == Format::MiniFo {
            sh("cd $1; printf 'D nothing\\nD nothing\\n' >> META_dAfFgHE39ktF3HD2sr", &[&new]);
        }
        let done = keeps_view(to, &new, lower, &format!("seed {seed}: {}", to.name()));
        dropped += done.files + done.directories;
        assert!(to != Format::MiniFo || done.whiteouts > 0);
        assert_eq!(done.unclear, 0);
        // What fuse-overlayfs cannot copy up must stay in its store.
        assert!(to != Format::FuseOverlayfs || !store.join("d/null").exists() || new.join("d/null").exists());
    }
    let view = Overlay::mount(&here, lower, &store, PLAIN);
    let before = shown::exact(Format::Tree, &view.0, lower);
    drop(view);
    let done = keeps_view(Format::Overlay, &store, lower, &format!("seed {seed}"));
    assert!(done.whiteouts > 0);
    let view = Overlay::mount(&here, lower, &store, PLAIN);
    assert_same(&shown::exact(Format::Tree, &view.0, lower), &before, &format!("seed {seed}: mounted"));
    drop(view);
    fs::remove_dir_all(&here).unwrap();
    dropped + done.files + done.directories
}

#[test]
fn a_store_of_random_edits_shows_the_same() {
    if !require("root", common::root()) {
        return;
    }
    own_namespace();
    let temp = Temp::quick();
    let lower = temp.join("base");
    base(&lower);
    let dropped = match std::env::var("SLIVERFS_SEED") {
        Ok(seed) => script(&temp.0, &lower, seed.parse().unwrap()),
        Err(_) => (1..=SCRIPTS).map(|seed| script(&temp.0, &lower, seed)).sum(),
    };
    assert!(dropped > 0);
}

#[test]
fn recorded_stores_show_the_same() {
    if !require("root", common::root()) {
        return;
    }
    for format in UNIONS {
        let recording = Recording::of(format);
        let temp = Temp::new();
        let base = temp.join("base");
        recorded::base(&base);
        for name in recording.scenarios() {
            let store = temp.join(name);
            fs::create_dir(&store).unwrap();
            recording.build(name, &store);
            keeps_view(format, &store, &base, &format!("{} {name}", format.name()));
        }
    }
}

/// A base without hard links, all of which a store has again.
fn copied(temp: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let (lower, store) = (temp.join("base"), temp.join("store"));
    base(&lower);
    run(Command::new("cp").arg("-a").arg(&lower).arg(&store));
    (lower, store)
}

#[test]
fn a_copy_of_the_whole_base_is_dropped() {
    if !require("root", common::root()) {
        return;
    }
    for format in UNIONS {
        let temp = Temp::new();
        let (lower, store) = copied(&temp.0);
        // And nothing of the base's is hidden by what says so.
        match format {
            Format::Aufs => sh(
                "cd $1; for d in a a/b d; do : > $d/.wh..wh..opq; done; : > .wh.nothing; mkdir .wh..wh.tmp.1; \
                 : > .wh..wh.tmp.1/x; touch -r $2/a a; touch -r $2/a/b a/b; touch -r $2/d d; touch -r $2 .",
                &[&store, &lower],
            ),
            Format::MiniFo => sh(
                "cd $1; printf 'D a\\nD d\\nD f\\nD l\\nD nothing\\n' > META_dAfFgHE39ktF3HD2sr; touch -r $2 .",
                &[&store, &lower],
            ),
            _ => {
                sh("cd $1; for d in a a/b d; do setfattr -n trusted.overlay.opaque -v y $d; done", &[&store])
            }
        }
        let done = keeps_view(format, &store, &lower, format.name());
        let left: Vec<_> = fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{}: {left:?}", format.name());
        assert_eq!((done.files, done.directories), (11, 6), "{}", format.name());
        assert_eq!(done.marks, if format == Format::MiniFo { 2 } else { 3 }, "{}", format.name());
        assert!(done.bytes > 0);
    }
}

#[test]
fn what_differs_in_anything_stays() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::new();
    let (lower, store) = copied(&temp.0);
    sh(
        "cd $1; echo other > a/f; touch -h -d @1500000000 a/f; chmod 640 a/b/f; chown 9 a/b/c/f; setfattr -n trusted.x -v 1 f; \
         touch -h -d @1500000001 d/a; ln -sfn g l; touch -h -d @1500000000 l; setfattr -n security.x -v 1 d/b; \
         chown -h 3 a/l; rm d/p; mkfifo d/p; chmod 700 empty; setfattr -n trusted.overlay.opaque -v y d/e; rm d/e/x",
        &[&store],
    );
    let done = keeps_view(Format::Overlay, &store, &lower, "what differs");
    assert_eq!((done.files, done.directories, done.marks), (1, 0, 0), "{done:?}");
    // The opaque mark hides what the store lacks.
    assert!(store.join("d/e").exists());
    assert!(!store.join("d/null").exists());
}

#[test]
fn names_of_one_file_are_dropped_together_or_not_at_all() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::new();
    let (lower, store) = (temp.join("base"), temp.join("store"));
    sh(
        "mkdir $1; cd $1; echo 1 > a; ln a b; echo 2 > c; echo 3 > d; echo 3 > e; touch -d @1500000000 *",
        &[&lower],
    );
    // Both names; a name that was broken off; two files that are one now.
    sh("mkdir $2; cp -a $1/a $1/b $2; cp -a $1/c $1/d $2; ln $2/d $2/e; ln $2/c $2/c2", &[&lower, &store]);
    let done = keeps_view(Format::Overlay, &store, &lower, "links");
    assert_eq!((done.files, done.linked), (0, 5));
    sh("rm $1/b $1/c2 $1/e", &[&store]);
    // `a` alone would become one file with the base's `b` again.
    let done = keeps_view(Format::Overlay, &store, &lower, "no links any more");
    assert_eq!((done.files, done.linked), (2, 1));
}

/// In one step with the directory that holds them all; where no directory does, they stay.
#[test]
fn a_directory_goes_with_all_names_of_a_file() {
    if !require("root", common::root()) {
        return;
    }
    for format in UNIONS {
        let temp = Temp::new();
        let (lower, store) = (temp.join("base"), temp.join("store"));
        sh(
            "mkdir $1; cd $1; mkdir -p one two/l two/r three four five; for d in one two/l three four five; do echo $d > $d/a; done
            for d in one three four five; do ln $d/a $d/b; done; ln two/l/a two/r/a; ln three/a c; mkfifo one/p; ln one/p one/q
            find . -exec touch -h -d @1500000000 {} +; mkdir $2; cp -a * $2; cd $2
            rm c; ln four/a four/new; echo mine > five/mine; touch -d @1500000000 three four; touch -r $1 .",
            &[&lower, &store],
        );
        let done = keeps_view(format, &store, &lower, format.name());
        // One more name in the base, one more in the store, and a directory that has something else.
        assert_eq!((done.files, done.directories, done.linked), (6, 4, 6), "{}: {done:?}", format.name());
        let left = run(Command::new("sh").args(["-c", "cd $1; echo *", "sh"]).arg(&store));
        assert_eq!(left, "five four three\n", "{}", format.name());
        assert!(done.bytes > 0);
    }
}

#[test]
fn the_command_line() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::new();
    let (lower, store) = copied(&temp.0);
    sh(
        "cd $1; touch a/f; echo other > f; mkdir new; mknod new/gone c 0 0; touch -d @1500000000 a",
        &[&store],
    );
    let before = shown::exact(Format::Overlay, &store, &lower);
    let output = bare("compact", Format::Overlay, &lower, &store, &["--dry-run"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    for line in [
        "d/a: as in the base: dropped",
        "new/gone: a whiteout of nothing: dropped",
        "9 files, 5 directories, 1 whiteouts",
    ] {
        assert!(printed.contains(line), "{printed}");
    }
    assert!(store.join("d/a").exists());
    let output = bare("compact", Format::Overlay, &lower, &store, &["--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["files"], 9);
    assert_eq!(json["directories"], 5);
    assert_eq!(json["format"], "overlay");
    assert_same(&shown::exact(Format::Overlay, &store, &lower), &before, "the view");
    let output = bare("compact", Format::Overlay, &lower, &store, &[]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "nothing to drop\n");
    let output = bare("compact", Format::Overlay, &lower, &store, &["--json", "--ignore-times"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["files"], &json["directories"]), (&1.into(), &1.into()), "{json}");
    assert_eq!(bare("compact", Format::Tree, &lower, &store, &[]).status.code(), Some(3));
    assert_eq!(bare("compact", Format::Overlay, &lower, &store, &["x"]).status.code(), Some(2));
    assert_eq!(
        Command::new(env!("CARGO_BIN_EXE_sliverfs"))
            .args(["compact", "--format", "aufs"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(2)
    );
}

/// On a disk that was taken out of a node, somebody may have put a link in the store's place.
#[test]
fn a_link_in_the_place_of_a_store_is_not_followed() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::quick();
    sh(
        "cd $1; mkdir base outside; echo x > base/f; touch -d @1 base/f; cp -a base/f outside; ln -s outside store; ln -s $1/outside abs",
        &[&temp.0],
    );
    for store in ["store", "store/", "abs"] {
        let store = temp.join(store);
        let output = bare("compact", Format::Overlay, &temp.join("base"), &store, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains("a link is not followed"), "{said}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sliverfs"));
        command.args(["convert", "--format", "overlay", "--to", "copy", "--base"]).arg(temp.join("base"));
        command.arg("--store").arg(&store).arg("--out").arg(temp.join("out"));
        assert_eq!(command.output().unwrap().status.code(), Some(2), "{}", store.display());
    }
    assert!(temp.join("outside/f").exists() && !temp.join("out").exists());
}

/// A full disk is when an operator compacts.
#[test]
fn a_full_disk_is_emptied_and_a_store_in_use_is_left_alone() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 24);
    node.ok(&["create", "a", "--base", "b", "--backend", "overlay"]);
    node.ok(&["mount", "a"]);
    let view = node.view("a");
    let tree = node.lxcpath.join(".base/b/tree");
    sh(
        "cd $1; cp -a --remove-destination $2/var/big var/big; touch -d @1500000000 var; echo mine > mine; cat /dev/zero > full 2>/dev/null || :; sync",
        &[&view, &tree],
    );
    assert!(node.fails(4, &["compact", "a"]).contains("is mounted at"), "while it is mounted");
    node.ok(&["umount", "a"]);
    let store = node.store("a").join("upper");
    let before = shown::exact(Format::Overlay, &store, &tree);
    let json = node.json(&["compact", "a", "--json"]);
    assert_eq!((&json["files"], &json["directories"]), (&1.into(), &1.into()), "{json}");
    assert!(json["bytes"].as_u64().unwrap() >= 300_000, "{json}");
    assert_same(&shown::exact(Format::Overlay, &store, &tree), &before, "the view");
    node.ok(&["mount", "a"]);
    assert_eq!(fs::read_to_string(view.join("mine")).unwrap(), "mine\n");
    node.ok(&["umount", "a"]);

    // mini_fo's records need a block of their own until the new ones are in place.
    let (lower, full) = (node.dir().join("lower"), node.lxcpath.join("mini"));
    base(&lower);
    sh(
        "rm $3/full; mkdir $2; cd $2; printf 'D nothing\\nD f\\n' > META_dAfFgHE39ktF3HD2sr; cp -a $1/a .; cat /dev/zero > full 2>/dev/null || :; touch -r $1 .; \
         n=0; sync; while echo x > $3/fill.$n && sync -f $3; do n=$((n+1)); done 2>/dev/null",
        &[&lower, &full, &store],
    );
    let before = shown::exact(Format::MiniFo, &full, &lower);
    let output = bare("compact", Format::MiniFo, &lower, &full, &["--json"]);
    let first: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_same(&shown::exact(Format::MiniFo, &full, &lower), &before, "the view");
    assert_eq!(first["stuck"], 1, "{first}");
    let output = bare("compact", Format::MiniFo, &lower, &full, &["--json"]);
    let then: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&then["stuck"], &then["whiteouts"]), (&0.into(), &1.into()), "{then}");
    assert_same(&shown::exact(Format::MiniFo, &full, &lower), &before, "the view");
}

/// Nor do aufs and overlayfs need a block: what they drop is removed where it lies.
#[test]
fn a_disk_without_a_block_is_emptied_of_aufs_and_overlayfs() {
    if !require("root", common::root()) {
        return;
    }
    for format in [Format::Aufs, Format::Overlayfs] {
        let node = Node::new("ext4", 24);
        let (lower, store) = (node.dir().join("lower"), node.lxcpath.join("store"));
        base(&lower);
        sh(
            "head -c 300000 /dev/urandom > $1/d/big; touch -d @1500000000 $1/d/big $1/d; cp -a $1 $2; echo mine > $2/mine",
            &[&lower, &store],
        );
        match format {
            Format::Aufs => sh(
                "cd $1; : > .wh.nothing; for d in a d; do : > $d/.wh..wh..opq; touch -r $2/$d $d; done",
                &[&store, &lower],
            ),
            _ => sh(
                "cd $1; ln -s '(overlay-whiteout)' nothing; setfattr -h -n trusted.overlay.whiteout -v y nothing; \
                 for d in a d; do setfattr -n trusted.overlay.opaque -v y $d; done",
                &[&store],
            ),
        }
        sh(
            "cat /dev/zero > $1/full 2>/dev/null || :; sync; n=0; \
             while echo x > $1/fill.$n && sync -f $1; do n=$((n+1)); done 2>/dev/null; touch -r $2 $1/store",
            &[&node.lxcpath, &lower],
        );
        let before = shown::exact(format, &store, &lower);
        let output = bare("compact", format, &lower, &store, &["--json"]);
        let said = String::from_utf8_lossy(&output.stderr);
        let done: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}: {said}", format.name()));
        assert!(output.status.success(), "{}: {said}", format.name());
        assert!(done["bytes"].as_u64().unwrap() >= 300_000, "{done}");
        assert_eq!((&done["whiteouts"], &done["marks"]), (&1.into(), &2.into()), "{done}");
        assert_same(&shown::exact(format, &store, &lower), &before, format.name());
        let left = run(Command::new("sh").args(["-c", "cd $1; ls -A", "sh"]).arg(&store));
        assert_eq!(left, "mine\n", "{}", format.name());
    }
}

#[test]
fn a_tree_of_its_own_has_nothing_to_drop() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 24);
    node.ok(&["create", "a", "--base", "b", "--backend", "copy"]);
    assert!(node.fails(3, &["compact", "a"]).contains("dedupe"));
}
