//! The trial of Btrfs seeds: what can be tried without one. The rest is proved when a sliver is made, and undone where it fails.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::OFlag;

use super::features::Features;
use super::kernel;
use super::trial::DiskName;
use super::verdict::Verdict;
use crate::error::{Context, Error, Result};
use crate::kind::Kind;
use crate::mount::seed::{FSTYPE, LEAST};
use crate::stay::Below;
use crate::sum::Sum;
use crate::sys::{btrfs, file, loopdev};

/// Does the kernel have Btrfs, does the disk of `dir` keep a sparse image, and is there a loop device to write to it?
pub fn trial(dir: &Path, DiskName { path, fstype }: DiskName) -> Result<Verdict> {
    let kind = Kind::BtrfsSeed;
    if !kernel::offers(FSTYPE)? {
        return Ok(Verdict::unlisted(kind, FSTYPE));
    }
    let image = dir.below("image");
    let file =
        file::open_as(image, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC, 0o666).at("create", image)?;
    file::set_size(&file, LEAST).at("lay out", image)?;
    let taken = file.metadata().at("look at", image)?.blocks().times(512);
    if taken >= LEAST {
        let reason = format_args!("`{path}` lies on {fstype}, where an image takes all its size at once");
        return Ok(Verdict::no(kind, true, reason, true));
    }
    let device = loopdev::bind(image, true)?;
    // What is no Btrfs is refused, by a kernel that looked at it.
    if let Err(errno @ (nix::errno::Errno::ENOENT | nix::errno::Errno::EACCES)) = btrfs::scan(device.path) {
        return Err(Error::sys("make a device known through", Path::new("/dev/btrfs-control"), errno));
    }
    fs::remove_file(image).at("remove", image)?;
    let verdict = Verdict::by_name(
        kind,
        "only on a base that is a Btrfs seed image (`base add --pack btrfs` makes one)",
    );
    Ok(verdict.with(features()))
}

/// A store that is in use has a loop device, which the kernel tells.
pub fn features() -> Features {
    Features { tells_in_use: true, ..Features::default() }
}
