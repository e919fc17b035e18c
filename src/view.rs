//! Bringing a sliver's view up, and taking it down.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::alive::{Place, Views, holders, in_use, refuse_alive};
use crate::backend::probe;
use crate::backend::store::Ground;
use crate::catalog::base::Base;
use crate::catalog::lock::Lock;
use crate::catalog::mounted::source;
use crate::catalog::{Mounted, Root, Sliver};
use crate::error::{Class, Context, Error, Result};
use crate::kind::Kind;
use crate::layer::Format;
use crate::lxc::{self, Sockets};
use crate::mount::mountinfo::MountInfo;
use crate::mount::plan::Step;
use crate::mount::{exec, fuse};
use crate::name::Name;
use crate::out::{escape, joined};
use crate::quota::{self, Means, image, project, qgroup};
use crate::stay::Below;
use crate::sys::{file, mountpoint, statfs};

/// The plan that mounts a sliver; empty where its view is up already.
///
/// Refuses a store that is alive anywhere else, a mount point that is not empty or not ours, a base that changed.
/// The sliver's lock is held, and [`hold_image`]'s.
pub fn plan_up(root: &Root, sliver: &Sliver, base: &Base) -> Result<Vec<Step>> {
    let name = &sliver.name;
    let view = root.view(name);
    let mut steps = Vec::new();
    // The table of mounts has a line for each other view, too: it is read where the kernel says no more than that.
    if sliver.backend == Kind::FuseOverlayfs || mountpoint::is_one(view) != Some(false) {
        let info = MountInfo::of_self()?;
        if let Some(mount) = info.at(view) {
            let here = Views::here(root, &info)?;
            match here.of(root, name).find(|place| place.target == view) {
                Some(place) if is_dead(root, name, place)? => steps.push(Step::Detach(view)),
                Some(place) => return exec::writable(place.read_only, view).map(|()| Vec::new()),
                None => {
                    return Err(Error::in_use(format_args!(
                        "something else is mounted on {}: {} ({})",
                        view.display(),
                        String::from_utf8_lossy(&mount.source()),
                        String::from_utf8_lossy(mount.fstype),
                    ))
                    .way_out("unmount it first"));
                }
            }
        }
    }
    check_base(sliver, base)?;
    let features = probe::features(root, sliver.backend)?;
    // What the kernel says of the upper folder holds for every namespace, ours among them. Only where it was not proved to
    // tell, or says that the store is alive, are all of them looked at: that takes longer than the mount.
    let free = features.tells_in_use && in_use(root, name, sliver.backend, features)? == Some(false);
    if !free {
        let dead = (!steps.is_empty()).then_some(view);
        let views = Views::settled_without(root, name, dead)?;
        refuse_alive(root, name, sliver.backend, features, &views)?;
    }
    if steps.is_empty() {
        refuse_full_mount_point(view)?;
    }
    // The kernel would say it, too, but only to who mounts, and in fewer words.
    statfs::refuse_read_only(root.stores())?;
    if sliver.backend.reads_base() {
        base.present(root)?;
    }
    let ground = Ground { root, base, kind: sliver.backend, features, limit: sliver.quota };
    steps.extend([Step::CreateDir(root.container(name)), Step::CreateDir(view)]);
    if stands_on_image(root, sliver, base) {
        ground.image(&mut steps)?;
    }
    let store = root.store(name);
    if let Some(limit) = sliver.quota {
        match limit.means {
            Means::Image => image::mount_steps(store, Format::of(sliver.backend), &mut steps),
            // A store that came from another disk begins with no group here, and a change that was cut left another limit.
            Means::Qgroup => {
                qgroup::need(root.stores())?;
                if !lxc::is_closed(root, name) {
                    qgroup::warn(name);
                }
                steps.push(Step::Limit(store, limit, false));
            }
            // The same: a change that was cut.
            Means::Zfs => steps.push(Step::Limit(store, limit, false)),
            Means::Project => {
                project::disk_of(store, limit)?;
                steps.push(Step::Limit(store, limit, true));
            }
            Means::Seed | Means::Soft => {}
        }
    }
    ground.mount(name.as_str(), view, &mut steps)?;
    if let Some(limit) = quota::by(sliver.quota, Means::Project) {
        steps.push(Step::Limit(store, limit, false));
    }
    Ok(steps)
}

/// The base that a sliver stands on, whose content is there: what is made of a store over nothing is not what was seen.
pub fn base_of(root: &Root, sliver: &Sliver) -> Result<&'static Base> {
    let base = Base::load(root, &sliver.base)?;
    check_base(sliver, base)?;
    base.present(root).map(|_| base)
}

/// Is the base the one that the sliver was made on?
pub fn check_base(sliver: &Sliver, base: &Base) -> Result<()> {
    if base.digest != sliver.digest {
        return Err(Error::damaged(format_args!(
            "the sliver `{}` was made on a base `{}` with digest {}, but that base now has {}",
            sliver.name, base.name, sliver.digest, base.digest
        ))
        .way_out("a store means nothing over another base: add the old base again under this name"));
    }
    Ok(())
}

/// Carries a plan of [`plan_up`] out, looks at what came of it, and notes it for this boot.
pub fn up(root: &Root, sliver: &Sliver, steps: &[Step]) -> Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    free_seed(root, sliver.backend, &sliver.base)?;
    exec::run(steps)?;
    let view = root.view(&sliver.name);
    let store = root.store(&sliver.name);
    if sliver.has_image() {
        image::keep_spare(store.below(image::POINT));
    }
    let noted = check(root, sliver, view)
        .and_then(|()| Mounted::note(root, &sliver.name, sliver.backend, source(store)));
    noted.inspect_err(|_| {
        if let Err(err) = exec::unmount(view).and_then(|()| image::release(store)) {
            crate::warn!("{err}");
        }
    })
}

/// The catalog's lock, where the view stands on a base that is an image: between the look at its mount and the mount of the
/// view nobody may let go of it, or the view would stand on the empty mount point.
pub fn hold_image(root: &Root, sliver: &Sliver, base: &Base) -> Result<Option<Lock>> {
    if stands_on_image(root, sliver, base) { root.lock_catalog().map(Some) } else { Ok(None) }
}

fn stands_on_image(root: &Root, sliver: &Sliver, base: &Base) -> bool {
    sliver.backend.reads_base() && base.image(root).is_some()
}

/// Has the daemon ended that served the view? Then nothing can be written through it any more, whoever still holds it.
fn is_dead(root: &Root, name: &Name, place: &Place) -> Result<bool> {
    Ok(place.is_served() && !fuse::serves(root.upper(name))?)
}

/// After a mount: is it this sliver's, and is it writable? A driver that cannot write to its store mounts read-only, with no
/// more than a line in the kernel's log.
fn check(root: &Root, sliver: &Sliver, view: &Path) -> Result<()> {
    let disk = statfs::of(view)?;
    if let (Kind::Union(union), Some(read_only)) = (sliver.backend, disk.read_only) {
        if union.caps().magic == Some(disk.magic) {
            return exec::writable(read_only, view);
        }
    }
    // The kernel's table of mounts tells it before 2.6.36, of a union that answers for its base, and of a bound tree.
    let views = Views::here(root, &MountInfo::of_self()?)?;
    match views.of(root, &sliver.name).find(|place| place.target == view) {
        Some(place) => exec::writable(place.read_only, view),
        None => Err(Error::failed(format_args!(
            "the kernel took the mount on {}, but does not list it",
            view.display()
        ))),
    }
}

fn refuse_full_mount_point(view: &Path) -> Result<()> {
    match file::names(view) {
        Ok(names) if names.is_empty() => Ok(()),
        Ok(_) => Err(Error::failed(format_args!("the mount point {} is not empty", view.display()))
            .way_out("what lies in it would be hidden: move it away")),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(err) => Err(err).at("list the mount point", view),
    }
}

/// The plan that unmounts a sliver here; empty where it is not mounted. Refuses while its container runs.
pub fn plan_down(root: &Root, name: &Name, sockets: &Sockets) -> Result<Vec<Step>> {
    if sockets.running(root, name) {
        return Err(Error::in_use(format_args!("the container `{name}` is running"))
            .way_out(format_args!("stop it first: lxc-stop -P {} -n {name}", root.path().display())));
    }
    own_mounts(root, name)
}

/// The steps that unmount what this namespace has of the sliver on its mount point.
pub fn own_mounts(root: &Root, name: &Name) -> Result<Vec<Step>> {
    let view = root.view(name);
    let views = Views::here(root, &MountInfo::of_self()?)?;
    let ours = views.of(root, name).filter(|place| place.target == view);
    let mut steps = Vec::new();
    for place in ours {
        let dead = is_dead(root, name, place)?;
        steps.push(if dead { Step::Detach(view) } else { Step::Unmount(view) });
        steps.extend(place.loop_device().map(|device| Step::Forget(device.stays())));
    }
    Ok(steps)
}

/// Unmounts what the plan names, forgets the note when the store is nowhere alive, and lets go of a base image that no other
/// sliver needs.
pub fn down(root: &Root, name: &Name, steps: &[Step]) -> Result<()> {
    exec::run(steps).map_err(|err| name_holders(root, name, err))?;
    // The note is kept while somebody may hold a detached view: it tells the view's device.
    let views = Views::settled(root, name)?;
    let elsewhere: Vec<String> = views.of(root, name).map(|place| place.words()).collect();
    if !elsewhere.is_empty() {
        return Err(Error::in_use(format_args!(
            "`{name}` is unmounted from {}, but its store is still mounted at {}",
            root.view(name).display(),
            joined(&elsewhere, ", and at ")
        ))
        .way_out("end the processes there; until then it cannot be mounted again or destroyed"));
    }
    if let Some(sliver) = Sliver::find(root, name)? {
        // The kernel gives the number of the view's device to the next mount: what is held of that one is none of ours.
        let features = probe::features(root, sliver.backend).unwrap_or_default();
        if sliver.backend == Kind::FuseOverlayfs {
            // Its daemon ends soon after: until then it holds the store, and the base's image.
            refuse_alive(root, name, sliver.backend, features, &views)?;
        }
        if in_use(root, name, sliver.backend, features)? == Some(false) || holders(root, name)?.is_empty() {
            Mounted::forget(root, name)?;
        }
        image::release(root.store(name))?;
        release_base(root, &sliver.base)?;
    }
    Ok(())
}

/// Says who keeps a view from being unmounted.
fn name_holders(root: &Root, name: &Name, err: Error) -> Error {
    let view = root.view(name);
    if err.class() != Class::InUse {
        return err;
    }
    let mut who = Vec::new();
    if let Ok(info) = MountInfo::of_self() {
        for mount in info.mounts() {
            let target = mount.target();
            if *target != *view && target.starts_with(view) {
                who.push(format!("the mount on {}", escape(target.as_os_str().as_bytes())));
            }
        }
    }
    who.extend(holders(root, name).unwrap_or_default());
    if who.is_empty() {
        return err;
    }
    Error::in_use(format_args!("{} is in use by {}", view.display(), joined(&who, ", ")))
        .way_out("stop the container, end the processes that stand in it or hold files of it, and unmount what is mounted in it")
}

/// Refuses a kind that grows from the base's image while that is mounted for the views of others, which the kernel cannot have
/// together; one that nobody needs any more is let go of.
pub fn free_seed(root: &Root, kind: Kind, base: &Name) -> Result<()> {
    if !kind.grows_image() {
        return Ok(());
    }
    release_base(root, base)?;
    if MountInfo::of_self()?.at(root.base_mount(base)).is_none() {
        return Ok(());
    }
    let views = Views::everywhere(root)?;
    let mut users = Vec::new();
    for name in Sliver::users(root, base)? {
        let grown = Sliver::load(root, &name).is_ok_and(|sliver| sliver.backend.grows_image());
        if !grown && views.of(root, &name).next().is_some() {
            users.push(name.as_str().to_owned());
        }
    }
    Err(Error::in_use(format_args!(
        "the seed `{base}` is mounted as the base of {}: while it is, nothing can grow from it",
        joined(&users, ", ")
    ))
    .way_out("unmount these slivers first, or give them a base of their own"))
}

/// Unmounts a base's image when no view stands on it.
fn release_base(root: &Root, base: &Name) -> Result<()> {
    let target = root.base_mount(base);
    let gone = || MountInfo::of_self().map(|info| info.at(target).is_none());
    if gone()? {
        return Ok(());
    }
    let _lock = root.lock_catalog()?;
    // Another `umount` may have let go of it while this one waited.
    if gone()? {
        return Ok(());
    }
    let views = Views::everywhere(root)?;
    for name in Sliver::names(root)? {
        let uses = Sliver::load(root, &name)
            .map_or(true, |sliver| sliver.base == *base && !sliver.backend.grows_image());
        if uses && views.of(root, &name).next().is_some() {
            return Ok(());
        }
    }
    exec::unmount(target)
}
