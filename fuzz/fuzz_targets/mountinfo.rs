//! /proc/PID/mountinfo: tenants choose the names in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sliverfs::mount::mountinfo::MountInfo;
use sliverfs_fuzz::path;

fuzz_target!(|bytes: &[u8]| {
    let info = MountInfo::new(bytes.to_vec());
    for mount in info.mounts() {
        let _ = (mount.root(), mount.source(), mount.is_ours(), mount.loop_device(), mount.read_only());
        assert!(info.at(&mount.target()).is_some());
    }
    let _ = (info.hash(), info.at(path(bytes)));
});
