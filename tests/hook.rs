//! What LXC's hooks do for a container that is a sliver, and what they refuse to one that only has a sliver's hooks. Called as LXC
//! calls them: no container is started here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use common::node::Node;
use common::require;

fn node() -> Option<Node> {
    require("root", common::root()).then(|| {
        let node = Node::with_base("ext4", 64);
        node.ok(&["create", "one", "--base", "b"]);
        node
    })
}

/// Calls a hook of `one` with what LXC tells it.
fn hook(node: &Node, moment: &str, told: &[(&str, &str)]) -> Output {
    // LXC adds its own arguments behind ours.
    let mut hook = node.command(&["hook", moment, "one", "one", "lxc", moment]);
    hook.envs(told.iter().copied()).output().unwrap()
}

/// Calls a hook that must refuse, and must leave the sliver as it is.
fn refused(node: &Node, moment: &str, told: &[(&str, &str)]) -> String {
    let before = node.json(&["show", "one", "--json"])["actual"].clone();
    let output = hook(node, moment, told);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{moment} {told:?}: {said}");
    assert_eq!(node.json(&["show", "one", "--json"])["actual"], before, "{moment} {told:?}");
    said
}

#[test]
fn mounted_for_the_sliver_itself_alone() {
    let Some(node) = node() else { return };
    let view = node.view("one");
    let config = node.lxcpath.join("one/config");
    let [view, config] = [&view, &config].map(|path| path.to_str().unwrap());
    let typed = format!("dir:{view}");
    let mine = ("LXC_NAME", "one");
    let [configured, rootfs] = [("LXC_CONFIG_FILE", config), ("LXC_ROOTFS_PATH", view)];
    // As a folder with a link to it is named; as LXC before 2.1 has it, with the type; without a file (LXC's API).
    let link = node.dir().join("link");
    symlink(&node.lxcpath, &link).unwrap();
    let by_link = link.join("one/config");
    let by_link = ("LXC_CONFIG_FILE", by_link.to_str().unwrap());
    for told in [
        &[mine, rootfs, configured][..],
        &[mine, ("LXC_ROOTFS_PATH", &typed), configured],
        &[mine, rootfs, by_link],
        &[mine, rootfs],
        &[],
    ] {
        for (moment, actual) in [("pre-start", "mounted"), ("post-stop", "unmounted")] {
            let output = hook(&node, moment, told);
            assert!(output.status.success(), "{told:?}: {}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(node.json(&["show", "one", "--json"])["actual"], actual, "{told:?}");
        }
    }

    let elsewhere = node.dir().join("theirs");
    fs::create_dir_all(elsewhere.join("rootfs")).unwrap();
    fs::copy(config, elsewhere.join("config")).unwrap();
    let [other_root, other_config] =
        ["rootfs", "config"].map(|file| elsewhere.join(file).to_str().unwrap().to_owned());
    for mounted in [false, true] {
        if mounted {
            node.ok(&["mount", "one"]);
        }
        for moment in ["pre-start", "post-stop", "destroy"] {
            for told in [
                &[("LXC_NAME", "copy")][..],
                &[("LXC_NAME", "copy"), rootfs, configured],
                &[("LXC_NAME", "")],
            ] {
                let said = refused(&node, moment, told);
                assert!(said.contains("is another one") && said.contains("sliverfs create"), "{said}");
            }
            for (told, place) in [
                (&[mine, configured][..], "the node's own root"),
                (&[mine, configured, ("LXC_ROOTFS_PATH", "")], "the node's own root"),
                (&[mine, configured, ("LXC_ROOTFS_PATH", "/")], "on /,"),
                (&[mine, configured, ("LXC_ROOTFS_PATH", &other_root)], &other_root),
            ] {
                let said = refused(&node, moment, told);
                assert!(
                    said.contains(place) && said.contains(&format!("lxc.rootfs.path = {typed}")),
                    "{said}"
                );
            }
            let said = refused(&node, moment, &[mine, rootfs, ("LXC_CONFIG_FILE", &other_config)]);
            assert!(said.contains(&other_config) && said.contains("lxc-start -P"), "{said}");
        }
    }
}

/// What LXC itself makes of a copy: the hooks stay, and the root of its own does not come with it. It is NOT started here: where
/// the hook let it, LXC 5.0 would run it on this machine's own root.
#[test]
fn a_copy_by_lxc_is_refused() {
    let Some(node) = node() else { return };
    let there = Command::new("lxc-copy").arg("--version").output().map(drop);
    if !require("lxc", there.map_err(|err| format!("lxc-copy: {err}: tests/setup installs it"))) {
        return;
    }
    // Without rsync it fails at the files, and leaves a container all the same.
    let mut copy = Command::new("lxc-copy");
    let _with_or_without_its_files =
        copy.arg("-P").arg(&node.lxcpath).args(["-n", "one", "-N", "copy"]).output();
    let config = node.lxcpath.join("copy/config");
    let text = fs::read_to_string(&config).unwrap();
    let value = |key: &str| {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        lines.filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned()).next_back()
    };
    let hook = value("lxc.hook.pre-start").expect("a copy without hooks");
    let mut start = Command::new("sh");
    start.args(["-c", &format!("{hook} copy lxc pre-start")]);
    start.env("LXC_NAME", "copy").env("LXC_CONFIG_FILE", &config);
    if let Some(path) = value("lxc.rootfs.path") {
        start.env("LXC_ROOTFS_PATH", path.trim_start_matches("dir:"));
    }
    let output = start.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("`copy` has the hooks of the sliver `one`"),
        "{text}{said}"
    );
    assert_eq!(node.json(&["show", "one", "--json"])["actual"], "unmounted");
}
