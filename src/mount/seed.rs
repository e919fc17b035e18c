//! Btrfs seeds: a read-only file system in an image that others grow from. A sliver's is the seed and a writable image of its own.
//!
//! The kernel knows one device for each seed at a time. So each sliver has a loop device of its own over the seed's image, made
//! known just before the sliver's mount and forgotten just after it (with a common one the second mount is EBUSY, seen on 6.18).
//! While the seed itself is mounted, nothing grows from it and nothing that grew is mounted (fs/btrfs/volumes.c:
//! open_seed_devices, device_list_add). All that is kept apart by a lock on the image.

use std::fs::File;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, OFlag};
use nix::mount::MsFlags;

use super::exec;
use super::image::whole;
use crate::error::{Class, Context, Error, Result, meaning};
use crate::flock;
use crate::size::Size;
use crate::sys::loopdev::{self, Loop};
use crate::sys::mountpoint::mount as mount_at;
use crate::sys::{btrfs, file, mountpoint, pause, statfs, sync};
use crate::tree;

/// The type of both parts.
pub const FSTYPE: &str = "btrfs";

/// The file of a sliver's writable part, in its store.
pub const STORE: &str = "store.raw";

/// The smallest writable part, in bytes. With 24 MiB the kernel was seen to hang for good ([`btrfs::add_device`]).
pub const LEAST: u64 = 256 << 20;

/// The size of a writable part that nobody gave one.
pub const USUAL: u64 = 1 << 30;

/// What a writable part takes that nothing was written to: 956 KiB were seen.
pub const EMPTY: u64 = 1 << 20;

/// What growing writes at once, and as much again: 4.1 MiB were seen.
const GROWTH: u64 = 10 << 20;

/// How often a mount is tried against somebody who looks at the devices in the same moment (udev), a [`pause`] apart.
const PATIENCE: u32 = 10;

/// The refusal of a size.
pub fn too_small(size: u64) -> Error {
    Error::usage(format_args!("{} is too small for a store on a seed", Size(size)))
        .way_out(format_args!("give it {} or more: it takes no more than is written", Size(LEAST)))
}

/// Waits until nobody else is at this image, and tells for whom.
pub fn lock(image: &Path) -> Result<Flock<File>> {
    flock::take(file::open(image).at("open the image", image)?, image)
}

/// A seed's image and one that grows from it, each on a loop device.
struct Pair {
    seed: Loop,
    store: Loop,
    /// The number of the seed's device.
    device: u64,
    _lock: Flock<File>,
}

impl Pair {
    fn bind(seed: &Path, store: &Path) -> Result<Self> {
        let device = whole(seed)?.device;
        let lock = lock(seed)?;
        Ok(Self {
            seed: loopdev::bind(seed, false)?,
            store: loopdev::bind(store, true)?,
            device,
            _lock: lock,
        })
    }

    fn forget(&self) {
        forget(self.seed.path);
        forget(self.store.path);
    }
}

/// Grows a writable image of `size` bytes from the seed: the new file `store`. `target` is a free mount point, free again after.
pub fn grow(seed: &Path, store: &Path, size: u64, target: &Path) -> Result<()> {
    if size < LEAST {
        return Err(too_small(size));
    }
    let available = available(store)?;
    if available < GROWTH {
        return Err(Error::sys("make room for", store, Errno::ENOSPC).way_out(format_args!(
            "{} are free on its disk, and a store on a seed begins with up to {}",
            Size(available),
            Size(GROWTH)
        )));
    }
    let file =
        file::open_as(store, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, 0o600).at("create", store)?;
    file::set_size(&file, size).at("lay out", store)?;
    let pair = Pair::bind(seed, store)?;
    try_mount(&pair, &pair.seed, target, MsFlags::MS_RDONLY).map_err(|errno| refused(seed, target, errno))?;
    let grown = add(&pair.store, target)
        .and_then(|()| stands_on(target, &pair, seed))
        .and_then(|()| sync::disk(target));
    let unmounted = exec::unmount(target);
    pair.forget();
    grown.map_err(|err| torn(err, store))?;
    unmounted?;
    file.sync_all().at("write to the disk", store)
}

/// Bytes that are free for an image.
fn available(store: &Path) -> Result<u64> {
    Ok(statfs::of(store.parent().unwrap_or(store))?.available)
}

fn add(above: &Loop, target: &Path) -> Result<()> {
    let dir = tree::open(target)?;
    btrfs::add_device(&dir, above.path).at("add a writable device to the seed on", target)?;
    mount_at(None, target, None, MsFlags::MS_REMOUNT | MsFlags::MS_NOATIME, None)
        .at("make writable", target)
        .map_err(|err| err.way_out("the kernel's log (dmesg) may say more"))
}

/// The error of a write into the image `store`, with the reason that its disk is full where it is: what a loop device says when
/// its file cannot grow is no more than EIO, after which what stands on it is read-only. Any other error says itself what it is.
pub fn torn(err: Error, store: &Path) -> Error {
    let full = matches!(err.errno(), Some(Errno::EIO | Errno::ENOSPC | Errno::EROFS));
    match available(store) {
        Ok(available) if full && available < GROWTH => {
            let words = format!("{} are free on its disk: free some space", Size(available));
            match err.errno() {
                Some(Errno::ENOSPC) => err.way_out(words),
                _ => Error::sys("write", store, Errno::ENOSPC).way_out(format_args!("{words} ({err})")),
            }
        }
        _ => err,
    }
}

/// To be asked of an image that was filled, before it is unmounted: nothing else tells that its disk was full, and what was written is not in
/// it. No other disk needs it.
pub fn written(target: &Path) -> Result<()> {
    match mountpoint::is_one(target) {
        Some(false) => Ok(()),
        _ => sync::disk(target).map_err(|err| torn(err, target)),
    }
}

/// Mounts a grown image with its seed below it.
pub fn mount(seed: &Path, store: &Path, target: &Path) -> Result<()> {
    let pair = Pair::bind(seed, store)?;
    let mut attempts = 0;
    let failed = loop {
        attempts += 1;
        let failed = match try_mount(&pair, &pair.store, target, MsFlags::empty()) {
            Ok(()) => {
                let right = stands_on(target, &pair, seed);
                forget(pair.seed.path);
                let Err(wrong) = right else { return Ok(()) };
                exec::unmount(target)?;
                wrong
            }
            Err(errno) => refused(seed, target, errno),
        };
        if attempts >= PATIENCE || failed.class() != Class::InUse {
            break failed;
        }
        pause();
    };
    pair.forget();
    Err(failed)
}

fn try_mount(pair: &Pair, device: &Loop, target: &Path, flags: MsFlags) -> nix::Result<()> {
    btrfs::scan(pair.seed.path)?;
    mount_at(Some(device.path), target, Some(FSTYPE), flags | MsFlags::MS_NOATIME, None)
}

/// Is it our device that the kernel took for the seed? Another image may have the same superblock, be it a copy, and be made known
/// by somebody else between our two calls.
fn stands_on(target: &Path, pair: &Pair, seed: &Path) -> Result<()> {
    let dir = tree::open(target)?;
    let path = btrfs::device(&dir, pair.device).at("ask for the devices of", target)?;
    if loopdev::number(&path).is_some_and(|found| loopdev::number(pair.seed.path) == Some(found)) {
        return Ok(());
    }
    Err(Error::in_use(format_args!(
        "the kernel takes {} for the seed {}: both hold a file system with the same id",
        path.display(),
        seed.display()
    ))
    .way_out("unmount or unbind that device"))
}

/// A device that was forgotten already, or by a kernel that cannot, does no harm: the next one with its superblock takes its place.
pub fn forget(device: &Path) {
    let _known_no_more = btrfs::forget(device);
}

fn refused(seed: &Path, target: &Path, errno: Errno) -> Error {
    let step = format!("mount what grows from the seed {} on", seed.display());
    match errno {
        Errno::EBUSY | Errno::EEXIST => Error::in_use(format_args!(
            "{step} {}: {}",
            target.display(),
            meaning(errno)
        ))
        .way_out(format_args!(
            "the seed itself is mounted somewhere, or a copy of it or of this store is: `losetup -j {}` and \
                 /proc/*/mountinfo tell where; unmount it there",
            seed.display()
        )),
        Errno::ENODEV | Errno::ENOENT | Errno::ENOTTY => Error::sys(&step, target, errno)
            .way_out("this kernel has no Btrfs, or its module is not loaded: modprobe btrfs"),
        _ => Error::sys(&step, target, errno)
            .way_out("the kernel's log (dmesg) may say more; `sliverfs base verify` checks the seed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_would_hang_the_kernel_is_never_begun() {
        let none = Path::new("/proc/none");
        for size in [0, 24 << 20, LEAST - 1] {
            let err = grow(none, none, size, none).err().map(|err| err.to_string()).unwrap_or_default();
            assert!(err.contains("too small") && err.contains("256 MiB"), "{err}");
        }
    }
}
