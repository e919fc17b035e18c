//! What a program that unpacks itself leaves for its next starts: only the right thing is taken, and nothing that is wrong with it,
//! its folder or its disk keeps the program from running.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::targets::Target;
use crate::common::node::run;
use crate::common::{busy, scripts};

/// As the unpacker and the init script name it.
const FOLDER: &str = "/var/run/sliverfs-unpacked";

/// A program that prints a line and its memory, and who runs it.
struct Program<'a>(&'a Target, &'a Path);

impl Program<'_> {
    /// Runs it as a user, where it must do what it does; tells whether it was mapped.
    fn runs_as(&self, user: u32, what: &str) -> bool {
        let out = self.0.emulate(self.1).args(["a", "b", "c"]).uid(user).output().unwrap();
        let (said, name) = (String::from_utf8_lossy(&out.stdout), &self.0.name);
        assert!(out.status.success() && out.stderr.is_empty(), "{name}, {what}: {out:?}");
        let (first, maps) = said.split_once('\n').unwrap();
        assert_eq!(first, "1 of 3", "{name}, {what}: {out:?}");
        let rights = |line: &str| line.split_whitespace().nth(1).unwrap().to_owned();
        assert!(maps.lines().any(|line| rights(line).starts_with("r-x")), "{name}, {what}: {maps}");
        let both = |line: &&str| rights(line).contains('w') && rights(line).contains('x');
        assert_eq!(maps.lines().find(both), None, "{name}, {what}: {maps}");
        maps.lines().any(|line| line.ends_with("sliverfs-unpacked/program"))
    }

    fn runs(&self, what: &str) -> bool {
        self.runs_as(0, what)
    }
}

/// A file system in memory, until this is dropped.
struct Memory(PathBuf);

impl Memory {
    fn mount(at: &Path, options: &str) -> Self {
        run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at));
        Self(at.to_owned())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg(&self.0).status();
    }
}

fn put(path: &Path, content: &[u8]) {
    let _none = fs::remove_file(path);
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o444)).unwrap();
}

/// The names in the folder.
fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Starts the program, which prints a line and its memory, once.
pub fn runs(target: &Target, program: &Path) {
    let _mapped = Program(target, program).runs("alone");
}

/// Starts the program, which prints a line and its memory, again and again.
pub fn check(target: &Target, program: &Path) {
    scripts::own_namespace();
    let _run_folder = Memory::mount(&fs::canonicalize("/var/run").unwrap(), "mode=755");
    let (folder, program) = (PathBuf::from(FOLDER), Program(target, program));
    let kept = folder.join("program");
    let is = |content: &[u8]| fs::read(&kept).is_ok_and(|now| now == content);

    assert!(!program.runs("no folder") && !folder.exists());
    fs::create_dir(&folder).unwrap();
    assert!(!program.runs_as(1000, "a user's first start") && names(&folder).is_empty());
    assert!(!program.runs("the first start"));
    let first = fs::symlink_metadata(&kept).unwrap();
    assert_eq!((first.mode(), first.uid()), (0o100444, 0));
    let whole = fs::read(&kept).unwrap();
    assert!(program.runs("the second start") && program.runs_as(1000, "a user's second start"));
    assert_eq!(fs::symlink_metadata(&kept).unwrap().ino(), first.ino(), "it was not written again");
    assert_eq!(names(&folder), ["program"]);

    // Its kind of processor changes nothing in what follows, and each start that unpacks takes its time.
    if target.name.starts_with("mipsel") || target.name.starts_with("armv5") {
        return;
    }

    // What is wrong with it is put right.
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x80;
    let longer = [&whole[..], &[1; 4096]].concat();
    let elsewhere = Path::new("/var/run/elsewhere");
    let wrong: [(&str, &dyn Fn()); 9] = [
        ("a flipped bit", &|| put(&kept, &flipped)),
        ("nothing in it", &|| put(&kept, b"")),
        ("half of it", &|| put(&kept, &whole[..whole.len() / 2])),
        ("a byte less", &|| put(&kept, &whole[..whole.len() - 1])),
        ("more than it", &|| put(&kept, &longer)),
        ("another's file", &|| chown(&kept, Some(1000), None).unwrap()),
        ("the group may write", &|| fs::set_permissions(&kept, fs::Permissions::from_mode(0o464)).unwrap()),
        ("anybody may write", &|| fs::set_permissions(&kept, fs::Permissions::from_mode(0o446)).unwrap()),
        ("a link", &|| {
            fs::rename(&kept, elsewhere).unwrap();
            symlink(elsewhere, &kept).unwrap();
        }),
    ];
    for (what, make) in wrong {
        make();
        assert!(!program.runs(what), "{}, {what}", target.name);
        let after = fs::symlink_metadata(&kept).unwrap();
        assert_eq!((after.mode(), after.uid()), (0o100444, 0), "{}, {what}", target.name);
        assert!(is(&whole) && names(&folder) == ["program"], "{}, {what}", target.name);
    }
    assert_eq!(fs::read(elsewhere).unwrap(), whole);

    // Somebody was killed while it wrote.
    fs::rename(&kept, folder.join("unfinished")).unwrap();
    assert!(!program.runs("an unfinished one") && names(&folder).is_empty());
    assert!(!program.runs("after the unfinished one") && is(&whole));

    // Where nothing can be put right.
    fs::remove_file(&kept).unwrap();
    fs::create_dir(&kept).unwrap();
    assert!(!program.runs("a folder in its place") && names(&folder) == ["program"]);
    fs::remove_dir(&kept).unwrap();
    let small = Memory::mount(&folder, "size=16k");
    assert!(!program.runs("a full disk") && names(&folder).is_empty());
    drop(small);
    let fixed = Memory::mount(&folder, "size=16m");
    let remount = |how: &str| busy::remount(how, &folder);
    remount("ro");
    assert!(!program.runs("a disk to read only") && names(&folder).is_empty());
    remount("rw");
    put(&kept, &flipped);
    remount("ro");
    assert!(!program.runs("a wrong file on a disk to read only") && is(&flipped));
    remount("rw");
    put(&kept, &whole);
    remount("ro");
    assert!(program.runs("the right file on a disk to read only"));
    drop(fixed);
}
