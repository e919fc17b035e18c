//! ZFS, the kernel's or that of FUSE: the dataset that a path lies in, and the program that is asked about one.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{major, minor};

use super::tool::{self, Stream};
use super::{file, statfs};
use crate::error::{Error, Result};
use crate::out::escape;

/// Is it what the kernel calls one of the two?
#[inline(never)]
pub fn is_type(fstype: &[u8]) -> bool {
    matches!(fstype, b"zfs" | b"fuse.zfs")
}

/// The dataset that a path lies in, named as this text of a mountinfo file shows it; none where that is no ZFS.
pub fn dataset(path: &Path, table: &[u8]) -> io::Result<Option<String>> {
    let device = fs::metadata(path)?.dev();
    let device = format!("{}:{}", major(device), minor(device));
    for mount in table.split(|byte| *byte == b'\n') {
        // No field holds a blank: the kernel writes it in octal. Type and source are the last ones but for the options.
        let mut fields = mount.split(|byte| *byte == b' ');
        if fields.nth(2) != Some(device.as_bytes()) {
            continue;
        }
        if let (Some(source), Some(fstype)) = (fields.nth_back(1), fields.next_back()) {
            if is_type(fstype) {
                return Ok(Some(String::from_utf8_lossy(source).into_owned()));
            }
        }
    }
    Ok(None)
}

/// The dataset of zfs-fuse that a path lies in. What statfs(2) tells is the same of all file systems in user space, so for one of
/// those the table of mounts is read. No other is meant: the mode that one of them makes up must not become a real one.
pub fn on_fuse(path: &Path) -> Option<String> {
    statfs::of(path).ok().filter(|disk| disk.magic == statfs::FUSE)?;
    dataset(path, &file::read(Path::new("/proc/self/mountinfo")).ok()?).ok()?
}

/// Has the pool of a dataset write all that came before. A property that was not set is inherited as before; what waits for its turn is
/// the change.
pub fn settle(dataset: &str) -> Result<()> {
    run("inherit sliverfs:none", dataset)
}

/// Runs `zfs` with these words, between blanks, on a dataset.
pub fn run(words: &str, dataset: &str) -> Result<()> {
    ask(words, dataset, PollTimeout::NONE).map(drop)
}

/// The same, and gives what it prints, without blanks around it. It is killed where it says nothing for so long.
pub fn ask(words: &str, dataset: &str, patience: PollTimeout) -> Result<&'static str> {
    let args = tool::on(words, Path::new(dataset));
    let (mut printed, mut said) = (Vec::new(), Vec::new());
    let ended = tool::start("zfs", &args, [Stream::Null, Stream::Pipe, Stream::Pipe])
        .and_then(|mut zfs| {
            if let (Some(words), Some(errors)) = (&zfs.stdout, &zfs.stderr) {
                if poll(&mut [PollFd::new(words.as_fd(), PollFlags::POLLIN)], patience) == Ok(0) {
                    zfs.kill();
                    return Err(Errno::ETIMEDOUT);
                }
                printed = file::read_all(words, usize::MAX)?;
                said = file::read_all(errors, usize::MAX)?;
            }
            zfs.wait()
        })
        .map_err(|errno| match errno {
            Errno::ENOENT => Error::unsupported("the program `zfs` is not installed"),
            Errno::ETIMEDOUT => Error::failed(format_args!("`zfs {words}` does not answer")),
            _ => Error::sys("start", "zfs".as_ref(), errno),
        })?;
    match ended {
        None => Ok(String::from_utf8_lossy(printed.trim_ascii()).into_owned().leak()),
        Some(how) => {
            let said = escape(said.trim_ascii());
            Err(Error::failed(format_args!("`zfs {words} {dataset}` failed ({how}): {said}")))
        }
    }
}
