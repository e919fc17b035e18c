//! Is there room for a promise? The node counts what it promised to its slivers, and not what happens to be free.
//!
//! The records say what was promised. To read all of a thousand takes 12 ms, so a note beside them says what the sum was at most: it
//! grows before a promise is recorded, and does not shrink with one that is taken back. So it can only be too high; where that would refuse
//! somebody, the records are read, and the note is their sum again. They are read, too, after two stores changed places and after
//! `check`, which drop it ([`forget`]). It holds in the boot that it names, in which no crash can have
//! lost it and no other machine had the disk.

use std::fs;
use std::path::Path;

use nix::errno::Errno;

use crate::catalog::lock::Lock;
use crate::catalog::{Root, Sliver, record, sliver, sweep};
use crate::error::{Class, Context, Error, Result};
use crate::name::Name;
use crate::proc;
use crate::quota::Limit;
use crate::quota::image::Shape;
use crate::size::Size;
use crate::stay::Below;
use crate::sum::Sum;
use crate::sys::{file, statfs};

/// The note, in the folder of the stores: the boot's id, and bytes.
const NOTE: &str = ".promised";

/// A factor of one, as it is kept: in thousandths, since router cores have no floating point.
pub const ONE: u64 = 1000;

/// What the operator allows to be promised, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `reserve`: bytes of the disk that are promised to nobody.
    pub reserve: u64,
    /// `overcommit`: how often the rest may be promised, in thousandths.
    pub overcommit: u64,
    /// `image_journal`: images have a journal.
    pub journal: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { reserve: 0, overcommit: ONE, journal: true }
    }
}

impl Policy {
    /// May more be promised than there is?
    pub const fn overcommits(&self) -> bool {
        self.overcommit > ONE
    }

    /// How images are made.
    pub const fn shape(&self) -> Shape {
        Shape { sparse: self.overcommits(), journal: self.journal }
    }

    /// The bytes that may be promised on a disk of `total` bytes.
    pub fn promisable(&self, total: u64) -> u64 {
        let rest = total.minus(self.reserve);
        match rest.product(self.overcommit) {
            Some(thousandths) => thousandths / ONE,
            // A part of a thousand bytes is nothing to promise then.
            None => (rest / ONE).times(self.overcommit),
        }
    }
}

/// Takes a factor such as `1.5` as thousandths. Less than one, and more than 1000, is none.
pub fn parse_factor(text: &str) -> Result<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    // As many places as a thousandth has.
    let zeros = "00".get(part.len().wrapping_sub(1)..).unwrap_or(".");
    let digits = [whole, part, zeros].concat().leak();
    let factor = if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None };
    factor.filter(|factor| (ONE..=ONE * ONE).contains(factor)).ok_or_else(|| {
        Error::usage(format_args!("`{}` is no factor", crate::out::escape(text.as_bytes())))
            .way_out("give 1 or more, with up to three places behind the point: 1.5")
    })
}

/// The bytes that a limit promises. What is only measured is no promise.
fn promise(limit: Option<&Limit>) -> u64 {
    limit.filter(|limit| limit.means.is_hard()).map_or(0, |limit| limit.bytes)
}

/// Refuses to give a sliver another limit where the node's promises to all would then be more than the policy allows. Less than
/// before is no promise.
///
/// With the catalog's lock it is promised, and the caller records it while he has that. Without it that is only asked: of two who
/// ask, one may still be refused.
pub fn admit(
    root: &Root,
    policy: &Policy,
    old: Option<&Limit>,
    new: Option<&Limit>,
    catalog: Option<&Lock>,
) -> Result<()> {
    let more = promise(new).minus(promise(old));
    if more == 0 {
        return Ok(());
    }
    let total = statfs::of(root.stores())?.total;
    let (note, boot) = (root.stores().below(NOTE), proc::boot_id()?);
    // Without a note it may be anything.
    let mut promised = noted(note, boot).unwrap_or(u64::MAX);
    if judge(policy, total, promised, more, root.path()).is_err() {
        promised = count(root)?;
        judge(policy, total, promised, more, root.path())?;
    }
    if catalog.is_none() {
        return Ok(());
    }
    // Half of it ends in no line, and says nothing.
    let text = format!("{boot} {}\n", promised.plus(more)).leak();
    file::write(note, text.as_bytes()).at("write", note)
}

fn noted(note: &Path, boot: &str) -> Option<u64> {
    file::text(note).ok()?.strip_prefix(boot)?.strip_suffix('\n')?.trim_start().parse().ok()
}

/// What the records promise.
fn count(root: &Root) -> Result<u64> {
    let mut promised = 0u64;
    for name in Sliver::names(root)? {
        promised = promised.plus(promise(recorded(root, &name)?));
    }
    Ok(promised)
}

/// The limit that is recorded of a sliver. A store without a record, or with a damaged one, promises nothing that could be kept; of
/// one that just cannot be read nobody knows.
fn recorded(root: &Root, name: &Name) -> Result<Option<&'static Limit>> {
    let load = || Sliver::load(root, name);
    let swapped = || record::read(sweep::swapped_store(root, name).below(sliver::FILE));
    // Between the first look and the second one what stood in for the store may have gone back to its place.
    match load().or_else(|_| swapped()).or_else(|_| load()) {
        Ok(sliver) => Ok(sliver.quota),
        // It was destroyed meanwhile, or is a file of somebody's.
        Err(err) if matches!(err.class(), Class::Damaged | Class::Usage) => Ok(None),
        Err(err) if err.errno() == Some(Errno::ENOTDIR) => Ok(None),
        Err(err) => Err(err),
    }
}

/// Drops the note, before a promise comes back, or rises, that was not asked for: a store of before takes its place again. The
/// catalog's lock is held.
pub fn forget(stores: &Path) {
    // One that cannot be removed is on a disk that nothing can be promised of any more.
    let _gone = fs::remove_file(stores.join(NOTE));
}

fn judge(policy: &Policy, total: u64, promised: u64, bytes: u64, disk: &Path) -> Result<()> {
    let most = policy.promisable(total);
    if promised.checked_add(bytes).is_some_and(|sum| sum <= most) {
        return Ok(());
    }
    Err(Error::failed(format_args!(
        "{} more cannot be promised on the disk of {}: it has {}, of which {} may be promised, and {} are",
        Size(bytes),
        disk.display(),
        Size(total),
        Size(most),
        Size(promised)
    ))
    .way_out("ask for less, destroy a sliver, or allow more with `option overcommit '1.5'` or a smaller `option reserve`"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn promises_are_counted_in_whole_bytes() {
        let plain = Policy::default();
        let half_more = Policy { reserve: 0, overcommit: 1500, ..Policy::default() };
        for unit in [KIB, MIB, GIB, 1 << 40] {
            let ok =
                |policy, promised, bytes| judge(&policy, 8 * unit, promised, bytes, Path::new("/")).is_ok();
            assert!(ok(plain, 4 * unit, 4 * unit) && !ok(plain, 4 * unit, 4 * unit + 1));
            assert!(ok(half_more, 8 * unit, 4 * unit) && !ok(half_more, 8 * unit, 4 * unit + 1));
            let reserve = Policy { reserve: unit, overcommit: ONE, ..Policy::default() };
            assert!(ok(reserve, 0, 7 * unit) && !ok(reserve, 0, 7 * unit + 1));
            assert!(ok(Policy { reserve: 9 * unit, ..plain }, 0, 0));
            assert!(!ok(Policy { reserve: 9 * unit, ..plain }, 0, 1));
        }
    }

    #[test]
    fn beyond_what_32_bits_hold() {
        let plain = Policy::default();
        let disk = Path::new("/");
        assert!(judge(&plain, 6 * GIB, 3 * GIB, 3 * GIB, disk).is_ok());
        assert!(judge(&plain, 6 * GIB, 3 * GIB, 3 * GIB + 1, disk).is_err());
        assert!(judge(&plain, u64::MAX, u64::MAX, 1, disk).is_err(), "a sum that overflows is too much");
        let most = Policy { reserve: 0, overcommit: ONE * ONE, ..Policy::default() };
        assert_eq!(most.promisable(u64::MAX), u64::MAX);
        assert_eq!(
            Policy { reserve: 0, overcommit: 1001, ..Policy::default() }.promisable(4 * GIB + 999),
            4 * GIB + 999 + 4_294_968
        );
    }

    #[test]
    fn what_does_not_fit_is_told_with_the_numbers() {
        let err = judge(
            &Policy { reserve: 2 * MIB, overcommit: ONE, ..Policy::default() },
            10 * MIB,
            5 * MIB,
            4 * MIB,
            Path::new("/srv"),
        );
        let text = err.unwrap_err().to_string();
        for part in ["4 MiB more", "/srv", "10 MiB", "8 MiB may", "5 MiB are"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn factors() {
        for (text, factor) in
            [("1", 1000), ("1.5", 1500), ("2.25", 2250), ("1.001", 1001), ("1000", 1_000_000)]
        {
            assert_eq!(parse_factor(text).unwrap(), factor, "{text}");
        }
        for text in ["", "0", "0.9", "1.", ".5", "1.0001", "-1", "+1", "1,5", "1.5.0", "1001", "99999"] {
            assert!(parse_factor(text).is_err(), "{text}");
        }
    }
}
