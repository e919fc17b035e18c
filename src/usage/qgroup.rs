//! What Btrfs's quota groups count of a subvolume, where somebody has enabled them: nothing has to be walked then.

use crate::sys::btrfs;
use crate::tree::Dir;

/// What the flags say: they count; they count anew; what they counted may be wrong; simple quotas (Linux 6.7).
const ON: u64 = 1;
const RESCAN: u64 = 2;
const INCONSISTENT: u64 = 4;
const SIMPLE: u64 = 8;

/// The counts of a subvolume's own group, as of the disk's last commit.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// Bytes of the extents that it uses.
    pub referenced: u64,
    /// Those of them that no other subvolume uses; with simple quotas those that it wrote.
    pub exclusive: u64,
    /// Simple quotas, which do not know what it shares.
    pub simple: bool,
}

/// The groups of the disk of the stores; what their status says is asked for once.
#[derive(Default)]
pub struct Groups(Option<u64>);

impl Groups {
    /// Asks for a subvolume by its open root. None where there is nothing to be relied upon: no groups, or inconsistent ones, or a kernel
    /// that does not say whether other subvolumes lie in it (before 4.18), which have groups of their own.
    pub fn of(&mut self, subvolume: &Dir) -> Option<Counted> {
        let flags = match self.0 {
            Some(flags) => flags,
            // Where there are no quotas, there is nothing that could have flags.
            None => *self.0.insert(btrfs::quota_flags(subvolume).unwrap_or(0)),
        };
        if flags & (ON | RESCAN | INCONSISTENT) != ON || btrfs::has_subvolumes(subvolume).ok()? {
            return None;
        }
        let id = btrfs::subvolume(subvolume).ok()?;
        Some(Counted {
            referenced: btrfs::qgroup_bytes(subvolume, id).ok()?,
            exclusive: btrfs::qgroup_exclusive(subvolume, id).ok()?,
            simple: flags & SIMPLE != 0,
        })
    }
}
