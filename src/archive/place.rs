//! Where an entry of an archive goes: its path taken apart, and its folder found by open directories only.

use std::ffi::{CStr, CString};

use nix::errno::Errno;

use super::{Policy, refuse};
use crate::error::Result;
use crate::tree::{Chain, Dir, Kind, SELF, Stat, Time, c_name, sys};

/// How many symbolic links one path may lead through, as in the kernel (MAXSYMLINKS).
const MAX_LINKS: u32 = 40;

/// Owner and group of a folder that a layer holds something in without naming it, until the base tells what it is. A layer that gives
/// this by itself, with the mode 0 and the time 0, gets the base's folder, too.
pub(super) const UNNAMED: u32 = u32::MAX - 1;

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
pub fn folder(
    mut way: Chain,
    policy: Policy,
    parts: &[CString],
    create: bool,
    entry: &[u8],
) -> Result<Chain> {
    let open = || sys("open the folder of", entry);
    let follows = policy == Policy::Beneath;
    let mut todo: Vec<CString> = parts.iter().rev().cloned().collect();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part.as_c_str() == c".." {
            way.up().map_err(open())?;
            continue;
        }
        let here = way.here();
        let child = match here.child(&part) {
            Ok(child) => child,
            Err(Errno::ENOENT) if create => make(here, &part, policy, entry)?,
            // As in a chroot to the root: absolute targets start there, and `..` ends there.
            Err(Errno::ENOTDIR | Errno::ELOOP) if follows && is_link(here, &part) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(refuse(entry, "lies behind too many links"));
                }
                let target = here.read_link(&part).map_err(open())?;
                if target.starts_with(b"/") {
                    while way.up().map_err(open())? {}
                }
                let names = target.split(|b| *b == b'/').filter(|name| !matches!(*name, b"" | b"."));
                let names: Result<Vec<CString>> = names.map(c_name).collect();
                todo.extend(names?.into_iter().rev());
                continue;
            }
            // A link is refused, whoever made it.
            Err(errno) => return Err(blocked(here, &part, errno, entry)),
        };
        way.down(child).map_err(open())?;
    }
    Ok(way)
}

fn is_link(dir: &Dir, name: &CStr) -> bool {
    dir.stat_at(name).is_ok_and(|stat| stat.kind == Kind::Link)
}

/// A folder that the archive puts something into without naming it: for everybody to read, with no time of its own, so that
/// the same archive makes the same tree.
fn make(here: &Dir, name: &CString, policy: Policy, entry: &[u8]) -> Result<Dir> {
    let failed = || sys("make the folder of", entry);
    let before = here.stat().map_err(failed())?.mtime;
    here.make_dir(name).map_err(failed())?;
    let (owner, mode) = if policy == Policy::Layer { (UNNAMED, 0) } else { (0, 0o755) };
    here.chown(name, owner, owner).map_err(failed())?;
    here.chmod(name, mode).map_err(failed())?;
    here.set_mtime(name, Time::default()).map_err(failed())?;
    here.set_mtime(SELF, before).map_err(failed())?;
    here.child(name).map_err(failed())
}

/// Why the way to an entry's folder ends at `part`.
fn blocked(here: &Dir, part: &CString, errno: Errno, entry: &[u8]) -> crate::error::Error {
    let part_shown = crate::out::escape(part.to_bytes());
    match (errno, here.stat_at(part)) {
        (Errno::ENOTDIR | Errno::ELOOP, Ok(stat)) if stat.kind == Kind::Link => {
            refuse(entry, format!("leads through the link `{part_shown}`"))
        }
        (Errno::ENOTDIR | Errno::ELOOP, _) => {
            refuse(entry, format!("lies below `{part_shown}`, which is no directory"))
        }
        (Errno::ENOENT, _) => refuse(entry, format!("needs `{part_shown}`, which is not there")),
        (errno, _) => sys("open the folder of", entry)(errno),
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
