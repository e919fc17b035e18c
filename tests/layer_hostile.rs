//! Stores that no driver wrote, or that one wrote for a tenant who means harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "layer/shown.rs"]
mod shown;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::node::run;
use common::tree::Temp;
use common::{busy, require};
use sliverfs::layer::{Change, Changes, Doubt, Format, Show, Step, differences};
use sliverfs::tree::{self, Dir};

/// A base and a store, made by two scripts in them.
fn made(base: &str, store: &str) -> Temp {
    let temp = Temp::quick();
    for (name, script) in [("base", base), ("store", store)] {
        fs::create_dir(temp.join(name)).unwrap();
        run(Command::new("sh").arg("-ec").arg(format!("cd \"$1\"; {script}")).arg("sh").arg(temp.join(name)));
    }
    temp
}

/// Every entry but the root: its change, its path, its doubt.
fn told(format: Format, temp: &Temp) -> Vec<(Change, String, Option<Doubt>)> {
    let mut found = Vec::new();
    shown::walk(format, &temp.join("store"), &temp.join("base"), Show::Changes, |entry| {
        if !entry.path.is_empty() {
            found.push((entry.change, shown::escape(entry.path), entry.doubt));
        }
    });
    found
}

fn wanted(list: &[(Change, &str, Option<Doubt>)]) -> Vec<(Change, String, Option<Doubt>)> {
    list.iter().map(|(change, path, doubt)| (*change, (*path).to_owned(), *doubt)).collect()
}

#[test]
fn what_no_format_explains_is_told_entry_by_entry() {
    if !require("root", common::root()) {
        return;
    }
    use Change::{Delete, Meta, Nothing, Opaque, Put};
    let base = "mkdir d e; echo > a; echo > both; echo > d/f; echo > gone; echo > 'nl\nname'";
    for (format, store, list) in [
        (
            Format::Aufs,
            "echo > both; : > .wh.both; : > .wh.gone; mkdir .wh.dir d d/.wh..wh..opq e; : > .wh.; : > .wh..; : > .wh...; : > .wh..wh..dr.x; \
             : > .wh..wh.tmp.0001; : > e/.wh..wh.aufs; mkdir .wh..wh.plnk .wh..wh.orph; : > .wh..wh..opq; : > .wh..wh.aufs; echo > .wh..wh.plnk/1.2",
            &[
                (Nothing, ".wh.dir", Some(Doubt::Foreign)),
                (Nothing, ".wh..wh.tmp.0001", Some(Doubt::Garbage)),
                (Nothing, ".wh..wh..opq", Some(Doubt::Foreign)),
                (Nothing, ".wh..wh..dr.x", Some(Doubt::Dirren)),
                (Nothing, ".wh...", Some(Doubt::Foreign)),
                (Nothing, ".wh..", Some(Doubt::Foreign)),
                (Nothing, ".wh.", Some(Doubt::Foreign)),
                (Delete, "both", Some(Doubt::Both)),
                (Meta, "d", Some(Doubt::Foreign)),
                (Nothing, "d/.wh..wh..opq", Some(Doubt::Foreign)),
                (Meta, "e", None),
                (Nothing, "e/.wh..wh.aufs", Some(Doubt::Garbage)),
                (Delete, "gone", None),
            ][..],
        ),
        (
            Format::Overlayfs,
            "ln -s '(overlay-whiteout)' gone; ln -s '(overlay-whiteout)' a; setfattr -h -n trusted.overlay.whiteout -v y a; \
             ln -s elsewhere both; setfattr -h -n trusted.overlay.whiteout -v y both; mknod c c 0 0",
            &[
                (Delete, "a", None),
                (Delete, "both", None),
                (Put, "c", None),
                (Put, "gone", Some(Doubt::TornWhiteout)),
            ],
        ),
        (
            Format::Overlay,
            "mkdir d e; : > d/f; : > e/new; setfattr -n trusted.overlay.opaque -v x d; \
             for f in d/f e/new; do setfattr -n trusted.overlay.whiteout -v y $f; done; \
             ln -s '(overlay-whiteout)' gone; setfattr -h -n trusted.overlay.whiteout -v y gone; \
             echo > a; setfattr -n trusted.overlay.metacopy -v '' a; echo > lost; setfattr -n trusted.overlay.metacopy -v '' lost",
            &[
                (Put, "a", None),
                (Meta, "d", None),
                (Delete, "d/f", None),
                (Meta, "e", None),
                (Put, "e/new", Some(Doubt::StrayWhiteout)),
                (Put, "gone", Some(Doubt::Foreign)),
                (Put, "lost", Some(Doubt::Lost)),
            ],
        ),
        (
            Format::MiniFo,
            "M=META_dAfFgHE39ktF3HD2sr; printf 'D gone\\nD ..\\nD .\\nD d\\nX y\\nD tor' > $M; mkdir d e; mkfifo d/$M; ln -s /etc/passwd e/$M; \
             mkdir big; truncate -s 1G big/$M; mkdir dir dir/$M; echo > dir/$M/x",
            &[
                (Nothing, "META_dAfFgHE39ktF3HD2sr", Some(Doubt::Record)),
                (Meta, "big", None),
                (Nothing, "big/META_dAfFgHE39ktF3HD2sr", Some(Doubt::Record)),
                (Opaque, "d", None),
                (Nothing, "d/META_dAfFgHE39ktF3HD2sr", Some(Doubt::Record)),
                (Meta, "dir", None),
                (Nothing, "dir/META_dAfFgHE39ktF3HD2sr", Some(Doubt::Record)),
                (Meta, "e", None),
                (Nothing, "e/META_dAfFgHE39ktF3HD2sr", Some(Doubt::Record)),
                (Delete, "gone", None),
            ],
        ),
    ] {
        let temp = made(base, store);
        assert_eq!(told(format, &temp), wanted(list), "{}", format.name());
    }
}

/// A record of a move is read only where the base leaves one reading.
#[test]
fn spaces_in_moves_are_resolved_against_the_base() {
    if !require("root", common::root()) {
        return;
    }
    for (base, record, from) in [
        ("mkdir -p 'x y'; echo > 'x y/in'", "R /x y z w", Some("/x y")),
        ("mkdir -p x 'x y'; echo > x/in", "R /x y z w", Some("/x")),
        ("mkdir -p x 'x y'", "R /x y z w", None),
        ("mkdir q", "R /x y z w", None),
        ("mkdir -p sub/deep", "R /sub/deep z", Some("/sub/deep")),
        ("mkdir -p sub/deep", "R /sub/../sub/deep z", None),
        ("ln -s / l", "R /l/etc z", None),
    ] {
        // `y z w` and `z w` are new folders where both readings shall be possible.
        let both = if from == Some("/x") || base == "mkdir -p x 'x y'" { "mkdir 'y z w';" } else { "" };
        let only = if from == Some("/x") { "" } else { "mkdir 'z w' z;" };
        let store = format!("{both} {only} printf '{record}\\n' > META_dAfFgHE39ktF3HD2sr");
        let temp = made(base, &store);
        let mut found = None;
        let mut doubts = Vec::new();
        shown::walk(Format::MiniFo, &temp.join("store"), &temp.join("base"), Show::Changes, |entry| {
            doubts.extend(entry.doubt);
            found = found.take().or(entry.from.map(shown::escape));
        });
        assert_eq!(found.as_deref(), from, "{base}: {record}");
        assert_eq!(doubts.is_empty(), from.is_some(), "{base}: {record}: {doubts:?}");
    }
}

#[test]
fn a_redirect_leads_nowhere_but_into_the_base() {
    if !require("root", common::root()) {
        return;
    }
    for (redirect, found) in [
        ("/d/sub", true),
        ("d", true),
        ("/../etc", false),
        ("/d/../d", false),
        ("..", false),
        ("/", false),
        ("", false),
        ("/etc", false),
        ("/link/sub", false),
        ("link", false),
        ("/d/f", false),
        ("d/sub", false),
    ] {
        let temp = made(
            "mkdir -p d/sub/in; echo > d/f; ln -s /etc link; mkdir here",
            &format!("mkdir here; setfattr -n trusted.overlay.redirect -v '{redirect}' here"),
        );
        let wanted = if found { (Change::Meta, None) } else { (Change::Opaque, Some(Doubt::Lost)) };
        let told = told(Format::Overlay, &temp);
        assert_eq!(told, [(wanted.0, "here".to_owned(), wanted.1)], "{redirect}");
    }
    // Moves in moves: refused before they take all descriptors.
    let temp = made(
        "mkdir d",
        "p=.; for n in $(seq 40); do p=$p/m; mkdir $p; setfattr -n trusted.overlay.redirect -v /d $p; done",
    );
    let base = tree::open(&temp.join("base")).unwrap();
    let mut changes =
        Changes::new(Format::Overlay, tree::open(&temp.join("store")).unwrap(), &base, Show::View).unwrap();
    let said = loop {
        changes.step().unwrap();
        if let Err(err) = changes.enter() {
            break err.to_string();
        }
    };
    assert!(said.contains("more than 16 moved directories"), "{said}");
}

/// Links, FIFOs, sockets and devices where the base has folders and files: none is followed or opened.
#[test]
fn nothing_is_followed_and_nothing_blocks() {
    if !require("root", common::root()) {
        return;
    }
    let temp = made(
        "mkdir etc d; echo > f; echo > passwd; mkfifo p; mknod c c 5 1; ln -s /etc l",
        "ln -s /etc etc; mkfifo f; ln -s /etc/passwd passwd; mkfifo p; mknod c c 5 1; mkdir l; mkfifo l/passwd; ln -s f d",
    );
    let mut found = Vec::new();
    shown::walk(Format::Overlay, &temp.join("store"), &temp.join("base"), Show::Changes, |entry| {
        let differs = differences(Format::Overlay, entry).unwrap();
        let names = sliverfs::layer::Aspects::NAMES.iter().filter(|(aspect, _)| differs.has(*aspect));
        let names: Vec<_> = names.map(|(_, name)| *name).filter(|name| *name != "time").collect();
        found.push(format!("{} {}", shown::escape(entry.path), names.join(",")));
    });
    assert_eq!(
        found,
        [" ", "c ", "d type", "etc type", "f type", "l type", "l/passwd ", "p ", "passwd type"]
    );
    for to in Format::ALL {
        shown::convert(Format::Overlay, &temp.join("store"), &temp.join("base"), to, &temp.join(to.name()))
            .unwrap();
    }

    // A folder that becomes a link between the look and the step into it: refused, or what is walked is the folder that it was.
    for (format, opened) in [(Format::MiniFo, false), (Format::Overlay, true)] {
        let temp = made("mkdir d", "mkdir d; echo > d/x");
        let base = tree::open(&temp.join("base")).unwrap();
        let store = tree::open(&temp.join("store")).unwrap();
        let mut changes = Changes::new(format, store, &base, Show::Changes).unwrap();
        changes.step().unwrap();
        changes.enter().unwrap();
        assert!(matches!(changes.step().unwrap(), Some(Step::Entry(entry)) if entry.path == b"d"));
        run(Command::new("sh")
            .arg("-ec")
            .arg("cd \"$1\"; rm -r d; ln -s /etc d")
            .arg("sh")
            .arg(temp.join("store")));
        let entered = changes.enter();
        if opened {
            entered.unwrap();
            assert!(matches!(changes.step().unwrap(), Some(Step::Leave(entry)) if entry.path == b"d"));
        } else {
            let said = entered.unwrap_err().to_string();
            assert!(said.starts_with("open the directory d: "), "{said}");
        }
    }
}

#[test]
fn a_mount_in_a_tree_is_no_part_of_it() {
    if !require("root", common::root()) {
        return;
    }
    let temp = made("mkdir d", "mkdir d d/mnt; echo > d/f");
    let target = temp.join("store/d/mnt");
    run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&target));
    fs::write(target.join("x"), "").unwrap();
    let found = std::panic::catch_unwind(|| told(Format::Tree, &temp));
    busy::umount(&target);
    let list = [
        (Change::Meta, "d", None),
        (Change::Put, "d/f", None),
        (Change::Nothing, "d/mnt", Some(Doubt::Mount)),
    ];
    assert_eq!(found.unwrap(), wanted(&list));
}

#[test]
fn names_as_long_as_the_kernel_takes() {
    if !require("root", common::root()) {
        return;
    }
    let temp = made(
        "",
        "for n in 242 243 255; do echo $n > $(printf '%0*d' $n 1); done; \
         for n in $(seq 14); do mkdir $(printf 'd%0254d' $n); cd $(printf 'd%0254d' $n); done; echo deep > f",
    );
    let (base, store) = (temp.join("base"), temp.join("store"));
    for to in [Format::MiniFo, Format::Overlayfs, Format::Tree] {
        let new = temp.join(to.name());
        shown::convert(Format::Overlay, &store, &base, to, &new).unwrap();
        assert_eq!(
            shown::whole(to, &new, &base),
            shown::whole(Format::Overlay, &store, &base),
            "{}",
            to.name()
        );
    }
    let said = shown::convert(Format::Overlay, &store, &base, Format::Aufs, &temp.join("aufs")).unwrap_err();
    assert!(said.contains("cannot be kept by aufs: the name is too long"), "{said}");
    run(Command::new("sh")
        .arg("-ec")
        .arg("cd \"$1\"; rm -r d* $(printf '%0255d' 1) $(printf '%0243d' 1)")
        .arg("sh")
        .arg(&store));
    shown::convert(Format::Overlay, &store, &base, Format::Aufs, &temp.join("aufs2")).unwrap();
}

/// 100,000 levels in the store and in the base, with few descriptors; and written anew.
#[test]
fn no_store_is_too_deep() {
    if !require("root", common::root()) {
        return;
    }
    const LEVELS: usize = 100_000;
    let temp = Temp::quick();
    for name in ["base", "store"] {
        fs::create_dir(temp.join(name)).unwrap();
        let mut here = Dir::open(&temp.join(name)).unwrap();
        for _ in 0..LEVELS {
            here.make_dir(c"d").unwrap();
            here = here.child(c"d").unwrap();
        }
        here.create_file(c"bottom").unwrap();
        drop(here);
    }
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let (mut entries, mut most) = (0, 0);
    shown::walk(Format::MiniFo, &temp.join("store"), &temp.join("base"), Show::Changes, |entry| {
        entries += 1;
        if entries % 10_000 == 0 {
            most = most.max(open());
        }
        assert!(entry.base.is_some());
    });
    assert_eq!(entries, LEVELS + 2);
    // Other tests of this process open some, too.
    assert!(most < before + 300, "{most} descriptors, {before} before");
    shown::convert(Format::Overlay, &temp.join("store"), &temp.join("base"), Format::Aufs, &temp.join("new"))
        .unwrap();
    let count = |path: &Path| {
        let mut entries = 0;
        shown::walk(Format::Aufs, path, &temp.join("base"), Show::Changes, |_| entries += 1);
        entries
    };
    assert_eq!(count(&temp.join("new")), LEVELS + 2);
    for name in ["base", "store", "new"] {
        tree::remove_path(&temp.join(name)).unwrap();
    }
}
