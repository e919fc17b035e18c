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

use common::layers::{UNIONS, sh};
use common::node::run;
use common::require;
use common::scripts::{Overlay, PLAIN, Random, base, copied, edits, own_namespace};
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
