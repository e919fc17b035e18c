//! Commands that are killed at a system call, by strace.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use super::node::Node;

/// Every call that changes something on the disk, in the kernel or in another process. Between two of them a command can be
/// killed where it wants: what it leaves is the same. A `?` stands before what not every architecture has.
pub const CHANGES: &str = "?mkdir,mkdirat,?rmdir,?unlink,unlinkat,?rename,?renameat,renameat2,?link,linkat,?symlink,symlinkat,\
    mknodat,write,pwrite64,ftruncate,fsync,syncfs,mount,umount2,unshare,?fork,?vfork,clone,?clone3,ioctl,?chown,fchownat,\
    ?chmod,?fchmod,fchmodat,utimensat,lsetxattr,lremovexattr,flock,exit_group";

/// Where to kill: the name of a call, its number among the calls of that name of one process, and whether only the command
/// itself is killed, and not a child of it that comes to that number first.
pub type Point = (String, u32, bool);

/// Can it be done here?
pub fn works() -> Result<(), String> {
    match Command::new("strace").args(["-qq", "-e", "trace=none", "true"]).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(err) => Err(format!("strace is not installed ({err})")),
    }
}

/// The command below strace, silent.
pub fn command(node: &Node, options: &[&str], args: &[&str]) -> Command {
    let plain = node.command(args);
    let mut command = Command::new("strace");
    command
        .args(["-qq", "-o"])
        .arg(node.dir().join("trace"))
        .args(options)
        .arg("--")
        .arg(plain.get_program());
    command.args(plain.get_args()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Runs the command once, and lists where it can be killed.
pub fn points(node: &Node, args: &[&str]) -> Vec<Point> {
    let trace = format!("trace={CHANGES}");
    assert!(command(node, &["-f", "-e", &trace], args).status().unwrap().success(), "{args:?}");
    let text = fs::read_to_string(node.dir().join("trace")).unwrap();
    let mut counts: BTreeMap<&str, BTreeMap<&str, u32>> = BTreeMap::new();
    let mut first = None;
    for line in text.lines() {
        let (pid, call) = line.split_once(' ').unwrap();
        let Some((name, _)) = call.trim_start().split_once('(') else { continue };
        let command = *first.get_or_insert(pid);
        if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            let who = if pid == command { "command" } else { pid };
            *counts.entry(name).or_default().entry(who).or_default() += 1;
        }
    }
    let mut points = Vec::new();
    for (name, by_whom) in counts {
        let most = by_whom.values().copied().max().unwrap_or(0);
        points.extend((1..=most).map(|number| (name.to_owned(), number, false)));
        if by_whom.len() > 1 {
            let own = by_whom.get("command").copied().unwrap_or(0);
            points.extend((1..=own).map(|number| (name.to_owned(), number, true)));
        }
    }
    points
}

/// Runs the command, and kills it there.
pub fn kill(node: &Node, (call, number, alone): &Point, args: &[&str]) {
    let inject = format!("inject={call}:signal=KILL:when={number}");
    let trace = format!("trace={call}");
    let options = ["-e", &trace, "-e", &inject, "-f"];
    let options = if *alone { &options[..4] } else { &options[..] };
    let _killed = command(node, options, args).status().unwrap();
}
