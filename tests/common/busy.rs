//! What takes a moment: what is busy, and what is awaited. A program that one thread of a test starts holds, until it is executed, whatever another thread
//! has open: a program that was written in this process is then busy (ETXTBSY), and so is a disk that is to become read-only or to
//! be unmounted (EBUSY). What a child of its own writes nobody else can hold.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::node::run;

/// How long something may be busy, or keep a test waiting: far more than it does on any machine.
const LONGEST: Duration = Duration::from_secs(120);

/// Waits until something is so; `otherwise` says what is wrong where it never is.
pub fn until(otherwise: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < LONGEST, "{otherwise} after {LONGEST:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a command that must succeed, and again while it says that something is busy.
pub fn calm(command: &mut Command) -> String {
    let began = Instant::now();
    loop {
        let output = command.env("LC_ALL", "C").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return String::from_utf8_lossy(&output.stdout).into_owned();
        }
        assert!(said.contains("busy"), "{command:?}: {said}");
        assert!(began.elapsed() < LONGEST, "{command:?}: still busy after {LONGEST:?}: {said}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Mounts anew with other options: `ro`, `rw`.
pub fn remount(options: &str, target: &Path) {
    calm(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(target));
}

/// Unmounts.
pub fn umount(target: &Path) {
    calm(Command::new("umount").arg(target));
}

/// Fills the disk of a file, which grows, block by block: a larger write finds no room where there are some blocks left. Each time that
/// it is written out, ext4 may give back what it had reserved too much of for that, which later would be room again.
pub fn fill(file: &Path) {
    let script = "for turn in 1 2 3; do dd if=/dev/zero bs=4k oflag=append conv=notrunc of=\"$1\" 2>/dev/null; sync -f \"$1\"; done";
    run(Command::new("sh").args(["-c", script, "sh"]).arg(file));
}

/// Makes a copy of a program, which can be run at once.
pub fn program(from: &Path, to: &Path) {
    run(Command::new("cp").arg(from).arg(to));
}

/// Writes a script, which can be run at once.
pub fn script(path: &Path, text: &str) {
    let write = "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\"";
    run(Command::new("sh").args(["-c", write]).arg(path).arg(text));
}
