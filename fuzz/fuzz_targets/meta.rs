//! mini_fo's records: any text as those of the root and of a folder; read, repaired, and compacted without a change of the view.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use sliverfs::layer::{Aspects, Compact, Format, Scratch, Show, mend};
use sliverfs::tree;
use sliverfs_fuzz::{shown, walk, with_room};

const META: &str = "META_dAfFgHE39ktF3HD2sr";

fuzz_target!(|bytes: &[u8]| {
    with_room(|room| {
        let (folder, base) = (room.empty("store"), room.base());
        let half = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        let (top, below) = bytes.split_at(half);
        for dir in ["dirmod", "moved", "new name", "dirdel"] {
            fs::create_dir(folder.join(dir)).unwrap();
        }
        fs::write(folder.join("a.txt"), "new\n").unwrap();
        fs::write(folder.join(META), top).unwrap();
        fs::write(folder.join("dirmod").join(META), below).unwrap();
        for show in [Show::Changes, Show::Flat] {
            if walk(Format::MiniFo, &folder, &base, show).is_none() {
                return;
            }
        }
        let view = shown::whole(Format::MiniFo, &folder, &base);
        let (root, lower) = (tree::open(&folder).unwrap(), tree::open(&base).unwrap());
        let scratch = Scratch::inside(&root).unwrap();
        let (mut tell, mut progress) = (|_: &str, _: &[u8]| Ok(()), |_| ());
        let compact = Compact::new(Format::MiniFo, &scratch, Aspects::NONE, false, &mut tell, &mut progress);
        compact.run(root.again().unwrap(), &lower).unwrap();
        let after = shown::whole(Format::MiniFo, &folder, &base);
        assert!(view == after, "compacted\n--- before\n{view}\n--- after\n{after}");
        mend(Format::MiniFo, &lower, root, &scratch, true, &mut |_, _, _| Ok(())).unwrap();
        walk(Format::MiniFo, &folder, &base, Show::View);
    });
});
