//! Where an entry of an archive goes: its path taken apart, and its folder found by open directories only.

use std::ffi::{CStr, CString};

use nix::errno::Errno;

use super::{Policy, refuse};
use crate::error::Result;
use crate::tree::{Chain, Dir, Kind, SELF, Stat, Time, c_name, sys};

/// How many symbolic links one path may lead through, as in the kernel (MAXSYMLINKS).
const MAX_LINKS: u32 = 40;

/// Owner and group of a folder that a layer holds something in without naming it, until the base tells what it is. A layer that gives
/// this by itself, with the mode 0 and the time 0, gets the base's folder, too. zfs-fuse takes no number from 2^31 on.
pub(super) const UNNAMED: u32 = 0x7fff_fffe;

/// Does the layer that was unpacked not name the folder?
pub fn is_unnamed(stat: &Stat) -> bool {
    (stat.uid, stat.gid, stat.mode) == (UNNAMED, UNNAMED, 0) && stat.mtime == Time::default()
}

/// Takes a path from an archive apart. `./` in front and doubled slashes mean nothing; an empty list is the root.
///
/// `entry` is the entry to name in the refusal of a path that is empty, absolute, holds a NUL or climbs with `..`.
pub fn components(path: &[u8], entry: &[u8], role: &str) -> Result<Vec<CString>> {
    let why = |what: &str| refuse(entry, format!("{role} {what}"));
    if path.is_empty() {
        return Err(why("is empty"));
    }
    if path.starts_with(b"/") {
        return Err(why("is absolute"));
    }
    let mut parts = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(why("climbs with `..`")),
            _ => parts.push(c_name(part).map_err(|_| why("holds a NUL"))?),
        }
    }
    Ok(parts)
}

/// Goes on to the folder `parts` below where `way` stands, by `way`; `create` makes what is missing, for root only to write, with
/// the time 0.
pub fn folder(way: Chain, policy: Policy, parts: &[CString], create: bool, entry: &[u8]) -> Result<Chain> {
    find(way, policy, parts, create)
        .map_err(|Stop(way, part, errno)| blocked(way.here(), policy, &part, errno, entry))
}

/// Is there such a folder? A tree may have a million names of which that is asked: no error is made where there is none.
pub fn leads(way: Chain, policy: Policy, parts: &[CString]) -> bool {
    find(way, policy, parts, false).is_ok()
}

/// Where a way ends, at which name, and why.
struct Stop(Chain, CString, Errno);

fn find(mut way: Chain, policy: Policy, parts: &[CString], create: bool) -> Result<Chain, Stop> {
    let mut todo: Vec<CString> = parts.iter().rev().cloned().collect();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if let Err(errno) = step(&mut way, policy, &part, create, (&mut todo, &mut links)) {
            return Err(Stop(way, part, errno));
        }
    }
    Ok(way)
}

/// Goes into one folder; what a link leads to is left to do.
fn step(
    way: &mut Chain,
    policy: Policy,
    part: &CString,
    create: bool,
    (todo, links): (&mut Vec<CString>, &mut u32),
) -> nix::Result<()> {
    if part.as_c_str() == c".." {
        return way.up().map(drop);
    }
    let here = way.here();
    let child = match here.child(part) {
        Err(Errno::ENOENT) if create => make(here, part, policy)?,
        // As in a chroot to the root: absolute targets start there, and `..` ends there.
        Err(Errno::ENOTDIR | Errno::ELOOP) if policy == Policy::Beneath && is_link(here, part) => {
            *links += 1;
            if *links > MAX_LINKS {
                return Err(Errno::ELOOP);
            }
            let target = here.read_link(part)?;
            if target.starts_with(b"/") {
                while way.up()? {}
            }
            for name in target.rsplit(|b| *b == b'/').filter(|name| !matches!(*name, b"" | b".")) {
                todo.push(CString::new(name).map_err(|_| Errno::EINVAL)?);
            }
            return Ok(());
        }
        // A link is refused, whoever made it.
        child => child?,
    };
    way.down(child)
}

fn is_link(dir: &Dir, name: &CStr) -> bool {
    dir.stat_at(name).is_ok_and(|stat| stat.kind == Kind::Link)
}

/// A folder that the archive puts something into without naming it: for everybody to read, with no time of its own, so that
/// the same archive makes the same tree.
fn make(here: &Dir, name: &CString, policy: Policy) -> nix::Result<Dir> {
    let before = here.stat()?.mtime;
    here.make_dir(name)?;
    let (owner, mode) = if policy == Policy::Layer { (UNNAMED, 0) } else { (0, 0o755) };
    here.chown(name, owner, owner)?;
    here.chmod(name, mode)?;
    here.set_mtime(name, Time::default())?;
    here.set_mtime(SELF, before)?;
    here.child(name)
}

/// Why the way to an entry's folder ends at `part`.
fn blocked(here: &Dir, policy: Policy, part: &CString, errno: Errno, entry: &[u8]) -> crate::error::Error {
    let part_shown = crate::out::escape(part.to_bytes());
    match (errno, here.stat_at(part)) {
        (Errno::ELOOP, _) if policy == Policy::Beneath => refuse(entry, "lies behind too many links"),
        (Errno::ENOTDIR | Errno::ELOOP, Ok(stat)) if stat.kind == Kind::Link => {
            refuse(entry, format!("leads through the link `{part_shown}`"))
        }
        (Errno::ENOTDIR | Errno::ELOOP, _) => {
            refuse(entry, format!("lies below `{part_shown}`, which is no directory"))
        }
        (Errno::ENOENT, _) => refuse(entry, format!("needs `{part_shown}`, which is not there")),
        (errno, _) => sys("open or make the folder of", entry)(errno),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn paths_taken_apart() {
        let parts = |path: &[u8]| components(path, path, "path").map(|parts| parts.len()).ok();
        for (path, count) in [
            (&b"a"[..], Some(1)),
            (b"./a/b/", Some(2)),
            (b"./", Some(0)),
            (b".", Some(0)),
            (b"a//b", Some(2)),
            (b"a/./b", Some(2)),
            (b"..a/...", Some(2)),
            (b"\xff\n", Some(1)),
            (b"", None),
            (b"/", None),
            (b"/a", None),
            (b"..", None),
            (b"a/../b", None),
            (b"a/..", None),
            (b"a\0b", None),
        ] {
            assert_eq!(parts(path), count, "{path:?}");
        }
    }
}
