//! Commands and a power cut: what the disk has at that moment, and not what the kernel still keeps in its memory. What ended with success
//! is there, and what was cut is as before or as after.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "crash/made.rs"]
mod made;
#[path = "layer/shown.rs"]
mod shown;

use std::fs;

use common::busy::until;
use common::node::{Node, run};
use common::power::{Content, Disk, Slow};
use common::slivers::backend;
use common::tar::Tar;
use common::tree::{assert_same, copy, installed, sh_in};
use common::{listing, require, strace};
use made::{check, ready, seen};

/// Files of all sizes, links of both kinds, xattrs that have room in an inode and others.
const FILL: &str = r#"
    : > none; echo some > some; head -c 4096 /dev/urandom > page; head -c 100000 /dev/urandom > large; head -c 1500000 /dev/urandom > huge
    mkdir -p in/ner; ln -s some short; ln -s "$(printf %0100d 7)" long; ln page page2; ln page in/page3; ln some in/ner/some2; mkfifo fifo
    truncate -s 300000 hole; echo end >> hole; chmod 4750 page; chown 5:6 large in; chmod 2711 in; chown -h 7:8 long
    setfattr -n user.one -v 1 some; setfattr -n trusted.long -v "$(printf %02000d 7)" large; setfattr -n trusted.in -v 2 in
    for n in 1 2 3 4 5 6 7 8; do echo $n > in/ner/$n; done; find . -exec touch -h -d @1600000000.5 {} +"#;

/// What the sliver changed of the base.
const MINE: &str = r#"
    mkdir made; cd made; eval "$FILL"; cd ..; echo mine > etc/both; rm etc/gone; rm -r dead opaque; mkdir opaque; echo only > opaque/only
    echo file > thing; echo more >> etc/log; chmod 700 etc/dir etc/merge; echo mine > folder/f; cp made/huge folder/huge
    touch -d @1650000000 etc opaque thing folder ."#;

/// What takes from that what `rebase` cannot wait for by itself: a long link, and a file in whose place a folder came.
const EASY: &str = "rm made/long; echo ../thing > thing; touch -d @1500000000 thing made .";

/// What the new base has otherwise: a folder that is put in beside, and content that the sliver gave another mode.
const NEW: &str = r#"rm thing; mkdir thing; cd thing; eval "$FILL"; cd ..; cp thing/large etc/merge; echo theirs > etc/both
    rm -r folder; cp -a thing folder; echo b > etc/dir/b; rm etc/old; touch -d @1550000000 etc etc/dir etc/both etc/merge"#;

/// A file system, and what it is made and mounted with.
struct Kind {
    fstype: &'static str,
    made: &'static [&'static str],
    mounted: &'static str,
    fsck: &'static [&'static str],
    mib: u64,
    /// What the sliver changed leaves a rebase nothing for which the whole disk is written.
    apart: bool,
}

const EXT4: Kind = Kind { fstype: "ext4", made: &[], mounted: "", fsck: &[], mib: 40, apart: false };
const APART: Kind = Kind { apart: true, ..EXT4 };
const NO_JOURNAL: Kind = Kind { made: &["-O", "^has_journal"], fsck: &["e2fsck", "-fy"], ..EXT4 };
const WRITEBACK: Kind = Kind { mounted: "data=writeback", ..APART };
const JOURNALED: Kind = Kind { mounted: "data=journal", ..APART };
const XFS: Kind = Kind { fstype: "xfs", made: &["--unsupported"], mib: 64, ..EXT4 };
const BTRFS: Kind = Kind { fstype: "btrfs", mib: 128, ..EXT4 };

/// A node with a base `b`, a newer one `c`, and a sliver `s` on the older one that changed a bit of everything.
fn node(kind: &Kind) -> Option<Node> {
    let tools = ["setfattr", "strace", &format!("mkfs.{}", kind.fstype)];
    if !ready() || !tools.iter().chain(kind.fsck.first()).all(|tool| require(tool, installed(tool))) {
        return None;
    }
    let node = Node::quick(kind.fstype, kind.made, kind.mib);
    let (old, new) = (node.dir().join("old"), node.dir().join("new"));
    fs::create_dir(&old).unwrap();
    let tree = "mkdir -p etc/dir dead/er opaque folder; for f in both gone old log merge ../thing ../dead/er/x ../opaque/hidden ../folder/f; do \
        echo $f > etc/$f; done; find . -exec touch -d @1500000000 {} +";
    sh_in(&old, tree);
    copy(&old, &new);
    let filled = |script: &str| format!("FILL='{FILL}'\n{script}");
    sh_in(&new, &filled(NEW));
    for (name, tree) in [("b", &old), ("c", &new)] {
        node.ok(&["base", "add", name, tree.to_str().unwrap()]);
    }
    node.ok(&["probe"]);
    node.ok(&["create", "s", "--base", "b", "--backend", "overlay"]);
    node.ok(&["mount", "s"]);
    sh_in(&node.view("s"), &filled(MINE));
    if kind.apart {
        sh_in(&node.view("s"), EASY);
    }
    node.ok(&["umount", "s"]);
    Some(node)
}

/// A command, and the disk that it is cut on.
struct Trial<'a> {
    node: &'a Node,
    disk: &'a Disk<'a>,
    before: &'a Content,
    args: &'a [&'a str],
    /// Brings back what was before.
    undo: Option<&'a [&'a str]>,
    /// The command gives folders no time of its own making.
    folder_times: bool,
    /// It waits for what it wrote, and does not write the whole disk.
    apart: bool,
}

impl Trial<'_> {
    /// The kind, the base and the view as the engine reads it; and as the kernel shows it, where it can.
    fn seen(&self) -> String {
        let read = seen(self.node);
        if backend(self.node, "s") != "overlay" {
            return read;
        }
        self.node.ok(&["mount", "s"]);
        let shown = listing::of(&self.node.view("s"), self.folder_times);
        // A program that another test just starts may have a file of it open.
        until("the view is in use", || self.node.run(&["umount", "s"]).status.success());
        format!("{read}\n{shown}")
    }

    /// What is seen after the power came back to this.
    fn after(&self, cut: &Content, what: &str) -> String {
        self.disk.insert(cut);
        check(self.node, what);
        self.seen()
    }

    /// What a success means: the disk has it, whatever it was given in between.
    fn success(&self, wanted: &str, old: &str, what: &str) {
        let cut = self.disk.cut();
        assert_same(&self.after(&cut, what), wanted, what);
        if let Some(undo) = self.undo {
            self.disk.insert(&cut);
            self.node.ok(undo);
            assert_same(&self.seen(), old, &format!("{what}, and back"));
        }
    }

    /// Tries about so many moments of the run, half of them near its end.
    fn run(&self, moments: usize) {
        self.disk.insert(self.before);
        let old = self.seen();
        self.disk.insert(self.before);
        let points = strace::in_time(self.node, self.args).points;
        let new = self.seen();
        assert!(!self.apart || points.iter().all(|point| point.call != "syncfs"), "{points:#?}");
        assert_eq!(old == new, self.args[0] == "compact", "{:?}", self.args);
        self.disk.insert(self.before);
        self.node.ok(self.args);
        self.success(&new, &old, &format!("{:?} ended", self.args));
        let near = points.len().saturating_sub(moments / 2);
        let step = near.div_ceil(moments.div_ceil(2)).max(1);
        let tried = points[..near].iter().step_by(step).chain(&points[near..]);
        let (mut met, mut paused) = (0, 0);
        for (turn, point) in tried.enumerate() {
            let what = format!("{:?} killed at {point:?}", self.args);
            self.disk.insert(self.before);
            strace::kill(self.node, point, self.args);
            met += usize::from(point.was_met(self.node));
            let mut cuts = vec![(self.disk.cut(), what.clone())];
            // What the disk is given later is old or new, too.
            if turn % 2 == 0 {
                self.disk.commit();
                cuts.push((self.disk.cut(), format!("{what}, and its journal written")));
            } else if turn % 4 == 1 {
                self.disk.sync();
                cuts.push((self.disk.cut(), format!("{what}, and synced")));
            }
            for (cut, what) in cuts {
                let now = self.after(&cut, &what);
                if now != old {
                    assert_same(&now, &new, &what);
                }
            }
            if turn % 2 == 1 && !point.alone {
                // The disk was given a part of it before the end, and then the command says that it has all of it.
                let what = format!("{:?}, the journal written at {point:?}", self.args);
                self.disk.insert(self.before);
                paused += usize::from(strace::pause(self.node, point, self.args, &|| self.disk.commit()));
                self.success(&new, &old, &what);
            }
        }
        assert!(met > moments / 2 && paused > 0, "{:?}: {met} and {paused} of {}", self.args, points.len());
    }
}

/// Tries a command, with what brings back what was before, at so many moments.
type Tried<'a> = dyn Fn(&[&str], Option<&[&str]>, usize) + 'a;

/// A node of this kind, and what lets a command of it be tried.
fn on(kind: &Kind, work: &dyn Fn(&Node, &Tried<'_>)) {
    let Some(node) = node(kind) else { return };
    let disk = Disk::new(&node, kind.fsck, kind.mounted);
    disk.sync();
    let before = disk.cut();
    work(&node, &|args, undo, moments| {
        Trial {
            node: &node,
            disk: &disk,
            before: &before,
            args,
            undo,
            folder_times: args[0] == "rebase",
            apart: kind.apart,
        }
        .run(moments);
    });
}

fn rebase(kind: &Kind, moments: usize) {
    on(kind, &|_, tried| tried(&["rebase", "s", "--onto", "c"], Some(&["rebase", "s", "--undo"]), moments));
}

#[test]
fn a_rebase_on_ext4() {
    rebase(&APART, 40);
}

#[test]
fn a_rebase_on_ext4_that_is_written_as_a_whole() {
    rebase(&EXT4, 12);
}

/// The journal is quicker than what the files hold: each of them must be waited for.
#[test]
fn a_rebase_on_a_slow_ext4() {
    let Some(node) = node(&APART) else { return };
    let disk = Disk::new(&node, &[], "");
    disk.sync();
    let before = disk.cut();
    let (args, undo) = (&["rebase", "s", "--onto", "c"], Some(&["rebase", "s", "--undo"][..]));
    let trial =
        Trial { node: &node, disk: &disk, before: &before, args, undo, folder_times: true, apart: true };
    let old = trial.seen();
    disk.insert(&before);
    node.ok(args);
    let new = trial.seen();
    disk.insert(&before);
    match Slow::new(&disk) {
        Ok(slow) => run(&mut slow.command(&node.command(args))),
        Err(reason) => {
            require("slow-disk", Err(reason));
            return;
        }
    };
    trial.success(&new, &old, "a rebase on a slow disk");
}

#[test]
fn a_rebase_on_ext4_that_orders_no_content() {
    rebase(&WRITEBACK, 8);
}

#[test]
fn a_rebase_on_ext4_that_journals_content() {
    rebase(&JOURNALED, 8);
}

#[test]
fn a_rebase_on_ext4_without_a_journal() {
    rebase(&NO_JOURNAL, 8);
}

#[test]
fn a_rebase_on_xfs() {
    rebase(&XFS, 8);
}

#[test]
fn a_rebase_on_btrfs() {
    rebase(&BTRFS, 8);
}

/// Those that make a store beside the old one.
#[test]
fn new_stores() {
    on(&EXT4, &|node, tried| {
        tried(&["convert", "s", "--to", "aufs"], Some(&["convert", "s", "--undo"]), 8);
        let layer = node.dir().join("layer.tar");
        fs::write(&layer, Tar::default().file(b"which", b"new").file(b"etc/.wh.old", b"").end()).unwrap();
        tried(&["import", "s", layer.to_str().unwrap(), "--replace"], None, 8);
        if require("rsync", installed("rsync")) {
            let source = node.dir().join("new");
            tried(&["sync", "s", source.to_str().unwrap()], Some(&["convert", "s", "--undo"]), 8);
        }
    });
}

/// Those that change the store where it lies.
#[test]
fn changes_in_place() {
    on(&EXT4, &|_, tried| {
        tried(&["restore", "s", "opaque"], None, 8);
        tried(&["compact", "s"], None, 8);
    });
}
