//! Does a disk share what is written to it twice? Then a full copy costs nothing, and `auto` may make one.
//!
//! By what mountinfo says of it, since statfs(2) gives all FUSE the same type; and by a property, where there is a tool to ask.

use std::fmt;

use super::verdict::Verdict;
use crate::error::Result;
use crate::kind::Kind;
use crate::mount::disk::Disk;
use crate::out::escape;
use crate::sys::zfs;

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
    zfs::ask("get -H -o value dedup", dataset, PATIENCE.into()).map(|value| escape(value.as_bytes()))
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
