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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
