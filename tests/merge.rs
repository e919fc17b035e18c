//! The merge of a store, its base and a newer base: what one side alone changed stays, and what both changed is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "layer/merged.rs"]
mod merged;
#[path = "layer/shown.rs"]
mod shown;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use common::layers::UNIONS;
use common::node::run;
use common::require;
use common::tree::{Temp, assert_same, copy, installed, sh_in};
use merged::{lines, rebase};
use sliverfs::layer::{self, Action, Format, Prefer};
use sliverfs::sys::writeback::Writeback;
use sliverfs::tree;

fn text(lines: &BTreeMap<String, String>) -> String {
    lines.values().cloned().collect::<Vec<_>>().join("\n")
}

/// What the old base is made of, what the new base and the sliver did, what must be done to the new base to have the view, and the
/// conflicts.
const CASES: &[(&str, &str, &str, &str, &str)] = &[
    // One side alone.
    ("echo 1 > f", "", "echo 22 > f", "echo 22 > f", ""),
    ("echo 1 > f", "echo 22 > f", "", "", ""),
    ("echo 1 > f", "rm f", "", "", ""),
    ("echo 1 > f", "", "rm f", "rm f", ""),
    ("echo 1 > f", "echo n > g", "echo s > h", "echo s > h", ""),
    ("mkdir d; echo 1 > d/f", "echo n > d/g", "echo s > d/h", "echo s > d/h", ""),
    ("mkdir d; echo 1 > d/f", "chmod 700 d", "echo s > d/h", "echo s > d/h", ""),
    ("mkdir d; echo 1 > d/f", "echo n > d/g", "chmod 700 d", "chmod 700 d", ""),
    ("mkdir d; echo 1 > d/f", "echo 22 > d/f", "rm -r d", "rm -r d", ""),
    ("ln -s a l", "ln -sfn b l", "", "", ""),
    ("ln -s a l", "", "ln -sfn b l", "ln -sfn b l", ""),
    ("echo 1 > f", "rm f; mkdir f; echo n > f/g", "", "", ""),
    ("mkdir d; echo 1 > d/f", "rm -r d; echo n > d", "", "", ""),
    ("echo 1 > f", "", "rm f; mkdir f; echo s > f/g", "rm f; mkdir f; echo s > f/g", ""),
    ("mkdir d; echo 1 > d/f", "echo n > d/g", "rm -r d; echo s > d", "rm -r d; echo s > d", ""),
    ("echo 1 > f; ln f g", "echo n > h", "echo 22 > f", "echo 22 > f", ""),
    ("echo 1 > f", "", "ln f g", "ln f g", ""),
    // Both, and the same.
    ("echo 1 > f", "echo 22 > f", "echo 22 > f", "", ""),
    ("", "echo 22 > f", "echo 22 > f", "", ""),
    ("echo 1 > f", "rm f", "rm f", "", ""),
    ("mkdir d; echo 1 > d/f", "rm -r d", "rm d/f", "", ""),
    ("", "mkdir d; echo n > d/g", "mkdir d; echo s > d/h", "echo s > d/h", ""),
    // Content of one side, mode of the other.
    ("echo 1 > f", "echo 22 > f", "chmod 600 f", "chmod 600 f", ""),
    ("echo 1 > f", "chmod 600 f", "echo 22 > f", "echo 22 > f", ""),
    // Both, and not the same.
    ("echo 1 > f", "echo 22 > f", "echo 333 > f", "mv f f.base-new; echo 333 > f", "f"),
    ("", "echo 22 > f", "echo 333 > f", "mv f f.base-new; echo 333 > f", "f"),
    ("echo 1 > f", "rm f", "echo 333 > f", "echo 333 > f", "f"),
    ("echo 1 > f", "echo 22 > f", "rm f", "mv f f.base-new", "f"),
    ("ln -s a l", "ln -sfn b l", "ln -sfn c l", "mv l l.base-new; ln -s c l", "l"),
    ("echo 1 > f", "chmod 600 f", "chmod 640 f", "cp -p f f.base-new; chmod 640 f", "f"),
    ("mkdir d", "chmod 700 d", "chmod 711 d", "chmod 711 d", "d"),
    (
        "echo 1 > f; echo x > f.base-new",
        "echo 22 > f",
        "echo 333 > f",
        "mv f f.base-new.1; echo 333 > f",
        "f",
    ),
    ("echo 1 > f; echo x > f.base-new", "echo 22 > f", "rm *", "rm f.base-new; mv f f.base-new.1", "f"),
    ("mkdir d; echo 1 > d/f", "rm -r d", "echo 333 > d/f", "mkdir d; echo 333 > d/f", "d/f"),
    ("mkdir d; echo 1 > d/f", "rm -r d", "echo s > d/h", "mkdir d; echo s > d/h", ""),
    (
        "mkdir d; echo 1 > d/f",
        "rm -r d; echo n > d",
        "echo s > d/h",
        "mv d d.base-new; mkdir d; echo s > d/h",
        "d",
    ),
    ("mkdir d", "rm -r d; echo n > d", "chmod 700 d; touch -d @9 .", "", ""),
    ("echo 1 > f", "rm f; mkdir f; echo n > f/g", "echo 22 > f", "mv f f.base-new; echo 22 > f", "f"),
    (
        "echo 1 > f",
        "echo 22 > f",
        "rm f; mkdir f; echo s > f/g",
        "mv f f.base-new; mkdir f; echo s > f/g",
        "f",
    ),
    ("", "mkdir d; echo n > d/g", "echo s > d", "mv d d.base-new; echo s > d", "d"),
];

#[test]
fn a_table_of_three_ways() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::quick();
    for (number, (old, theirs, mine, want, conflicts)) in CASES.iter().enumerate() {
        let folder = |name: &str| {
            let path = temp.join(name);
            run(Command::new("rm").arg("-rf").arg(&path));
            path
        };
        let [base, new, ours, wanted] = ["old", "new", "ours", "wanted"].map(folder);
        fs::create_dir(&base).unwrap();
        sh_in(&base, &format!("{old}\nfind . -exec touch -h -d @1500000000 {{}} +"));
        copy(&base, &new);
        sh_in(&new, theirs);
        copy(&base, &ours);
        sh_in(&ours, mine);
        copy(&new, &wanted);
        sh_in(&wanted, want);
        let wanted = text(&lines(Format::Tree, &wanted, &wanted));
        for format in UNIONS.into_iter().chain([Format::Tree]) {
            let what = format!("{number}: {old} / {theirs} / {mine}: {}", format.name());
            let (view, told) = rebase(format, &temp, Prefer::Both, [&base, &new, &ours]);
            assert_same(&text(&view), &wanted, &what);
            let found = told.iter().filter(|(_, action)| *action == Action::Conflict);
            let found: Vec<&str> = found.map(|(path, _)| path.as_str()).collect();
            assert_eq!(found.join(" "), *conflicts, "{what}");
            // What nobody else changed is the same with each preference.
            if conflicts.is_empty() {
                for prefer in [Prefer::Ours, Prefer::Theirs] {
                    let (view, _) = rebase(format, &temp, prefer, [&base, &new, &ours]);
                    assert_same(&text(&view), &wanted, &what);
                }
            } else {
                let (view, _) = rebase(format, &temp, Prefer::Ours, [&base, &new, &ours]);
                assert!(
                    !view.keys().any(|path| path.ends_with("base-new") && !old.contains("base-new")),
                    "{what}"
                );
            }
        }
    }
}

/// What a new entry has by itself depends on the umask, on a set-gid folder above it, and on who makes it: none of that is left in the
/// new store, and nothing lacks that was to be set.
#[test]
fn owners_and_modes_are_the_slivers_own() {
    if !require("root", common::root()) || !require("setfacl", installed("setfacl")) {
        return;
    }
    let temp = Temp::quick();
    let [base, new, ours, wanted] = ["old", "new", "ours", "wanted"].map(|name| temp.join(name));
    fs::create_dir(&base).unwrap();
    sh_in(&base, "mkdir d s t acl; echo 1 > d/f; echo 1 > s/f; touch -h -d @1500000000 * */*");
    copy(&base, &new);
    copy(&base, &ours);
    sh_in(&new, "echo 1 > other");
    copy(&new, &wanted);
    let changes = "chgrp 50 s; chmod 2775 s; echo 2 > s/group; mkdir s/group.d; echo 2 > s/group.d/f
        echo 3 > s/root; chgrp 0 s/root; mkdir s/root.d; chgrp 0 s/root.d; chmod 0755 s/root.d; chmod g-s s/root.d
        chmod 1777 t; echo u > t/user; chown 1000:1000 t/user; chmod 600 t/user
        mkdir t/closed; echo x > t/closed/x; chmod 000 t/closed/x t/closed
        for mode in 444 600 666 1644 4755 6711; do echo $mode > d/$mode; cp d/$mode d/other.$mode
        chown 7:8 d/other.$mode; chmod $mode d/$mode d/other.$mode; done
        mkdir -m 4711 d/odd.d; echo x > d/odd.d/x; chmod 750 d; chown 0:9 d
        mkfifo -m 622 d/p; mknod -m 640 d/n c 1 3; ln -s x d/l; chown -h 5:6 d/l
        setfacl -d -m u:77:rwx acl; echo x > acl/x; echo y > acl/y; setfacl -b acl/x; mkdir acl/sub; setfacl -k -b acl/sub";
    sh_in(&ours, changes);
    sh_in(&wanted, changes);
    let wanted = text(&lines(Format::Tree, &wanted, &wanted));
    for umask in [0, 0o22, 0o77] {
        let before = umask_of(umask);
        // mini_fo loses what folders are by itself.
        let formats = UNIONS.into_iter().chain([Format::Tree]).filter(|format| *format != Format::MiniFo);
        for format in formats {
            let (view, _) = rebase(format, &temp, Prefer::Both, [&base, &new, &ours]);
            assert_same(&text(&view), &wanted, &format!("umask {umask:o}: {}", format.name()));
        }
        umask_of(before);
    }
}

/// Gives this process another umask, and returns the one that it had. Other tests' scripts only compare what they made alike.
fn umask_of(mask: u32) -> u32 {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask)).bits()
}

/// Both new versions find a place, though their names have no room for what is put behind them, and begin alike.
#[test]
fn long_names_that_begin_alike() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::quick();
    let [base, new, ours] = ["old", "new", "ours"].map(|name| temp.join(name));
    for (who, folder) in [("1", &base), ("22", &new), ("333", &ours)] {
        fs::create_dir(folder).unwrap();
        sh_in(folder, &format!("for n in 1 2; do echo {who} > $(printf %0240d $n); done"));
    }
    for format in UNIONS.into_iter().chain([Format::Tree]) {
        let (view, told) = rebase(format, &temp, Prefer::Both, [&base, &new, &ours]);
        let conflicts = told.iter().filter(|(_, action)| *action == Action::Conflict).count();
        let beside = view.keys().filter(|path| path.ends_with(".base-new")).count();
        assert_eq!((view.len(), conflicts, beside), (5, 2, 2), "{}: {view:?}", format.name());
    }
}

/// What points into the old base is made whole, and what the driver noted of it is left behind.
#[test]
fn redirects_and_bookkeeping() {
    if !require("root", common::root()) || !require("setfattr", installed("setfattr")) {
        return;
    }
    let temp = Temp::quick();
    let [old, new, store, into] = ["old", "new", "store", "into"].map(|name| temp.join(name));
    for folder in [&old, &store, &into] {
        fs::create_dir(folder).unwrap();
    }
    sh_in(&old, "mkdir d; echo in > d/f; echo content > g; echo h > h; touch -d @1500000000 g");
    copy(&old, &new);
    sh_in(&new, "echo newer > d/f; echo later > g; rm h");
    sh_in(&store, "mknod d c 0 0; ln d gone; mknod h c 0 0; mkdir e; setfattr -n trusted.overlay.redirect -v /d e; echo e > e/more
        : > g; truncate -s 8 g; touch -d @1500000000 g; chmod 600 g; setfattr -n trusted.overlay.metacopy g
        setfattr -n trusted.overlay.origin -v x g; setfattr -n trusted.overlay.impure -v y .");
    let [old, new_dir, store, to] = [&old, &new, &store, &into].map(|path| tree::open(path).unwrap());
    let mut progress = |_| ();
    layer::merge(
        Format::Overlay,
        store,
        (&old, &new_dir),
        Some((&to, &mut Writeback::default(), &mut progress)),
        Prefer::Both,
        &mut |_| Ok(()),
    )
    .unwrap();
    let found = lines(Format::Overlay, &into, &new);
    let paths: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(paths, ["", "e", "e/f", "e/more", "g"]);
    assert_eq!(fs::read_to_string(into.join("g")).unwrap(), "later\n", "the content is the new base's");
    assert_eq!(fs::metadata(into.join("g")).unwrap().mode() & 0o7777, 0o600, "the mode is the sliver's");
    assert_eq!(fs::read_to_string(into.join("e/f")).unwrap(), "in\n", "what was moved is as it was");
    // Whiteouts of what the new base lacks are gone.
    assert!(["gone", "h"].iter().all(|name| into.join(name).symlink_metadata().is_err()));
    let marks = run(Command::new("getfattr").args(["-R", "-d", "-m", "-", "."]).current_dir(&into));
    let marks: Vec<&str> = marks.lines().filter(|line| line.contains("trusted.")).collect();
    assert!(marks.iter().all(|mark| mark.starts_with("trusted.overlay.opaque=")), "{marks:?}");
}

/// What the new base changed in a folder that the sliver deleted, replaced or made anew: a plan says that it is hidden.
#[test]
fn a_plan_names_what_is_hidden() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::quick();
    let [old, new, ours] = ["old", "new", "ours"].map(|name| temp.join(name));
    fs::create_dir(&old).unwrap();
    let script = "for d in gone anew file same time; do mkdir -p $d/deep; echo 1 > $d/deep/f; done
        find . -exec touch -h -d @1500000000 {} +";
    sh_in(&old, script);
    copy(&old, &new);
    copy(&old, &ours);
    sh_in(&new, "echo 22 > gone/deep/f; rm anew/deep/f; chmod 600 file/deep/f; touch time/deep/f time/deep");
    sh_in(&ours, "rm -r *; mkdir anew; echo mine > anew/g; echo f > file");
    for format in UNIONS {
        let store = temp.join(format.name());
        shown::convert(Format::Tree, &ours, &old, format, &store).unwrap();
        if format != Format::MiniFo {
            // It was deleted as a whole, and made anew.
            let opaque = match format {
                Format::Aufs => "rm -f anew/.wh.deep; : > anew/.wh..wh..opq",
                _ => "rm -f anew/deep; setfattr -n trusted.overlay.opaque -v y anew",
            };
            sh_in(&store, opaque);
        } else {
            sh_in(&store, "rm anew/META*; echo D anew >> META_dAfFgHE39ktF3HD2sr");
        }
        let [old, new, store] = [&old, &new, &store].map(|path| tree::open(path).unwrap());
        let mut hidden = Vec::new();
        layer::merge(format, store, (&old, &new), None, Prefer::Both, &mut |outcome| {
            if outcome.why.contains("hides") {
                assert_eq!(outcome.action, Action::Keep);
                hidden.push(shown::escape(outcome.path));
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(hidden, ["anew", "file", "gone"], "{}", format.name());
    }
}
