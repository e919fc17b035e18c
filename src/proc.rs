//! What /proc tells of processes, and of the boot.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::{Context, Result};
use crate::out::escape;
use crate::sys::file;

/// The id of this boot.
pub fn boot_id() -> Result<&'static str> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    Ok(file::text(path).at("read", path)?.leak().trim())
}

/// The process numbers in /proc.
pub fn processes() -> Result<Vec<u32>> {
    let proc = Path::new("/proc");
    let mut processes = Vec::new();
    for name in file::names(proc).at("list", proc)? {
        processes.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(processes)
}

/// The folders of a process and of its other threads, below /proc: `PID`, `PID/task/TID`, …
///
/// A thread can leave the others' mount namespace and working folder (unshare(2)), and outlive the first.
pub fn tasks(pid: u32) -> Vec<String> {
    let first = pid.to_string();
    let folder = format!("/proc/{first}/task");
    let mut tasks = Vec::new();
    // Two links and one for each thread (fs/proc/base.c, proc_task_getattr): most processes have one, and need no list.
    if fs::metadata(&folder).is_ok_and(|meta| meta.nlink() != 3) {
        for name in file::names(folder.as_ref()).unwrap_or_default() {
            tasks.extend(
                name.to_str().filter(|name| *name != first).map(|name| format!("{first}/task/{name}")),
            );
        }
    }
    tasks.insert(0, first);
    tasks
}

/// A process in a message: its number and its command's name.
pub fn words(pid: u32) -> String {
    // Any process may call itself as it likes.
    let name = file::read(Path::new(&format!("/proc/{pid}/comm")));
    let name = name.map_or_else(|_| "ended".to_owned(), |name| escape(name.trim_ascii()));
    format!("process {pid} ({name})")
}

/// The process that holds the exclusive flock(2) on an inode of a device, where it is none of another PID namespace.
pub fn holder(major: u32, minor: u32, inode: u64) -> Option<u32> {
    holder_in(&file::text("/proc/locks").ok()?, major, minor, inode)
}

/// The same in the text of /proc/locks (proc(5)): one line is `1: FLOCK  ADVISORY  WRITE 19921 07:00:2049 0 EOF`, the device in
/// hexadecimal. A line of who waits has an arrow in the place of the kind.
fn holder_in(locks: &str, major: u32, minor: u32, inode: u64) -> Option<u32> {
    let object = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let is_it = words.next() == Some("FLOCK") && words.nth(1) == Some("WRITE");
        let pid = words.next()?.parse().ok().filter(|pid| *pid > 0)?;
        (is_it && words.next() == Some(&object)).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn holders_of_locks() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 07:0a:2049 0 EOF\n\
            2: FLOCK  ADVISORY  READ 12 07:0a:2049 0 EOF\n\
            3: FLOCK  ADVISORY  WRITE 13 07:0a:204 0 EOF\n\
            4: FLOCK  ADVISORY  WRITE 14 07:0a:2049 0 EOF\n\
            4: -> FLOCK  ADVISORY  WRITE 15 07:0a:2049 0 EOF\n\
            5: FLOCK  ADVISORY  WRITE 0 103:00:7 0 EOF\n";
        assert_eq!(holder_in(locks, 7, 10, 2049), Some(14));
        assert_eq!(holder_in(locks, 7, 10, 2050), None);
        assert_eq!(holder_in(locks, 259, 0, 7), None, "of another PID namespace");
        assert_eq!(holder_in("", 0, 0, 1), None);
    }

    #[test]
    fn every_thread_has_a_folder() {
        let pid = std::process::id();
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let (say, hear) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            say.send(nix::unistd::gettid()).unwrap();
            wait.recv().unwrap_err();
        });
        let other = hear.recv().unwrap();
        let tasks = tasks(pid);
        assert_eq!(tasks.first(), Some(&pid.to_string()));
        assert!(tasks.contains(&format!("{pid}/task/{other}")), "{tasks:?}");
        drop(stop);
        thread.join().unwrap();
        assert!(words(pid).starts_with(&format!("process {pid} (")));
    }
}
