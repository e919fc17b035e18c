//! A host with LXC: real containers on a node's slivers, ended when dropped, also by a test that panics.
#![allow(dead_code)]

use std::cell::RefCell;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::node::{Node, run};
use crate::common::require;

/// How long something that must happen may take before it counts as never. Far more than it does take.
const LIMIT: Duration = Duration::from_secs(180);

/// What the containers' configurations get beside what `create` writes: no network, no AppArmor.
const SETTINGS: &str = "lxc.apparmor.profile = unconfined\nlxc.net.0.type = empty\n";

/// The tar that `tests/make-base small` makes.
pub fn base_tar() -> PathBuf {
    cache().join("small.tar")
}

/// The Debian package that `tests/make-base` fetches: no base has it.
pub fn package() -> PathBuf {
    cache().join("hello.deb")
}

fn cache() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/base");
    std::env::var_os("SLIVERFS_BASE_CACHE").map_or_else(default, PathBuf::from)
}

/// Can containers be started here? Where not, that is told.
pub fn ready() -> bool {
    require("lxc", available())
}

fn available() -> Result<(), String> {
    crate::common::root()?;
    for tool in ["lxc-start", "lxc-attach", "lxc-console", "script", "mkfs.ext4"] {
        let found = Command::new("sh").args(["-c", "command -v \"$0\"", tool]).output().unwrap();
        if !found.status.success() {
            return Err(format!("{tool} is missing: tests/setup installs it"));
        }
    }
    for file in [base_tar(), package()] {
        if !file.is_file() {
            return Err(format!("{} is missing: tests/make-base small makes it", file.display()));
        }
    }
    Ok(())
}

/// A node with a base `debian`, and the containers on it.
pub struct Host {
    pub node: Node,
    /// All containers that were ever created here.
    names: RefCell<Vec<String>>,
}

impl Host {
    /// A node whose disk holds the base and some changes.
    pub fn new() -> Self {
        Self::on("ext4")
    }

    /// The same with LXCPATH at this path on the disk.
    pub fn at(lxcpath: &str) -> Self {
        let mut node = Node::new("ext4", 1024);
        node.lxcpath = node.dir().join("disk").join(lxcpath);
        std::fs::create_dir_all(&node.lxcpath).unwrap();
        Self::with(node)
    }

    /// The same on a disk of this type.
    pub fn on(fstype: &str) -> Self {
        Self::with(Node::new(fstype, 1024))
    }

    fn with(node: Node) -> Self {
        node.ok(&["base", "add", "debian", base_tar().to_str().unwrap()]);
        Self { node, names: RefCell::default() }
    }

    /// Creates a sliver that LXC can start on a machine without a bridge.
    pub fn create(&self, name: &str) {
        self.create_with(name, &[]);
    }

    /// The same with more words for `create`.
    pub fn create_with(&self, name: &str, more: &[&str]) {
        self.names.borrow_mut().push(name.to_owned());
        self.node.ok(&[&["create", name, "--base", "debian"], more].concat());
        self.configure(name, SETTINGS);
    }

    /// Appends to a container's configuration.
    pub fn configure(&self, name: &str, lines: &str) {
        let config = self.node.lxcpath.join(name).join("config");
        std::fs::OpenOptions::new().append(true).open(config).unwrap().write_all(lines.as_bytes()).unwrap();
    }

    /// One of LXC's commands for a container. Its log goes beside the disk.
    pub fn lxc(&self, tool: &str, name: &str) -> Command {
        let mut command = Command::new(tool);
        command.arg("-P").arg(&self.node.lxcpath).args(["-n", name, "-l", "INFO", "-o"]).arg(self.log(name));
        command.stdin(Stdio::null());
        command
    }

    fn log(&self, name: &str) -> PathBuf {
        self.node.dir().join(format!("{name}.log"))
    }

    /// Starts a container in the background and waits until it has booted.
    pub fn start(&self, name: &str) {
        let output = self.lxc("lxc-start", name).output().unwrap();
        assert!(output.status.success(), "{name}: {}{}", text(&output.stderr), self.told(name));
        self.wait_for_boot(name);
    }

    /// What LXC wrote into its log.
    pub fn told(&self, name: &str) -> String {
        std::fs::read_to_string(self.log(name)).unwrap_or_default()
    }

    /// Waits until a container is in its runlevel: all its boot scripts have ended.
    pub fn wait_for_boot(&self, name: &str) {
        self.until(name, "has not booted", || self.attach(name, "runlevel").stdout.ends_with(b" 2\n"));
    }

    /// Runs a line of shell inside.
    pub fn attach(&self, name: &str, script: &str) -> Output {
        self.lxc("lxc-attach", name).args(["--", "sh", "-ec", script]).output().unwrap()
    }

    /// Runs a line of shell inside, which must succeed.
    pub fn inside(&self, name: &str, script: &str) -> String {
        let output = self.attach(name, script);
        assert!(
            output.status.success(),
            "{name}: {script}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// The container's first process as the host sees it; none where it does not run.
    pub fn init(&self, name: &str) -> Option<u32> {
        let output = self.info(name, "-pH");
        text(&output.stdout).trim().parse().ok()
    }

    /// LXC's process that watches over the container: it calls post-stop.
    pub fn monitor(&self, name: &str) -> u32 {
        let init = self.init(name).expect("it does not run");
        let status = std::fs::read_to_string(format!("/proc/{init}/status")).unwrap();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
        parent.trim().parse().unwrap()
    }

    /// Waits until a container is down and its view with it: LXC says that it is stopped before it calls post-stop.
    pub fn wait_for_end(&self, name: &str) {
        self.until(name, "still runs", || self.state(name) == "STOPPED" && self.actual(name) != "running");
        self.until(name, "left a mount on the host", || !self.mounted(name));
    }

    /// LXC's own word.
    pub fn state(&self, name: &str) -> String {
        text(&self.info(name, "-sH").stdout).trim().to_owned()
    }

    /// What `lxc-info` says. Where it asks a container that ends at that moment, it waits until that one's hooks have run, which may
    /// wait for the test: it is asked anew.
    fn info(&self, name: &str, what: &str) -> Output {
        loop {
            let ask = self.lxc("lxc-info", name);
            let mut bounded = Command::new("timeout");
            bounded.args(["-s", "KILL", "5"]).arg(ask.get_program()).args(ask.get_args()).arg(what);
            let output = bounded.stdin(Stdio::null()).output().unwrap();
            // Ended by `timeout`, which kills itself by the same signal.
            if output.status.signal() != Some(9) && output.status.code() != Some(137) {
                return output;
            }
        }
    }

    /// What `list` says of the container.
    pub fn actual(&self, name: &str) -> String {
        let list = self.node.json(&["list", "--json"]);
        let row = list.as_array().unwrap().iter().find(|row| row["name"] == name).expect("not listed");
        row["actual"].as_str().unwrap().to_owned()
    }

    /// Is the view mounted in this mount namespace?
    pub fn mounted(&self, name: &str) -> bool {
        let source = format!(" sliverfs:{} ", escaped(&self.node.store(name)));
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        table.lines().any(|line| line.contains(&source))
    }

    /// Waits until something is so.
    pub fn until(&self, name: &str, otherwise: &str, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < LIMIT, "{name} {otherwise} after {LIMIT:?}\n{}", self.told(name));
            sleep(Duration::from_millis(100));
        }
    }

    /// A shell command on a terminal of its own, with a keyboard that stays plugged in. Its output is in the file.
    pub fn terminal(&self, script: &str, output: &Path) -> Child {
        Command::new("script")
            .args(["-qfec", script])
            .arg(output)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let names = self.names.take();
        for name in &names {
            let mut stop = Command::new("timeout");
            stop.args(["60", "lxc-stop", "-k", "-P"]).arg(&self.node.lxcpath).args(["-n", name]);
            let _gone = stop.stdin(Stdio::null()).output();
        }
        // What outlived its monitor: processes whose root is one of this node's views, and their cgroups.
        for pid in processes() {
            if stands_on(pid, &self.node.lxcpath) {
                let _gone = Command::new("kill").args(["-9", &pid.to_string()]).status();
            }
        }
        for name in &names {
            remove_cgroups(name);
        }
    }
}

/// Does the process have a view of this LXCPATH as its root?
fn stands_on(pid: u32, lxcpath: &Path) -> bool {
    let table = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let source = format!(" sliverfs:{}/", escaped(lxcpath));
    table.lines().any(|line| line.split(' ').nth(4) == Some("/") && line.contains(&source))
}

/// Removes the cgroups of a container whose monitor was killed. One that somebody is in stays.
fn remove_cgroups(name: &str) {
    // LXC counts up where it finds the name taken.
    let regex = format!(".*/lxc\\.\\(monitor\\|payload\\)\\.{name}\\(-[0-9]+\\)?\\(/.*\\)?");
    let find = ["/sys/fs/cgroup", "-depth", "-type", "d", "-regex", &regex, "-delete"];
    let _gone = Command::new("find").args(find).output();
}

/// All processes.
fn processes() -> Vec<u32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// A path as mountinfo writes it.
fn escaped(path: &Path) -> String {
    path.to_str().unwrap().replace('\\', "\\134").replace(' ', "\\040")
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Kills a process.
pub fn kill(pid: u32) {
    run(Command::new("kill").args(["-9", &pid.to_string()]));
}
