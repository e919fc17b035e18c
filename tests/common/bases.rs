//! What the tests of bases share.

use std::fs;
use std::path::PathBuf;

use super::node::Node;
use super::require;
use super::tree::installed;

/// A node without a base.
pub fn node(mib: u64) -> Option<Node> {
    require("root", super::root()).then(|| Node::new("ext4", mib))
}

/// All the tools that a test needs.
pub fn tools(programs: &[&str]) -> bool {
    programs.iter().all(|program| require(program, installed(program)))
}

/// Where the bases lie.
pub fn bases(node: &Node) -> PathBuf {
    node.lxcpath.join(".base")
}

/// Everything in `.base`, staging folders too.
pub fn in_bases(node: &Node) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(bases(node))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
