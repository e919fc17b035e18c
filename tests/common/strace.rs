//! Commands that are killed at a system call, or that find no space at one, by strace.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Stdio};

use super::node::Node;

/// Every call that changes something on the disk, in the kernel or in another process, but `openat` where it makes a file. Between
/// two of them a command can be killed where it wants: what it leaves is the same. A `?` stands before what not every
/// architecture has.
pub const CHANGES: &str = "?mkdir,mkdirat,?rmdir,?unlink,unlinkat,?rename,?renameat,renameat2,?link,linkat,?symlink,symlinkat,\
    mknodat,write,pwrite64,copy_file_range,fallocate,ftruncate,fsync,syncfs,?sync_file_range,mount,umount2,unshare,?fork,?vfork,\
    clone,?clone3,ioctl,?chown,fchownat,?chmod,?fchmod,fchmodat,utimensat,setxattr,lsetxattr,lremovexattr,flock,exit_group";

/// Those of them that fail on a full disk, beside `openat`.
const SPACE: [&str; 18] = [
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
    "sync_file_range",
    "setxattr",
    "lsetxattr",
];

/// Where to kill, or to tell that the disk is full.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// The name of the call.
    pub call: String,
    /// Of an `openat` that makes a file its path, or that of the folder that it was given open: only the calls with it are
    /// counted. A command opens so much else that the number of one among all is not the same each time: it looks at every
    /// process.
    pub path: Option<String>,
    /// Its number among these calls of one process.
    pub number: u32,
    /// Only the command itself is killed, and not a child of it that comes to that number first.
    pub alone: bool,
    /// Several of its processes come to that number.
    pub many: bool,
}

impl Point {
    /// The options that let strace do `what` there.
    fn options(&self, what: &str) -> Vec<String> {
        let Self { call, path, number, .. } = self;
        let mut options = vec!["-e".to_owned(), format!("trace={call}")];
        options.extend(["-e".to_owned(), format!("inject={call}:{what}:when={number}")]);
        if let Some(path) = path {
            options.extend(["-y".to_owned(), "-P".to_owned(), path.clone()]);
        }
        if !self.alone {
            options.push("-f".to_owned());
        }
        options
    }

    /// Did the last run come to it? An `openat` must be the one that makes a file.
    pub fn was_met(&self, node: &Node) -> bool {
        let met =
            |line: &str| ["= ?", "<unfinished ...>", "(INJECTED)"].iter().any(|end| line.ends_with(end));
        let same = |line: &str| self.path.is_none() || makes(line);
        self.many || traced(node).lines().any(|line| same(line) && met(line))
    }
}

/// Does this `openat` make a file? One that fails since it is there makes none.
fn makes(line: &str) -> bool {
    ["O_CREAT", "O_TMPFILE"].iter().any(|flag| line.contains(flag)) && !line.contains("= -1 EEXIST")
}

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
pub fn command<O: AsRef<OsStr>>(node: &Node, options: &[O], args: &[&str]) -> Command {
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
    let mut calls = in_time(node, args);
    for list in [&mut calls.points, &mut calls.writes] {
        list.sort();
        list.dedup();
    }
    calls
}

/// The same in the order of time, with some of them twice.
pub fn in_time(node: &Node, args: &[&str]) -> Calls {
    let trace = format!("trace={CHANGES},openat");
    assert!(command(node, &["-f", "-y", "-e", &trace], args).status().unwrap().success(), "{args:?}");
    let text = traced(node);
    let mut first = None;
    // Of each name, path and process the number of its calls.
    let mut counts: BTreeMap<(&str, Option<&str>, &str), u32> = BTreeMap::new();
    let (mut points, mut writes) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let (pid, call) = line.split_once(' ').unwrap();
        let Some((name, words)) = call.trim_start().split_once('(') else { continue };
        let command = *first.get_or_insert(pid);
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        let mut path = None;
        if name == "openat" {
            let (folder, file) = opened(words);
            for path in [folder, file].into_iter().flatten() {
                *counts.entry((name, Some(path), pid)).or_default() += 1;
            }
            if !makes(line) {
                continue;
            }
            path = folder.or(file);
            assert!(path.is_some_and(|path| !path.contains('\\')), "{line}");
        } else {
            *counts.entry((name, None, pid)).or_default() += 1;
        }
        let number = counts[&(name, path, pid)];
        // What rsync's processes say to one another changes nothing.
        if words.split(',').next().is_some_and(|fd| fd.contains("<socket:")) {
            continue;
        }
        // Half of an image that has no name yet is as good as the other half.
        if name == "pwrite64"
            && number > 1
            && words.split(',').next().is_some_and(|fd| fd.ends_with("/quota.img>"))
        {
            continue;
        }
        let point =
            Point { call: name.to_owned(), path: path.map(str::to_owned), number, alone: false, many: false };
        if wants_space(name, words) {
            writes.push(point.clone());
        }
        if pid == command {
            points.push(Point { alone: true, ..point.clone() });
        }
        points.push(point);
    }
    // Alone only where a child comes to such a number at all.
    for point in points.iter_mut().chain(&mut writes) {
        let call = (point.call.as_str(), point.path.as_deref());
        let reach = |(key, count): (&(&str, Option<&str>, &str), &u32)| {
            (key.0, key.1) == call && *count >= point.number
        };
        point.many = counts.iter().filter(|count| reach(*count)).count() > 1;
    }
    points.retain(|point| !point.alone || point.many);
    Calls { points, writes }
}

/// By which paths strace can find an `openat`: that of the folder that it was given open, and the one that it names.
fn opened(words: &str) -> (Option<&str>, Option<&str>) {
    let (fd, rest) = words.split_once(", \"").unwrap_or_default();
    let folder =
        fd.split_once('<').filter(|(fd, _)| *fd != "AT_FDCWD").map(|(_, path)| path.trim_end_matches('>'));
    (folder, rest.split('"').next().filter(|path| path.starts_with('/')))
}

fn wants_space(name: &str, words: &str) -> bool {
    // What is no file takes no space; the first word is a descriptor with what it leads to.
    let file = words.split_once('<').is_some_and(|(fd, path)| {
        fd.bytes().all(|b| b.is_ascii_digit()) && path.starts_with('/') && !path.starts_with("/dev/")
    });
    match name {
        "openat" => true,
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
    let _killed = command(node, &point.options("signal=KILL"), args).status().unwrap();
}

/// Runs the command to its end, and does something while it stands still there: after that call. Did it come to it?
pub fn pause(node: &Node, point: &Point, args: &[&str], work: &dyn Fn()) -> bool {
    let _last = fs::remove_file(node.dir().join("trace"));
    let mut child = command(node, &point.options("signal=STOP"), args).spawn().unwrap();
    let mut seen = 0;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        let trace = fs::read(node.dir().join("trace")).unwrap_or_default();
        let trace = String::from_utf8_lossy(&trace);
        let stopped: Vec<&str> =
            trace.lines().filter(|line| line.ends_with("--- stopped by SIGSTOP ---")).collect();
        for line in stopped.iter().skip(seen) {
            work();
            let pid = line.split(' ').next().unwrap().parse().unwrap();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGCONT)
                .unwrap();
        }
        seen = stopped.len();
        std::thread::sleep(std::time::Duration::from_millis(1));
    };
    assert!(status.success(), "{args:?}, paused at {point:?}");
    seen > 0
}

/// Runs the command on a disk that is full at that point alone; its exit code, and what it says.
pub fn no_space(node: &Node, point: &Point, args: &[&str]) -> (Option<i32>, String) {
    let file = node.dir().join("said");
    let mut command = command(node, &point.options("error=ENOSPC"), args);
    // A file, which no daemon keeps open for anybody who reads it.
    let status = command.stderr(fs::File::create(&file).unwrap()).status().unwrap();
    (status.code(), String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned())
}
