//! A store's layers in an ext4 of their own, in a file whose size is the limit.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::mount::MsFlags;

use crate::catalog::Root;
use crate::catalog::sweep::TRIAL;
use crate::error::{Context, Error, Result, errno, meaning};
use crate::layer::Format;
use crate::mount::plan::Step;
use crate::mount::{exec, private, seed};
use crate::quota::zfs;
use crate::size::Size;
use crate::stay::Below;
use crate::sum::Sum;
use crate::sys::{btrfs, ext4, file, loopdev, mountpoint, pause, statfs, sync, tool};
use crate::tree;

/// The image, in the store's folder.
pub const FILE: &str = "quota.img";

/// The folder that the image is mounted on, in the store's folder.
pub const POINT: &str = "quota";

/// The image's type.
const FSTYPE: &str = "ext4";

/// A file that is not there yet.
pub(super) const NEW: OFlag = OFlag::O_WRONLY.union(OFlag::O_CREAT).union(OFlag::O_EXCL);

/// The program that makes it.
pub const PROGRAM: &str = "mkfs.ext4";

/// The one that looks whether it is whole, and puts right what nothing is lost by.
const CHECK: &str = "e2fsck";

/// The smallest image, in bytes: with less, there is little but tables in it. [`super::Limit::new`] says it in words.
pub const LEAST: u64 = 4 << 20;

/// From this size on it has blocks of 4 KiB. Smaller ones waste less behind the ends of files.
const LARGE: u64 = 64 << 20;

/// Files in the image that hold room for the next mount, which makes some names and folders of its own: a union whose store has
/// no room for them comes up read-only. Beside the layers, so that no tenant sees them.
const SPARE: &str = ".spare";

/// How many: each holds an inode, too.
const SPARES: u32 = 8;

/// The bytes of each.
const SPARE_SIZE: u64 = 32 << 10;

/// What they hold together.
const ROOM: u64 = (SPARES as u64) * SPARE_SIZE;

/// How often a device that still stands on the image is looked at again, a [`pause`] apart: the kernel frees it some time after the
/// last user went.
const PATIENCE: u32 = 50;

/// The folder of a store in which its layers lie: the store's own, the one that its image is mounted on, or its dataset's.
pub fn content(store: &'static Path) -> &'static Path {
    if store.below(FILE).exists() { store.below(POINT) } else { zfs::content(store).unwrap_or(store) }
}

/// Is the store's image mounted in our mount namespace?
pub fn is_mounted(store: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).map(|meta| meta.dev()).ok();
    device(store).is_some_and(|own| device(store.below(POINT)).is_some_and(|device| device != own))
}

/// How an image is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// It takes from the disk what is written, and not all of its size at once.
    pub sparse: bool,
    /// It has a journal. One without is checked before it is mounted, where it was not unmounted.
    pub journal: bool,
}

/// Adds the steps that make an image of `size` bytes in the folder of a new store, and mount it.
pub fn make_steps(store: &Path, size: u64, shape: Shape, steps: &mut Vec<Step>) {
    let (image, target) = (store.below(FILE), store.below(POINT));
    steps.extend([
        Step::MakeImage { image, size, shape },
        Step::CreateDir(target),
        Step::MountStore { image, target, new: true },
    ]);
}

/// Adds the steps that mount the image of a store, and end what a command that was cut began in it; none where it is mounted.
pub fn mount_steps(store: &Path, format: Format, steps: &mut Vec<Step>) {
    if !is_mounted(store) {
        let (image, target) = (store.below(FILE), store.below(POINT));
        steps.extend([
            Step::CreateDir(target),
            Step::MountStore { image, target, new: false },
            Step::Settle(target, format),
        ]);
    }
}

/// How a new image in the place of a store's is made: as that was, where there is one.
pub fn shape(store: &Path) -> Shape {
    let path = store.below(FILE);
    Shape {
        sparse: fs::metadata(path).is_ok_and(|image| image.blocks().times(512) < image.len()),
        // With one nothing is lost, whatever the old one had.
        journal: !superblock(path).is_ok_and(lacks_journal),
    }
}

/// Unmounts the image of a store that nobody works on any more, where it is mounted.
pub fn release(store: &Path) -> Result<()> {
    if is_mounted(store) { exec::unmount(store.below(POINT)) } else { Ok(()) }
}

/// Makes a new image.
pub fn make(image: &Path, size: u64, shape: Shape) -> Result<()> {
    let file = file::open_as(image, NEW, 0o600).at("create", image)?;
    if statfs::of(image)?.magic == btrfs::MAGIC {
        // Else each write to a block that is there already takes a new one, which a full disk does not have.
        ext4::in_place(&file).at("have Btrfs write in place", image)?;
    }
    set_size(&file, image, size, shape.sparse)?;
    let (block, journal) = if size < LARGE { ("1024", "-J size=1") } else { ("4096", "-J size=4") };
    let journal = if shape.journal { journal } else { "-O ^has_journal" };
    // Tables that are zeros already need not be written; what mkfs.ext4 discards would be a hole again.
    let options = format!("-q -F -m 0 -b {block} {journal} -E nodiscard,lazy_itable_init=1");
    run(PROGRAM, &options, image, "")
}

/// Runs a program of e2fsprogs on an image; it may end like `well`, too.
fn run(program: &str, options: &str, image: &Path, well: &str) -> Result<()> {
    let package = ("e2fsprogs", ": a limit is kept by an image that it works on");
    tool::run_on(image, program, options, well, package)
}

/// Makes a small image on the disk of the stores, and mounts it where nobody sees it.
pub fn trial(root: &Root) -> Result<()> {
    in_trial(root, &mut |dir| {
        let tried = private::run(root.path(), &mut || {
            let mut steps = Vec::new();
            make_steps(dir, LEAST, Shape { sparse: true, journal: true }, &mut steps);
            exec::run(&steps)?;
            release(dir).map(|()| &[][..])
        });
        tried.map(drop)
    })
}

/// Tries something in a folder on the disk of the stores that is gone afterwards.
pub(super) fn in_trial(root: &Root, work: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
    let _lock = root.lock_catalog()?;
    // A crash leaves it to the next trial of a backend.
    let dir = root.stores().join(format!("{TRIAL}{}", std::process::id()));
    file::create_dir(&dir)?;
    let tried = work(&dir);
    super::held::remove_store(&dir)?;
    tried
}

/// Makes the file of an image as large as that. Room that it takes from the disk is taken at once, and all of it or none.
pub fn set_size(file: &File, image: &Path, size: u64, sparse: bool) -> Result<()> {
    let before = file::look_at(image)?.len();
    let laid_out = if sparse { file::set_size(file, size) } else { allocate(file, before, size) };
    laid_out.at("make room for", image).map_err(|err| {
        // Half of it is of no use.
        let _less = file::set_size(file, before);
        match err.errno() {
            Some(Errno::ENOSPC | Errno::EDQUOT) => {
                err.way_out(format_args!("a limit of {} takes as much from the disk at once", Size(size)))
            }
            _ => err,
        }
    })
}

fn allocate(file: &File, from: u64, to: u64) -> nix::Result<()> {
    let end = nix::libc::off_t::try_from(to).map_err(|_| Errno::EFBIG)?;
    match fallocate(file, FallocateFlags::empty(), 0, end) {
        // Before 2.6.23, and file systems that cannot.
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {}
        done => return done,
    }
    let zeros = vec![0; 1 << 16];
    let mut at = from;
    while at < to {
        let most = usize::try_from(to - at).map_or(zeros.len(), |left| left.min(zeros.len()));
        file::write_at(file, zeros.get(..most).unwrap_or_default(), at)?;
        at = at.plus(most as u64);
    }
    Ok(())
}

/// Mounts an image on a folder. One that is in use already would be damaged by a second mount: it is refused. A `new` one is
/// written to the disk as a file, once it is unmounted: until then nothing in it need wait for that,
/// and it needs no journal.
pub fn mount(image: &Path, target: &Path, new: bool) -> Result<()> {
    let _lock = seed::lock(image)?;
    let mut turn = 0;
    while let Some(device) = loopdev::bound_to(image)? {
        if turn == PATIENCE {
            return Err(Error::in_use(format_args!("{} is in use by {}", image.display(), device.display()))
                .way_out("end what holds a view of the sliver, or works on it, and unmount it"));
        }
        turn += 1;
        pause();
    }
    let block = superblock(image)?;
    if lacks_journal(block) && !is_clean(block) {
        crate::info!("{} was not unmounted, and has no journal: it is checked", image.display());
        // 1 is that it put something right.
        run(CHECK, "-p", image, "exit code 1")?;
    }
    let device = loopdev::bind(image, true)?;
    // Without it the kernel would write the tables in the background; it is known since 2.6.37.
    let options = if new { "noinit_itable,barrier=0,noload" } else { "noinit_itable" };
    let mount =
        |options| mountpoint::mount(Some(device.path), target, Some(FSTYPE), MsFlags::MS_NOATIME, options);
    let mounted = match mount(Some(options)) {
        Err(Errno::EINVAL) => mount(None),
        done => done,
    };
    mounted.at(&format!("mount the image {} on", image.display()), target).map_err(|err| {
        match err.errno() {
            Some(Errno::ENODEV) => err.way_out("this kernel has no ext4: load its module"),
            _ => err.way_out("the kernel's log (dmesg) may say more; `e2fsck -f` checks the image"),
        }
    })?;
    // It is mounted, whatever comes of a look at it.
    if let Ok(disk) = statfs::of(target) {
        let tight = disk.available < ROOM || disk.free_inodes < u64::from(2 * SPARES);
        noted(if tight { drop_spare(target) } else { make_spare(target.below(SPARE)) });
    }
    Ok(())
}

/// Gives the room for the next mount to this one. It is free when the file system has noted that it is.
fn drop_spare(target: &Path) -> Result<()> {
    let dir = target.below(SPARE);
    if dir.exists() { tree::remove_path(dir).and_then(|()| sync::disk(target)) } else { Ok(()) }
}

/// Holds room in a mounted image for its next mount, where it is not held already. As much as there is: less is no reason to fail.
pub fn keep_spare(target: &Path) {
    noted(make_spare(target.below(SPARE)));
}

/// What failed in nobody's way.
pub(super) fn noted(done: Result<()>) {
    if let Err(err) = done {
        crate::debug!("{err}");
    }
}

fn make_spare(dir: &Path) -> Result<()> {
    file::create_dir(dir)?;
    for number in 0..SPARES {
        let path = dir.below(&number.to_string());
        match file::open_as(path, NEW, 0o600).map_err(errno) {
            Err(Errno::EEXIST) => {}
            made => made
                .and_then(|file| allocate(&file, 0, SPARE_SIZE))
                .at("hold room for the next mount in", path)?,
        }
    }
    Ok(())
}

/// Lets the image of a store grow, which is mounted here.
pub fn grow(store: &Path, size: u64, sparse: bool) -> Result<()> {
    let (image, target) = (store.below(FILE), store.below(POINT));
    let file = file::open_as(image, OFlag::O_WRONLY, 0).at("open the image", image)?;
    let before = file::look_at(image)?.len();
    let look_again = || loopdev::bound_to(image)?.map_or(Ok(()), |device| loopdev::look_again(&device));
    let laid_out = || {
        if before < size {
            set_size(&file, image, size, sparse)?;
            file.sync_all().at("write to the disk", image)?;
        }
        look_again()
    };
    let grown = laid_out().and_then(|()| {
        let blocks = size / statfs::of(target)?.block.max(1);
        ext4::grow(tree::open(target)?, blocks).at("let the file system grow on", target)
    });
    grown.map_err(|err| {
        // What lies behind the end of the file system is of no use.
        if before < size && file::set_size(&file, before).is_ok() {
            let _as_before = look_again();
        }
        match err.errno() {
            Some(errno @ (Errno::ENOTTY | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EPERM)) => {
                let why = match errno {
                    Errno::EPERM => "this process lacks CAP_SYS_RESOURCE",
                    errno => meaning(errno).leak(),
                };
                Error::unsupported(format_args!("a mounted ext4 does not grow here: {why}"))
                    .way_out("unmount the sliver: then its store is made anew")
            }
            _ => err,
        }
    })
}

/// Bytes of the image that nobody else can have: all but what its file system has free.
pub fn used(store: &Path) -> Result<u64> {
    let path = store.below(FILE);
    let size = file::look_at(path)?.len();
    let free =
        if is_mounted(store) { statfs::of(store.below(POINT))?.free } else { free_of(superblock(path)?) };
    Ok(size.minus(free))
}

/// A superblock (fs/ext4/ext4.h: struct ext4_super_block; little endian).
type Superblock = [u8; 1024];

fn superblock(image: &Path) -> Result<&'static Superblock> {
    let file = file::open(image).at("open the image", image)?;
    let block: &mut Superblock = Box::leak(Box::new([0; 1024]));
    let whole = file::fill_from(&file, block, 1024).at("read", image)?;
    if whole && word(block, 0x38) & 0xffff == 0xef53 {
        return Ok(block);
    }
    Err(Error::damaged(format_args!("{} holds no ext4", image.display()))
        .way_out("`e2fsck -f` may mend it; else put a copy of it back, or destroy the sliver"))
}

fn word(block: &Superblock, at: usize) -> u64 {
    let bytes = block.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
    u64::from(u32::from_le_bytes(bytes))
}

fn lacks_journal(block: &Superblock) -> bool {
    word(block, 0x5c) & 4 == 0
}

/// Was it unmounted, and nothing wrong seen? Without a journal the kernel says so, and takes it back for as long as it is mounted.
fn is_clean(block: &Superblock) -> bool {
    word(block, 0x38) >> 16 & 3 == 1
}

/// The free bytes that a superblock tells.
fn free_of(block: &Superblock) -> u64 {
    // The upper halves count only where blocks have 64 bits.
    let high = if word(block, 0x60) & 0x80 == 0 { 0 } else { word(block, 0x158) };
    (high << 32 | word(block, 0xc)).times(1 << (10 + word(block, 0x18).min(6)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn free_bytes_of_a_superblock() {
        let mut block = [0; 1024];
        block[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        block[0xc..0x10].copy_from_slice(&7u32.to_le_bytes());
        block[0x18] = 2;
        block[0x158] = 1;
        assert_eq!(free_of(&block), 7 << 12);
        block[0x60] = 0x80;
        assert_eq!(free_of(&block), ((1 << 32) + 7) << 12);
        assert!(lacks_journal(&block) && !is_clean(&block));
        (block[0x3a], block[0x5c]) = (1, 0x3c);
        assert!(!lacks_journal(&block) && is_clean(&block));
        block[0x3a] = 3;
        assert!(!is_clean(&block));
    }
}
