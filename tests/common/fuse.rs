//! Nodes with a view that a daemon serves.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

pub use super::busy::until;
use super::node::{Node, run};
use super::require;

/// The backend.
pub const KIND: &str = "fuse-overlayfs";

pub fn ready() -> bool {
    let program = Command::new(KIND).arg("--version").output().map(drop);
    require("root", super::root()) && require(KIND, program.map_err(|err| format!("{KIND}: {err}")))
}

/// A node with a sliver `a` of this kind; none where it cannot be.
pub fn node() -> Option<Node> {
    if !ready() {
        return None;
    }
    let node = Node::with_base("ext4", 64);
    node.ok(&["create", "a", "--base", "b", "--backend", KIND]);
    Some(node)
}

/// A process that is killed when the test ends, however it does.
pub struct Killed(pub u32);

impl Killed {
    pub fn signal(&self, signal: &str) {
        run(Command::new("kill").args([signal, &self.0.to_string()]));
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _gone = Command::new("kill").args(["-9", &self.0.to_string()]).output();
    }
}

pub fn daemon(node: &Node, name: &str) -> Killed {
    let pid = node.json(&["show", name, "--json"])["daemon"]["pid"].as_u64().unwrap();
    Killed(pid.try_into().unwrap())
}

/// Kills the daemon, and waits until the kernel has taken what it had: init may leave the rest of it for later.
pub fn kill(node: &Node, daemon: &Killed) {
    daemon.signal("-9");
    until("the killed daemon still holds the store", || {
        node.json(&["show", "a", "--json"])["daemon"] == Value::Null
    });
}

/// Runs the binary, which must not hang.
pub fn soon(node: &Node, args: &[&str]) -> Output {
    let command = node.command(args);
    let mut timeout = Command::new("timeout");
    timeout.args(["-s", "KILL", "60"]).arg(command.get_program()).args(command.get_args());
    let output = timeout.output().unwrap();
    assert!(output.status.code().is_some_and(|code| code < 100), "{args:?} hangs: {output:?}");
    output
}

pub fn actual(node: &Node) -> String {
    let list: Value = serde_json::from_slice(&soon(node, &["list", "--json"]).stdout).unwrap();
    list[0]["actual"].as_str().unwrap().to_owned()
}

pub fn mounts() -> String {
    fs::read_to_string("/proc/thread-self/mountinfo").unwrap()
}
