//! A store that was made anew takes the place of a sliver's own: how it gets there, and how the old one is kept and brought back.
//!
//! Both lie in the folder of the stores: the new one is made as `.new.NAME`, the old one is kept as `.old.NAME`, and what is no more
//! wanted goes by way of `.rm.NAME`. A kernel that cannot let two folders change places takes them through `.swap.NAME`. Which of two
//! stores is the older one their records say ([`Sliver::converted`]): a command that is cut anywhere leaves the old view or the new
//! one, and the next command knows which it is.

use nix::errno::Errno;

use crate::catalog::lock::Lock;
use crate::catalog::{Mounted, Root, Sliver, record, sliver, sweep};
use crate::cmd::{Ctx, offline, print_plan};
use crate::error::{Context, Error, Result};
use crate::mount::plan::Step;
use crate::mount::{exec, private};
use crate::name::Name;
use crate::out;
use crate::quota::admission::{self, Policy};
use crate::quota::{self, Limit, Means, anew, image};
use crate::size::Size;
use crate::stay::Below;
use crate::sys::child::Answer;
use crate::sys::file;
use crate::sys::writeback::Writeback;

/// What is kept when a new store takes a sliver's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The store that was the sliver's until now; there is none from before.
    Own,
    /// The one that is kept already. The sliver's own goes where the new one was made, for the caller to remove.
    Earlier,
    /// The sliver's own, instead of the one that is kept.
    Instead,
}

/// The record of the store that is kept from before the sliver was converted, synced or rebased. The sliver's lock is held.
pub fn kept(root: &Root, sliver: &Sliver) -> Result<Option<&'static Sliver>> {
    let store = sweep::kept_store(root, &sliver.name);
    if store.symlink_metadata().is_err() {
        return Ok(None);
    }
    let kept: &Sliver = record::read(store.below(sliver::FILE))?;
    // Otherwise it is a new store, whose conversion was cut before it was published.
    Ok(Some(kept).filter(|kept| kept.converted < sliver.converted))
}

/// Says where the old store of a sliver is, and what brings it back.
pub fn tell_kept(root: &Root, name: &Name) -> Result<()> {
    let sliver = Sliver::load(root, name)?;
    let store = sweep::kept_store(root, name);
    let rebased = kept(root, sliver)?.is_some_and(|kept| kept.base != sliver.base);
    // What is kept from before a rebase outlives the conversions after it.
    let (until, command) = match rebased {
        true => ("the rebase is committed", "rebase"),
        false => ("the sliver is mounted", "convert"),
    };
    out::line(format_args!(
        "the old store is kept in {} until {until}; `sliverfs {command} {name} --undo` brings it back",
        store.display()
    ))
}

/// Clears the way for a new store with this limit: what an earlier command left unfinished is ended, or goes. `kept` says that an old
/// store is kept, which stays.
pub fn prepare(root: &Root, sliver: &Sliver, kept: bool, limit: Option<&'static Limit>) -> Result<()> {
    let name = &sliver.name;
    offline::settle(root, sliver)?;
    if kept {
        sweep::new(root, name)?;
    } else {
        // A new store that was never published would be in the way.
        sweep::drop_kept(root, name)?;
    }
    anew::prepare(root, name, limit)
}

/// Removes a new store that came to nothing; where that fails, it is told, and the next command removes it.
pub fn left_over(root: &Root, name: &Name, dry_run: bool) {
    if !dry_run {
        sweep::told(sweep::new(root, name));
    }
}

/// Adds the steps that end a new store with this record: all of it is on the disk then. Its image, where it lies in one, is mounted.
pub fn last_steps(root: &Root, record: &Sliver, steps: &mut Vec<Step>) -> Result<()> {
    record_steps(root, record, steps)?;
    steps.push(Step::SyncDisk(sweep::new_store(root, &record.name)));
    Ok(())
}

/// Adds those of them that write.
fn record_steps(root: &Root, record: &Sliver, steps: &mut Vec<Step>) -> Result<()> {
    let stage = sweep::new_store(root, &record.name);
    if record.has_image() {
        // The unmount tells nothing of what did not fit on the disk below.
        steps.push(Step::SyncDisk(stage.below(image::POINT)));
        steps.push(Step::Unmount(stage.below(image::POINT)));
    }
    steps.push(Step::WriteFile(stage.below(sliver::FILE), record::to_text(stage, record)?.leak()));
    Ok(())
}

/// Ends a new store. One that root filled with more than its project may have is refused.
pub fn finish(root: &Root, record: &Sliver) -> Result<()> {
    finish_apart(root, record, &mut Writeback::default())
}

/// As [`finish`], where `files` are what was written. Where they are waited for apart, all of it is on the disk no sooner than
/// the steps of [`publish`] are.
pub fn finish_apart(root: &Root, record: &Sliver, files: &mut Writeback) -> Result<()> {
    let stage = sweep::new_store(root, &record.name);
    let mut steps = Vec::new();
    record_steps(root, record, &mut steps)?;
    exec::run(&steps)?;
    if files.apart() {
        let text = file::open(stage.below(sliver::FILE)).at("open the record in", stage)?;
        files.add(text, 0).and_then(|()| files.wait()).at("write to the disk of", stage)?;
    }
    // Asked again: the record may be the first file, and tell that none can be begun with.
    if !files.apart() {
        exec::run(&[Step::SyncDisk(stage)])?;
    }
    anew::settle(root, &record.name, record.quota)
}

/// Makes a new store, in a private mount namespace; one that comes to nothing goes. `limit` is what may keep it from being made.
pub fn beside(
    root: &Root,
    name: &Name,
    limit: Option<&Limit>,
    dry_run: bool,
    work: &mut dyn FnMut() -> Answer,
) -> Answer {
    private::beside(root, name, &mut || work().map_err(|err| full(name, limit, err)))
        .inspect_err(|_| left_over(root, name, dry_run))
}

/// Says of work on a limited sliver that ran out of room whose room it was.
pub fn full(name: &Name, limit: Option<&Limit>, err: Error) -> Error {
    match (limit, err.errno()) {
        // A store on a seed is given no more.
        (Some(limit), Some(Errno::ENOSPC | Errno::EDQUOT))
            if limit.means.is_hard() && limit.means != Means::Seed =>
        {
            err.way_out(format_args!(
                "`{0}` may have {1}: give it more (sliverfs quota {0} SIZE), or free some of the disk",
                name,
                Size(limit.bytes)
            ))
        }
        _ => err,
    }
}

/// The steps that put the new store in the old one's place. The catalog's lock is held while they are taken.
pub fn publish(root: &Root, name: &Name, keep: Keep) -> Vec<Step> {
    let (new, old, store) = (sweep::new_store(root, name), sweep::kept_store(root, name), root.store(name));
    let by = sweep::swapped_store(root, name);
    if keep == Keep::Earlier {
        return vec![Step::Exchange(new, store, by)];
    }
    let mut steps = Vec::new();
    if keep == Keep::Instead {
        steps.push(Step::Rename(old, sweep::removed_store(root, name)));
    }
    steps.push(Step::Rename(new, old));
    steps.push(Step::Exchange(old, store, by));
    steps
}

/// Puts the new store in its place by these steps, with the catalog's lock, if it still `may` be put there; where it cannot, it goes. An
/// old store that lies in its own place then is given up.
pub fn put(root: &Root, name: &Name, steps: &[Step], may: &dyn Fn(&Lock) -> Result<()>) -> Result<()> {
    root.lock_catalog()
        .and_then(|catalog| may(&catalog).and_then(|()| exec::run(steps)))
        .inspect_err(|_| left_over(root, name, false))?;
    // What is noted of its last mount is none of the new store's.
    Mounted::forget(root, name)?;
    sweep::told(sweep::new(root, name));
    Ok(())
}

/// Brings the store back that is kept, with its limit, and gives up the one that took its place. A dry run prints the steps, unless it
/// is `quiet`.
pub fn bring_back(
    ctx: &mut Ctx,
    (sliver, kept): (&Sliver, &Sliver),
    dry_run: bool,
    quiet: bool,
) -> Result<()> {
    let (root, name) = (ctx.root()?, &sliver.name);
    offline::refuse(root, name, Some(sliver.backend))?;
    let (old, removed) = (sweep::kept_store(root, name), sweep::removed_store(root, name));
    let back = [Step::Exchange(old, root.store(name), sweep::swapped_store(root, name))];
    if dry_run && quiet {
        return Ok(());
    }
    if dry_run {
        print_plan(&back)?;
        return print_plan(&[Step::Rename(old, removed), Step::RemoveTree(removed)]);
    }
    let other = |limit: Option<&Limit>| limit.map(|limit| (limit.bytes, limit.means));
    let other = other(sliver.quota) != other(kept.quota);
    let mut policy = Policy::default();
    if other {
        let config = ctx.config()?;
        config.check_main()?;
        policy = config.main.policy;
    }
    {
        let catalog = root.lock_catalog()?;
        admission::admit(root, &policy, sliver.quota, kept.quota, Some(&catalog))?;
        exec::run(&back)?;
    }
    if other {
        // A store on a seed has its size as one in any case.
        let limit = quota::limit(root, kept).map_or_else(
            || "none".to_owned(),
            |limit| format!("{} by {}", Size(limit.bytes), limit.means.name()),
        );
        crate::warn!(
            "`{name}` has the limit of before again ({limit}): `sliverfs quota {name} SIZE` gives it another"
        );
    }
    Mounted::forget(root, name)?;
    sweep::told(sweep::drop_kept(root, name));
    Ok(())
}
