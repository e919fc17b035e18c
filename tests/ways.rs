//! The same random edits in a view of the real overlay and in a plain copy of its base; then the view goes all ways that a store can
//! go, by the command line, and is the same after each. `SLIVERFS_SEEDS=N` runs the scripts 1 to N, `SLIVERFS_SEED=N` that one alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::layers::{bare, said};
use common::listing::{self, uncounted};
use common::node::{Node, run};
use common::require;
use common::scripts::{Edits, Overlay, PLAIN, base, edits_of, own_namespace};
use common::tree::{Temp, assert_same, installed, sh_in};
use sliverfs::layer::Format;

/// So many scripts are run where no number is asked for.
const SCRIPTS: u64 = 24;

/// What [`base`] has not: several names of files, links and devices, ACLs, a capability, holes.
const MORE: &str = "ln f other; ln a/f a/b/name; ln a/f d/name; ln -P l a/link; ln d/null null; ln a/b/f a/b/g
    setfacl -m u:7:rw d/b; setfacl -d -m u:8:rx d/e; cp /bin/true tool; setcap cap_net_raw+ep tool; ln tool tool2
    truncate -s 3000000 holes; printf x | dd of=holes bs=1 seek=1500000 conv=notrunc 2>/dev/null; find . -depth -exec touch -h -d @1500000000 {} +";

/// One script's place.
struct Script<'a> {
    node: &'a Node,
    lower: &'a Path,
    here: PathBuf,
    seed: u64,
    done: Edits,
}

impl Script<'_> {
    fn bare(&self, command: &str, format: Format, store: &Path, more: &[&str]) {
        let told = bare(command, format, self.lower, store, more);
        assert!(told.status.success(), "seed {}: {:?}: {command}: {}", self.seed, self.done, said(&told));
    }

    fn same(&self, found: &str, wanted: &str, what: &str) {
        assert_same(found, wanted, &format!("seed {}: {:?}: {what}", self.seed, self.done));
    }

    /// What the kernel shows of a store of overlay's.
    fn view(&self, store: &Path) -> String {
        let view = Overlay::mount(&self.here, self.lower, store, PLAIN);
        uncounted(&listing::of(&view.0, true))
    }

    /// To a format and back.
    fn there_and_back(&self, store: &Path, to: Format) -> PathBuf {
        let [there, back] = ["as", "back-from"].map(|way| self.here.join(format!("{way}-{}", to.name())));
        self.bare("convert", Format::Overlay, store, &["--to", to.name(), "--out", there.to_str().unwrap()]);
        self.bare("convert", to, &there, &["--to", "overlay", "--out", back.to_str().unwrap()]);
        back
    }

    /// What a sliver's view shows.
    fn sliver(&self) -> String {
        uncounted(&common::slivers::view(self.node, "s"))
    }
}

fn script(temp: &Path, node: &Node, lower: &Path, seed: u64) {
    let here = temp.join(seed.to_string());
    let (plain, store) = (here.join("plain"), here.join("upper"));
    fs::create_dir_all(&store).unwrap();
    run(Command::new("cp").arg("-a").arg(lower).arg(&plain));
    let done = edits_of(&here, lower, &plain, &store, seed, 21);
    let script = Script { node, lower, here, seed, done };

    // A copy-up touches the folder on some kernels.
    let shown = Overlay::mount(&script.here, lower, &store, PLAIN);
    let found = uncounted(&listing::of(&shown.0, false));
    drop(shown);
    script.same(&found, &uncounted(&listing::of(&plain, false)), "the view");
    let wanted = script.view(&store);

    script.bare("compact", Format::Overlay, &store, &[]);
    script.same(&script.view(&store), &wanted, "compacted");
    let mut from = store;
    for to in [Format::Aufs, Format::Overlayfs, Format::MiniFo, Format::Tree] {
        from = script.there_and_back(&from, to);
        script.same(&script.view(&from), &wanted, to.name());
    }
    let layer = script.here.join("layer.tar");
    script.bare("export", Format::Overlay, &from, &["-o", layer.to_str().unwrap()]);
    node.ok(&["create", "s", "--base", "b", "--backend", "overlay"]);
    node.ok(&["import", "s", layer.to_str().unwrap()]);
    script.same(&script.sliver(), &wanted, "a layer");
    for to in [if seed % 2 == 0 { "btrfs-snapshot" } else { "reflink" }, "overlay"] {
        node.ok(&["convert", "s", "--to", to]);
        script.same(&script.sliver(), &wanted, to);
    }
    node.ok(&["destroy", "s"]);
    fs::remove_dir_all(&script.here).unwrap();
}

#[test]
fn a_view_is_the_same_whatever_holds_it() {
    let tools = installed("mkfs.btrfs").and(installed("setfacl")).and(installed("setcap"));
    if !require("root", common::root()) || !require("btrfs-snapshot", tools) {
        return;
    }
    own_namespace();
    let node = Node::new("btrfs", 300);
    let temp = Temp::quick();
    let lower = temp.join("base");
    base(&lower);
    sh_in(&lower, MORE);
    node.ok(&["base", "add", "b", lower.to_str().unwrap()]);
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("SLIVERFS_SEED") {
        Some(seed) => script(&temp.0, &node, &lower, seed),
        None => (1..=number("SLIVERFS_SEEDS").unwrap_or(SCRIPTS))
            .for_each(|seed| script(&temp.0, &node, &lower, seed)),
    }
}
