//! The trials of the backends whose store is a whole tree: a Btrfs snapshot, a copy that shares extents, a full copy.

use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::trial::DiskName;
use super::verdict::Verdict;
use crate::error::{Context, Error, Result};
use crate::kind::Kind;
use crate::stay::Below;
use crate::sys::{btrfs, extents, file, statfs};
use crate::tree;

/// Makes a subvolume and a snapshot of it in `dir`, changes the snapshot, and looks whether the original stayed.
pub fn snapshot(dir: &Path, disk: DiskName) -> Result<Verdict> {
    let kind = Kind::BtrfsSnapshot;
    if statfs::of(dir)?.magic != btrfs::MAGIC {
        return Ok(Verdict::no(
            kind,
            false,
            format_args!("`{}` lies on {}: snapshots want Btrfs", disk.path, disk.fstype),
            true,
        ));
    }
    let open = tree::open(dir)?;
    let tried = btrfs::create(&open, c"original").and_then(|()| {
        let original = open.child(c"original")?;
        drop(original.create_file(c"file")?);
        btrfs::snapshot(&open, c"snapshot", &original)?;
        open.child(c"snapshot")?.unlink(c"file")?;
        original.stat_at(c"file")?;
        btrfs::delete(&open, c"snapshot")
    });
    Ok(verdict(kind, tried, disk, "a snapshot"))
}

/// Lets two files in `dir` share their extents.
pub fn reflink(dir: &Path, disk: DiskName) -> Result<Verdict> {
    let kind = Kind::Reflink;
    let (from, to) = (dir.below("from"), dir.below("to"));
    file::write(from, &[b'x'; 8192]).at("write", from)?;
    let from = file::open(from).at("open", from)?;
    let copy =
        file::open_as(to, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC, 0o666).at("create", to)?;
    match extents::share(&from, &copy) {
        Err(Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EINVAL | Errno::ENOSYS) => Ok(Verdict::no(
            kind,
            false,
            format_args!(
                "`{}` lies on {}, where files cannot share extents: use Btrfs, or XFS made with reflink=1",
                disk.path, disk.fstype
            ),
            true,
        )),
        tried => Ok(verdict(kind, tried, disk, "a file that shares its extents")),
    }
}

fn verdict(kind: Kind, tried: nix::Result<()>, disk: DiskName, what: &str) -> Verdict {
    match tried {
        Ok(()) => Verdict::yes(kind),
        Err(errno) => {
            let failed = Error::sys(&format!("make {what} on"), Path::new(disk.path), errno);
            let passes =
                matches!(errno, Errno::ENOSPC | Errno::EDQUOT | Errno::EPERM | Errno::EACCES | Errno::EROFS);
            Verdict::no(kind, true, failed, !passes)
        }
    }
}
