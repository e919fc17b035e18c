//! What Btrfs's quota groups count of a subvolume, where somebody has enabled them: nothing has to be walked then.

use crate::quota::qgroup::{limited, with_records};
use crate::sum::Sum;
use crate::sys::btrfs;
use crate::tree::Dir;
use crate::usage::Taken;

/// What the flags say: they count; they count anew; what they counted may be wrong; simple quotas (Linux 6.7).
const ON: u64 = 1;
const RESCAN: u64 = 2;
const INCONSISTENT: u64 = 4;
const SIMPLE: u64 = 8;

/// The groups of the disk of the stores. All are read at once: to ask for each takes a search of its own.
#[derive(Default)]
pub struct Groups(Option<Known>);

struct Known {
    flags: u64,
    /// By their numbers, which ascend.
    groups: Vec<(u64, [u64; 2])>,
}

impl Known {
    /// Of a disk whose groups are nothing to be relied upon, none are known.
    fn read(disk: &Dir) -> Self {
        // Where there are no quotas, there is nothing that could have flags.
        let flags = btrfs::quota_flags(disk).unwrap_or(0);
        let mut groups = Vec::new();
        if flags & (ON | RESCAN | INCONSISTENT) == ON {
            let read = btrfs::qgroups(disk, &mut |id, bytes| groups.push((id, bytes)));
            if read.is_err() {
                groups.clear();
            }
        }
        Self { flags, groups }
    }

    fn group(&self, id: u64) -> Option<[u64; 2]> {
        let at = self.groups.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.groups.get(at).map(|(_, bytes)| *bytes)
    }
}

impl Groups {
    /// The counts of a subvolume, by its open root, as of the disk's last commit. None where there is nothing to be relied upon: no
    /// groups, or inconsistent ones, or a kernel that does not say whether other subvolumes lie in it (before 4.18), which have groups
    /// of their own.
    pub fn count(&mut self, subvolume: &Dir, taken: &mut Taken) -> Option<()> {
        let known = self.0.get_or_insert_with(|| Known::read(subvolume));
        let id = btrfs::subvolume(subvolume).ok()?;
        let [referenced, exclusive] = known.group(id)?;
        if btrfs::has_subvolumes(subvolume).ok()? {
            return None;
        }
        // With simple quotas it is what it wrote, and they do not know what it shares.
        taken.exclusive = exclusive;
        taken.shared = referenced.minus(exclusive);
        taken.through = known.flags & SIMPLE != 0;
        // With the records of them, where a group of its own has that.
        taken.used = known.group(limited(id)).map(|[referenced, _]| with_records(referenced));
        taken.by = "qgroup";
        Some(())
    }
}
