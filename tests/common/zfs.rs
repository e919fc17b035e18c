//! A pool of zfs-fuse with a daemon of its own, which no other process of the machine sees, and which nothing outlives.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::busy::until;
use super::node::{Node, run};

/// The pool's name.
pub const POOL: &str = "sliverfs-test";

/// A daemon and its one pool. To be dropped before the node whose folder holds the pool.
pub struct Zfs {
    daemon: Child,
    log: File,
    /// Where the pool is mounted.
    pub mount: PathBuf,
}

/// Can zfs-fuse run here?
pub fn available() -> Result<(), String> {
    super::root()?;
    super::tree::installed("zfs-fuse")?;
    if Path::new("/dev/fuse").exists() { Ok(()) } else { Err("there is no /dev/fuse".into()) }
}

/// A call of `zpool` or `zfs`, which ends whatever the daemon does.
pub fn tool(args: &[&str]) -> String {
    run(Command::new("timeout").args(["-k", "1", "60"]).args(args).stdin(Stdio::null()))
}

/// Starts a daemon, and waits until it answers.
fn start(log: &File) -> Child {
    // It is killed when this thread ends in any way; it is in no session of ours, and holds none of our streams.
    let daemon = Command::new("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            "setsid",
            "zfs-fuse",
            "--no-daemon",
            "--no-kstat-mount",
            "--enable-xattr",
        ])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log.try_clone().unwrap())
        .spawn()
        .unwrap();
    until("zfs-fuse has no socket", || UnixStream::connect("/run/zfs/zfs_socket").is_ok());
    daemon
}

impl Zfs {
    /// Starts a daemon and makes a pool in a file of `mib` MiB in the node's folder. The node's LXCPATH lies on it from now on.
    pub fn on(node: &mut Node, mib: u64) -> Self {
        // The node has given this thread a mount namespace. In it, the places where the daemon has its socket, its lock and its
        // list of pools are ours alone: a daemon of the machine's is not met.
        for place in ["/run", "/var/lib/zfs"] {
            run(Command::new("mount").args(["-t", "tmpfs", "none", place]));
        }
        fs::create_dir("/run/lock").unwrap();
        let log = File::create(node.dir().join("zfs-fuse.log")).unwrap();
        let daemon = start(&log);
        let zfs = Self { daemon, log, mount: node.dir().join("pool") };
        let image = node.dir().join("pool.image");
        File::create(&image).unwrap().set_len(mib << 20).unwrap();
        let (mount, image) = (zfs.mount.to_str().unwrap(), image.to_str().unwrap());
        tool(&["zpool", "create", "-m", mount, POOL, image]);
        node.lxcpath = zfs.mount.join("lxc");
        fs::create_dir(&node.lxcpath).unwrap();
        node.ok(&["init"]);
        zfs
    }

    /// What a power cut leaves: the daemon is killed, and another one takes the pool as its file has it.
    pub fn crash(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
        run(Command::new("umount").args(["--recursive", "--lazy"]).arg(&self.mount));
        fs::remove_dir_all("/run/zfs").unwrap();
        fs::remove_file("/var/lib/zfs/zpool.cache").unwrap();
        self.daemon = start(&self.log);
        let folder = self.mount.parent().unwrap().to_str().unwrap();
        tool(&["zpool", "import", "-f", "-d", folder, POOL]);
    }

    /// Sets a property of the pool's file system.
    pub fn set(&self, property: &str) {
        tool(&["zfs", "set", property, POOL]);
    }

    /// A number that `zpool list` shows of the pool, in bytes or in hundredths (`2.50x`), when all is written.
    pub fn number(&self, property: &str) -> u64 {
        // The kernel does not hand sync(2) on to FUSE; a changed property waits until the pool has written what came before.
        for value in ["one", "two"] {
            self.set(&format!("test:sync={value}"));
        }
        let text = tool(&["zpool", "list", "-H", "-o", property, POOL]);
        let text = text.trim();
        let unit = match text.chars().last().unwrap() {
            'K' => 1 << 10,
            'M' => 1 << 20,
            'G' => 1 << 30,
            'x' => 100,
            _ => 1,
        };
        let number: f64 = text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let number = (number * f64::from(unit)) as u64;
        number
    }
}

impl Drop for Zfs {
    fn drop(&mut self) {
        let quietly = |words: &[&str]| {
            let mut command = Command::new("timeout");
            command.args(["-k", "1", "10"]).args(words);
            let _done = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        };
        quietly(&["zpool", "export", "-f", POOL]);
        let _ended = self.daemon.kill();
        for _ in 0..500 {
            if !matches!(self.daemon.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        for place in [self.mount.to_str().unwrap_or_default(), "/var/lib/zfs", "/run"] {
            quietly(&["umount", "-l", place]);
        }
    }
}
