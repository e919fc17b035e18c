//! OCI layers and dumps of overlayfs stores: unpacked as `import` does it; what is taken can be read, and written as a store.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use sliverfs::archive::unpack_layer;
use sliverfs::layer::{Format, Show, Target, rewrite};
use sliverfs::tree;
use sliverfs_fuzz::{Tar, walk, with_room};

fuzz_target!(|bytes: &[u8]| {
    with_room(|room| {
        for dump in [None, Some(true), Some(false)] {
            let (folder, outside) = (room.empty("tree"), room.empty("outside"));
            let before = room.names();
            let root = tree::open(&folder).unwrap();
            let taken = unpack_layer(&mut Tar::new(bytes), &root, dump);
            assert_eq!(room.names(), before);
            assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
            if taken.is_err() {
                continue;
            }
            walk(Format::Aufs, &folder, &room.base(), Show::Flat).unwrap();
            let (base, new) = (tree::open(&room.base()).unwrap(), room.empty("new"));
            let _refused = rewrite(
                Format::Aufs,
                &root,
                &base,
                Format::Overlay,
                &tree::open(&new).unwrap(),
                Target::Store,
                &mut |_| (),
            );
        }
    });
});
