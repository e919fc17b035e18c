//! The layer engine over stores that real kernels wrote: 47 scenarios each of mini_fo, overlayfs, overlay and aufs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "layer/recorded.rs"]
mod recorded;
#[path = "layer/shown.rs"]
mod shown;

use std::fs;

use common::require;
use common::tree::{Temp, assert_same};
use recorded::Recording;
use sliverfs::layer::{Doubt, Format, Show};

const UNIONS: [Format; 4] = [Format::Overlay, Format::Overlayfs, Format::MiniFo, Format::Aufs];

macro_rules! scenarios {
    ($($name:ident)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        mod overlay { $(#[test] fn $name() { super::scenario(super::Format::Overlay, stringify!($name)) })* }
        mod overlayfs { $(#[test] fn $name() { super::scenario(super::Format::Overlayfs, stringify!($name)) })* }
        mod mini_fo { $(#[test] fn $name() { super::scenario(super::Format::MiniFo, stringify!($name)) })* }
        mod aufs { $(#[test] fn $name() { super::scenario(super::Format::Aufs, stringify!($name)) })* }
    };
}

scenarios! {
    create modify append truncate delete delsym deldir rmemptydir renfile renover renfile_xdir rendir rendir_mv rendir_mod
    rendir_twice rendir_back rendir_xdir rendir_over rendir_new rendir_space repldir repldir_same hardlink_lower hardlink_mod
    hardlink_new chmod chown touch chmoddir chmodroot chmodsymtarget chmodsuid chmoddev file2dir dir2file deepmod deepdel
    deepdeldir recreate createdel moddel names xattr metaname rmall rmall_some combined
}

#[test]
fn every_scenario_of_every_recording_is_a_test() {
    for format in UNIONS {
        assert_eq!(Recording::of(format).scenarios(), NAMES, "{}", format.name());
    }
}

/// Bugs of the drivers, seen in the recordings: what they are, and whether the view is read as it was before the unmount.
const BUGS: &[(Format, &str, bool, &str)] = &[
    (Format::Aufs, "hardlink_lower", true, "after a remount the pseudo-link counts as a name"),
    (Format::Aufs, "hardlink_mod", true, "after a remount the pseudo-link counts as a name"),
    (Format::MiniFo, "rendir_back", true, "what was moved back is empty after a remount"),
    (Format::MiniFo, "rendir_space", true, "a space in a path is taken for the end of it"),
    (Format::MiniFo, "rendir_over", false, "a move that was refused is recorded all the same"),
    (Format::MiniFo, "names", false, "a deleted name with a line's end comes back"),
    (Format::MiniFo, "rmall", false, "a deleted name with a line's end comes back"),
    (Format::MiniFo, "rmall_some", false, "a deleted name with a line's end comes back"),
];

/// What a store of these holds that its format does not explain.
fn doubts(format: Format, name: &str) -> &'static [(&'static str, Doubt)] {
    match (format, name) {
        (Format::MiniFo, "names" | "rmall" | "rmall_some") => &[("META_dAfFgHE39ktF3HD2sr", Doubt::Record)],
        (Format::Overlayfs, "metaname") => &[("fakewh", Doubt::TornWhiteout)],
        _ => &[],
    }
}

/// What a format cannot keep, out of what another one did.
fn refused(from: Format, to: Format, name: &str) -> Option<&'static str> {
    match (name, to) {
        ("metaname", Format::Aufs | Format::FuseOverlayfs) if from != Format::Aufs => {
            Some(".wh..wh.opq cannot be kept by ")
        }
        ("metaname", Format::FuseOverlayfs) => Some("fakewh2 cannot be kept by fuse-overlayfs"),
        ("metaname", Format::MiniFo) if from != Format::MiniFo => {
            Some("META_dAfFgHE39ktF3HD2sr cannot be kept by mini_fo")
        }
        ("metaname", Format::Overlay | Format::OverlayUser) if from != Format::Overlay => {
            Some("fakewh2 cannot be kept by overlay")
        }
        ("names" | "rmall" | "rmall_some", Format::MiniFo) if from != Format::MiniFo => {
            Some("nl\\x0aname cannot be kept by mini_fo")
        }
        _ => None,
    }
}

/// Decodes a recorded store over the base, and writes it anew in every format.
fn scenario(format: Format, name: &str) {
    if !require("root", common::root()) {
        return;
    }
    // Kernels before 6.6 keep no attributes of users' in memory.
    let temp = if name == "xattr" { Temp::new() } else { Temp::quick() };
    let (base, store) = (temp.join("base"), temp.join("store"));
    recorded::base(&base);
    fs::create_dir(&store).unwrap();
    // An empty store of a driver that keeps nothing in it: the view is the base.
    let untouched = shown::view(Format::Overlay, &store, &base);
    let recording = Recording::of(format);
    recording.build(name, &store);
    let found = shown::view(format, &store, &base).join("\n");
    let remounted = recording.view(name, &untouched);
    let live = recording.live(name, &remounted);
    let bug = BUGS.iter().find(|(of, scenario, ..)| (*of, *scenario) == (format, name));
    let wanted = if bug.is_some_and(|bug| bug.2) { &live } else { &remounted };
    assert_same(&found, &wanted.join("\n"), "the view");
    assert_eq!(live != remounted, bug.is_some(), "a driver's bug that has no name, or a name without one");
    let mut odd = Vec::new();
    shown::walk(format, &store, &base, Show::Changes, |entry| {
        odd.extend(entry.doubt.map(|doubt| (shown::escape(entry.path), doubt)));
    });
    let odd: Vec<_> = odd.iter().map(|(path, doubt)| (path.as_str(), *doubt)).collect();
    assert_eq!(odd, doubts(format, name));

    let changes = shown::changes(format, &store, &base).join("\n");
    let new = temp.join("layer");
    match (shown::layer(format, &store, &base, &new), name) {
        (Err(said), "metaname") => assert!(said.contains(" cannot be in a layer: "), "{said}"),
        (Err(said), _) => assert!(!odd.is_empty() && said.contains("is not what"), "{said}"),
        (Ok(()), _) => {
            assert_eq!(odd, []);
            // A folder that aufs copied up, with nothing changed in it and nothing below, is in no layer.
            let idle = (format, name) == (Format::Aufs, "rendir_xdir");
            let told: Vec<_> =
                changes.lines().filter(|line| !(idle && line.starts_with("Meta dirmod "))).collect();
            assert_same(
                &shown::changes(Format::Aufs, &new, &base).join("\n"),
                &told.join("\n"),
                "as a layer",
            );
            assert_same(&shown::view(Format::Aufs, &new, &base).join("\n"), &found, "as a layer");
        }
    }
    for to in Format::ALL {
        let new = temp.join(to.name());
        let done = shown::convert(format, &store, &base, to, &new);
        if let Some(words) = refused(format, to, name) {
            let said = done.unwrap_err();
            assert!(said.contains(words), "{said}");
            continue;
        }
        done.unwrap();
        let what = format!("as {}", to.name());
        if to.whole() {
            assert_same(&unlinked(&shown::view(to, &new, &base).join("\n")), &unlinked(&found), &what);
            continue;
        }
        assert_same(&shown::changes(to, &new, &base).join("\n"), &changes, &what);
        assert_same(&shown::view(to, &new, &base).join("\n"), &found, &what);
    }
}

/// Without the numbers of names: a tree has all of them, a view shows those of the base as the base has them.
fn unlinked(lines: &str) -> String {
    let words = |line: &str| {
        line.split(' ').filter(|word| !word.starts_with('n') || word.len() != 2).collect::<Vec<_>>().join(" ")
    };
    let mut lines: Vec<String> = lines.lines().map(words).collect();
    lines.sort();
    lines.join("\n")
}
