//! Readers of gzip and tar that allow what opkg's own readers were seen to take, and nothing else. They look at the bytes,
//! since a library would pass over what a router stumbles on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::Write;
use std::process::{Command, Stdio};

const BLOCK: usize = 512;
/// What GNU tar writes at a time.
const RECORD: usize = 20 * BLOCK;

/// A file or folder of an archive.
#[derive(Debug, PartialEq, Eq)]
pub struct Member {
    /// As it stands there: with `./` before it, and a folder with `/` behind it.
    pub name: String,
    /// The permissions.
    pub mode: u32,
    /// Its time of modification.
    pub mtime: u64,
    /// What is in it.
    pub content: Vec<u8>,
}

/// The content of a gzip stream whose header tells nothing of the machine and of the time it was made.
pub fn gunzip(bytes: &[u8]) -> Vec<u8> {
    assert_eq!(bytes[..3], [0x1f, 0x8b, 8], "gzip's magic, and deflate");
    assert_eq!(bytes[3], 0, "no flags: no name, no comment, no extra field");
    assert_eq!(bytes[4..8], [0; 4], "no time");
    let mut gzip = Command::new("gzip")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = gzip.stdin.take().unwrap();
    let given = bytes.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&given));
    let out = gzip.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// The members of a tar.
pub fn members(tar: &[u8]) -> Vec<Member> {
    assert_eq!(tar.len() % RECORD, 0, "whole records, to the end");
    let mut members = Vec::new();
    let mut at = 0;
    while tar[at..at + BLOCK].iter().any(|byte| *byte != 0) {
        let header = &tar[at..at + BLOCK];
        let (member, is_folder, size) = header_of(header);
        at += BLOCK;
        let content = tar[at..at + size].to_vec();
        let end = at + size.next_multiple_of(BLOCK);
        assert!(tar[at + size..end].iter().all(|byte| *byte == 0), "{}: padded with zeros", member.name);
        at = end;
        assert!(!is_folder || content.is_empty(), "{}: a folder with content", member.name);
        members.push(Member { content, ..member });
    }
    assert!(tar.len() - at >= 2 * BLOCK, "two empty blocks at the end");
    assert!(tar[at..].iter().all(|byte| *byte == 0), "nothing behind the end");
    members
}

/// One header: what it says, whether of a folder, and the size of what follows.
fn header_of(header: &[u8]) -> (Member, bool, usize) {
    let name = text(&header[..100]);
    assert!(name.starts_with("./"), "{name}: begins with ./");
    assert_eq!(&header[257..265], b"ustar  \0", "{name}: GNU's magic, not POSIX's");
    // A pax record (x, g) or a long name (L, K) would be a type of its own.
    let kind = header[156];
    assert!(matches!(kind, b'0' | b'5'), "{name}: type {:?} is neither a file nor a folder", kind as char);
    assert_eq!(kind == b'5', name.ends_with('/'), "{name}: only a folder's name ends with /");
    assert_eq!(number(&header[108..116]), 0, "{name}: owner");
    assert_eq!(number(&header[116..124]), 0, "{name}: group");
    assert!(header[265..329].iter().all(|byte| *byte == 0), "{name}: no names of owner and group");
    assert!(header[157..257].iter().all(|byte| *byte == 0), "{name}: no link");
    assert!(header[329..].iter().all(|byte| *byte == 0), "{name}: no device, no times of access");
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    let own: u64 = header[148..156].iter().map(|byte| u64::from(*byte)).sum();
    assert_eq!(number(&header[148..156]), sum - own + 8 * u64::from(b' '), "{name}: checksum");
    let mode = u32::try_from(number(&header[100..108])).unwrap();
    let size = usize::try_from(number(&header[124..136])).unwrap();
    let mtime = number(&header[136..148]);
    (Member { name, mode, mtime, content: Vec::new() }, kind == b'5', size)
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).expect("a name that ends");
    String::from_utf8(field[..end].to_vec()).unwrap()
}

/// An octal field; base-256 numbers have the first bit set, and fail here.
fn number(field: &[u8]) -> u64 {
    let digits = field.iter().take_while(|byte| byte.is_ascii_digit()).count();
    assert!(digits > 0 && matches!(field[digits], 0 | b' '), "octal digits with an end: {field:?}");
    u64::from_str_radix(std::str::from_utf8(&field[..digits]).unwrap(), 8).unwrap()
}
