//! Loop devices over images (loop(4), linux/loop.h).

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;

use crate::error::{Context, Error, Result};
use crate::stay::Below;
use crate::sys::file;

const LOOP_SET_FD: u32 = 0x4C00;
const LOOP_CLR_FD: u32 = 0x4C01;
const LOOP_SET_STATUS64: u32 = 0x4C04;
const LOOP_GET_STATUS64: u32 = 0x4C05;
const LOOP_SET_CAPACITY: u32 = 0x4C07; // since 2.6.30
const LOOP_CONFIGURE: u32 = 0x4C0A; // since 5.8
const LOOP_CTL_GET_FREE: u32 = 0x4C82; // since 3.1

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info64,
    reserved: [u64; 8],
}

/// A loop device bound to an image. The kernel frees it when the last user closes or unmounts it (autoclear).
pub struct Loop {
    /// The device's path, to be mounted.
    pub path: &'static Path,
    _open: File,
}

/// Binds a free loop device to `image`; the device can be written to where `writable`.
///
/// Another process may take the free device between the question and the answer; then the next one is tried.
pub fn bind(image: &Path, writable: bool) -> Result<Loop> {
    let how = if writable { OFlag::O_RDWR } else { OFlag::O_RDONLY };
    let backing = file::open_as(image, how | OFlag::O_NOFOLLOW, 0).at("open the image", image)?;
    for attempt in 0..64u32 {
        let path = free_device(attempt)?;
        let device = match file::open_as(path, how, 0) {
            Ok(device) => device,
            // It was taken away, or a fixed /dev has its node without it.
            Err(err) if matches!(err.raw_os_error(), Some(libc::ENOENT | libc::ENXIO | libc::ENODEV)) => {
                continue;
            }
            Err(err) => return Err(err).at("open the loop device", path),
        };
        match configure(&device, &backing, writable) {
            Ok(()) => return Ok(Loop { path, _open: device }),
            Err(Errno::EBUSY | Errno::ENXIO) => continue,
            Err(errno) => return Err(errno).at("bind a loop device to", image),
        }
    }
    Err(Error::failed(format_args!("no loop device is free for {}", image.display())).way_out(
        "load the loop module (OpenWrt: kmod-loop), raise its `max_loop`, or unmount what you do not need",
    ))
}

/// The loop device that stands on the image, wherever and under whatever name that is bound or mounted: by the image's own
/// device and inode, which the kernel noted when it was bound. None where there is no such image, either.
pub fn bound_to(image: &Path) -> Result<Option<PathBuf>> {
    let id = match std::fs::metadata(image) {
        Ok(meta) => (meta.dev(), meta.ino()),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err).at("look at the image", image),
    };
    let blocks = Path::new("/sys/block");
    for name in file::names(blocks).at("list", blocks)? {
        if name.as_encoded_bytes().starts_with(b"loop") {
            let device = Path::new("/dev").join(name);
            if backing(&device)? == Some(id) {
                return Ok(Some(device));
            }
        }
    }
    Ok(None)
}

/// The number of a device; none where there is no such.
pub fn number(device: &Path) -> Option<u64> {
    std::fs::metadata(device).ok().map(|meta| meta.rdev())
}

/// Has a loop device look again how large its image is.
pub fn look_again(device: &Path) -> Result<()> {
    let open = file::open(device).at("open the loop device", device)?;
    ioctl(open.as_raw_fd(), LOOP_SET_CAPACITY, 0).map(drop).at("let grow", device)
}

/// The device and the inode of the file that a loop device stands on; none where it stands on nothing.
///
/// Fails where the device cannot be asked though the kernel has it: then nobody knows what it stands on.
pub fn backing(device: &Path) -> Result<Option<(u64, u64)>> {
    let open = match file::open(device) {
        Ok(open) => open,
        Err(_) if image_of(device).is_none() => return Ok(None),
        Err(err) => return Err(err).at("look at the loop device", device),
    };
    // SAFETY: `struct loop_info64` is plain integers, for which all zeros is a legal value.
    let mut info: Info64 = unsafe { std::mem::zeroed() };
    match ioctl_ptr(open.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) {
        Ok(()) => Ok(Some((info.device, info.inode))),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno).at("look at the loop device", device),
    }
}

/// The path of the file that a loop device stands on, as the kernel tells it (2.6.37), for what only looks: it may be another
/// namespace's, or an old one.
pub fn image_of(device: &Path) -> Option<Vec<u8>> {
    file::read(&Path::new("/sys/block").join(device.file_name()?).join("loop/backing_file")).ok()
}

/// The next free device: asked from /dev/loop-control, or before Linux 3.1 tried one by one.
fn free_device(attempt: u32) -> Result<&'static Path> {
    let control = Path::new("/dev/loop-control");
    let number = match file::open_as(control, OFlag::O_RDWR, 0) {
        Ok(file) => ioctl(file.as_raw_fd(), LOOP_CTL_GET_FREE, 0)
            .at("ask for a free loop device from", control)?
            .to_string(),
        Err(_) => attempt.to_string(),
    };
    Ok(Path::new("/dev").below(&format!("loop{number}")))
}

/// One call where the kernel has LOOP_CONFIGURE, else two, undone when the second fails.
fn configure(device: &File, backing: &File, writable: bool) -> nix::Result<()> {
    // SAFETY: `struct loop_config` is plain integers, for which all zeros is a legal value.
    let mut config: Config = unsafe { std::mem::zeroed() };
    config.fd = u32::try_from(backing.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    config.info.flags = LO_FLAGS_AUTOCLEAR | if writable { 0 } else { LO_FLAGS_READ_ONLY };
    match ioctl_ptr(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) {
        // Kernels before 5.8 answer EINVAL to an unknown command, and never with a half-done binding.
        Err(Errno::EINVAL | Errno::ENOTTY) => {}
        done => return done,
    }
    let fd = libc::c_ulong::from(config.fd);
    ioctl(device.as_raw_fd(), LOOP_SET_FD, fd)?;
    ioctl_ptr(device.as_raw_fd(), LOOP_SET_STATUS64, &raw const config.info).inspect_err(|_| {
        let _unbound = ioctl(device.as_raw_fd(), LOOP_CLR_FD, 0);
    })
}

fn ioctl(fd: RawFd, command: u32, argument: libc::c_ulong) -> nix::Result<i32> {
    // SAFETY: the commands used here take an integer, never a pointer.
    Errno::result(unsafe { libc::ioctl(fd, request(command), argument) })
}

fn ioctl_ptr<T>(fd: RawFd, command: u32, argument: *const T) -> nix::Result<()> {
    // SAFETY: each caller passes the structure that the command reads, alive for the call.
    Errno::result(unsafe { libc::ioctl(fd, request(command), argument) }).map(drop)
}

/// The request as the C library wants it: an int in musl, an unsigned long in glibc.
#[allow(clippy::useless_conversion, clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
fn request(command: u32) -> libc::Ioctl {
    command as libc::Ioctl
}
