//! Journals of `restore` and `compact`, which a tenant can write where the store is a whole tree: whatever they say, they end, lead
//! nowhere out of the store, and the second time there is nothing to do.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use sliverfs::layer::Scratch;
use sliverfs::tree;
use sliverfs_fuzz::{FORMATS, store, walk, with_room};

fuzz_target!(|bytes: &[u8]| {
    let [format, rest @ ..] = bytes else { return };
    let format = FORMATS[usize::from(*format) % FORMATS.len()];
    let end = rest.iter().position(|b| *b == 0).unwrap_or(rest.len());
    let (journal, records) = rest.split_at(end);
    with_room(|room| {
        let (folder, outside) = (room.empty("store"), room.empty("outside"));
        fs::write(outside.join("kept"), "kept").unwrap();
        store(room, &folder, records);
        std::os::unix::fs::symlink("../outside", folder.join("out")).ok();
        fs::write(folder.join(".sliverfs-journal"), journal).ok();
        let before = room.names();
        let root = tree::open(&folder).unwrap();
        let scratch = Scratch::inside(&root).unwrap();
        if scratch.settle(format, &root).is_ok() {
            assert!(scratch.left().is_empty());
            scratch.settle(format, &root).unwrap();
        }
        assert_eq!(room.names(), before);
        assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "kept");
        walk(format, &folder, &room.base(), sliverfs::layer::Show::Changes);
    });
});
