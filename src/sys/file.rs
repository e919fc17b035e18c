//! Reading and writing of descriptors, without what std's traits bring along.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd;

/// Reads once, and again where a signal came between.
pub fn read_some(from: impl AsFd, buffer: &mut [u8]) -> nix::Result<usize> {
    let from = from.as_fd();
    loop {
        match unistd::read(from, buffer) {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

/// What is left to be read of `from`, but no more than `most` bytes.
pub fn read_all(from: impl AsFd, most: usize) -> nix::Result<Vec<u8>> {
    rest(from.as_fd(), most)
}

fn rest(from: BorrowedFd<'_>, most: usize) -> nix::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut done = 0;
    loop {
        bytes.resize(most.min(done + (1 << 13).max(done)), 0);
        match read_some(from, bytes.get_mut(done..).unwrap_or_default())? {
            0 => break,
            got => done += got,
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// A whole file.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    Ok(read_all(File::open(path)?, usize::MAX)?)
}

/// A whole file of text; what is not UTF-8 in it is replaced.
pub fn text(path: impl AsRef<Path>) -> io::Result<String> {
    read(path.as_ref()).map(|bytes| match String::from_utf8_lossy(&bytes) {
        std::borrow::Cow::Owned(text) => text,
        std::borrow::Cow::Borrowed(text) => text.to_owned(),
    })
}

/// Writes all of `bytes` to a standard stream of this program: 1 is standard output, 2 standard error.
pub fn say(stream: i32, mut bytes: &[u8]) -> nix::Result<()> {
    // SAFETY: standard streams are closed by nobody in this program; where the caller closed one, write(2) says so.
    let to = unsafe { BorrowedFd::borrow_raw(stream) };
    while !bytes.is_empty() {
        match unistd::write(to, bytes) {
            Err(Errno::EINTR) => {}
            written => bytes = bytes.get(written?..).unwrap_or_default(),
        }
    }
    Ok(())
}

/// Makes a file as long as that: cut off, or with a hole at its end.
pub fn set_size(file: impl AsFd, size: u64) -> nix::Result<()> {
    unistd::ftruncate(file, i64::try_from(size).map_err(|_| Errno::EFBIG)?)
}

/// Standard input, as a descriptor of its own.
pub fn stdin() -> nix::Result<OwnedFd> {
    // SAFETY: as above.
    unistd::dup(unsafe { BorrowedFd::borrow_raw(0) })
}
