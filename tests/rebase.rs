//! `rebase`: what the sliver changed stays, all else comes from the new base, and what both changed is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "layer/shown.rs"]
mod shown;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::node::{Node, run, small_tree};
use common::tree::{Temp, assert_same, installed};
use common::{listing, require, strace};
use sliverfs::layer::{self, Action, Format, Prefer};
use sliverfs::tree;

const UNIONS: [Format; 4] = [Format::Overlay, Format::Overlayfs, Format::MiniFo, Format::Aufs];

fn sh(script: &str, folder: &Path) {
    run(Command::new("sh").args(["-ec", script]).current_dir(folder));
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-aT").arg(from).arg(to));
}

/// A tree without times, as names with their lines.
fn lines(format: Format, store: &Path, base: &Path) -> BTreeMap<String, String> {
    let text = shown::whole(format, store, base);
    let strip = |line: &str| {
        let words: Vec<&str> = line.split(' ').filter(|word| !is_time(word)).collect();
        (words[1].to_owned(), words.join(" "))
    };
    text.lines().map(strip).collect()
}

fn is_time(word: &str) -> bool {
    word.strip_prefix('t')
        .is_some_and(|rest| rest.contains('.') && rest.bytes().all(|b| b == b'.' || b.is_ascii_digit()))
}

fn text(lines: &BTreeMap<String, String>) -> String {
    lines.values().cloned().collect::<Vec<_>>().join("\n")
}

/// Rebases the store of one format; returns the view's lines, and what was told.
fn rebase(
    format: Format,
    temp: &Temp,
    prefer: Prefer,
    [old, new, ours]: [&Path; 3],
) -> (BTreeMap<String, String>, Vec<(String, Action)>) {
    let (store, into) = (temp.join("store"), temp.join("into"));
    for folder in [&store, &into] {
        run(Command::new("rm").arg("-rf").arg(folder));
    }
    if format.whole() {
        copy(ours, &store);
        copy(new, &into);
    } else {
        shown::convert(Format::Tree, ours, old, Format::Overlay, &temp.join("overlay")).unwrap();
        shown::convert(Format::Overlay, &temp.join("overlay"), old, format, &store).unwrap();
        run(Command::new("rm").arg("-rf").arg(temp.join("overlay")));
        fs::create_dir(&into).unwrap();
    }
    let [old, new_dir] = [old, new].map(|path| tree::open(path).unwrap());
    let go = |into: Option<&Path>| {
        let mut told = Vec::new();
        let into = into.map(|path| tree::open(path).unwrap());
        let mut progress = |_| ();
        let into = into.as_ref().map(|dir| (dir, &mut progress as &mut dyn FnMut(u64)));
        let store = tree::open(&store).unwrap();
        layer::merge(format, store, (&old, &new_dir), into, prefer, &mut |outcome| {
            told.push((shown::escape(outcome.path), outcome.action));
            Ok(())
        })
        .unwrap();
        told
    };
    let planned = go(None);
    let told = go(Some(&into));
    assert_eq!(planned, told, "{}: the plan is what is done", format.name());
    (lines(format, &into, new), told)
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
        sh(&format!("{old}\nfind . -exec touch -h -d @1500000000 {{}} +"), &base);
        copy(&base, &new);
        sh(theirs, &new);
        copy(&base, &ours);
        sh(mine, &ours);
        copy(&new, &wanted);
        sh(want, &wanted);
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
        sh(&format!("for n in 1 2; do echo {who} > $(printf %0240d $n); done"), folder);
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
    if !ready() || !require("setfattr", installed("setfattr")) {
        return;
    }
    let temp = Temp::quick();
    let [old, new, store, into] = ["old", "new", "store", "into"].map(|name| temp.join(name));
    for folder in [&old, &store, &into] {
        fs::create_dir(folder).unwrap();
    }
    sh("mkdir d; echo in > d/f; echo content > g; echo h > h; touch -d @1500000000 g", &old);
    copy(&old, &new);
    sh("echo newer > d/f; echo later > g; rm h", &new);
    sh(
        "mknod d c 0 0; ln d gone; mknod h c 0 0; mkdir e; setfattr -n trusted.overlay.redirect -v /d e; echo e > e/more
        : > g; truncate -s 8 g; touch -d @1500000000 g; chmod 600 g; setfattr -n trusted.overlay.metacopy g
        setfattr -n trusted.overlay.origin -v x g; setfattr -n trusted.overlay.impure -v y .",
        &store,
    );
    let [old, new_dir, store, to] = [&old, &new, &store, &into].map(|path| tree::open(path).unwrap());
    let mut progress = |_| ();
    layer::merge(
        Format::Overlay,
        store,
        (&old, &new_dir),
        Some((&to, &mut progress)),
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

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    /// Some edits of a tree with few names.
    fn edits(&mut self, tree: &Path, who: &str) {
        for number in 0..3 + self.below(6) {
            let folder = ["", "a", "a/b", "c"][self.below(4)];
            let path = tree.join(folder).join(["x", "y", "z", "b"][self.below(4)]);
            let folders = path.parent().unwrap().is_dir();
            let is_dir = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
            let is_file = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file());
            match self.below(8) {
                _ if !folders => {}
                0 if is_dir => fs::remove_dir_all(&path).unwrap(),
                0 | 1 if path.symlink_metadata().is_ok() && !is_dir => fs::remove_file(&path).unwrap(),
                2 if path.symlink_metadata().is_err() => fs::create_dir(&path).unwrap(),
                3 if path.symlink_metadata().is_err() => std::os::unix::fs::symlink(who, &path).unwrap(),
                4 if is_file || is_dir => {
                    let mode = [0o700, 0o711, 0o755][self.below(3)];
                    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
                }
                _ if is_dir || path.is_symlink() => {}
                _ => fs::write(&path, format!("{who} {}", number % 3)).unwrap(),
            }
        }
    }
}

/// What a name is, apart from its mode.
fn apart(line: &str) -> (String, String) {
    let mut words: Vec<&str> = line.split(' ').collect();
    let mode = if words[2] == "l" { "" } else { words[3] }.to_owned();
    words[3] = "";
    (words.join(" "), mode)
}

#[test]
fn random_three_ways() {
    if !require("root", common::root()) {
        return;
    }
    let seeds = match std::env::var("SLIVERFS_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..120).collect::<Vec<u64>>(),
    };
    let temp = Temp::quick();
    let (mut kept, mut taken, mut fought) = (0, 0, 0);
    for seed in seeds {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let [base, new, ours] = ["old", "new", "ours"].map(|name| temp.join(name));
        for folder in [&base, &new, &ours] {
            run(Command::new("rm").arg("-rf").arg(folder));
        }
        fs::create_dir_all(base.join("a/b")).unwrap();
        sh("mkdir c; for f in x a/x a/y a/b/x c/y; do echo base $f > $f; done; ln -s l c/z", &base);
        copy(&base, &new);
        random.edits(&new, "new");
        copy(&base, &ours);
        random.edits(&ours, "ours");
        let [old_lines, new_lines, our_lines] =
            [&base, &new, &ours].map(|path| lines(Format::Tree, path, path));
        let format = [UNIONS[random.below(4)], Format::Tree][usize::from(random.below(4) == 0)];
        let (view, told) = rebase(format, &temp, Prefer::Both, [&base, &new, &ours]);
        let mut fights = BTreeSet::new();
        let paths: BTreeSet<&String> =
            [&old_lines, &new_lines, &our_lines].iter().flat_map(|l| l.keys()).collect();
        for path in paths {
            let what = format!("seed {seed}, {}, {path}", format.name());
            let is_dir = |lines: &BTreeMap<String, String>, path: &str| {
                lines.get(path).is_some_and(|l| l.split(' ').nth(2) == Some("d"))
            };
            let all = [&old_lines, &new_lines, &our_lines];
            let merged = |path: &str| path.is_empty() || all.iter().all(|lines| is_dir(lines, path));
            let above = Path::new(path).ancestors().skip(1).all(|above| merged(above.to_str().unwrap()));
            let any_dir = all.iter().any(|lines| is_dir(lines, path));
            if !above || any_dir && !merged(path) {
                continue;
            }
            let [o, n, s] = all.map(|lines| lines.get(path));
            let found = view.get(path);
            if s == o {
                taken += 1;
                assert_eq!(found, n, "{what}");
            } else if n == o {
                kept += 1;
                assert_eq!(found, s, "{what}");
            } else if s == n {
                assert_eq!(found, n, "{what}");
            } else {
                let both = match (o, n, s) {
                    (Some(o), Some(n), Some(s)) => {
                        let [o, n, s] = [o, n, s].map(|line| apart(line));
                        let clash = |o: &String, n: &String, s: &String| o != n && o != s && n != s;
                        clash(&o.0, &n.0, &s.0) || clash(&o.1, &n.1, &s.1)
                    }
                    _ => true,
                };
                if both {
                    fought += 1;
                    fights.insert(path.clone());
                    assert_eq!(found, s, "{what}");
                    if n.is_some() && !any_dir {
                        assert!(view.contains_key(&format!("{path}.base-new")), "{what}");
                    }
                }
            }
        }
        let listed: BTreeSet<String> = told
            .into_iter()
            .filter(|(_, action)| *action == Action::Conflict)
            .map(|(path, _)| path)
            .collect();
        assert!(fights.is_subset(&listed), "seed {seed}: {fights:?} {listed:?}");
        for path in listed.difference(&fights) {
            // Of those only where kinds changed: the rules above do not reach them.
            let odd = Path::new(path).ancestors().filter(|p| *p != Path::new("")).any(|above| {
                let above = above.to_str().unwrap();
                let kinds = [&old_lines, &new_lines, &our_lines]
                    .map(|l| l.get(above).map(|l| l.split(' ').nth(2) == Some("d")));
                kinds.contains(&Some(true)) && kinds != [Some(true); 3]
            });
            assert!(odd, "seed {seed}, {}: {path} is no conflict", format.name());
        }
    }
    assert!(
        kept > 20 && taken > 20 && fought > 10 || std::env::var("SLIVERFS_SEED").is_ok(),
        "{kept} {taken} {fought}"
    );
}

/// What the new base has otherwise, and what the sliver did.
const NEW: &str = r#"echo new > etc/new; echo newer > etc/a.new; mv etc/a.new etc/b.txt; rm var/deep/y; chmod 711 var; echo status 2 > lib/apk/db/installed
    rm etc/a.sym; echo plain > etc/a.sym; echo deep > var/deep/er/z; rm var/fifo; echo x > empty/x; chmod 640 etc/dir/c.txt"#;
const MINE: &str = r#"echo mine > etc/mine; echo mine > etc/b.txt; echo status 3 > lib/apk/db/installed; rm -r var/deep/er; mkdir var/deep/er
    echo only > var/deep/er/only; ln etc/mine etc/mine2; rm etc/absolute; mkdir made; echo m > made/m; echo four > etc/dir/c.txt"#;

fn ready() -> bool {
    require("root", common::root())
}

/// A node with a base `b`, and one `c` that is newer.
fn node(fstype: &str, mib: u64, options: &[&str]) -> Node {
    let node = Node::new(fstype, mib);
    let (old, new) = (node.dir().join("tree"), node.dir().join("tree2"));
    small_tree(&old);
    sh("mkdir -p lib/apk/db; echo status 1 > lib/apk/db/installed", &old);
    copy(&old, &new);
    sh(NEW, &new);
    for (name, tree) in [("b", &old), ("c", &new)] {
        node.ok(&[&["base", "add", name, tree.to_str().unwrap()], options].concat());
    }
    node
}

fn sliver(node: &Node, name: &str, kind: &str) -> String {
    node.ok(&["create", name, "--base", "b", "--backend", kind]);
    node.ok(&["mount", name]);
    sh(MINE, &node.view(name));
    node.ok(&["umount", name]);
    view(node, name)
}

fn view(node: &Node, name: &str) -> String {
    node.ok(&["mount", name]);
    let list = listing::of(&node.view(name), false);
    node.ok(&["umount", name]);
    list
}

fn base_of(node: &Node, name: &str) -> String {
    node.json(&["show", name, "--json"])["base"].as_str().unwrap().to_owned()
}

fn in_stores(node: &Node) -> Vec<String> {
    let entries = fs::read_dir(node.lxcpath.join(".store")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What must be seen in the mounted view after the rebase.
fn check_view(node: &Node, name: &str) {
    node.ok(&["mount", name]);
    let view = node.view(name);
    let read =
        |path: &str| fs::read_to_string(view.join(path)).unwrap_or_else(|err| format!("{path}: {err}"));
    for (path, content) in [
        ("etc/new", "new\n"),
        ("etc/mine", "mine\n"),
        ("etc/b.txt", "mine\n"),
        ("etc/b.txt.base-new", "newer\n"),
        ("lib/apk/db/installed", "status 3\n"),
        ("lib/apk/db/installed.base-new", "status 2\n"),
        ("etc/a.sym", "plain\n"),
        ("var/deep/er/only", "only\n"),
        ("empty/x", "x\n"),
        ("made/m", "m\n"),
        ("etc/dir/c.txt", "four\n"),
        ("etc/a.txt", "hello\n"),
    ] {
        assert_eq!(read(path), content, "{path}");
    }
    for path in ["var/deep/y", "var/fifo", "etc/absolute", "var/deep/er/x"] {
        assert!(view.join(path).symlink_metadata().is_err(), "{path}");
    }
    let meta = |path: &str| fs::symlink_metadata(view.join(path)).unwrap();
    assert_eq!(meta("etc/mine").ino(), meta("etc/mine2").ino());
    assert_eq!((meta("var").mode() & 0o7777, meta("etc/dir/c.txt").mode() & 0o7777), (0o711, 0o640));
    fs::write(view.join("var/written"), "w").unwrap();
    node.ok(&["umount", name]);
}

fn whole_way(node: &Node, kind: &str) {
    let before = sliver(node, "s", kind);
    let plan = node.ok(&["rebase", "s", "--onto", "c", "--plan"]);
    for line in [
        "keep etc/mine\n",
        "merge etc/dir/c.txt\n",
        "conflict etc/b.txt: changed here and in the new base; the new base's is put in as b.txt.base-new\n",
        "it is the package database of apk",
        "2 conflicts\n",
    ] {
        assert!(plan.contains(line), "{kind}: {line}: {plan}");
    }
    let planned = node.json(&["rebase", "s", "--onto", "c", "--plan", "--json"]);
    assert_eq!((in_stores(node), base_of(node, "s").as_str()), (vec!["s".to_owned()], "b"));
    let said = node.fails(1, &["rebase", "s", "--onto", "c", "--fail"]);
    assert!(said.contains("etc/b.txt") && said.contains("lib/apk/db/installed"), "{said}");
    assert_eq!((in_stores(node), base_of(node, "s").as_str()), (vec!["s".to_owned()], "b"));

    let done = node.json(&["rebase", "s", "--onto", "c", "--json"]);
    assert_eq!((&done["state"], &planned["state"]), (&"rebased".into(), &"planned".into()));
    for field in ["kept", "taken", "merged", "conflicts"] {
        assert_eq!(done[field], planned[field], "{field}");
    }
    let conflicts = done["conflicts"].as_array().unwrap();
    let paths: Vec<&str> = conflicts.iter().map(|line| line["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["etc/b.txt", "lib/apk/db/installed"]);
    assert_eq!(conflicts[1]["database"], "apk");
    check_view(node, "s");
    // Mounted or not, the old store stays.
    assert_eq!(in_stores(node), [".old.s", "s"]);
    assert!(node.fails(4, &["base", "remove", "b"]).contains("is used by s"));
    assert_eq!(node.json(&["rebase", "s", "--onto", "c", "--json"])["state"], "unchanged");
    node.fails(2, &["convert", "s", "--undo"]);
    node.ok(&["rebase", "s", "--undo"]);
    assert_eq!((in_stores(node), base_of(node, "s").as_str()), (vec!["s".to_owned()], "b"));
    assert_same(&view(node, "s"), &before, "undone");
    node.fails(2, &["rebase", "s", "--undo"]);

    node.ok(&["rebase", "s", "--onto", "c", "--theirs"]);
    node.ok(&["mount", "s"]);
    assert_eq!(fs::read_to_string(node.view("s").join("etc/b.txt")).unwrap(), "newer\n");
    assert!(!node.view("s").join("etc/b.txt.base-new").exists());
    assert!(node.fails(4, &["rebase", "s", "--onto", "b"]).contains("is mounted at"));
    node.ok(&["umount", "s"]);
    node.ok(&["rebase", "s", "--commit"]);
    assert_eq!(in_stores(node), ["s"]);
    node.fails(2, &["rebase", "s", "--commit"]);
    // And back again, twice: the newer one is kept.
    node.ok(&["rebase", "s", "--onto", "b", "--ours"]);
    node.ok(&["rebase", "s", "--onto", "c", "--ours"]);
    assert_eq!(in_stores(node), [".old.s", "s"]);
    node.ok(&["rebase", "s", "--undo"]);
    assert_eq!(base_of(node, "s"), "b");
    node.ok(&["rebase", "s", "--onto", "c"]);
    node.ok(&["destroy", "s"]);
    assert_eq!(in_stores(node), [""; 0]);
    node.ok(&["base", "remove", "b", "--dry-run"]);
}

#[test]
fn on_ext4() {
    if ready() {
        let node = node("ext4", 96, &[]);
        whole_way(&node, "overlay");
        whole_way(&node, "copy");
    }
}

#[test]
fn with_a_daemon() {
    let tools = ["fuse-overlayfs", "fusermount3"];
    if ready() && tools.iter().all(|tool| require("fuse-overlayfs", installed(tool))) {
        whole_way(&node("ext4", 96, &[]), "fuse-overlayfs");
    }
}

#[test]
fn on_btrfs() {
    if ready() && require("btrfs-snapshot", installed("mkfs.btrfs")) {
        let node = node("btrfs", 300, &[]);
        whole_way(&node, "btrfs-snapshot");
        whole_way(&node, "reflink");
    }
}

#[test]
fn bases_that_are_images() {
    if ready() && require("mksquashfs", installed("mksquashfs")) {
        whole_way(&node("ext4", 96, &["--pack", "squashfs"]), "overlay");
    }
}

/// What is kept from before a rebase outlives a conversion, and the conversion says what brings it back.
#[test]
fn a_conversion_after_it_names_the_way_back() {
    if !ready() {
        return;
    }
    let node = node("ext4", 96, &[]);
    node.ok(&["create", "s", "--base", "b", "--backend", "overlay"]);
    assert!(node.ok(&["convert", "s", "--to", "copy"]).contains("sliverfs convert s --undo"));
    node.ok(&["mount", "s"]);
    node.ok(&["umount", "s"]);
    node.ok(&["rebase", "s", "--onto", "c"]);
    let told = node.ok(&["convert", "s", "--to", "overlay"]);
    assert!(told.contains("sliverfs rebase s --undo") && !told.contains("convert s --undo"), "{told}");
    node.ok(&["rebase", "s", "--undo"]);
    assert!(node.ok(&["list"]).contains("copy"));
}

#[test]
fn a_seed_is_refused_with_the_way_out() {
    if ready() && require("btrfs-seed", installed("mkfs.btrfs")) {
        let node = node("ext4", 700, &["--pack", "btrfs"]);
        node.ok(&["create", "s", "--base", "b", "--backend", "btrfs-seed"]);
        assert!(node.fails(3, &["rebase", "s", "--onto", "c"]).contains("sliverfs convert s --to"));
    }
}

/// One that fails does not keep the others from their turn, and the same command goes on with it.
#[test]
fn all_slivers_of_a_base() {
    if !ready() {
        return;
    }
    let node = node("ext4", 96, &[]);
    for name in ["one", "two", "three"] {
        sliver(&node, name, "overlay");
    }
    node.ok(&["create", "other", "--base", "c", "--backend", "overlay"]);
    node.ok(&["mount", "two"]);
    let all = ["rebase", "--all", "--from", "b", "--onto", "c"];
    let said = node.fails(4, &all);
    assert!(said.contains("two: ") && said.contains("1 of 3 slivers failed"), "{said}");
    assert_eq!(["one", "two", "three"].map(|name| base_of(&node, name)), ["c", "b", "c"]);
    node.ok(&["umount", "two"]);
    let done = node.ok(&all);
    assert!(done.contains("`two` went from `b` to `c`") && !done.contains("`one`"), "{done}");
    check_view(&node, "two");
    node.ok(&all);
    for args in [
        &["rebase", "one"][..],
        &["rebase", "one", "--onto", "c", "--ours", "--theirs"],
        &["rebase", "--all", "--onto", "c"],
        &["rebase", "one", "--onto", "nosuch"],
        &["rebase", "one", "--onto", "c", "--undo"],
    ] {
        node.fails(2, args);
    }
}

/// A store that is killed at every call that changes something is the old one, or the new one, and the same command goes on.
#[test]
fn killed_at_every_step() {
    if !ready() || !require("strace", strace::works()) {
        return;
    }
    let node = Node::new("ext4", 64);
    let (old, new) = (node.dir().join("old"), node.dir().join("new"));
    fs::create_dir(&old).unwrap();
    sh("mkdir d; for f in a b c d/e; do echo $f > $f; done; touch -d @1500000000 * d/* .", &old);
    copy(&old, &new);
    sh("echo n > a; echo n > d/n; rm c", &new);
    for (name, tree) in [("b", &old), ("c", &new)] {
        node.ok(&["base", "add", name, tree.to_str().unwrap()]);
    }
    node.ok(&["create", "s", "--base", "b", "--backend", "overlay"]);
    node.ok(&["mount", "s"]);
    sh("echo s > a; rm b; echo s > d/s", &node.view("s"));
    node.ok(&["umount", "s"]);
    let read = || {
        let base = base_of(&node, "s");
        let tree: PathBuf = node.lxcpath.join(format!(".base/{base}/tree"));
        (base, shown::whole(Format::Overlay, &node.store("s").join("upper"), &tree))
    };
    let before = read();
    let rebase = ["rebase", "s", "--onto", "c"];
    let points = strace::points(&node, &rebase);
    assert!(points.len() > 20, "{points:?}");
    let after = read();
    assert!(before.0 == "b" && after.0 == "c" && after.1.contains("a.base-new"), "{after:?}");
    let back = || {
        // As `--undo` does, in less time.
        let [old, store, new] = [".old.s", "s", ".new.s"].map(|name| node.lxcpath.join(".store").join(name));
        fs::rename(&store, &new).unwrap();
        fs::rename(&old, &store).unwrap();
        run(Command::new("rm").arg("-rf").arg(new));
    };
    back();
    for point in points {
        strace::kill(&node, &point, &rebase);
        let now = read();
        assert!(now == before || now == after, "{point:?}: {now:?}");
        let done = node.run(&rebase);
        assert!(done.status.success(), "{point:?}: {}", String::from_utf8_lossy(&done.stderr));
        assert_eq!((read(), in_stores(&node).len()), (after.clone(), 2), "{point:?}, and again");
        back();
    }
    // And so is the way back.
    let undo = ["rebase", "s", "--undo"];
    node.ok(&rebase);
    let points = strace::points(&node, &undo);
    for point in points
        .into_iter()
        .filter(|(call, ..)| call.contains("rename") || call.contains("link") || call == "fsync")
    {
        node.ok(&rebase);
        strace::kill(&node, &point, &undo);
        let now = read();
        assert!(now == before || now == after, "{point:?}: {now:?}");
        let done = node.run(&undo);
        // Nothing is left to undo only where the first one came to its end.
        assert!(
            done.status.success() || now == before,
            "{point:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        assert_eq!((read(), node.store(".old.s").exists()), (before.clone(), false), "{point:?}, and again");
    }
}

#[test]
fn a_full_disk_leaves_the_old_state() {
    if !ready() {
        return;
    }
    let node = node("ext4", 32, &[]);
    let wanted = sliver(&node, "s", "overlay");
    let script = "cat /dev/zero > \"$1\" 2>/dev/null || true";
    let big = node.lxcpath.join("big");
    run(Command::new("sh").args(["-c", script, "sh"]).arg(&big));
    let said = node.fails(1, &["rebase", "s", "--onto", "c"]);
    assert!(said.contains("the disk is full"), "{said}");
    assert_eq!((in_stores(&node), base_of(&node, "s").as_str()), (vec!["s".to_owned()], "b"));
    fs::remove_file(big).unwrap();
    assert_same(&view(&node, "s"), &wanted, "the old view");
    node.ok(&["rebase", "s", "--onto", "c"]);
    check_view(&node, "s");
}
