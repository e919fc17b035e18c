//! Does a disk share what is written to it twice? Then a full copy costs nothing, and `auto` may make one.
//!
//! By what mountinfo says of it, since statfs(2) gives all FUSE the same type; and by a property, where there is a tool to ask.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::verdict::Verdict;
use crate::error::{Error, Result};
use crate::kind::Kind;
use crate::mount::disk::Disk;
use crate::sys::file::read_all;
use crate::sys::tool::{Stream, start};

/// What a disk does with what is written to it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// It keeps it once.
    Once,
    /// Its property says.
    Property,
    /// It keeps it twice.
    Twice,
}

/// The habit of a file system by the type and the source that mountinfo shows.
fn habit(fstype: &str, source: &str) -> Habit {
    match (fstype, source) {
        ("zfs" | "fuse.zfs", _) => Habit::Property,
        ("fuse.lessfs", _) => Habit::Once,
        // Where the kernel knows no types of FUSE (before 2.6.24), libfuse writes `TYPE#SOURCE`.
        ("fuse", source) if source == "lessfs" || source.starts_with("lessfs#") => Habit::Once,
        // SDFS names its volume: `sdfs:/etc/sdfs/pool0-volume-cfg.xml:6442`.
        (fstype, source) if fstype.starts_with("fuse") && source.starts_with("sdfs:") => Habit::Once,
        _ => Habit::Twice,
    }
}

/// What is to be said of full copies on a disk; `path` names it in the reason. Nothing is written to it.
pub fn verdict(path: &str, disk: Option<&Disk>) -> Verdict {
    let (fstype, source) =
        disk.map_or(("an unknown file system", ""), |disk| (disk.fstype.as_str(), disk.source.as_str()));
    let works = |what: fmt::Arguments<'_>| Verdict::because(Kind::Copy, &what);
    let by_name = |what: fmt::Arguments<'_>| {
        Verdict::by_name(Kind::Copy, format_args!("{what}: only when asked for by name"))
    };
    match habit(fstype, source) {
        Habit::Once => works(format_args!("`{path}` lies on {source} ({fstype}), which deduplicates")),
        Habit::Twice => by_name(format_args!("a full copy shares nothing on {fstype}")),
        Habit::Property => match ask(source) {
            Ok(value) if value.is_empty() || value == "off" || value == "-" => {
                by_name(format_args!("a full copy shares nothing while dedup is off for {source} ({fstype})"))
            }
            Ok(value) => works(format_args!("`{path}` lies on {source} ({fstype}) with dedup={value}")),
            Err(why) => {
                by_name(format_args!("whether {source} ({fstype}) deduplicates cannot be asked: {why}"))
            }
        },
    }
}

/// How long the tool may take, in milliseconds: a daemon that hangs must not hold the probe.
const PATIENCE: u16 = 10_000;

/// The value of the property `dedup` of a ZFS, or why it is not known.
fn ask(dataset: &str) -> Result<String> {
    let args: [&OsStr; 6] =
        ["get".as_ref(), "-H".as_ref(), "-o".as_ref(), "value".as_ref(), "dedup".as_ref(), dataset.as_ref()];
    let mut zfs = match start("zfs", &args, [Stream::Null, Stream::Pipe, Stream::Null]) {
        Ok(zfs) => zfs,
        Err(Errno::ENOENT) => return Err(Error::failed("the program `zfs` is not installed")),
        Err(errno) => return Err(Error::sys("start", Path::new("zfs"), errno)),
    };
    let mut text = Vec::new();
    if let Some(out) = &mut zfs.stdout {
        let answers = poll(&mut [PollFd::new(out.as_fd(), PollFlags::POLLIN)], PATIENCE);
        if answers != Ok(1) {
            zfs.kill();
            return Err(Error::failed("`zfs get dedup` does not answer"));
        }
        text = read_all(&*out, usize::MAX).unwrap_or_default();
    }
    match zfs.wait() {
        Ok(None) => Ok(crate::out::escape(text.trim_ascii())),
        _ => Err(Error::failed(format_args!("`zfs get dedup {dataset}` fails"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_type_and_source() {
        for (fstype, source, wanted) in [
            ("zfs", "rpool/lxc", Habit::Property),
            ("fuse.zfs", "tank", Habit::Property),
            ("fuse.lessfs", "lessfs", Habit::Once),
            ("fuse", "lessfs#/fuse", Habit::Once),
            ("fuse", "sdfs:/etc/sdfs/pool0-volume-cfg.xml:6442", Habit::Once),
            ("fuse.sdfs", "sdfs:/etc/sdfs/pool0-volume-cfg.xml:6442", Habit::Once),
            ("ext4", "/dev/lessfs", Habit::Twice),
            ("nfs", "sdfs:/export", Habit::Twice),
            ("fuse.sshfs", "zfs:/tank", Habit::Twice),
            ("btrfs", "/dev/sda1", Habit::Twice),
        ] {
            assert_eq!(habit(fstype, source), wanted, "{fstype} {source}");
        }
    }
}
