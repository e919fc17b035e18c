//! Files that are on their way to the disk, and are waited for one by one.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::vec::Drain;

use nix::errno::Errno;
use nix::libc::{self, c_uint};

use crate::sys::file;

/// The disk begins with files of so many bytes at once where it is written as a whole; smaller ones it gathers.
const LARGE: u64 = 1 << 15;

/// No more files are held open until they are waited for: the disk is done with the older half of them by then.
const HELD: usize = 64;
/// Nor more than one of so many that the process may have open.
const SHARE: u64 = 8;

/// What is written to a disk, and must be there before a name leads to it.
///
/// Where it can be waited for [`apart`](Self::apart), all of it is durable as soon as any later change of that disk's names is: then one
/// fsync(2) of the folder of those names ends it. Else the caller writes the whole disk, which waits for what everybody wrote.
#[derive(Default)]
pub struct Writeback {
    held: Option<Vec<File>>,
    most: usize,
}

impl Writeback {
    /// Begins with nothing on the disk of a folder.
    pub fn on(folder: &Path) -> Self {
        Self { held: ordered(folder).then(Vec::new), most: may_hold() }
    }

    /// Is each file waited for?
    pub fn apart(&self) -> bool {
        self.held.is_some()
    }

    /// Adds a file that is written; the disk may begin with it.
    pub fn add(&mut self, file: File, size: u64) -> nix::Result<()> {
        if self.held.is_none() && size < LARGE {
            return Ok(());
        }
        let begun = range(&file, libc::SYNC_FILE_RANGE_WRITE);
        let Some(held) = &mut self.held else { return Ok(()) };
        if matches!(begun, Err(Errno::ENOSYS | Errno::EPERM)) {
            // A filter of system calls does not know this one.
            self.held = None;
            return Ok(());
        }
        begun?;
        held.push(file);
        if held.len() >= self.most { wait(held.drain(..self.most.div_ceil(2))) } else { Ok(()) }
    }

    /// Something is written that cannot be waited for.
    pub fn and_more(&mut self) {
        self.held = None;
    }

    /// Waits for the files; an error of one of them is told.
    pub fn wait(&mut self) -> nix::Result<()> {
        self.held.iter_mut().try_for_each(|held| wait(held.drain(..)))
    }
}

fn wait(files: Drain<'_, File>) -> nix::Result<()> {
    let all =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    files.into_iter().try_for_each(|file| range(&file, all))
}

fn may_hold() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: it writes to the record that it is given.
    let _zero = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    usize::try_from(limit.rlim_cur / SHARE).unwrap_or(HELD).clamp(1, HELD)
}

/// sync_file_range(2) of a whole file (Linux 2.6.17).
fn range(file: &File, how: c_uint) -> nix::Result<()> {
    // SAFETY: it takes numbers alone.
    Errno::result(unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, how) }).map(drop)
}

/// Does no change of names become durable on this disk before what was done to it earlier?
///
/// So it is on an ext4 with a journal: a commit takes all that was begun before it, and fsync(2) of a folder waits for one
/// (`ext4_fsync_journal`, fs/ext4/fsync.c). What it does not take is content that has no place on the disk yet; where that is
/// waited for, its place was noted first, since Linux 3.11. That the kernel's own thread for the journal is named in sysfs
/// says both that there is one, and that the kernel is a later one (`journal_task_show`, fs/ext4/sysfs.c).
fn ordered(folder: &Path) -> bool {
    let task = |name| file::read(&Path::new("/sys/fs/ext4").join(name).join("journal_task")).ok();
    let task = file::disk_name(folder).ok().and_then(task);
    task.is_some_and(|task| task.first().is_some_and(u8::is_ascii_digit))
}
