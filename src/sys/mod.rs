//! Safe wrappers of system calls that the standard library and nix do not wrap. The only module with `unsafe`.
#![allow(unsafe_code)]

pub mod btrfs;
pub mod child;
pub mod clock;
pub mod console;
pub mod daemon;
pub mod env;
pub mod exchange;
pub mod ext4;
pub mod extents;
pub mod file;
pub mod handle;
pub mod loopdev;
pub mod memory;
pub mod mountpoint;
pub mod names;
pub mod pagecache;
pub mod project;
pub mod rsync;
pub mod signals;
pub mod statfs;
pub mod sync;
pub mod tool;
pub mod writeback;
pub mod xattr;
pub mod zfs;

/// Waits for a tenth of a second. poll(2) and not sleep: new 32-bit kernels without the old time calls were seen to refuse that.
pub fn pause() {
    let _nothing_to_wait_for = nix::poll::poll(&mut [], 100u16);
}
