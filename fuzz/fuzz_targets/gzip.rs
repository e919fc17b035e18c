//! Whatever is given as an archive: what it is, and gzip to its end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sliverfs::archive::{self, Content};
use sliverfs_fuzz::{drain, file, progress, with_room};

fuzz_target!(|bytes: &[u8]| {
    // Those are undone by installed programs.
    let tools = [&b"\xfd7zXZ"[..], b"\x28\xb5\x2f\xfd", b"BZh", b"\x04\x22\x4d\x18", b"\x5d\x00"];
    if tools.iter().any(|magic| bytes.starts_with(magic)) {
        return;
    }
    with_room(|room| {
        if let Ok(Content::Tar(mut stream) | Content::Image(_, mut stream)) =
            archive::open(&file(room, "input", bytes), &progress())
        {
            drain(&mut *stream);
        }
    });
});
