//! Archives that are unpacked, beside what must not change.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use sliverfs::archive::{Fault, Policy, Stream, unpack};
use sliverfs::tree;

use super::listing;
use super::node::run;
use super::tree::Temp;

/// An archive in memory.
struct Bytes<'a>(&'a [u8]);

impl Stream for Bytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let (now, rest) = self.0.split_at(buffer.len().min(self.0.len()));
        buffer[..now.len()].copy_from_slice(now);
        self.0 = rest;
        Ok(now.len())
    }
}

/// Unpacks into a fresh folder; beside it lies one that must not change.
pub fn unpacked(bytes: &[u8], policy: Policy) -> (Temp, Result<u64, String>) {
    unpacked_in(Temp::new(), bytes, policy)
}

/// The same in a folder that is given.
pub fn unpacked_in(temp: Temp, bytes: &[u8], policy: Policy) -> (Temp, Result<u64, String>) {
    fs::create_dir_all(temp.join("outside/dir")).unwrap();
    fs::write(temp.join("outside/file"), "untouched").unwrap();
    fs::create_dir(temp.join("tree")).unwrap();
    if policy == Policy::Beneath {
        fs::create_dir_all(temp.join("tree/usr/bin")).unwrap();
        symlink("usr/bin", temp.join("tree/bin")).unwrap();
        symlink("../outside", temp.join("tree/climbs")).unwrap();
        symlink(temp.join("outside"), temp.join("tree/leads-out")).unwrap();
        symlink("loop", temp.join("tree/loop")).unwrap();
    }
    let done = into(&temp, bytes, policy);
    (temp, done)
}

/// Unpacks into `tree` in a folder that is there.
pub fn into(temp: &Temp, bytes: &[u8], policy: Policy) -> Result<u64, String> {
    let before = listing::of(&temp.join("outside"), true);
    let root = tree::open(&temp.join("tree")).unwrap();
    let done = unpack(&mut Bytes(bytes), &root, policy).map_err(|err| err.to_string());
    assert_eq!(listing::of(&temp.join("outside"), true), before, "something outside was touched");
    done
}

/// The archive is refused, in these words.
#[track_caller]
pub fn refused(bytes: &[u8], policy: Policy, words: &[&str]) {
    let (_temp, done) = unpacked_in(Temp::quick(), bytes, policy);
    let said = done.expect_err("it was taken");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
}

/// What GNU tar makes of a folder.
pub fn gnu_tar(source: &Path, options: &[&str]) -> Vec<u8> {
    let out = source.with_extension("tar");
    run(Command::new("tar").args(options).arg("-C").arg(source).arg("-cf").arg(&out).arg("."));
    fs::read(out).unwrap()
}
