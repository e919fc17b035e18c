//! What the commands take of memory does not grow with the tree.
//!
//! `SLIVERFS_MEMORY_ENTRIES=1000000 cargo test --test memory -- --nocapture` takes that much, and tells the figures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::node::run;
use common::require;
use common::tree::{Temp, installed, sh_in};

/// What is promised, in KiB: for as many entries as there may be, and no more than 10^4 of them in one folder.
const PEAK: u64 = 8 << 10;
/// What one run and another may differ by, in KiB: pages that were touched or not, buffers that the smaller store does not fill. Of the
/// 30,000 entries more that tests/check takes, 35 bytes each would be too much.
const NOISE: u64 = 1000;
/// Entries of a folder.
const WIDE: usize = 5000;

fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

fn entries() -> usize {
    number("SLIVERFS_MEMORY_ENTRIES", 40_000)
}

fn ready() -> bool {
    require("root", common::root()) && require("time", installed("time"))
}

/// The program's own peak in KiB, and that of its children, as wait4(2) tells. It is the debug binary, of which the parts that ran
/// count, too. GNU time starts it: what a test's own process takes counts for its child until that executes something.
fn peak(args: &[&str], at: &Path) -> u64 {
    measured(args, at).0
}

/// As [`peak`], and the processor's time in hundredths of a second.
fn measured(args: &[&str], at: &Path) -> (u64, u64) {
    let told = at.join("told");
    let status = Command::new("time")
        .args(["-f", "%M %U %S", "-o"])
        .arg(&told)
        .arg(env!("CARGO_BIN_EXE_sliverfs"))
        .args(["--config", "/dev/null"])
        .args(args)
        .current_dir(at)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{args:?}: {status}");
    let told = fs::read_to_string(told).unwrap();
    let mut words =
        told.lines().last().unwrap().split(' ').map(|word| word.replace('.', "").parse::<u64>().unwrap());
    let mut next = || words.next().unwrap();
    (next(), next() + next())
}

/// Files in folders of [`WIDE`] names, below `tree`: a quarter of the names are second ones of others.
fn fill(tree: &Path, entries: usize, content: &str) {
    for folder in 0..entries.div_ceil(WIDE) {
        let path = tree.join(format!("folder-{folder:05}"));
        fs::create_dir_all(&path).unwrap();
        for name in 0..WIDE.min(entries - folder * WIDE) {
            let path = path.join(format!("a-name-of-a-file-{name:06}"));
            if name % 4 == 3 {
                let first = path.with_file_name(format!("a-name-of-a-file-{:06}", name - 1));
                fs::hard_link(first, path).unwrap();
            } else {
                fs::write(path, content).unwrap();
            }
        }
    }
}

/// A place with a base, and the stores of which each command takes one.
fn place(entries: usize) -> Temp {
    let temp = Temp::quick();
    for name in ["base", "newer", "store", "lxc"] {
        fs::create_dir(temp.join(name)).unwrap();
    }
    fs::write(temp.join("base/kept"), "kept").unwrap();
    fs::write(temp.join("newer/kept"), "newer").unwrap();
    fill(&temp.join("store"), entries, "x");
    temp
}

/// Each command on stores of two sizes: under the limit, and the larger one takes no more than the smaller.
#[test]
fn memory_does_not_grow_with_the_entries() {
    if !ready() {
        return;
    }
    let most = entries();
    let figures = [most / 4, most].map(|entries| {
        let temp = place(entries);
        let mut figures = bare(&temp);
        figures.extend(slivers(&temp));
        figures
    });
    let [small, large] = figures;
    println!("{:<24} {:>12} {:>12}", "KiB at most of", most / 4, most);
    for ((name, small), (_, large)) in small.iter().zip(&large) {
        println!("{name:<24} {small:>12} {large:>12}");
    }
    for ((name, small), (_, large)) in small.into_iter().zip(large) {
        assert!(large <= PEAK, "{name} takes {large} KiB for {most} entries");
        assert!(large <= small + NOISE, "{name} takes {small} KiB for {}, {large} for {most}", most / 4);
    }
}

/// On bare directories.
fn bare(temp: &Temp) -> Vec<(&'static str, u64)> {
    let layers = ["--format", "overlay", "--base", "base", "--store", "store"];
    let with = |command: &[&str], more: &[&str]| peak(&[command, &layers, more].concat(), &temp.0);
    let mut figures = vec![
        ("nothing", peak(&["version"], &temp.0)),
        ("diff", with(&["diff"], &[])),
        ("diff --json", with(&["diff", "--json"], &[])),
        ("export", with(&["export"], &["-o", "layer.tar"])),
        ("convert to aufs", with(&["convert"], &["--to", "aufs", "--out", "aufs"])),
        ("convert to a tree", with(&["convert"], &["--to", "tree", "--out", "whole"])),
    ];
    let whole = ["diff", "--format", "tree", "--base", "base", "--store", "whole"];
    figures.push(("diff of a tree", peak(&whole, &temp.0)));
    // A folder that is the base's, as large as the store, below one that hides it.
    let (deep, hidden) = (temp.join("deep"), temp.join("hidden/deep"));
    fs::create_dir(&deep).unwrap();
    fs::rename(temp.join("whole"), deep.join("inside")).unwrap();
    fs::create_dir_all(&hidden).unwrap();
    fs::create_dir(temp.join("holder")).unwrap();
    fs::rename(&deep, temp.join("holder/deep")).unwrap();
    run(Command::new("setfattr").args(["-n", "trusted.overlay.opaque", "-v", "y"]).arg(&hidden));
    let restore = ["restore", "--format", "overlay", "--base", "holder", "--store", "hidden", "deep/inside"];
    figures.push(("restore", peak(&restore, &temp.0)));
    // What was restored is as the base's: all of it but what has more names goes.
    run(Command::new("setfattr").args(["-x", "trusted.overlay.opaque"]).arg(&hidden));
    let compact = ["compact", "--format", "overlay", "--base", "holder", "--store", "hidden"];
    figures.push(("compact", peak(&compact, &temp.0)));
    for gone in ["aufs", "holder", "hidden"] {
        sliverfs::tree::remove_path(&temp.join(gone)).unwrap();
    }
    figures
}

/// On a sliver.
fn slivers(temp: &Temp) -> Vec<(&'static str, u64)> {
    let lxc = temp.join("lxc");
    let on = |args: &[&str]| [&["--lxcpath", lxc.to_str().unwrap()], args].concat().join("\0");
    let of = |args: &[&str]| {
        let all = on(args);
        peak(&all.split('\0').collect::<Vec<_>>(), &temp.0)
    };
    of(&["init"]);
    of(&["base", "add", "b", "base"]);
    of(&["base", "add", "c", "newer"]);
    for name in ["s", "t"] {
        of(&["create", name, "--base", "b", "--backend", "overlay"]);
    }
    let upper = lxc.join(".store/s/upper");
    for entry in fs::read_dir(temp.join("store")).unwrap() {
        let entry = entry.unwrap();
        fs::rename(entry.path(), upper.join(entry.file_name())).unwrap();
    }
    let figures = vec![
        ("check", of(&["check", "s"])),
        ("rebase --plan --json", of(&["rebase", "s", "--onto", "c", "--plan", "--json"])),
        ("rebase", of(&["rebase", "s", "--onto", "c"])),
        ("rebase --commit", of(&["rebase", "s", "--commit"])),
        ("import", of(&["import", "t", "layer.tar"])),
        ("destroy", of(&["destroy", "s"])),
    ];
    // The table of links lay in a file by then.
    let inode = |name: usize| {
        let last = fs::read_dir(lxc.join(".store/t/upper")).unwrap().map(|entry| entry.unwrap().path()).max();
        fs::metadata(last.unwrap().join(format!("a-name-of-a-file-{name:06}"))).unwrap().ino()
    };
    assert_eq!(inode(2), inode(3));
    assert_ne!(inode(1), inode(2));
    figures
}

/// What `create` takes where the archive has folders in the place of links of the base that lead nowhere.
fn over_links(names: usize) -> u64 {
    let temp = place(0);
    let (links, folders) = (temp.join("base/links"), temp.join("data/links"));
    fs::create_dir(&links).unwrap();
    for name in 0..names {
        std::os::unix::fs::symlink("nowhere", links.join(name.to_string())).unwrap();
        fs::create_dir_all(folders.join(name.to_string())).unwrap();
    }
    run(Command::new("tar").args(["-cf", "data.tar", "-C", "data", "."]).current_dir(&temp.0));
    let of = |args: &[&str]| peak(&[&["--lxcpath", "lxc"], args].concat(), &temp.0);
    of(&["init"]);
    of(&["base", "add", "b", "base"]);
    let taken = of(&["create", "s", "--base", "b", "--backend", "copy", "--data", "data.tar"]);
    assert!(temp.join(&format!("lxc/.store/s/tree/links/{}", names - 1)).is_dir());
    taken
}

#[test]
fn links_that_lead_nowhere() {
    if !ready() {
        return;
    }
    let [small, large] = [1000, 12_000].map(over_links);
    println!("KiB at most over 1000 and 12000 dangling links: {small} {large}");
    assert!(large <= small + NOISE, "{small} KiB for 1000, {large} for 12000");
}

/// A folder wider than what is held of names, and one with as many second names.
#[test]
fn a_wide_folder_lies_in_a_file() {
    if !ready() {
        return;
    }
    let temp = place(0);
    let wide = entries() * 2;
    let folder = temp.join("store/wide");
    fs::create_dir(&folder).unwrap();
    for name in 0..wide {
        File::create(folder.join(format!("a-name-of-some-length-{name:07}"))).unwrap();
    }
    let layers = ["--format", "overlay", "--base", "base", "--store", "store"];
    for (command, more) in [
        (&["diff"][..], &[][..]),
        (&["export"], &["-o", "layer.tar"]),
        (&["convert"], &["--to", "mini_fo", "--out", "new"]),
    ] {
        let kib = peak(&[command, &layers, more].concat(), &temp.0);
        println!("{command:?} of {wide} names in a folder: {kib} KiB");
        assert!(kib <= PEAK, "{command:?} takes {kib} KiB for {wide} names in one folder");
    }
    let told = run(Command::new(env!("CARGO_BIN_EXE_sliverfs"))
        .args(["--config", "/dev/null", "diff"])
        .args(layers)
        .current_dir(&temp.0));
    let told: Vec<&str> =
        told.lines().filter_map(|line| line.split(' ').rfind(|word| word.contains("/a-"))).collect();
    assert_eq!(told.len(), wide);
    assert!(told.is_sorted());
}

/// A file with as many names in one folder, and another folder with as many files of two names each.
fn farm(tree: &Path, names: usize) {
    let (one, pairs) = (tree.join("one"), tree.join("pairs"));
    for folder in [&one, &pairs] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(one.join("name-0"), "one").unwrap();
    for name in 1..names {
        fs::hard_link(one.join("name-0"), one.join(format!("name-{name}"))).unwrap();
    }
    for name in 0..names {
        // The second name follows at once, or after all others.
        let (first, second) =
            (format!("a-{name}"), format!("{}-{name}-too", if name % 2 == 0 { 'a' } else { 'z' }));
        fs::write(pairs.join(&first), "pair").unwrap();
        fs::hard_link(pairs.join(&first), pairs.join(&second)).unwrap();
    }
    sh_in(tree, "find . -exec touch -h -d @1500000000 {} +");
}

/// What each command takes of memory and time on stores, and bases, that are such farms.
fn on_a_farm(names: usize) -> Vec<(&'static str, (u64, u64))> {
    let temp = place(0);
    farm(&temp.join("store/farm"), names);
    for place in ["base", "newer", "same"] {
        fs::create_dir_all(temp.join(place)).unwrap();
        run(Command::new("cp").arg("-a").arg(temp.join("store/farm")).arg(temp.join(place)));
    }
    sh_in(&temp.join("newer/farm"), "rm one/name-1 one/name-2; ln one/name-0 one/new; touch pairs/a-0");
    sh_in(
        &temp.join("store/farm"),
        "echo more >> one/name-0; ln one/name-0 other; rm one/name-1; touch pairs/a-1",
    );
    let on = |args: &[&str]| measured(args, &temp.0);
    let with = |command: &str, store: &str, more: &[&str]| {
        on(&[&[command, "--format", "overlay", "--base", "base", "--store", store], more].concat())
    };
    let of = |args: &[&str]| on(&[&["--lxcpath", temp.join("lxc").to_str().unwrap()], args].concat());
    of(&["init"]);
    of(&["base", "add", "b", "base"]);
    of(&["base", "add", "c", "newer"]);
    of(&["create", "s", "--base", "b", "--backend", "overlay"]);
    let tree = ["--format", "tree", "--base", "base", "--store", "tree"];
    let figures = vec![
        ("diff", with("diff", "store", &[])),
        ("export", with("export", "store", &["-o", "layer.tar"])),
        ("convert to aufs", with("convert", "store", &["--to", "aufs", "--out", "aufs"])),
        ("convert to a tree", with("convert", "store", &["--to", "tree", "--out", "tree"])),
        ("diff of a tree", on(&[&["diff"], &tree[..]].concat())),
        ("export of a tree", on(&[&["export"], &tree[..], &["-o", "tree.tar"]].concat())),
        ("compact", with("compact", "same", &[])),
        ("import", of(&["import", "s", "layer.tar"])),
        ("rebase --plan", of(&["rebase", "s", "--onto", "c", "--plan"])),
        ("rebase", of(&["rebase", "s", "--onto", "c"])),
        ("convert to a copy", of(&["convert", "s", "--to", "copy"])),
        ("restore", with("restore", "store", &["farm"])),
    ];
    // The names are one file's all the way.
    let links = |path: &str| fs::metadata(temp.join(path)).unwrap().nlink();
    assert_eq!(links("tree/farm/other"), names as u64);
    assert_eq!(links("lxc/.store/s/tree/farm/other"), names as u64);
    assert_eq!(links("lxc/.store/s/tree/farm/pairs/a-1"), 2);
    figures
}

/// One file of very many names, and very many of two names in one folder: memory does not grow with them, and time no faster than they.
#[test]
fn a_farm_of_hard_links() {
    if !ready() {
        return;
    }
    let most = number("SLIVERFS_MEMORY_LINKS", 10_000);
    let [small, large] = [most / 4, most].map(on_a_farm);
    for ((name, (_, before)), (_, (kib, time))) in small.into_iter().zip(large) {
        println!("{name:<24} {kib:>8} KiB {before:>6} {time:>6} hundredths of a second");
        assert!(kib <= PEAK, "{name} takes {kib} KiB for {most} names of a file");
        // Four times the names; were each compared with each, it would be sixteen times.
        assert!(
            time <= before * 8 + 30,
            "{name} takes {before}/100 s for a quarter of the names, {time}/100 s for {most}"
        );
    }
}
