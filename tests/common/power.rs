//! A disk as its device has it, at any moment: what a power cut leaves. What the kernel still holds in its memory is not there.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Whence, lseek};

use super::busy;
use super::node::{Node, run};

/// What a device holds, but for what is a hole in its file.
#[derive(PartialEq, Eq)]
pub struct Content(Vec<(u64, Vec<u8>)>);

/// The disk of a node.
pub struct Disk<'a> {
    node: &'a Node,
    /// What must be done before it is mounted after a power cut.
    fsck: &'a [&'a str],
    /// What it is mounted with.
    options: &'a str,
}

impl<'a> Disk<'a> {
    /// Takes it from what it was mounted with.
    pub fn new(node: &'a Node, fsck: &'a [&'a str], options: &'a str) -> Self {
        let disk = Self { node, fsck, options };
        busy::umount(&disk.target());
        disk.mount();
        disk
    }

    fn target(&self) -> PathBuf {
        self.node.dir().join("disk")
    }

    fn image(&self) -> PathBuf {
        self.node.dir().join("image")
    }

    fn mount(&self) {
        let options = ["loop", self.options].join(",");
        run(Command::new("mount")
            .args(["-o", options.trim_end_matches(',')])
            .arg(self.image())
            .arg(self.target()));
        // Else what the device was given waits in the page cache of its file, where it is read from all the same.
        let direct = "losetup --direct-io=on \"$(findmnt -fno SOURCE \"$1\")\" 2>/dev/null || :";
        run(Command::new("sh").args(["-ec", direct, "sh"]).arg(self.target()));
    }

    /// What the device has just now, of one moment: it is read until it stays the same. The kernel writes to it when it likes.
    pub fn cut(&self) -> Content {
        let mut last = self.read();
        loop {
            let now = self.read();
            if now == last {
                return now;
            }
            last = now;
        }
    }

    fn read(&self) -> Content {
        let file = File::open(self.image()).unwrap();
        let size = i64::try_from(file.metadata().unwrap().len()).unwrap();
        let mut parts = Vec::new();
        let mut at = 0;
        // The end of the file is a hole, too.
        while let Ok(from) = lseek(&file, at, Whence::SeekData) {
            at = lseek(&file, from, Whence::SeekHole).unwrap().min(size);
            let mut part = vec![0; usize::try_from(at - from).unwrap()];
            let from = u64::try_from(from).unwrap();
            file.read_exact_at(&mut part, from).unwrap();
            parts.push((from, part));
        }
        Content(parts)
    }

    /// The power comes back, with this on the disk.
    pub fn insert(&self, content: &Content) {
        // Not lazily: nothing of the last one may be written later.
        busy::umount(&self.target());
        let image = self.image();
        let size = image.metadata().unwrap().len();
        // A new file: the loop device of the old one goes in its own time.
        fs::remove_file(&image).unwrap();
        let file = File::create(&image).unwrap();
        file.set_len(size).unwrap();
        for (at, part) in &content.0 {
            file.write_all_at(part, *at).unwrap();
        }
        drop(file);
        if let [program, args @ ..] = self.fsck {
            let output = Command::new(program).args(args).arg(&image).output().unwrap();
            // 1: something was mended.
            let mended = output.status.code().is_some_and(|code| code < 4);
            assert!(mended, "{program}: {}", String::from_utf8_lossy(&output.stdout));
        }
        self.mount();
    }

    /// Lets the disk have the names, and not what files hold: with a journal the kernel waits for no other file's content.
    pub fn commit(&self) {
        let mut file = File::create(self.target().join("other")).unwrap();
        file.write_all(b"other").unwrap();
        file.sync_all().unwrap();
    }

    /// Lets the disk have all of it.
    pub fn sync(&self) {
        sync(&self.target());
    }
}

/// Processes whose own writes to a disk are slow, 20 in a second: they take longer than those of the journal, which the kernel makes.
pub struct Slow(PathBuf);

impl Slow {
    /// Makes the group, which cgroups of version 1 can: what the kernel writes for a process then is not counted for it.
    pub fn new(disk: &Disk<'_>) -> Result<Self, String> {
        let group = PathBuf::from(format!("/sys/fs/cgroup/blkio/sliverfs-{}", std::process::id()));
        fs::create_dir(&group).map_err(|err| format!("no group of blkio: {err}"))?;
        let slow = Self(group);
        let device = run(Command::new("findmnt").args(["-fno", "MAJ:MIN"]).arg(disk.target()));
        let limit = format!("{} {}", device.trim(), 20);
        fs::write(slow.0.join("blkio.throttle.write_iops_device"), limit)
            .map_err(|err| format!("no slow writes: {err}"))?;
        Ok(slow)
    }

    /// The command, in the group.
    pub fn command(&self, plain: &Command) -> Command {
        let mut command = Command::new("sh");
        command.args(["-ec", "echo $$ > \"$0/cgroup.procs\"; exec \"$@\""]).arg(&self.0);
        command.arg(plain.get_program()).args(plain.get_args());
        command
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _gone = fs::remove_dir(&self.0);
    }
}

/// Writes a whole disk to it.
pub fn sync(target: &Path) {
    run(Command::new("sync").arg("-f").arg(target));
}
