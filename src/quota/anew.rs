//! The limit of a store that is made: what is found out for it before, where its tree is to lie, and what holds when it is filled.

use crate::catalog::base::Base;
use crate::catalog::{Root, Sliver, record, sliver, sweep};
use crate::error::Result;
use crate::form::Form;
use crate::kind::Kind;
use crate::mount::exec;
use crate::mount::plan::Step;
use crate::name::Name;
use crate::quota::{Limit, Means, by, is_copy, project, qgroup, zfs};
use crate::stay::{Below, for_good};
use crate::sum::Sum;

/// A block of most disks.
const BLOCK: u64 = 4096;

/// The limit for a store of this kind that is made anew of the base, with a project that nobody has where a project keeps it; a dry run
/// takes none. Refuses a disk on which nothing would keep it.
pub fn renew(
    root: &Root,
    limit: Option<&'static Limit>,
    (kind, base): (Kind, &Base),
    dry_run: bool,
) -> Result<Option<&'static Limit>> {
    let Some(limit) = limit else { return Ok(None) };
    let mut limit = Limit::plain(limit.bytes, limit.means);
    match limit.means {
        Means::Qgroup => qgroup::need(root.stores())?,
        Means::Project => {
            if is_copy(kind) {
                limit.inodes = base.entries.plus(1);
                limit.base = match base.form {
                    Form::Directory => base.disk,
                    // What an image holds ends in the middle of blocks, and its folders take some.
                    _ => base.bytes.plus(limit.inodes.times(BLOCK)),
                };
            }
            limit.project = project::claim(root, &limit, dry_run)?;
        }
        Means::Zfs => {
            zfs::need(root.stores())?;
            limit.base = base.bytes;
        }
        Means::Image | Means::Seed | Means::Soft => {}
    }
    Ok(Some(for_good(limit)))
}

/// Makes what the tree of a new store is to lie in where that cannot be done in a private mount namespace: a dataset. Before it nothing is
/// in the new store's place.
pub fn prepare(root: &Root, name: &Name, limit: Option<&'static Limit>) -> Result<()> {
    if by(limit, Means::Zfs).is_none() {
        return Ok(());
    }
    let stage = sweep::new_store(root, name);
    exec::run(&[Step::CreateDir(stage), Step::MakeDataset(stage)])
        .inspect_err(|_| sweep::told(sweep::new(root, name)))
}

/// Limits a new store that is filled. Refuses one that root filled with more than its project may have.
pub fn settle(root: &Root, name: &Name, limit: Option<&'static Limit>) -> Result<()> {
    match limit {
        Some(limit) if limit.means == Means::Project => project::Disk::of(root.stores())?.settle(name, limit),
        Some(limit) if limit.means == Means::Zfs => {
            let (store, stage) = (root.store(name), sweep::new_store(root, name));
            let old = record::read::<Sliver>(store.below(sliver::FILE)).ok();
            let had = old.and_then(|old| by(old.quota, Means::Zfs)).map(|old| zfs::used(store, old));
            zfs::settle(stage, limit, had.transpose()?.unwrap_or(u64::MAX))
        }
        _ => Ok(()),
    }
}
