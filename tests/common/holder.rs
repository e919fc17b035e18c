//! A process that holds something, for as long as a test wants it to.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

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
