//! A store that is merged with a newer base, whatever its format.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::common::node::run;
use super::common::tree::{Temp, copy};
use super::shown;
use sliverfs::layer::{self, Action, Format, Prefer};
use sliverfs::sys::writeback::Writeback;
use sliverfs::tree;

/// A tree without times, as names with their lines.
pub fn lines(format: Format, store: &Path, base: &Path) -> BTreeMap<String, String> {
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

/// Rebases the store of one format; returns the view's lines, and what was told.
pub fn rebase(
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
        let (mut files, mut progress) = (Writeback::default(), |_| ());
        let into = into.as_ref().map(|dir| (dir, &mut files, &mut progress as &mut dyn FnMut(u64)));
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
