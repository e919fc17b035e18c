//! The demo, small: it runs through, and whenever it is interrupted, nothing of it stays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use common::node::run;
use common::{busy, require};

fn ready() -> bool {
    let check = || {
        common::root()?;
        let base =
            Command::new(repository().join("tests/make-base")).args(["--check", "small"]).output().unwrap();
        if !base.status.success() {
            return Err(format!("{}; tests/make-base small makes it", text(&base.stderr)));
        }
        let lxc = Command::new("sh").args(["-c", "command -v lxc-start"]).output().unwrap();
        if lxc.status.success() {
            Ok(())
        } else {
            Err("lxc-start is missing: tests/setup installs it".into())
        }
    };
    require("lxc", check())
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// A folder of its own for a demo; what is left in it at the end is the demo's.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("sliverfs-demo-{name}-{}", std::process::id()));
        fs::create_dir_all(dir.join("place")).unwrap();
        Self(dir)
    }

    /// Starts a small demo here, in a process group of its own, as a shell does.
    fn start(&self) -> Child {
        // Whoever runs the tests may ignore SIGINT, and a shell cannot trap what was ignored when it started.
        let mut demo = Command::new("env");
        demo.arg("--default-signal=INT").arg(repository().join("tests/demo")).process_group(0);
        demo.env("SLIVERFS_LXCPATH", self.0.join("place"));
        demo.env("SLIVERFS_DEMO_BASE", "small").env("SLIVERFS_DEMO_SLIVERS", "3");
        demo.env("SLIVERFS_DEMO_BINARY", env!("CARGO_BIN_EXE_sliverfs"));
        demo.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Interrupts a demo as Ctrl+C does, when it has told `step` and `then` is so.
    fn interrupt(&self, step: &str, then: impl Fn() -> bool) {
        let mut demo = self.start();
        let mut said = BufReader::new(demo.stderr.take().unwrap());
        let mut told = String::new();
        while !told.contains(step) {
            assert_ne!(said.read_line(&mut told).unwrap(), 0, "it ended before `{step}`: {told}");
        }
        busy::until(&format!("{step}: it does not go on: {told}"), &then);
        run(Command::new("kill").args(["-INT", "--", &format!("-{}", demo.id())]));
        said.read_to_string(&mut told).unwrap();
        let status = demo.wait().unwrap();
        assert_eq!(status.code(), Some(130), "{step}: {told}");
        self.is_clean(&format!("interrupted at `{step}`: {told}"));
    }

    /// No file, no mount, no loop device and no process of a demo is left here.
    fn is_clean(&self, when: &str) {
        let path = self.0.to_str().unwrap();
        let left: Vec<_> = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        let files =
            left.iter().filter(|dir| !dir.ends_with("place") || fs::read_dir(dir).unwrap().next().is_some());
        assert_eq!(files.count(), 0, "{when}: files are left in {left:?}");
        // A demo that removed its folder wants it again.
        fs::create_dir_all(self.0.join("place")).unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts: Vec<_> = mounts.lines().filter(|line| line.contains(&format!("{path}/place/"))).collect();
        assert!(mounts.is_empty(), "{when}: {mounts:?}");
        let loops = || run(Command::new("losetup").args(["-nO", "BACK-FILE"]));
        busy::until(&format!("{when}: a loop device is left"), || {
            !loops().contains(&format!("{path}/place/"))
        });
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            assert!(
                !text(&command).contains(path),
                "{when}: {} still runs: {}",
                entry.path().display(),
                text(&command)
            );
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let path = self.0.to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let targets = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|target| target.starts_with(path));
        for target in targets.collect::<Vec<_>>().into_iter().rev() {
            let _gone = Command::new("umount").arg("-l").arg(target).status();
        }
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn finish(demo: Child) -> Output {
    demo.wait_with_output().unwrap()
}

#[test]
fn the_demo_shows_what_is_saved() {
    if !ready() {
        return;
    }
    let place = Place::new("whole");
    let output = finish(place.start());
    let (shown, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{shown}\n{said}");
    for expected in [
        "auto takes it",
        "s03",
        "running",
        "the first of its kind",
        "3 copies of the base",
        "one base and 3 slivers",
    ] {
        assert!(shown.contains(expected), "`{expected}` is missing: {shown}\n{said}");
    }
    let saved = shown.lines().last().unwrap().split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
    assert!((60..67).contains(&saved), "three slivers on one base save some two thirds, not {saved} %");
    place.is_clean("at its end");
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    if !ready() {
        return;
    }
    let place = Place::new("cut");
    place.interrupt("importing the base", || true);
    place.interrupt("creating 3 slivers", || true);
    let path = place.0.to_str().unwrap();
    let sockets = || fs::read_to_string("/proc/net/unix").unwrap();
    place.interrupt("booting s01", || true);
    // A running container has a monitor that listens.
    place.interrupt("booting s01", || {
        sockets().lines().any(|line| line.contains(path) && line.ends_with("/s01/command"))
    });
}

/// Where the folder lies on an overlay, the demo makes a disk in an image.
#[test]
fn on_an_unsuitable_disk() {
    if !ready() {
        return;
    }
    let place = Place::new("overlay");
    let around = Place::new("layers");
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| around.0.join("place").join(name));
    for dir in [&lower, &upper, &work] {
        fs::create_dir(dir).unwrap();
    }
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&place.0));
    place.interrupt("booting s01", || true);
    let output = finish(place.start());
    let (shown, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && said.contains("lies on an overlay"), "{shown}\n{said}");
    assert!(shown.contains("s01"), "{shown}");
    place.is_clean("at its end");
}
