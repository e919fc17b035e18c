//! Carries a plan out, step by step, and takes it back when a step fails.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, umount2};

use super::plan::{MountCall, Rewrite, Step};
use super::{fuse, image, seed};
use crate::archive;
use crate::error::{Context, Error, Result};
use crate::layer;
use crate::progress::Progress;
use crate::quota::held::{remove_store, tell};
use crate::quota::{admission, image as quota, qgroup, zfs};
use crate::sys::mountpoint::mount;
use crate::sys::{btrfs, exchange, file, mountpoint, statfs, sync};
use crate::tree::{self, SELF, Time};

/// What takes a done step back.
enum Undo {
    RemoveDir(&'static Path),
    RemoveFile(&'static Path),
    RemoveTree(&'static Path),
    Unmount(&'static Path),
    Rename(&'static Path, &'static Path),
    Exchange(&'static Path, &'static Path, &'static Path),
}

/// Carries out all steps, or none: when one fails, the done ones are taken back in reverse order.
pub fn run(steps: &[Step]) -> Result<()> {
    let mut undo = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        crate::debug!("{step}");
        if let Err(err) = perform(step, steps.get(at.saturating_add(1)), &mut undo) {
            take_back(undo);
            return Err(err);
        }
    }
    Ok(())
}

fn perform(step: &Step, next: Option<&Step>, undo: &mut Vec<Undo>) -> Result<()> {
    match step {
        Step::CreateDir(dir) => match file::make_dir(dir, 0o777) {
            Ok(()) => undo.push(Undo::RemoveDir(dir)),
            Err(err)
                if err.kind() == std::io::ErrorKind::AlreadyExists
                    && mountpoint::look(dir).is_some_and(|seen| seen.dir) => {}
            Err(err) => return Err(err).at("create", dir),
        },
        Step::WriteFile(file, text) => {
            // One that is there already is not ours to take back.
            let mut new = new_file(file)?;
            undo.push(Undo::RemoveFile(file));
            new.write_all(text).at("write", file)?;
        }
        Step::Mount(call) => {
            mount_union(call)?;
            undo.push(Undo::Unmount(call.target));
            writable(statfs::of(call.target)?.read_only == Some(true), call.target)?;
        }
        Step::Serve(call) => {
            fuse::serve(call)?;
            undo.push(Undo::Unmount(call.target));
        }
        Step::MountImage { fstype, image, target } => {
            let _lock = if *fstype == seed::FSTYPE { Some(seed::lock(image)?) } else { None };
            image::whole(image)?;
            image::mount_read_only(fstype, image, target)?;
            undo.push(Undo::Unmount(target));
        }
        Step::CopyAttributes(from, to) => copy_attributes(from, to)?,
        Step::Unpack(archive, view) => archive::unpack_beneath(archive, view)?,
        Step::Bind(from, to) => {
            mount(Some(from), to, None, MsFlags::MS_BIND, None).at("bind to", to)?;
            undo.push(Undo::Unmount(to));
        }
        Step::Snapshot(from, to) => {
            snapshot(from, to)?;
            undo.push(Undo::RemoveTree(to));
        }
        Step::MakeWritable(dir) => btrfs::set_read_only(tree::open(dir)?, false).at("make writable", dir)?,
        Step::CopyTree { from, to, content } => {
            undo.push(Undo::RemoveTree(to));
            tree::copy_path(from, to, *content)?;
        }
        Step::GrowSeed { seed, store, size, target } => {
            undo.push(Undo::RemoveFile(store));
            seed::grow(seed, store, *size, target)?;
        }
        Step::MountSeed { seed, store, target } => {
            seed::mount(seed, store, target)?;
            undo.push(Undo::Unmount(target));
        }
        Step::MakeImage { image, size, shape } => {
            undo.push(Undo::RemoveFile(image));
            quota::make(image, *size, *shape)?;
        }
        Step::MountStore { image, target, new } => {
            quota::mount(image, target, *new)?;
            undo.push(Undo::Unmount(target));
        }
        Step::MakeDataset(store) => zfs::make(store)?,
        Step::JoinProject(dir, id) => {
            crate::sys::project::join(&tree::open(dir)?, *id).at("put into a project", dir)?;
        }
        Step::Limit(store, limit, more) => tell(store, limit, *more)?,
        Step::Settle(dir, format) => layer::settle(dir, *format)?,
        Step::Forget(device) => seed::forget(device),
        Step::Unmount(target) => unmount(target)?,
        Step::Detach(target) => umount2(*target, MntFlags::MNT_DETACH).at("unmount", target)?,
        Step::SyncDisk(dir) => tree::sync_tree(dir).map_err(|err| match mountpoint::is_one(dir) {
            // No image: the disk itself says what is wrong with it.
            Some(false) => err,
            _ => seed::torn(err, dir),
        })?,
        Step::Rewrite(work) => {
            // A folder that something is mounted on goes with that; a snapshot is taken back by itself.
            let device = |path: &Path| fs::symlink_metadata(path).map(|meta| meta.dev()).ok();
            let own = work.new.parent().is_some_and(|above| device(above) == device(work.new));
            if own {
                undo.push(Undo::RemoveTree(work.new));
            }
            rewrite(work).and_then(|()| if own { Ok(()) } else { seed::written(work.new) })?;
        }
        Step::Exchange(one, other, by) => {
            let stores = other.parent().unwrap_or(other);
            admission::forget(stores);
            exchange(one, other, by)?;
            undo.push(Undo::Exchange(one, other, by));
            sync::dir(stores)?;
        }
        Step::Rename(from, to) => {
            fs::rename(from, to).at("rename to", to)?;
            undo.push(Undo::Rename(to, from));
            // The exchange writes the folder to the disk. No disk brings back the later one of two changes of a folder's names alone:
            // where `exchange` takes three, it relies on that, too.
            let changed = matches!(next, Some(Step::Exchange(one, ..)) if one == to);
            let (from, to) = (from.parent(), to.parent());
            if changed && from == to {
                return Ok(());
            }
            // Each of these writes to the disk and waits for it.
            for folder in [from.filter(|_| from != to), to].into_iter().flatten() {
                sync::dir(folder)?;
            }
        }
        Step::RemoveTree(dir) => remove_tree(dir)?,
        Step::RemoveDir(dir) => fs::remove_dir(dir).at("remove", dir)?,
        Step::RemoveFile(file) => match fs::remove_file(file) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            done => done.at("remove", file)?,
        },
    }
    Ok(())
}

/// Takes steps back, newest first. A failure here is told and passed over: the rest must be taken back all the same.
fn take_back(undo: Vec<Undo>) {
    for step in undo.into_iter().rev() {
        let done = match &step {
            Undo::RemoveDir(dir) => match fs::remove_dir(dir) {
                // What lies in it by now was unpacked: whoever made the plan sweeps it.
                Err(err) if matches!(err.raw_os_error(), Some(libc::ENOENT | libc::ENOTEMPTY)) => Ok(()),
                done => done.at("take back: remove", dir),
            },
            Undo::RemoveFile(file) => match fs::remove_file(file) {
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
                done => done.at("take back: remove", file),
            },
            Undo::RemoveTree(dir) => {
                let forgotten = qgroup::forget(dir);
                // What is left lying is told first.
                tree::remove_path(dir).and(forgotten)
            }
            Undo::Unmount(target) => unmount(target),
            Undo::Exchange(one, other, by) => exchange(one, other, by),
            Undo::Rename(from, to) => fs::rename(from, to).at("take back: rename to", to),
        };
        if let Err(err) = done {
            crate::warn!("{err}");
        }
    }
}

/// Mounts a union, with its layers as names relative to a folder.
pub fn mount_union(call: &MountCall) -> Result<()> {
    let mut done = Ok(());
    standing_in(call.from, &mut || {
        done = mount(
            Some(Path::new(call.source)),
            call.target,
            Some(call.fstype),
            MsFlags::MS_NOATIME,
            Some(call.options.as_str()),
        );
    })?;
    done.map_err(|errno| refused(call, errno))
}

/// Does something that takes names relative to a folder, and comes back to where it stood.
pub fn standing_in(folder: &Path, work: &mut dyn FnMut()) -> Result<()> {
    let here = file::open(".").at("open", Path::new("."))?;
    nix::unistd::chdir(folder).at("change into", folder)?;
    work();
    nix::unistd::fchdir(&here).at("change back from", folder)
}

/// Refuses a view that is read-only: so overlay comes up where it cannot make its work folder, for the disk is full.
pub fn writable(read_only: bool, view: &Path) -> Result<()> {
    if !read_only {
        return Ok(());
    }
    Err(Error::failed(format_args!("the view {} came up read-only: the driver cannot write to the store", view.display()))
        .way_out("the kernel's log says why; mostly the store's disk is full, read-only or lacks a feature: `sliverfs probe --fresh`"))
}

/// A refused mount, with the errnos that lie translated (kernel: Documentation/filesystems/overlayfs.rst).
fn refused(call: &MountCall, errno: Errno) -> Error {
    let err = Error::sys(&format!("mount {} on", call.fstype), call.target, errno);
    match errno {
        Errno::ENODEV => err.way_out("this kernel does not offer it; `sliverfs probe` shows what it does"),
        Errno::ELOOP => err.way_out("base and store overlap: one lies inside the other"),
        Errno::EPERM | Errno::EACCES => err.way_out("run it as root, outside a user namespace"),
        Errno::ESTALE => err.way_out("the store was used with another base; `sliverfs show` names its base"),
        _ => err
            .way_out("the kernel's log (dmesg) may say more; `sliverfs probe --fresh` tries it on this disk"),
    }
}

/// Unmounts a folder; never lazily and never by force, so that what was unmounted is really free.
pub fn unmount(target: &Path) -> Result<()> {
    // Kernels before 2.6.34 do not know the flag.
    let done = match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
        Err(Errno::EINVAL) => umount2(target, MntFlags::empty()),
        done => done,
    };
    match done {
        Err(Errno::EBUSY) => Err(Error::in_use(format_args!("{} is in use", target.display()))
            .way_out("stop the container, or the processes that stand in it or hold files of it open")),
        done => done.at("unmount", target),
    }
}

/// Snapshots a subvolume; the snapshot is writable, whatever the original is.
fn snapshot(from: &Path, to: &Path) -> Result<()> {
    let source = tree::open(from)?;
    let (parent, name) = tree::above(to)?;
    btrfs::snapshot(&parent, &name, &source).at("make a snapshot at", to).map_err(|err| match err.errno() {
        Some(Errno::EXDEV) => err.way_out(tree::ONE_DISK),
        Some(Errno::EINVAL | Errno::ENOTTY) => err.way_out(format_args!(
            "{} is no subvolume of a Btrfs: a base that was added while .base lay elsewhere is a plain folder",
            from.display()
        )),
        _ => err,
    })
}

fn copy_attributes(from: &Path, to: &Path) -> Result<()> {
    let meta = fs::symlink_metadata(from).at("look at", from)?;
    chown(to, Some(meta.uid()), Some(meta.gid())).at("change the owner of", to)?;
    fs::set_permissions(to, meta.permissions()).at("change the mode of", to)?;
    let time = Time { seconds: meta.mtime(), nanos: u32::try_from(meta.mtime_nsec()).unwrap_or(0) };
    tree::open(to)?.set_mtime(SELF, time).at("change the time of", to)
}

fn rewrite(work: &Rewrite) -> Result<()> {
    let progress = Progress::new("converting", None);
    layer::rewrite(
        work.from,
        &tree::open_store(work.store)?,
        &tree::open(work.base)?,
        work.to,
        &tree::open(work.new)?,
        work.tree,
        &mut |bytes| progress.add(bytes),
    )
}

/// Lets two folders change places. Cut between the renames of an old kernel, `other` is missing and its folder is found by the
/// name `by`: [`crate::catalog::sweep::settle`] goes on from there.
fn exchange(one: &Path, other: &Path, by: &Path) -> Result<()> {
    match exchange::exchange(one, other) {
        Err(Errno::ENOSYS | Errno::EINVAL | Errno::EOPNOTSUPP) => {
            fs::rename(other, by).at("rename to", by)?;
            if let Err(err) = fs::rename(one, other).at("rename to", other) {
                fs::rename(by, other).at("take back: rename to", other)?;
                return Err(err);
            }
            fs::rename(by, one).at("rename to", one)
        }
        done => done.at("exchange with", other),
    }
}

fn new_file(path: &Path) -> Result<fs::File> {
    file::open_as(path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, 0o644).at("write", path)
}

/// Removes a tree by descriptors, without following links and without crossing into another mount.
fn remove_tree(dir: &Path) -> Result<()> {
    remove_store(dir)
}
