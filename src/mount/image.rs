//! Image bases, mounted once per node.

use std::path::Path;

use nix::mount::MsFlags;

use crate::error::{Class, Error, Result};
use crate::image::Superblock;
use crate::sys::loopdev;
use crate::sys::mountpoint::mount;

/// An image that was added is whole, or somebody was at it: erofs is mounted without its end, and reads what is not there as errors.
pub fn whole(image: &Path) -> Result<Superblock> {
    Superblock::read(image).map_err(|err| Error::new(Class::Damaged, err.to_string()))
}

/// Mounts an image through a loop device that the kernel frees with the mount.
pub fn mount_read_only(fstype: &str, image: &Path, target: &Path) -> Result<()> {
    let device = loopdev::bind(image, false)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOATIME;
    mount(Some(device.path), target, Some(fstype), flags, None).map_err(|errno| {
        let err = Error::sys(&format!("mount the {fstype} image {} on", image.display()), target, errno);
        match errno {
            nix::errno::Errno::ENODEV => {
                err.way_out(format_args!("this kernel has no {fstype}: load its module"))
            }
            nix::errno::Errno::EEXIST | nix::errno::Errno::EBUSY => err.way_out(
                "another image with the same file system is mounted, or a copy of it: unmount that one first",
            ),
            _ => {
                err.way_out("the kernel's log (dmesg) may say more; `sliverfs base verify` checks the image")
            }
        }
    })
}
