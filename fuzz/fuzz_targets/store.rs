//! Stores of every format: read in every way, compacted, written in another format; each time the view is the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sliverfs::layer::{Aspects, Compact, Format, Scratch, Show, Target, rewrite, survey};
use sliverfs::tree;
use sliverfs_fuzz::{FORMATS, shown, store, walk, with_room};

fuzz_target!(|bytes: &[u8]| {
    let [from, to, records @ ..] = bytes else { return };
    let [from, to] = [from, to].map(|number| FORMATS[usize::from(*number) % FORMATS.len()]);
    with_room(|room| {
        let (folder, base) = (room.empty("store"), room.base());
        store(room, &folder, records);
        let mut doubts = 0;
        for show in [Show::Changes, Show::Flat] {
            match walk(from, &folder, &base, show) {
                Some(found) => doubts = found,
                None => return,
            }
        }
        let view = shown::whole(from, &folder, &base);
        if doubts == 0 && from != Format::Tree {
            convert(room, from, to, &view);
        }
        if !from.whole() {
            let root = tree::open(&folder).unwrap();
            let scratch = Scratch::inside(&root).unwrap();
            scratch.settle(from, &root).unwrap();
            let (mut tell, mut progress) = (|_: &str, _: &[u8]| Ok(()), |_| ());
            let compact = Compact::new(from, &scratch, Aspects::NONE, false, &mut tell, &mut progress);
            compact.run(root, &tree::open(&base).unwrap()).unwrap();
            let after = shown::whole(from, &folder, &base);
            assert!(view == after, "compacted\n--- before\n{view}\n--- after\n{after}");
        }
    });
});

fn convert(room: &sliverfs_fuzz::Room, from: Format, to: Format, view: &str) {
    let (store, base) = (tree::open(&room.join("store")).unwrap(), tree::open(&room.base()).unwrap());
    let Ok(found) = survey(from, &store, &base, to) else { return };
    if found.check(to).is_err() {
        return;
    }
    let new = room.empty("new");
    let target = if to.whole() { Target::Whole } else { Target::Store };
    // What is refused while it is written (an attribute that the new driver would obey) is fine.
    if rewrite(from, &store, &base, to, &tree::open(&new).unwrap(), target, &mut |_| ()).is_ok() {
        let after = shown::whole(to, &new, &room.base());
        assert!(*view == after, "converted\n--- before\n{view}\n--- after\n{after}");
    }
}
