//! What `--json` prints is documented: each key of each document stands in its command's section of docs/json.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use common::node::{Node, run};
use common::tree::installed;
use common::{require, root};

/// docs/json.md, and the commands whose documents were looked at.
struct Documented {
    text: String,
    seen: BTreeSet<String>,
}

impl Documented {
    fn new() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
        Self { text: fs::read_to_string(path).unwrap(), seen: BTreeSet::new() }
    }

    fn section(&self, command: &str) -> &str {
        let head = format!("## `{command}`\n");
        let (_, rest) = self.text.split_once(&head).unwrap_or_else(|| panic!("there is no {head}"));
        rest.split("\n## ").next().unwrap()
    }

    /// Runs the command, which may fail, and looks for each key of what it prints.
    fn look(&mut self, node: &Node, command: &str, args: &[&str]) {
        let words: Vec<&str> = command.split(' ').chain(args.iter().copied()).chain(["--json"]).collect();
        let output = node.run(&words);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|err| {
            panic!("{words:?}: {err}: {output:?}");
        });
        // A base is shown as it is listed.
        let section = match command {
            "base show" => self.section(command).to_owned() + self.section("base list"),
            _ => self.section(command).to_owned(),
        };
        for key in keys(&document) {
            assert!(
                section.contains(&format!("`{key}`")),
                "{words:?} prints `{key}`, of which docs/json.md says nothing"
            );
        }
        self.seen.insert(command.to_owned());
    }
}

fn keys(document: &Value) -> BTreeSet<&str> {
    match document {
        Value::Array(values) => values.iter().flat_map(keys).collect(),
        Value::Object(map) => {
            map.iter().flat_map(|(key, value)| keys(value).into_iter().chain([key.as_str()])).collect()
        }
        _ => BTreeSet::new(),
    }
}

/// The commands that take `--json`, as the help has them.
fn commands(node: &Node, above: &str) -> Vec<String> {
    let words = |last: &'static str| -> Vec<&str> {
        above.split(' ').filter(|word| !word.is_empty()).chain([last]).collect()
    };
    let help = node.ok(&words("--help"));
    let Some((_, list)) = help.split_once("\nCommands:\n") else {
        return if help.contains("--json") { vec![above.to_owned()] } else { Vec::new() };
    };
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    let names = names.filter_map(|line| line.split(' ').next());
    names.flat_map(|name| commands(node, format!("{above} {name}").trim())).collect()
}

/// A node whose sliver `s` changed something of each kind.
fn node() -> Node {
    let node = Node::with_base("ext4", 128);
    node.ok(&["create", "s", "--base", "b"]);
    node.ok(&["mount", "s"]);
    run(std::process::Command::new("sh").args(["-ec", EDITS]).current_dir(node.view("s")));
    node.ok(&["umount", "s"]);
    node
}

const EDITS: &str = "echo more >> etc/b.txt; chmod 700 etc/dir; rm etc/dir/c.txt; rm -r var/deep; mkdir var/deep
    rm var/fifo; echo file > var/fifo; mkdir -p var/lib/dpkg; echo mine > var/lib/dpkg/status; echo new > new";

/// The same tree, with other versions of what the sliver changed.
fn other_base(node: &Node) {
    run(std::process::Command::new("sh")
        .args([
            "-ec",
            "cp -a tree tree2; cd tree2; echo other > etc/b.txt; mkdir -p var/lib/dpkg; echo o > var/lib/dpkg/status",
        ])
        .current_dir(node.dir()));
    node.ok(&["base", "add", "b2", node.dir().join("tree2").to_str().unwrap()]);
}

#[test]
fn each_key_is_documented() {
    if !require("root", root()) || !require("rsync", installed("rsync")) {
        return;
    }
    let node = node();
    other_base(&node);
    let mut documented = Documented::new();
    let doc = &mut documented;
    if require("mksquashfs", installed("mksquashfs")) {
        let tree = node.dir().join("tree");
        node.ok(&["base", "add", "image", tree.to_str().unwrap(), "--pack", "squashfs"]);
        doc.look(&node, "base verify", &["image"]);
        doc.look(&node, "base show", &["image"]);
    }
    doc.look(&node, "base verify", &["b"]);
    doc.look(&node, "base show", &["b"]);
    doc.look(&node, "probe", &[]);
    doc.look(&node, "list", &["--space"]);
    doc.look(&node, "show", &["s"]);
    doc.look(&node, "usage", &["--deep"]);
    doc.look(&node, "diff", &["s"]);
    doc.look(&node, "restore", &["s", "etc/dir/c.txt", "var/deep"]);
    doc.look(&node, "compact", &["s", "--dry-run"]);
    doc.look(&node, "compact", &["s"]);
    doc.look(&node, "export", &["s", "-o", node.dir().join("layer.tar").to_str().unwrap()]);
    doc.look(&node, "rebase", &["s", "--onto", "b2", "--plan"]);
    doc.look(&node, "rebase", &["s", "--onto", "b2"]);
    doc.look(&node, "rebase", &["s", "--undo"]);
    doc.look(&node, "convert", &["s", "--to", "mini_fo", "--dry-run"]);
    doc.look(&node, "convert", &["s", "--to", "mini_fo"]);
    doc.look(&node, "diff", &["s"]);
    doc.look(&node, "convert", &["s", "--undo", "--dry-run"]);
    doc.look(&node, "convert", &["s", "--undo"]);
    let source = node.dir().join("tree2");
    doc.look(&node, "sync", &["s", source.to_str().unwrap(), "--dry-run"]);
    doc.look(&node, "sync", &["s", source.to_str().unwrap()]);
    // What a crash left, what no format explains, and a record that is damaged.
    fs::create_dir(node.lxcpath.join(".store/.new.gone")).unwrap();
    run(std::process::Command::new("mknod").arg(node.store("s").join("upper/stray")).args(["c", "0", "0"]));
    doc.look(&node, "diff", &["s"]);
    doc.look(&node, "check", &[]);
    node.ok(&["create", "c", "--base", "b", "--backend", "copy"]);
    doc.look(&node, "dedupe", &["--dry-run"]);
    fs::write(node.lxcpath.join(".base/b2/base.json"), "{").unwrap();
    doc.look(&node, "base list", &[]);
    for command in commands(&node, "") {
        assert!(doc.seen.contains(&command), "`{command} --json` was not looked at");
    }
}

#[test]
fn each_key_of_an_image_and_of_a_daemon_is_documented() {
    let fuse = installed("fuse-overlayfs").and_then(|()| {
        if Path::new("/dev/fuse").exists() { Ok(()) } else { Err("there is no /dev/fuse".into()) }
    });
    if !require("root", root())
        || !require("fuse-overlayfs", fuse)
        || !require("mkfs.btrfs", installed("mkfs.btrfs"))
    {
        return;
    }
    let node = Node::with_base("ext4", 300);
    let mut doc = Documented::new();
    node.ok(&["create", "f", "--base", "b", "--backend", "fuse-overlayfs"]);
    node.ok(&["mount", "f"]);
    doc.look(&node, "list", &["--space"]);
    doc.look(&node, "show", &["f"]);
    node.ok(&["umount", "f"]);
    node.ok(&["base", "add", "seed", node.dir().join("tree").to_str().unwrap(), "--pack", "btrfs"]);
    node.ok(&["create", "i", "--base", "seed", "--backend", "btrfs-seed", "--size", "256M"]);
    doc.look(&node, "show", &["i"]);
}
