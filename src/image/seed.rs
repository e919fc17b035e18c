//! Packs a tree as a Btrfs seed: mkfs.btrfs, a copy into it by our own hands, which keeps everything, and btrfstune.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::MsFlags;

use super::NOT_PACKED;
use crate::error::{Context, Error, Result};
use crate::mount::{exec, private, seed};
use crate::progress::Progress;
use crate::sum::Sum;
use crate::sys::mountpoint::mount;
use crate::sys::{file, loopdev, sync, tool};
use crate::tree::{self, Content, Summary};

/// What the image is formatted with: one copy of everything, since its SHA-256 tells whether it is whole.
const FORMAT: &str = "-q -f -m single -d single";

/// What makes a file system a seed.
const SEED: &str = "-f -S 1";

/// The programs' package.
pub const PACKAGE: &str = "btrfs-progs";

/// The programs.
pub const PROGRAMS: [&str; 2] = ["mkfs.btrfs", "btrfstune"];

/// What a file system of this kind needs before anything is in it: 45 MiB are the least that mkfs.btrfs takes.
const EMPTY: u64 = 64 << 20;

/// The unit of the image's size.
const UNIT: u64 = 1 << 20;

/// What the metadata of an entry take at most, in bytes, on average.
const ENTRY: u64 = 2 << 10;

/// How often the image is made again, twice as large. A source may take less on its disk than it does here.
const ATTEMPTS: u32 = 6;

/// Packs the folder `from` into the new file `to`, whose folder serves as a mount point in a namespace of its own.
///
/// The image is not much larger than what is in it, holes or not: its SHA-256 is over every byte.
pub fn pack(from: &Path, to: &Path, what: &Summary) -> Result<()> {
    let file = file::open_as(to, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, 0o666).at("create", to)?;
    let mut size = what.disk.plus(what.disk >> 3);
    size = size.plus(what.entries.times(ENTRY)).plus(EMPTY);
    // A loop device leaves out what fills no sector.
    size &= !(UNIT - 1);
    let [format, tune] = PROGRAMS;
    for _ in 0..ATTEMPTS {
        file::set_size(&file, 0).and_then(|()| file::set_size(&file, size)).at("lay out", to)?;
        run(format, FORMAT, to)?;
        if fill(from, to)? {
            run(tune, SEED, to)?;
            return file.sync_all().at("write to the disk", to);
        }
        size = size.times(2);
    }
    Err(Error::sys("pack into", to, Errno::ENOSPC))
}

fn run(program: &str, options: &str, to: &Path) -> Result<()> {
    tool::run_on(to, program, options, "", (PACKAGE, NOT_PACKED))
}

/// Copies the tree into the formatted image. False where that is too small.
fn fill(from: &Path, image: &Path) -> Result<bool> {
    let target = image.parent().unwrap_or(image);
    // Opened before the image lies over it.
    let source = tree::open(from)?;
    private::run(target, &mut || {
        let device = loopdev::bind(image, true)?;
        // zstd wants Linux 4.14.
        let mut mounted = Err(Errno::EINVAL);
        for options in ["compress=zstd", "compress=zlib"] {
            if mounted == Err(Errno::EINVAL) {
                mounted =
                    mount(Some(device.path), target, Some(seed::FSTYPE), MsFlags::MS_NOATIME, Some(options));
            }
        }
        mounted.at("mount the new image on", target)?;
        drop(device);
        let progress = Progress::new("packing", None);
        let copied = tree::copy(
            source.again().at("open", from)?,
            from.as_os_str().as_bytes(),
            &tree::open(target)?,
            (0, 0),
            Content::Written,
            &mut |bytes| progress.add(bytes),
        );
        let copied = copied.and_then(|_| sync::disk(target));
        exec::unmount(target)?;
        match copied {
            // It may also be the disk that is full, which seems to the image as an error of its device.
            Err(err) if err.errno() == Some(Errno::ENOSPC) => Ok(&[0]),
            copied => copied.map(|()| &[][..]).map_err(|err| seed::torn(err, image)),
        }
    })
    .map(<[u8]>::is_empty)
}

/// The steps of [`pack`] as a person would type them.
pub fn typed(from: &str, to: &str) -> String {
    format!(
        "truncate -s 1G {to} && mkfs.btrfs {FORMAT} {to} && mount -o compress=zstd {to} /mnt && cp -a {from}/. /mnt && umount /mnt && btrfstune {SEED} {to}"
    )
}
