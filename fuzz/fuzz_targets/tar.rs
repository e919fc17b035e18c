//! Archives as a new base, and into a tree that lives: nothing of them lands outside.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use sliverfs::archive::{Policy, unpack};
use sliverfs::tree;
use sliverfs_fuzz::{Tar, with_room};

fuzz_target!(|bytes: &[u8]| {
    with_room(|room| {
        for policy in [Policy::NewTree, Policy::Beneath] {
            let (folder, outside) = (room.empty("tree"), room.empty("outside"));
            if policy == Policy::Beneath {
                for (target, name) in [("../outside", "out"), ("usr/bin", "bin"), ("loop", "loop")] {
                    std::os::unix::fs::symlink(target, folder.join(name)).unwrap();
                }
                fs::create_dir_all(folder.join("usr/bin")).unwrap();
            }
            let before = room.names();
            let _refused = unpack(&mut Tar::new(bytes), &tree::open(&folder).unwrap(), policy);
            assert_eq!(room.names(), before);
            assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
        }
    });
});
