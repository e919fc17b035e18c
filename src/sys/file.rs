//! Reading and writing of descriptors, without what std's traits bring along.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{self, OFlag};
use nix::libc;
use nix::sys::stat::Mode;
use nix::sys::uio;
use nix::unistd;

use crate::error::{Context, Result};
use crate::stay::{for_good, stay};
use crate::sum::Sum;

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
    loop {
        if bytes.len() == bytes.capacity() {
            bytes.reserve(1 << 13);
        }
        if add(from, None, &mut bytes, most)? == 0 {
            return Ok(bytes);
        }
    }
}

/// Reads once, from there on or from where the descriptor stands, behind what is in `bytes`: no more than there is room for, and no
/// more than makes `most` of all. What is read into is not zeroed before, which would cost as much as to read.
fn add(from: BorrowedFd<'_>, at: Option<i64>, bytes: &mut Vec<u8>, most: usize) -> nix::Result<usize> {
    let done = bytes.len();
    let room = bytes.spare_capacity_mut();
    let (from, to, size) = (from.as_raw_fd(), room.as_mut_ptr().cast(), room.len().min(most - done));
    loop {
        // SAFETY: either writes no more bytes than there is room for.
        let got = unsafe {
            match at {
                Some(at) => libc::pread(from, to, size, at),
                None => libc::read(from, to, size),
            }
        };
        match Errno::result(got) {
            Err(Errno::EINTR) => {}
            got => {
                let got = usize::try_from(got?).unwrap_or(0);
                // SAFETY: so many of them were written.
                unsafe { bytes.set_len(done + got) };
                return Ok(got);
            }
        }
    }
}

/// Reads `size` bytes of a file from there on, in place of what is in `bytes`. False where it ends before.
pub fn read_from(file: &File, bytes: &mut Vec<u8>, size: usize, at: u64) -> nix::Result<bool> {
    bytes.clear();
    bytes.reserve(size);
    while bytes.len() < size {
        let at = i64::try_from(at.plus(bytes.len() as u64)).map_err(|_| Errno::EFBIG)?;
        if add(file.as_fd(), Some(at), bytes, size)? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Opens a file to read it.
pub fn open(path: impl AsRef<Path>) -> io::Result<File> {
    open_as(path.as_ref(), OFlag::O_RDONLY, 0)
}

/// Opens a file as open(2) does; one that is made gets the mode. std's way has texts for mistakes that nobody makes here, and with
/// them all that `{:?}` needs: 2 KiB of the ipk.
pub fn open_as(path: &Path, how: OFlag, mode: u32) -> io::Result<File> {
    let mode = Mode::from_bits_truncate(mode);
    loop {
        match fcntl::open(path, how | OFlag::O_CLOEXEC, mode) {
            Err(Errno::EINTR) => {}
            opened => return Ok(opened?.into()),
        }
    }
}

/// Looks at what a path leads to.
pub fn look_at(path: &Path) -> Result<&'static Metadata> {
    fs::metadata(path).at("look at", path).map(for_good)
}

/// The name of the block device that a folder's disk is, as sysfs has it.
pub fn disk_name(folder: &Path) -> Result<&'static OsStr> {
    let device = look_at(folder)?.dev();
    let link = stay(format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device)).into());
    let device = stay(fs::read_link(link).at("read", link)?);
    Ok(device.file_name().unwrap_or_default())
}

/// Makes a file of these bytes, or a file that is there one of these bytes.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    open_as(path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC, 0o666)?.write_all(bytes)
}

/// The names in a folder, in no order.
pub fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    let dir = open_as(folder, OFlag::O_DIRECTORY, 0)?;
    let mut names = Vec::new();
    super::names::each(dir.as_fd(), &mut |name| {
        if name != c"." && name != c".." {
            names.push(OsStr::from_bytes(name.to_bytes()).to_owned());
        }
        Ok(true)
    })?;
    Ok(names)
}

/// Makes a folder with this mode, less the umask. std's way has others made as well, and texts for that.
pub fn make_dir(folder: &Path, mode: u32) -> io::Result<()> {
    Ok(unistd::mkdir(folder, Mode::from_bits_truncate(mode))?)
}

/// Creates a folder, and takes one that is there already.
pub fn create_dir(dir: &Path) -> Result<()> {
    match make_dir(dir, 0o777) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.at("create", dir),
    }
}

/// Fills `bytes` with what lies in a file from there on. False where it ends before.
pub fn fill_from(file: &File, mut bytes: &mut [u8], mut at: u64) -> nix::Result<bool> {
    while !bytes.is_empty() {
        match uio::pread(file, bytes, i64::try_from(at).map_err(|_| Errno::EFBIG)?) {
            Err(Errno::EINTR) => {}
            Ok(0) => return Ok(false),
            got => {
                let got = got?;
                bytes = bytes.get_mut(got..).unwrap_or_default();
                at = at.plus(got as u64);
            }
        }
    }
    Ok(true)
}

/// A whole file.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    Ok(read_all(open(path)?, usize::MAX)?)
}

/// A whole file of text; what is not UTF-8 in it is replaced.
pub fn text(path: impl AsRef<Path>) -> io::Result<String> {
    read(path.as_ref()).map(|bytes| match String::from_utf8_lossy(&bytes) {
        std::borrow::Cow::Owned(text) => text,
        std::borrow::Cow::Borrowed(text) => text.to_owned(),
    })
}

/// Writes all of `bytes` to a file from there on.
pub fn write_at(file: &File, mut bytes: &[u8], mut at: u64) -> nix::Result<()> {
    while !bytes.is_empty() {
        match uio::pwrite(file, bytes, i64::try_from(at).map_err(|_| Errno::EFBIG)?) {
            Err(Errno::EINTR) => {}
            // As std has it: a disk that takes nothing, and says no error.
            Ok(0) => return Err(Errno::EIO),
            written => {
                let written = written?;
                bytes = bytes.get(written..).unwrap_or_default();
                at = at.plus(written as u64);
            }
        }
    }
    Ok(())
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

/// Is a standard stream of this program a terminal?
pub fn is_terminal(stream: i32) -> bool {
    // SAFETY: as above.
    unsafe { BorrowedFd::borrow_raw(stream) }.is_terminal()
}

/// Standard output, as a descriptor of its own.
pub fn stdout() -> nix::Result<OwnedFd> {
    // SAFETY: as above.
    unistd::dup(unsafe { BorrowedFd::borrow_raw(1) })
}

/// Standard input, as a descriptor of its own.
pub fn stdin() -> nix::Result<OwnedFd> {
    // SAFETY: as above.
    unistd::dup(unsafe { BorrowedFd::borrow_raw(0) })
}
