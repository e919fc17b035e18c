//! `sliverfs quota`: gives a sliver a limit, changes it, and takes it away.

use nix::errno::Errno;

use crate::backend::features::Features;
use crate::backend::store::{Ground, layer};
use crate::catalog::{Root, Sliver, sweep};
use crate::cli::Args;
use crate::cmd::replace::{self, Keep};
use crate::cmd::{Ctx, offline};
use crate::error::{Class, Error, Result};
use crate::kind::Kind;
use crate::layer::Format;
use crate::lxc::{self, CONFIG};
use crate::mount::{exec, private, seed};
use crate::name::Name;
use crate::out;
use crate::quota::admission::{self, Policy};
use crate::quota::{self, Limit, Means, anew, choice::Tenant, does_not_fit, held, image, project, qgroup};
use crate::size::Size;
use crate::stay::{Below, for_good};
use crate::sys::{file, statfs};
use crate::tree;
use crate::view;

/// Does what the command line says; without a size, tells the limit.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let root = ctx.root()?;
    if args.enable {
        return match args.words.is_empty() {
            true => enable(root),
            false => Err(Error::usage("--enable is for the whole disk, and takes no sliver")),
        };
    }
    if args.words.is_empty() {
        return Err(Error::usage("no sliver is named").way_out(
            "sliverfs quota SLIVER SIZE, or none in the place of SIZE; --enable is for the whole disk",
        ));
    }
    let (name, size) = (&args.name()?, args.word(1));
    if size.is_empty() {
        return tell(root, name);
    }
    let bytes = if size == "none" { None } else { Some(Size::parse(size)?.0) };
    let config = ctx.config()?;
    config.check_main()?;
    let means = args.means.parse(quota::parse_mode)?.unwrap_or(config.main.quota_mode);
    set(root, name, bytes, means, &config.main.policy)?;
    tell(root, name)
}

/// Turns simple quotas on.
fn enable(root: &Root) -> Result<()> {
    let stores = root.stores();
    qgroup::enable(stores)?;
    crate::warn!(
        "kernels before 6.7 do not mount this disk any more; what was written before now is not counted"
    );
    out::line(format_args!("the Btrfs of {} has simple quotas", stores.display()))
}

/// Is the tenant's root nobody special outside the container?
fn is_mapped(root: &Root, name: &Name) -> bool {
    let config = file::text(root.container(name).below(CONFIG)).unwrap_or_default().leak();
    config.lines().any(|line| line.trim_start().starts_with("lxc.idmap"))
}

fn tell(root: &Root, name: &Name) -> Result<()> {
    let sliver = Sliver::load(root, name)?;
    out::line(&match quota::limit(root, sliver) {
        None => format!("`{name}` has no limit"),
        Some(limit) => {
            // A store on a seed has its size as a limit in any case.
            let free = if sliver.quota.is_none() { "; not promised" } else { "" };
            format!("`{name}`: {}{free}", limit.words(held::used(root, sliver)?))
        }
    })
}

/// A limit for the sliver with a store of this kind, by the means that is named; one that is not named stays, where the kind has
/// it, and else is what holds the tenant.
pub(super) fn limit(
    root: &Root,
    name: &Name,
    kind: Kind,
    (means, old): (Option<Means>, Option<&Limit>),
    bytes: u64,
) -> Result<&'static Limit> {
    let tenant = Tenant { mapped: is_mapped(root, name), closed: lxc::is_closed(root, name) };
    let kept = old.map(|old| old.means).filter(|means| means.keeps(kind));
    let limit = Limit::new(root, kind, means.or(kept), tenant, bytes)?;
    match limit.means {
        Means::Project if !tenant.mapped => project::warn(),
        Means::Qgroup if !tenant.closed => qgroup::warn(name),
        _ => {}
    }
    Ok(limit)
}

/// Gives the sliver this limit. Its view shows the same as before. One that it has already is told to the kernel again: a change
/// that was cut is ended so.
pub(super) fn set(
    root: &Root,
    name: &Name,
    bytes: Option<u64>,
    means: Option<Means>,
    policy: &Policy,
) -> Result<()> {
    let _lock = root.lock_sliver(name)?;
    let sliver = Sliver::load(root, name)?;
    // Where an earlier change was cut after it was done.
    sweep::told(sweep::new(root, name));
    let old = quota::limit(root, sliver);
    let store = root.store(name);
    let mut new = match bytes {
        Some(bytes) => Some(limit(root, name, sliver.backend, (means, old), bytes)?),
        None => None,
    };
    admission::admit(root, policy, sliver.quota, new, None)?;
    if sliver.backend.grows_image() {
        let new_sliver = &sliver.limited(new);
        let size = quota::by(new, Means::Seed).map(|limit| limit.bytes);
        return match size.is_none() || size == sliver.limit(root) {
            // Without one its size stays a limit, but is no promise any more.
            true => promise(root, policy, sliver, new_sliver),
            false => remake(root, sliver, new_sliver, policy),
        };
    }
    let kept = new.and_then(|new| quota::by(old, new.means));
    if let (Some(old), Some(Limit { bytes, .. })) = (kept, new) {
        new = Some(for_good(Limit { bytes: *bytes, ..*old }));
    }
    let new_sliver = &sliver.limited(new);
    // Those two want a store that was made for them.
    let made_for = |limit: Option<&Limit>| {
        limit.map(|limit| limit.means).filter(|means| matches!(means, Means::Project | Means::Zfs))
    };
    if made_for(old) != made_for(new) {
        return remake(root, sliver, new_sliver, policy);
    }
    if let Some(limit) = new.filter(|limit| limit.means.is_told()) {
        held::refuse_less(name, store, limit)?;
        if let Some(old) = kept {
            // What is promised to nobody any more can be promised to others at once, and no more is given than was promised. The
            // record wants room, too, which a full store has not.
            held::tell(store, &Limit { bytes: old.bytes.min(limit.bytes), ..*old }, true)?;
        }
        let mut back = Ok(());
        let told = promise(root, policy, sliver, new_sliver).and_then(|()| {
            held::tell(store, limit, false).inspect_err(|_| back = promise(root, policy, new_sliver, sliver))
        });
        // Only where that is what is promised again.
        let again = || back.and_then(|()| kept.map_or(Ok(()), |old| held::tell(store, old, false)));
        return told.inspect_err(|_| sweep::told(again()));
    }
    match (quota::by(old, Means::Image), quota::by(new, Means::Image)) {
        (Some(old), Some(new)) if new.bytes >= old.bytes => {
            match grow(root, new_sliver, sliver, new, policy) {
                Err(err) if err.class() == Class::Unsupported && !image::is_mounted(store) => {
                    remake(root, sliver, new_sliver, policy)
                }
                done => done,
            }
        }
        (None, None) => {
            promise(root, policy, sliver, new_sliver)?;
            // Whatever was recorded: an earlier change may have been cut here.
            qgroup::forget(store.below("tree"))
        }
        _ => remake(root, sliver, new_sliver, policy),
    }
}

/// Records the new limit, where it is one that may be promised.
fn promise(root: &Root, policy: &Policy, old: &Sliver, new: &Sliver) -> Result<()> {
    let catalog = root.lock_catalog()?;
    admission::admit(root, policy, old.quota, new.quota, Some(&catalog))?;
    new.write(root.store(&new.name))
}

/// Lets the image grow, whether it is mounted or not. What was cut before the end goes on from there with the next call.
fn grow(root: &Root, new: &Sliver, old: &Sliver, limit: &Limit, policy: &Policy) -> Result<()> {
    let store = root.store(&new.name);
    let work = || image::grow(store, limit.bytes, policy.overcommits());
    // First the promise, and then the room.
    let grown = promise(root, policy, old, new).and_then(|()| match image::is_mounted(store) {
        true => work(),
        false => private::run(store, &mut || {
            let mut steps = Vec::new();
            image::mount_steps(store, Format::of(new.backend), &mut steps);
            exec::run(&steps)?;
            let grown = work();
            // It is as large as that now, and goes with the namespace.
            sweep::told(image::release(store));
            grown.map(|()| &[][..])
        })
        .map(drop),
    });
    // What was written may be there, whatever came of it.
    grown.inspect_err(|_| sweep::told(old.write(store)))
}

/// Makes the store anew, in an image or out of one, and puts it in the old one's place. Cut anywhere, the old one stays or the new
/// one is there.
pub fn remake(root: &Root, old: &Sliver, new: &Sliver, policy: &Policy) -> Result<()> {
    let name = &old.name;
    offline::refuse_to_read(root, old)?;
    statfs::refuse_read_only(root.stores())?;
    // Whatever is kept from before it stays.
    replace::prepare(root, old, true, new.quota)?;
    // It says by itself whose room it was that it ran out of.
    replace::beside(root, name, None, false, &mut || copy(root, old, new, policy).map(|()| &[][..]))?;
    replace::put(root, name, &replace::publish(root, name, Keep::Earlier), &|catalog| {
        admission::admit(root, policy, old.quota, new.quota, Some(catalog))
    })
}

/// In a private mount namespace: the new store beside the old one.
fn copy(root: &Root, old: &Sliver, new: &Sliver, policy: &Policy) -> Result<()> {
    let (store, stage) = (root.store(&old.name), sweep::new_store(root, &old.name));
    let base = view::base_of(root, old)?;
    let new = &new.limited(anew::renew(root, new.quota, (old.backend, base), false)?);
    let ground = Ground { root, base, kind: old.backend, features: Features::default(), limit: new.quota };
    let mut steps = Vec::new();
    ground.open(old, &mut steps)?;
    exec::run(&steps)?;
    steps.clear();
    let (from, folder) = (image::content(store), layer(old.backend));
    if let Some(limit) = quota::by(new.quota, Means::Image) {
        let space = tree::space(from.below(folder))?;
        if space > limit.bytes {
            return Err(does_not_fit(&new.name, limit, space));
        }
    }
    let shape = if old.has_image() { image::shape(store) } else { policy.shape() };
    let into = ground.begin(stage, shape, &mut steps);
    exec::run(&steps)?;
    let from = from.below(folder);
    steps.clear();
    ground.again(from, into, &mut steps);
    exec::run(&steps).and_then(|()| replace::finish(root, new)).map_err(|err| {
        // One of the same size is as large as it was: what ran out is the disk.
        let seed = old.backend.grows_image();
        let as_large = |limit: &&Limit| seed && old.limit(root).is_some_and(|size| size <= limit.bytes);
        let err = match new.quota.filter(|limit| !as_large(limit)) {
            // The disk has given the room for the image already; the error says what it ran out at.
            Some(limit) if limit.means.is_hard() && err.errno() == Some(Errno::ENOSPC) => {
                // What grew from a seed is hidden again.
                let space = tree::space(from).or_else(|_| held::used(root, old));
                err.way_out(does_not_fit(&new.name, limit, space.unwrap_or(limit.bytes)).to_string())
            }
            _ => err,
        };
        // An image that is sparse finds the disk full. Asked here, for the error leaves this process as words alone.
        if seed { seed::torn(err, stage) } else { err }
    })
}
