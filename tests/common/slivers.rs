//! What a node tells of its slivers, and what their views show.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::node::{Node, run};
use super::{listing, require};

/// A node with a small base; none where nothing can be mounted.
pub fn node() -> Option<Node> {
    require("root", super::root()).then(|| Node::with_base("ext4", 64))
}

/// Turns simple quotas of Btrfs on; false where this kernel has none.
pub fn simple_quotas(node: &Node) -> bool {
    let output = node.run(&["quota", "--enable"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    require("simple-quotas", if output.status.success() { Ok(()) } else { Err(said) })
}

/// The listing of a sliver's view, which is mounted for it.
pub fn view(node: &Node, name: &str) -> String {
    listed(node, name, true)
}

/// As [`view`]; folders' times are left out where `folder_times` is false.
pub fn listed(node: &Node, name: &str, folder_times: bool) -> String {
    node.ok(&["mount", name]);
    let list = listing::of(&node.view(name), folder_times);
    node.ok(&["umount", name]);
    list
}

/// The backend that is recorded.
pub fn backend(node: &Node, name: &str) -> String {
    recorded(node, name, "backend")
}

/// The base that is recorded.
pub fn base(node: &Node, name: &str) -> String {
    recorded(node, name, "base")
}

fn recorded(node: &Node, name: &str, field: &str) -> String {
    node.json(&["show", name, "--json"])[field].as_str().unwrap().to_owned()
}

/// All that lies in the folder of the stores, hidden or not, sorted; but for the note of what is promised.
pub fn in_stores(node: &Node) -> Vec<String> {
    let entries = fs::read_dir(node.lxcpath.join(".store")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != ".promised");
    names.sort();
    names
}

/// The stores as they are at some moment, to be had again. None is mounted, and none is a subvolume or an image.
pub struct Saved {
    stores: PathBuf,
    copy: PathBuf,
}

impl Saved {
    /// Copies them.
    pub fn of(node: &Node) -> Self {
        Self::under(node, "saved")
    }

    /// Copies them under this name, in place of what has it.
    pub fn under(node: &Node, name: &str) -> Self {
        let (stores, copy) = (node.lxcpath.join(".store"), node.lxcpath.with_file_name(name));
        run(Command::new("rm").arg("-rf").arg(&copy));
        run(Command::new("cp").arg("-aT").arg(&stores).arg(&copy));
        Self { stores, copy }
    }

    /// Puts them in the place of what is there.
    pub fn again(&self) {
        let script = "cd \"$1\"; find . -mindepth 1 -maxdepth 1 -exec rm -rf {} +; cp -a \"$2/.\" .";
        run(Command::new("sh").args(["-ec", script, "sh"]).arg(&self.stores).arg(&self.copy));
    }
}
