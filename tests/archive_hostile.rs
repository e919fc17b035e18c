//! Archives that are hostile, torn or false are refused, and nothing is written outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use common::node::run;
use common::require;
use common::scripts::Random;
use common::tar::{Header, Tar};
use common::tree::Temp;
use common::unpack::{gnu_tar, into, refused, unpacked, unpacked_in};
use sliverfs::archive::Policy;
use sliverfs::tree;

#[test]
fn paths_that_lead_elsewhere() {
    let new = Policy::NewTree;
    let dir = || Tar::default().dir(b"d/");
    for policy in [Policy::NewTree, Policy::Beneath] {
        refused(&dir().file(b"../outside/x", b"").end(), policy, &["`../outside/x`", "climbs with `..`"]);
        refused(&dir().file(b"d/../../x", b"").end(), policy, &["`d/../../x`", "climbs"]);
        refused(&dir().dir(b"d/..").end(), policy, &["climbs"]);
        refused(&dir().file(b"/etc/x", b"").end(), policy, &["`/etc/x`", "absolute"]);
        refused(&dir().file(b"//x", b"").end(), policy, &["absolute"]);
        refused(&dir().link(b"/l", b"x").end(), policy, &["absolute"]);
        refused(&dir().file(b"", b"").end(), policy, &["is empty"]);
        refused(&dir().file(b".", b"").end(), policy, &["is the root"]);
        refused(&dir().file(b"d", b"x").end(), policy, &["`d`", "would replace a directory"]);
        refused(&dir().link(b"d", b"x").end(), policy, &["`d`", "would replace a directory"]);
        refused(&dir().pax(&[(b"path", b"../x")]).file(b"ok", b"").end(), policy, &["`../x`", "climbs"]);
        refused(&dir().pax(&[(b"path", b"a\0b")]).file(b"ok", b"").end(), policy, &["`a\\x00b`", "NUL"]);
        refused(&dir().hard(b"h", b"../outside/file").end(), policy, &["`h`", "climbs"]);
        refused(&dir().hard(b"h", b"/etc/passwd").end(), policy, &["`h`", "absolute"]);
        refused(&dir().hard(b"h", b"missing").end(), policy, &["`h`", "not there"]);
        refused(&dir().hard(b"h", b"missing/deep").end(), policy, &["`h`", "not there"]);
        refused(&dir().hard(b"h", b"d").end(), policy, &["`h`", "to a directory"]);
        refused(&dir().hard(b"h", b".").end(), policy, &["`h`", "the root"]);
        refused(&dir().hard(b"h", b"").end(), policy, &["`h`", "is empty"]);
        refused(&dir().file(b"f", b"x").file(b"f/x", b"").end(), policy, &["`f/x`", "below `f`"]);
    }
    for target in [&b"../outside"[..], b"/etc", b"d", b".", b"nowhere"] {
        let link = || dir().link(b"l", target);
        refused(&link().file(b"l/x", b"").end(), new, &["`l/x`", "through the link `l`"]);
        refused(&link().file(b"l/x/y", b"").end(), new, &["`l/x/y`", "through the link `l`"]);
        refused(&link().dir(b"l/").end(), new, &["`l/`", "in the place of something else"]);
        refused(&link().hard(b"h", b"l/file").end(), new, &["`h`", "through the link `l`"]);
    }
    // The same by a hard link to the link.
    refused(
        &dir().link(b"l", b"../outside").hard(b"m", b"l").file(b"m/x", b"").end(),
        new,
        &["through the link `m`"],
    );
}

#[test]
fn entries_that_no_base_holds() {
    for policy in [Policy::NewTree, Policy::Beneath] {
        let node = |flag, major, minor| {
            Tar::default().add(Header::new(b"dev", flag, 0).device(major, minor), b"").end()
        };
        refused(&node(b'3', 0, 0), policy, &["`dev`", "whiteout"]);
        // mknod(2) would make 0:0 of it.
        refused(&node(b'3', 4096, 0), policy, &["`dev`", "device numbers"]);
        refused(&node(b'3', 0, 1 << 20), policy, &["`dev`", "device numbers"]);
        refused(&node(b'4', 4096, 1 << 20), policy, &["`dev`", "device numbers"]);
        for name in [
            "trusted.overlay.opaque",
            "user.overlay.redirect",
            "user.fuseoverlayfs.opaque",
            "trusted.overlay.overlay.x",
        ] {
            let key = format!("SCHILY.xattr.{name}");
            let tar = Tar::default().pax(&[(key.as_bytes(), b"y")]).dir(b"d");
            refused(&tar.end(), policy, &[name, "union file system"]);
        }
        for flag in [b'M', b'N', b'A', b'Z', 0x7f] {
            refused(
                &Tar::default().add(Header::new(b"odd", flag, 0), b"").end(),
                policy,
                &["`odd`", "is of the type"],
            );
        }
        refused(&Tar::default().link(b"l", b"").end(), policy, &["`l`", "to nothing"]);
        refused(
            &Tar::default().pax(&[(b"linkpath", b"a\0b")]).link(b"l", b"x").end(),
            policy,
            &["`l`", "NUL"],
        );
        refused(
            &Tar::default().pax(&[(b"SCHILY.xattr.user.a\0b", b"x")]).file(b"f", b"").end(),
            policy,
            &["`f`", "NUL"],
        );
        refused(
            &Tar::default().extended(b'g', &[(b"path", b"x")]).file(b"f", b"").end(),
            policy,
            &["global header"],
        );
        let long = vec![b'n'; 300];
        refused(
            &Tar::default().pax(&[(b"path", &long)]).file(b"f", b"").end(),
            policy,
            &["File name too long"],
        );
    }
    refused(&Tar::default().end(), Policy::NewTree, &["no entries"]);
}

#[test]
fn numbers_that_lie() {
    let policy = Policy::NewTree;
    let file = |at, field: &[u8]| {
        let mut header = Header::new(b"f", b'0', 0);
        header.set(at, field);
        Tar::default().add(header, b"").end()
    };
    refused(&file(124, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), policy, &["`f`", "no size"]);
    refused(&file(124, b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), policy, &["`f`", "no size"]);
    refused(&file(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"), policy, &["`f`", "ends too early"]);
    refused(&file(124, b"77777777777\0"), policy, &["`f`", "ends too early"]);
    refused(&file(124, b"0000000000x\0"), policy, &["`f`", "no size"]);
    refused(&file(124, b"00000000001\0"), policy, &["ends too early"]);
    refused(&file(108, b"\xff\xff\xff\xff\xff\xff\xff\xff"), policy, &["`f`", "owner"]);
    refused(&file(116, b"\x80\0\0\0\xff\xff\xff\xff"), policy, &["`f`", "group"]);
    refused(&file(136, b"nonsense    "), policy, &["`f`", "time"]);
    refused(
        &Tar::default().pax(&[(b"size", b"99999999999999999999")]).file(b"f", b"").end(),
        policy,
        &["size"],
    );
    refused(
        &Tar::default().pax(&[(b"size", b"9223372036854775808")]).file(b"f", b"").end(),
        policy,
        &["`f`", "size"],
    );
    refused(&Tar::default().pax(&[(b"uid", b"4294967295")]).file(b"f", b"").end(), policy, &["uid"]);
    for flag in *b"2356" {
        let header = Header::new(b"f", flag, 512).link(b"x").device(1, 3);
        refused(&Tar::default().add(header, &[0; 512]).end(), policy, &["`f`", "has data"]);
    }
    // A size in a hard link's header means nothing, as with GNU tar.
    let (out, done) = unpacked(
        &Tar::default().file(b"f", b"x").add(Header::new(b"h", b'1', 1).link(b"f"), b"").end(),
        policy,
    );
    done.unwrap();
    assert_eq!(fs::metadata(out.join("tree/h")).unwrap().nlink(), 2);
    // Names and pax headers without bounds would be memory without bounds.
    let mut many = Tar::default();
    for n in 0..20 {
        let key = format!("SCHILY.xattr.user.{n}");
        many = many.pax(&[(key.as_bytes(), &[b'v'; 60_000])]);
    }
    refused(&many.file(b"f", b"").end(), policy, &["headers of", "is the most"]);
    for flag in *b"LKxg" {
        refused(
            &Tar::default().add(Header::new(b"big", flag, (1 << 20) + 1), b"").end(),
            policy,
            &["is the most"],
        );
    }
}

#[test]
fn sparse_maps_that_lie() {
    let policy = Policy::NewTree;
    let old = |map: &[(u64, u64)], real: u64, body: usize| {
        let mut header = Header::new(b"s", b'S', body as u64);
        header.set(257, b"ustar  \0");
        header.set(345, &[0; 155]);
        for (n, (offset, length)) in map.iter().enumerate() {
            header.set(386 + n * 24, format!("{offset:011o}\0{length:011o}\0").as_bytes());
        }
        header.set(483, format!("{real:011o}\0").as_bytes());
        Tar::default().add(header, &vec![b'x'; body]).end()
    };
    refused(&old(&[(0, 512), (256, 512)], 4096, 1024), policy, &["`s`", "overlaps"]);
    refused(&old(&[(1024, 512), (0, 512)], 4096, 1024), policy, &["`s`", "overlaps"]);
    refused(&old(&[(4096, 512)], 4096, 512), policy, &["`s`", "beyond"]);
    refused(&old(&[(0, 512)], 4096, 1024), policy, &["`s`", "bytes of data"]);
    refused(&old(&[(0, 1024)], 4096, 512), policy, &["`s`", "bytes of data"]);
    let new = |records: &[(&[u8], &[u8])], body: &[u8]| Tar::default().pax(records).file(b"s", body).end();
    let v1: [(&[u8], &[u8]); 3] =
        [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"4096")];
    for map in [
        "",
        "x\n",
        "1\n",
        "1\n0\n",
        "1\n0\n-1\n",
        "99999999999999999999999\n",
        "999999999\n",
        "2\n0\n512\n256\n512\n",
    ] {
        let mut body = map.as_bytes().to_vec();
        body.resize(512, 0);
        body.extend([b'x'; 1024]);
        refused(&new(&v1, &body), policy, &["`s`"]);
    }
    refused(&new(&v1, b"1\n0\n"), policy, &["`s`", "damaged"]);
    refused(
        &new(&[(b"GNU.sparse.map", b"0,512,1024"), (b"GNU.sparse.size", b"4096")], &[0; 512]),
        policy,
        &["half a stretch"],
    );
    refused(&new(&[(b"GNU.sparse.map", b"0,512")], &[0; 512]), policy, &["does not say its size"]);
    refused(
        &new(&[(b"GNU.sparse.map", b"0,0"), (b"GNU.sparse.size", b"18446744073709551615")], b""),
        policy,
        &["no disk can hold"],
    );
    // Extension blocks without end.
    let mut header = Header::new(b"s", b'S', 0);
    header.set(257, b"ustar  \0").set(482, b"\x01").set(483, b"00000010000\0");
    let mut endless = header.sum().to_vec();
    for n in 0..100_000u64 {
        let mut block = [0; 512];
        for slot in 0..21 {
            block[slot * 24..slot * 24 + 12]
                .copy_from_slice(format!("{:011o}\0", n * 21 + slot as u64).as_bytes());
            block[slot * 24 + 12..slot * 24 + 24].copy_from_slice(b"00000000000\0");
        }
        block[504] = 1;
        endless.extend(block);
    }
    refused(&endless, policy, &["`s`", "too many holes"]);
}

#[test]
fn torn_anywhere_is_refused() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::new();
    run(Command::new("sh").arg("-c").arg(
        r#"set -e; mkdir -p "$1/d"; cd "$1"; head -c 3000 /dev/urandom > d/f; ln d/f d/g; ln -s f d/l; truncate -s 100000 d/s; echo e >> d/s
        echo x > "d/$(printf '%0150d' 1)""#,
    ).arg("sh").arg(temp.join("source")));
    for options in [&["--format=gnu", "--sparse"][..], &["--format=posix", "--sparse"]] {
        let whole = gnu_tar(&temp.join("source"), options);
        let end = whole.len() - whole.iter().rev().take_while(|b| **b == 0).count();
        let end = end.next_multiple_of(512) + 1024;
        for cut in (0..end).step_by(512).chain((0..end).step_by(97)) {
            let (_out, done) = unpacked_in(Temp::quick(), &whole[..cut], Policy::NewTree);
            assert!(done.is_err(), "{options:?}: cut at {cut} of {end} was taken");
        }
        unpacked(&whole[..end], Policy::NewTree).1.unwrap();
        // A header that lost a byte.
        for at in (0..end - 1024).step_by(512) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x20;
            let (_out, _done) = unpacked_in(Temp::quick(), &bytes, Policy::NewTree);
        }
    }
    let mut hole = Tar::default().file(b"a", b"x").0;
    hole.extend([0; 512]);
    hole.extend(Tar::default().file(b"b", b"x").end());
    refused(&hole, Policy::NewTree, &["block of zeros"]);
    let mut bad = Tar::default().file(b"a", b"x").end();
    bad[3] = b'!';
    refused(&bad, Policy::NewTree, &["damaged at byte 0"]);
}

const ROUNDS: u32 = 3000;

#[test]
fn thousands_of_made_up_archives_never_touch_what_is_outside() {
    if !require("root", common::root()) {
        return;
    }
    let names: [&[u8]; 16] = [
        b"a",
        b"b",
        b"a/b",
        b"b/a",
        b"a/b/c",
        b"a/a",
        b"./b/",
        b"a/",
        b"c",
        b"c/a",
        b"../outside/file",
        b"a/../../outside/x",
        b"outside/file",
        b"a/file",
        b"b/file",
        b"c/dir/x",
    ];
    let mut random = Random(0x5eed);
    let mut taken = 0;
    let temp = Temp::quick();
    fs::create_dir_all(temp.join("outside/dir")).unwrap();
    fs::write(temp.join("outside/file"), "untouched").unwrap();
    let absolute = temp.join("outside").into_os_string().into_encoded_bytes();
    let targets: [&[u8]; 9] =
        [b"a", b"b", b"..", b"../outside", b"../../outside", b"/", &absolute, b"../outside/file", b"a/b"];
    for round in 0..ROUNDS {
        let mut tar = Tar::default();
        for _ in 0..=random.below(6) {
            let name = names[random.pick(names.len())];
            tar = match random.below(6) {
                0 | 1 => tar.link(name, targets[random.pick(targets.len())]),
                2 => tar.hard(name, names[random.pick(names.len())]),
                3 => tar.dir(name),
                _ => tar.file(name, b"hostile"),
            };
        }
        let policy = if round % 2 == 0 { Policy::NewTree } else { Policy::Beneath };
        fs::create_dir(temp.join("tree")).unwrap();
        taken += u32::from(into(&temp, &tar.end(), policy).is_ok());
        tree::remove_path(&temp.join("tree")).unwrap();
    }
    // Both happened, often: the test is not about refusing everything.
    assert!((ROUNDS / 10..ROUNDS / 10 * 9).contains(&taken), "{taken} of {ROUNDS} were taken");
}

#[test]
fn thousands_of_damaged_headers_never_panic() {
    if !require("root", common::root()) {
        return;
    }
    let honest = Tar::default()
        .dir(b"d/")
        .pax(&[(b"mtime", b"1.5"), (b"SCHILY.xattr.user.x", b"1")])
        .file(b"d/f", b"body")
        .add(Header::new(b"././@LongLink", b'L', 3), b"d/g")
        .file(b"x", b"y")
        .pax(&[(b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"4096"), (b"GNU.sparse.name", b"s")])
        .file(b"s", &[&b"1\n1024\n4\n"[..], &[0; 503], b"data"].concat())
        .hard(b"h", b"d/f")
        .end();
    let temp = Temp::quick();
    fs::create_dir_all(temp.join("outside")).unwrap();
    let mut random = Random(0xbad);
    for _ in 0..ROUNDS {
        let mut bytes = honest.clone();
        for _ in 0..=random.below(3) {
            let at = random.pick(bytes.len());
            bytes[at] = u8::try_from(random.below(256)).unwrap();
            // A header's checksum is made right again, so that the damage gets as far as it can.
            let block = at / 512 * 512;
            let header: [u8; 512] = bytes[block..block + 512].try_into().unwrap();
            if header[257..262] == *b"ustar" {
                bytes[block..block + 512].copy_from_slice(&Header(header).sum());
            }
        }
        fs::create_dir(temp.join("tree")).unwrap();
        let _either = into(&temp, &bytes, Policy::NewTree);
        tree::remove_path(&temp.join("tree")).unwrap();
    }
}
