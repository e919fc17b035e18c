//! `probe --json` is a document that scripts rely upon: its keys, their types and its order stay; and `auto` takes the first that
//! works, in that order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use common::node::Node;
use common::require;
use serde_json::Value;

/// The order of `auto`, which is that of the document.
const KINDS: [&str; 9] = [
    "overlay",
    "overlayfs",
    "mini_fo",
    "aufs",
    "btrfs-snapshot",
    "btrfs-seed",
    "reflink",
    "copy",
    "fuse-overlayfs",
];

/// Each object, by its keys in the order of the alphabet. More may come: then they are added here and in docs/json.md. None goes, and
/// none becomes something else.
const KEYS: &str = "
auto: truth
features.index: truth
features.metacopy: truth
features.redirect_dir: truth
features.redirect_nofollow: truth
features.tells_in_use: truth
features.userxattr: truth
features.workdir: truth
features.xino: truth
kind: text
lasting: truth
limit.means: text or null
limit.reason: text or null
offered: truth
reason: text or null
works: truth";

/// The keys of a value with their types, a line for each.
fn shape(name: &str, value: &Value) -> String {
    let may_be_null = ["reason", "limit.means", "limit.reason"].contains(&name);
    let what = match value {
        Value::Object(map) => {
            let below = |key: &String| if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort();
            return keys.into_iter().map(|key| shape(&below(key), &map[key])).collect();
        }
        Value::Null | Value::String(_) if may_be_null => "text or null",
        Value::Null => "null",
        Value::Bool(_) => "truth",
        Value::String(_) => "text",
        Value::Number(_) => "number",
        Value::Array(_) => "array",
    };
    format!("\n{name}: {what}")
}

#[test]
fn the_document_stays_as_it_is() {
    if !require("root", common::root()) {
        return;
    }
    for (fstype, mib) in [("ext4", 32), ("btrfs", 128)] {
        let node = Node::new(fstype, mib);
        for args in [&["probe", "--json", "--fresh"][..], &["probe", "--json"]] {
            let document = node.json(args);
            let kinds: Vec<_> =
                document.as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
            assert_eq!(kinds, KINDS, "{fstype}");
            for verdict in document.as_array().unwrap() {
                assert_eq!(shape("", verdict), KEYS, "{fstype}: {verdict}");
            }
        }
    }
}

/// What the node remembers of its trials, where these kinds did not work.
fn forget(node: &Node, kinds: &[&str]) {
    let meta = fs::metadata(&node.lxcpath).unwrap();
    let key = format!("{:x}-{:x}", meta.dev(), meta.ino());
    let file = Path::new("/var/run/sliverfs").join(key).join("probe.json");
    let mut known: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    for verdict in known["verdicts"].as_array_mut().unwrap() {
        if kinds.contains(&verdict["kind"].as_str().unwrap()) {
            verdict["works"] = false.into();
            verdict["auto"] = false.into();
            verdict["reason"] = "not here".into();
        }
    }
    fs::write(&file, known.to_string()).unwrap();
}

/// On a Btrfs four of them may be taken. A full copy never is, unless it is named.
#[test]
fn auto_takes_the_first_that_works() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("btrfs", 256);
    let document = node.json(&["probe", "--json"]);
    let taken = |kind: &str| {
        document.as_array().unwrap().iter().any(|one| one["kind"] == kind && one["auto"] == true)
    };
    assert!(!taken("copy") && !taken("btrfs-seed"), "{document}");
    let mut order = vec!["overlay", "btrfs-snapshot", "reflink"];
    if taken("fuse-overlayfs") {
        order.push("fuse-overlayfs");
    }
    for (number, kind) in order.iter().enumerate() {
        assert!(taken(kind), "{kind}: {document}");
        forget(&node, &order[..number]);
        let plan = node.ok(&["create", "a", "--base", "b", "--dry-run"]);
        assert!(plan.contains(&format!("\"backend\":\"{kind}\"")), "{kind}: {plan}");
    }
    forget(&node, &order);
    node.fails(3, &["create", "a", "--base", "b", "--dry-run"]);
    let plan = node.ok(&["create", "a", "--base", "b", "--backend", "copy", "--dry-run"]);
    assert!(plan.contains("\"backend\":\"copy\""), "{plan}");
}

/// What only measures is called a quota by no command; the word is the command's and the option's name alone.
#[test]
fn a_soft_limit_is_never_called_a_quota() {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base("ext4", 64);
    let uci = node.dir().join("config");
    let text =
        "config sliverfs main\n option quota_mode soft\nconfig sliver s\n option base b\n option quota 16M\n";
    fs::write(&uci, text).unwrap();
    let said = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sliverfs"));
        let output = command
            .arg("--config")
            .arg(&uci)
            .arg("--lxcpath")
            .arg(&node.lxcpath)
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat()
    };
    assert!(said(&["-v", "apply"]).contains("mounted the sliver `s`"));
    fs::write(&uci, text.replace("16M", "24M")).unwrap();
    for args in [
        &["usage"][..],
        &["usage", "--deep"],
        &["usage", "--json"],
        &["probe"],
        &["probe", "--fresh"],
        &["probe", "--json"],
        &["apply"],
        &["-v", "apply"],
        &["show", "s"],
        &["show", "s", "--json"],
        &["list", "--space"],
        &["quota", "s"],
    ] {
        let said = said(args).replace(node.lxcpath.to_str().unwrap(), "").replace("quota_mode soft", "");
        let told = said.to_lowercase();
        assert!(!told.contains("quota"), "{args:?}: {said}");
        assert!(!told.contains("limited"), "{args:?}: {said}");
    }
    assert!(said(&["usage"]).contains("24 MiB (soft)"));
}
