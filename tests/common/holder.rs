//! A process that holds something, for as long as a test wants it to.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::node::Node;

/// A shell command that said `ready`, and ends when it is dropped.
pub struct Holder(pub Child);

impl Holder {
    /// Starts it, and waits until it is ready.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready", "{command:?}");
        Self(child)
    }

    /// A shell in a mount namespace of its own, which has a copy of each mount and hears of no change.
    pub fn elsewhere() -> Self {
        let mut unshare = Command::new("unshare");
        unshare.args(["-m", "--propagation", "private", "sh", "-c", "echo ready; read x"]);
        Self::start(&mut unshare)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _told = self.0.stdin.take().map(|mut pipe| pipe.write_all(b"\n"));
        let _gone = self.0.wait();
    }
}

/// Mounts `a`, whose mount must wait for a lock of this file that flock(1) has, and hear of it in one line that names both.
pub fn mount_waits_for(node: &Node, lock: &Path) {
    let holder = Holder::start(Command::new("flock").arg(lock).args(["-c", "echo ready; read x"]));
    let plain = node.command(&["mount", "a"]);
    // The limit ends a command that says nothing.
    let mut waiting = Command::new("timeout");
    waiting.arg("60").arg(plain.get_program()).args(plain.get_args()).stderr(Stdio::piped());
    let mut waiting = waiting.spawn().unwrap();
    let mut stderr = BufReader::new(waiting.stderr.take().unwrap());
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    let pid = holder.0.id();
    drop(holder);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert!(waiting.wait().unwrap().success() && rest.is_empty(), "{said}{rest}");
    assert!(said.contains(&format!("waiting for process {pid} (flock)")), "{said}");
    assert!(said.contains(lock.to_str().unwrap()), "{said}");
    node.ok(&["umount", "a"]);
}
