//! Commands that are killed at a system call, or that find no space at one, by strace.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use super::node::Node;

/// Every call that changes something on the disk, in the kernel or in another process. Between two of them a command can be
/// killed where it wants: what it leaves is the same. A `?` stands before what not every architecture has.
pub const CHANGES: &str = "?mkdir,mkdirat,?rmdir,?unlink,unlinkat,?rename,?renameat,renameat2,?link,linkat,?symlink,symlinkat,\
    mknodat,write,pwrite64,copy_file_range,fallocate,ftruncate,fsync,syncfs,mount,umount2,unshare,?fork,?vfork,\
    clone,?clone3,ioctl,?chown,fchownat,?chmod,?fchmod,fchmodat,utimensat,setxattr,lsetxattr,lremovexattr,flock,exit_group";

/// Those of them that fail on a full disk. A file is made by `openat`, as which a command calls so much else that the number of one
/// call is not the same each time (it looks at every process): what holds for `mknodat` and `write` holds there.
const SPACE: [&str; 17] = [
    "mkdir",
    "mkdirat",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "mknodat",
    "copy_file_range",
    "fallocate",
    "ftruncate",
    "fsync",
    "syncfs",
    "setxattr",
    "lsetxattr",
];

/// Where to kill: the name of a call, its number among the calls of that name of one process, and whether only the command
/// itself is killed, and not a child of it that comes to that number first.
pub type Point = (String, u32, bool);

/// What a command called.
pub struct Calls {
    /// Where it can be killed.
    pub points: Vec<Point>,
    /// Where the disk can be full.
    pub writes: Vec<Point>,
}

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
    calls(node, args).points
}

/// Runs the command once, and lists what it calls.
pub fn calls(node: &Node, args: &[&str]) -> Calls {
    let trace = format!("trace={CHANGES}");
    assert!(command(node, &["-f", "-y", "-e", &trace], args).status().unwrap().success(), "{args:?}");
    let text = traced(node);
    let mut first = None;
    // Of each name and process the number of its calls, and which of them change something, or want space.
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    let (mut points, mut writes) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let (pid, call) = line.split_once(' ').unwrap();
        let Some((name, words)) = call.trim_start().split_once('(') else { continue };
        let command = *first.get_or_insert(pid);
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        let number = counts.entry((name, pid)).or_default();
        *number += 1;
        // What rsync's processes say to one another changes nothing.
        if words.split(',').next().is_some_and(|fd| fd.contains("<socket:")) {
            continue;
        }
        // Half of an image that has no name yet is as good as the other half.
        if name == "pwrite64"
            && *number > 1
            && words.split(',').next().is_some_and(|fd| fd.ends_with("/quota.img>"))
        {
            continue;
        }
        points.push((name.to_owned(), *number, false));
        if pid == command {
            points.push((name.to_owned(), *number, true));
        }
        if wants_space(name, words) {
            writes.push((name.to_owned(), *number, false));
        }
    }
    // Alone only where a child comes to such a number at all.
    let others = |name: &str| counts.keys().any(|(other, pid)| *other == name && Some(*pid) != first);
    points.retain(|(name, _, alone)| !alone || others(name));
    for list in [&mut points, &mut writes] {
        list.sort();
        list.dedup();
    }
    Calls { points, writes }
}

fn wants_space(name: &str, words: &str) -> bool {
    // What is no file takes no space; the first word is a descriptor with what it leads to.
    let file = words.split_once('<').is_some_and(|(fd, path)| {
        fd.bytes().all(|b| b.is_ascii_digit()) && path.starts_with('/') && !path.starts_with("/dev/")
    });
    match name {
        "write" | "pwrite64" => file,
        "ioctl" => ["FICLONE", "BTRFS_IOC_SNAP_CREATE"].iter().any(|call| words.contains(call)),
        _ => SPACE.contains(&name),
    }
}

/// What strace wrote of the last command.
pub fn traced(node: &Node) -> String {
    String::from_utf8_lossy(&fs::read(node.dir().join("trace")).unwrap()).into_owned()
}

/// Runs the command, and kills it there.
pub fn kill(node: &Node, point: &Point, args: &[&str]) {
    let (call, number, alone) = point;
    let inject = format!("inject={call}:signal=KILL:when={number}");
    let trace = format!("trace={call}");
    let options = ["-e", &trace, "-e", &inject, "-f"];
    let options = if *alone { &options[..4] } else { &options[..] };
    let _killed = command(node, options, args).status().unwrap();
}

/// Runs the command on a disk that is full at that point alone; its exit code, and what it says.
pub fn no_space(node: &Node, (call, number, _): &Point, args: &[&str]) -> (Option<i32>, String) {
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error=ENOSPC:when={number}"));
    let file = node.dir().join("said");
    let mut command = command(node, &["-f", "-e", &trace, "-e", &inject], args);
    // A file, which no daemon keeps open for anybody who reads it.
    let status = command.stderr(fs::File::create(&file).unwrap()).status().unwrap();
    (status.code(), String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned())
}
