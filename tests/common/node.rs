//! A node to test on: a real file system in a loop image, with an LXCPATH on it, driven by the real binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// The profile of seccomp that is installed.
pub const PROFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/files/usr/share/sliverfs/qgroup.seccomp");

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Gives the calling thread, which is a test of its own, a mount namespace of its own: what other tests do in theirs, private
/// namespaces among it, must not hold this one's mounts.
fn own_namespace() {
    thread_local! {
        static DONE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }
    if !DONE.replace(true) {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
        nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    }
}

/// A disk of its own, unmounted and removed when dropped.
pub struct Node {
    dir: PathBuf,
    /// The binary that is run.
    program: PathBuf,
    /// LXCPATH.
    pub lxcpath: PathBuf,
}

impl Node {
    /// A node whose stores lie on a new file system of the given type and size.
    pub fn new(fstype: &str, mib: u64) -> Self {
        Self::within(&std::env::temp_dir(), fstype, &[], mib)
    }

    /// The same in memory, where the machine has such a place, made with more options.
    pub fn quick(fstype: &str, more: &[&str], mib: u64) -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        Self::within(&parent, fstype, more, mib)
    }

    fn within(parent: &Path, fstype: &str, more: &[&str], mib: u64) -> Self {
        own_namespace();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("sliverfs-node-{}-{number}", std::process::id()));
        std::fs::create_dir_all(dir.join("disk")).unwrap();
        let image = dir.join("image");
        std::fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        let mkfs = format!("mkfs.{fstype}");
        // Small ext4 disks get blocks of 1 KiB by default; real ones have 4 KiB.
        let options: &[&str] = if fstype.starts_with("ext") { &["-qF", "-b", "4096"] } else { &["-q"] };
        run(Command::new(mkfs).args(options).args(more).arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(dir.join("disk")));
        let lxcpath = dir.join("disk/lxc");
        std::fs::create_dir(&lxcpath).unwrap();
        let node = Self { dir, program: env!("CARGO_BIN_EXE_sliverfs").into(), lxcpath };
        node.ok(&["init"]);
        node
    }

    /// A node with a base `b` that has a bit of everything.
    pub fn with_base(fstype: &str, mib: u64) -> Self {
        let node = Self::new(fstype, mib);
        let tree = node.dir.join("tree");
        small_tree(&tree);
        node.ok(&["base", "add", "b", tree.to_str().unwrap()]);
        node
    }

    /// The folder around the disk: not on it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The view of a sliver.
    pub fn view(&self, name: &str) -> PathBuf {
        self.lxcpath.join(name).join("rootfs")
    }

    /// The store of a sliver.
    pub fn store(&self, name: &str) -> PathBuf {
        self.lxcpath.join(".store").join(name)
    }

    /// Runs a copy of the binary from now on that is installed as on a router, with what lies beside it.
    pub fn install(&mut self) {
        let (sbin, share) = (self.dir.join("sbin"), self.dir.join("share/sliverfs"));
        std::fs::create_dir_all(&share).unwrap();
        std::fs::create_dir(&sbin).unwrap();
        std::fs::copy(PROFILE, share.join("qgroup.seccomp")).unwrap();
        run(Command::new("cp").arg(&self.program).arg(&sbin));
        self.program = sbin.join("sliverfs");
    }

    /// The binary, with this node's LXCPATH and without the machine's configuration.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg("/dev/null").arg("--lxcpath").arg(&self.lxcpath).args(args);
        command
    }

    /// Runs the binary.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs the binary, which must succeed, and returns what it prints.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the binary, which must fail with the exit code, and returns what it says.
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        said
    }

    /// Runs the binary and parses the JSON that it prints.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Whatever a failed test left mounted, deepest first.
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let prefix = self.dir.to_string_lossy().into_owned();
        let targets =
            table.lines().filter_map(|line| line.split(' ').nth(4)).filter(|path| path.starts_with(&prefix));
        for target in targets.collect::<Vec<_>>().into_iter().rev() {
            let target = target.replace("\\040", " ").replace("\\134", "\\").replace("\\012", "\n");
            let _gone = Command::new("umount").arg("-l").arg(target).status();
        }
        let _gone = std::fs::remove_dir_all(&self.dir);
    }
}

/// A base tree with a bit of everything that a root file system has.
pub fn small_tree(tree: &Path) {
    let script = r#"
        set -e
        mkdir -p "$1" && cd "$1"
        mkdir -p bin etc/dir var/deep/er empty "odd names"
        echo hello > etc/a.txt; echo two > etc/b.txt; echo three > etc/dir/c.txt
        echo x > var/deep/er/x; echo y > var/deep/y
        ln etc/a.txt etc/a.hard; ln -s a.txt etc/a.sym; ln -s /etc/dir etc/absolute
        echo 'odd' > 'odd names/a, b:c\d'; printf n > "odd names/$(printf 'new\nline')"
        dd if=/dev/zero of=var/sparse bs=1 count=1 seek=1048576 2>/dev/null
        mkfifo var/fifo; mknod var/null c 1 3
        chmod 4755 etc/b.txt; chmod 1777 empty; chown 100:200 etc/dir/c.txt
        head -c 300000 /dev/zero | tr '\0' a > var/big
        find . -depth -exec touch -h -d @1500000000 {} +; touch -d @1000000000 etc/b.txt etc/dir
    "#;
    run(Command::new("sh").arg("-c").arg(script).arg("sh").arg(tree));
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|err| panic!("{command:?}: {err}"));
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
