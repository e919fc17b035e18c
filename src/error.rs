//! One error type: what was tried, on which path, why it failed, and the way out.

use std::fmt;
use std::io;
use std::path::Path;

use nix::errno::Errno;

/// What a failure means to the caller: the exit code of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// It was tried and failed; nothing was changed.
    Failed = 1,
    /// The command line or the configuration asks for something impossible.
    Usage = 2,
    /// This kernel or this disk does not offer it.
    Unsupported = 3,
    /// A store or a base is in use.
    InUse = 4,
    /// A record, a store or a base is not what it should be.
    Damaged = 5,
}

/// A failure, worded once, here; the log and the terminal show the same words.
///
/// It is one pointer wide and its makers are out of line: it passes through every `?` of the program, where a wider one cost 19
/// KiB of the compressed MIPS binary. It is never given back, since it is told and ends the command, but for a few that are
/// told beside other rows: nothing stands at any of these places to drop it.
#[derive(Debug)]
pub struct Error(&'static mut Inner);

#[derive(Debug)]
struct Inner {
    class: Class,
    what: String,
    errno: Option<Errno>,
    way_out: Option<String>,
}

/// The result of everything in this program that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    #[cold]
    #[inline(never)]
    fn make(class: Class, what: &dyn fmt::Display) -> Self {
        Self(Box::leak(Box::new(Inner { class, what: what.to_string(), errno: None, way_out: None })))
    }

    /// A failure of the given class; `what` names the step and the path. Given `format_args!`, no caller holds a text to drop.
    pub fn new(class: Class, what: impl fmt::Display) -> Self {
        Self::make(class, &what)
    }

    /// Something was tried and failed ([`Class::Failed`]).
    pub fn failed(what: impl fmt::Display) -> Self {
        Self::make(Class::Failed, &what)
    }

    /// The user asked for something that cannot be ([`Class::Usage`]).
    pub fn usage(what: impl fmt::Display) -> Self {
        Self::make(Class::Usage, &what)
    }

    /// The kernel, the disk or an installed tool does not offer it ([`Class::Unsupported`]).
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Self::make(Class::Unsupported, &what)
    }

    /// It is alive somewhere ([`Class::InUse`]).
    pub fn in_use(what: impl fmt::Display) -> Self {
        Self::make(Class::InUse, &what)
    }

    /// What lies on the disk is not what was written there ([`Class::Damaged`]).
    pub fn damaged(what: impl fmt::Display) -> Self {
        Self::make(Class::Damaged, &what)
    }

    /// A system call that failed: `op` reads as the step ("mount overlay on").
    #[cold]
    #[inline(never)]
    pub fn sys(op: &str, path: &Path, errno: Errno) -> Self {
        let err = Self::failed(format_args!("{op} {}", path.display()));
        err.0.errno = Some(errno);
        err.0.way_out = usual_way_out(errno).map(str::to_owned);
        err
    }

    /// Adds what the operator can do about it.
    #[must_use]
    pub fn way_out(self, text: impl fmt::Display) -> Self {
        self.with_way_out(&text)
    }

    #[cold]
    #[inline(never)]
    fn with_way_out(self, text: &dyn fmt::Display) -> Self {
        self.0.way_out = Some(text.to_string());
        self
    }

    /// The errno behind the failure, where a system call gave one.
    pub fn errno(&self) -> Option<Errno> {
        self.0.errno
    }

    /// The class, which is also the exit code.
    pub fn class(&self) -> Class {
        self.0.class
    }
}

/// The C library's words for an errno. nix has a table of its own, which would be a second one in the binary.
pub fn meaning(errno: Errno) -> String {
    let text = io::Error::from(errno).to_string();
    // What stands in brackets behind it is its number.
    let words = text.bytes().rposition(|b| b == b'(').and_then(|end| text.get(..end));
    words.map_or(&*text, str::trim_end).to_owned()
}

/// What helps against an errno wherever it comes up.
fn usual_way_out(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::ENOSPC => Some("the disk is full (df and df -i tell): free some space on it"),
        Errno::EROFS => Some("the disk is mounted read-only: remount it, or check it with fsck"),
        Errno::EACCES | Errno::EPERM => Some("run it as root"),
        Errno::ENOENT => Some("see whether the path is right, and its folder there"),
        Errno::EIO => Some("the disk has a fault: the kernel's log tells more"),
        _ => None,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        if let Some(errno) = self.0.errno {
            write!(f, ": {}", meaning(errno))?;
        }
        if let Some(way_out) = &self.0.way_out {
            write!(f, "; {way_out}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Gives a bare error of the system its step and its path.
pub trait Context<T> {
    /// `op` is the step as a verb phrase that reads before a path: "open", "rename to".
    fn at(self, op: &str, path: &Path) -> Result<T>;
}

impl<T> Context<T> for nix::Result<T> {
    fn at(self, op: &str, path: &Path) -> Result<T> {
        self.map_err(|errno| Error::sys(op, path, errno))
    }
}

impl<T> Context<T> for io::Result<T> {
    fn at(self, op: &str, path: &Path) -> Result<T> {
        self.map_err(|err| io_error(op, path, err))
    }
}

#[cold]
#[inline(never)]
fn io_error(op: &str, path: &Path, err: io::Error) -> Error {
    match err.raw_os_error() {
        Some(code) => Error::sys(op, path, Errno::from_raw(code)),
        None => Error::failed(format_args!("{op} {}: {err}", path.display())),
    }
}

/// The number of an error of std's.
#[cold]
#[inline(never)]
pub fn errno(err: io::Error) -> Errno {
    err.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_with_step_path_reason_and_way_out() {
        let err = Error::sys("mount overlay on", Path::new("/srv/lxc/a/rootfs"), Errno::EINVAL)
            .way_out("run `sliverfs probe`");
        assert_eq!(
            err.to_string(),
            "mount overlay on /srv/lxc/a/rootfs: Invalid argument; run `sliverfs probe`"
        );
    }

    #[test]
    fn an_io_error_keeps_its_errno() {
        let err = Err::<(), _>(io::Error::from_raw_os_error(28)).at("write", Path::new("/x"));
        assert_eq!(err.err().and_then(|e| e.errno()), Some(Errno::ENOSPC));
    }
}
