//! The router targets of `cross/targets`, and how their binaries run here.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::node::{Node, run};
use crate::common::require;
use crate::common::scripts;
use crate::common::tree::installed;

/// A target, and the weakest processor that must run its binary.
#[derive(Debug)]
pub struct Target {
    /// Rust's name of it.
    pub name: String,
    /// The emulator: qemu-NAME-static.
    pub qemu: String,
    /// What its -cpu is told.
    pub cpu: String,
    /// The binary of `cross/build`.
    pub binary: PathBuf,
    /// What zig is told of the processor, where the binary unpacks itself; `-` where it does not.
    pub unpacker: Vec<String>,
}

/// The project's folder.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Gives the calling thread, which is a test of its own, a run folder of its own: with the folder in which a program that unpacks
/// itself leaves that to its next starts, each of which would take a second here.
pub fn own_run_folder() {
    scripts::own_namespace();
    let at = std::fs::canonicalize("/var/run").unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "tmpfs"]).arg(&at));
    std::fs::create_dir(at.join("sliverfs-unpacked")).unwrap();
}

impl Target {
    /// Every row of `cross/targets`.
    pub fn all() -> Vec<Self> {
        let table = std::fs::read_to_string(repository().join("cross/targets")).unwrap();
        let rows = table.lines().map(|line| line.split('#').next().unwrap().split_whitespace());
        let rows = rows.map(Iterator::collect::<Vec<_>>).filter(|row| !row.is_empty());
        rows.map(|row| Self {
            name: row[0].into(),
            qemu: format!("qemu-{}-static", row[1]),
            cpu: row[2].into(),
            binary: repository().join("dist/bin").join(row[0]).join("sliverfs"),
            unpacker: row[4..].iter().map(|word| (*word).to_owned()).collect(),
        })
        .collect()
    }

    /// Those whose binary is there and can be run. Of another one the reason is printed, or, where SLIVERFS_REQUIRE names
    /// `cross`, it is a failure.
    pub fn ready() -> Vec<Self> {
        let mut ready = Self::all();
        ready.retain(|target| {
            let built = match target.binary.is_file() {
                true => installed(&target.qemu),
                false => Err(format!("{} is missing: `make cross` builds it", target.binary.display())),
            };
            require("cross", built)
        });
        ready
    }

    /// Does its binary unpack itself?
    pub fn unpacks(&self) -> bool {
        self.unpacker != ["-"]
    }

    /// The emulator with the processor of this target and a program for it.
    pub fn emulate(&self, program: &Path) -> Command {
        let mut command = Command::new(&self.qemu);
        command.args(["-cpu", &self.cpu]).arg(program);
        command
    }

    /// Runs sliverfs.
    pub fn sliverfs<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        self.emulate(&self.binary).args(args).output().unwrap()
    }

    /// Runs sliverfs on a node.
    pub fn run(&self, node: &Node, args: &[&str]) -> Output {
        // Among its own processes only: where one of the machine's is locked into a folder of another mount namespace,
        // sliverfs goes into that to look, which the kernel refuses to the emulator with its threads. /proc is mounted anew
        // in this test's mount namespace, where the views must stay, and as long as the command takes.
        let script = "mount -t proc proc /proc && { \"$@\"; code=$?; umount /proc; exit $code; }";
        let emulated = self.emulate(&self.binary);
        let mut alone = Command::new("unshare");
        alone.args(["--pid", "--fork", "sh", "-c", script, "sh"]).arg(emulated.get_program());
        alone.args(emulated.get_args()).args(["--config", "/dev/null", "--lxcpath"]).arg(&node.lxcpath);
        alone.args(args).output().unwrap()
    }

    /// Runs sliverfs on a node, where it must succeed, and returns what it prints.
    pub fn ok(&self, node: &Node, args: &[&str]) -> String {
        let output = self.run(node, args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {args:?}: {said}", self.name);
        String::from_utf8(output.stdout).unwrap()
    }
}
