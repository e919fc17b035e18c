//! Archives that are honest: what GNU tar writes comes out equal, and what is odd comes out as it was meant.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use common::node::run;
use common::tar::{Header, Tar};
use common::tree::{Temp, assert_same, full_tree, installed};
use common::unpack::{gnu_tar, into, refused, unpacked};
use common::{listing, require};
use sliverfs::archive::Policy;

#[test]
fn what_gnu_tar_writes_comes_out_equal() {
    if !require("root", common::root()) || !require("tar", installed("tar")) {
        return;
    }
    let temp = Temp::new();
    full_tree(&temp.join("source"), false);
    let wanted = listing::of(&temp.join("source"), true);
    for options in [
        &["--format=gnu"][..],
        &["--format=oldgnu"],
        &["--format=posix"],
        &["--format=gnu", "--sparse"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
        &["--format=posix", "--pax-option=delete=atime,delete=ctime"],
        &["--format=gnu", "--blocking-factor=1"],
    ] {
        let (out, done) = unpacked(&gnu_tar(&temp.join("source"), options), Policy::NewTree);
        done.unwrap_or_else(|err| panic!("{options:?}: {err}"));
        assert_same(&listing::of(&out.join("tree"), true), &wanted, &format!("{options:?}"));
        if options.contains(&"--sparse") {
            for file in ["var/holes", "var/all-hole", "var/end-hole"] {
                let disk = |tree: &Path| fs::metadata(tree.join(file)).unwrap().blocks();
                assert_eq!(disk(&out.join("tree")), disk(&temp.join("source")), "{options:?}: {file}");
            }
        }
    }
}

#[test]
fn old_formats_and_what_they_can_hold() {
    if !require("root", common::root()) || !require("tar", installed("tar")) {
        return;
    }
    let temp = Temp::new();
    let source = temp.join("source");
    run(Command::new("sh").arg("-c").arg(
        r#"set -e; mkdir -p "$1/a/b"; cd "$1"; echo 1 > a/f; ln a/f a/g; ln -s f a/l; chown 12:34 a/f; mkdir -p "a/$(printf '%080d' 1)/$(printf '%080d' 2)"
        echo 2 > "a/$(printf '%080d' 1)/$(printf '%080d' 2)/long""#,
    ).arg("sh").arg(&source));
    run(Command::new("find").arg(&source).args(["-exec", "touch", "-h", "-d", "@1000", "{}", "+"]));
    let (out, done) = unpacked(&gnu_tar(&source, &["--format=ustar"]), Policy::NewTree);
    done.unwrap();
    assert_same(&listing::of(&out.join("tree"), true), &listing::of(&source, true), "an old format");
    run(Command::new("sh")
        .arg("-c")
        .arg(r#"rm -r "$1"/a/000*; touch -d @1000 "$1/a""#)
        .arg("sh")
        .arg(&source));
    let (out, done) = unpacked(&gnu_tar(&source, &["--format=v7"]), Policy::NewTree);
    done.unwrap();
    assert_same(&listing::of(&out.join("tree"), true), &listing::of(&source, true), "an old format");
}

#[test]
fn attributes_capabilities_and_acls() {
    if !require("root", common::root())
        || !require("setfattr", installed("setfattr"))
        || !require("setfacl", installed("setfacl"))
    {
        return;
    }
    let temp = Temp::new();
    let source = temp.join("source");
    full_tree(&source, true);
    // A default ACL is inherited by what is made below it, unless somebody takes care.
    run(Command::new("sh").arg("-c").arg(
        r#"cd "$1"; setfacl -d -m u:77:rwx etc/dir; mkdir etc/dir/sub; echo x > etc/dir/x; setfacl -b etc/dir/x; setfacl -k -b etc/dir/sub
        setfacl -m u:78:r etc/nothing; touch -d @5 etc/dir/x etc/dir/sub etc/dir etc"#,
    ).arg("sh").arg(&source));
    let wanted = listing::of(&source, true);
    assert!(wanted.contains("security.capability=") && wanted.contains("system.posix_acl_default="));
    let options = ["--format=posix", "--xattrs", "--xattrs-include=*"];
    let (out, done) = unpacked(&gnu_tar(&source, &options), Policy::NewTree);
    done.unwrap();
    assert_same(&listing::of(&out.join("tree"), true), &wanted, "with attributes");
    // The words of an ACL name users of another machine.
    refused(
        &gnu_tar(&source, &["--format=posix", "--acls"]),
        Policy::NewTree,
        &["ACL in words", "--xattrs-include='*'"],
    );
}

#[test]
fn odd_but_honest() {
    let tar = Tar::default()
        .extended(b'g', &[(b"comment", b"by hand"), (b"uid", b"7"), (b"mtime", b"99")])
        .add(Header::new(b"label", b'V', 0), b"")
        .file(b"implied/parents/f", b"1")
        .pax(&[(b"uid", b"8"), (b"mtime", b"-1.5"), (b"path", b"./n\xff\n//x/")])
        .dir(b"ignored")
        .file(b"twice", b"first")
        .file(b"twice", b"second, longer")
        .link(b"l", b"/anywhere/../at/all")
        .file(b"l", b"a file now")
        .hard(b"h", b"./twice")
        .hard(b"h", b"h")
        .dir(b"implied/")
        .add(Header::new(b"ends-with-slash/", 0, 0), b"");
    let (out, done) = unpacked(&tar.end(), Policy::NewTree);
    done.unwrap();
    let tree = out.join("tree");
    let read = |name: &str| fs::read_to_string(tree.join(name)).unwrap();
    assert_eq!(
        (read("twice"), read("h"), read("l")),
        ("second, longer".into(), "second, longer".into(), "a file now".into())
    );
    let meta = |name: &str| fs::symlink_metadata(tree.join(name)).unwrap();
    assert_eq!((meta("implied/parents/f").uid(), meta("implied/parents/f").mtime()), (7, 99));
    // Folders that the archive does not name have no time of their own, nor has the root.
    assert_eq!((meta("implied/parents").mtime(), meta("implied/parents").mode() & 0o7777), (0, 0o755));
    assert_eq!((meta("").mtime(), meta("implied").mtime(), meta("implied").mode() & 0o7777), (0, 99, 0o755));
    assert!(meta("ends-with-slash").is_dir());
    let odd = std::ffi::OsStr::new("x");
    let odd = fs::read_dir(&tree).unwrap().map(|e| e.unwrap().path()).find(|p| p.join(odd).exists()).unwrap();
    let odd = fs::metadata(odd.join("x")).unwrap();
    assert_eq!((odd.uid(), odd.mtime(), odd.mtime_nsec()), (8, -2, 500_000_000));
}

#[test]
fn beneath_a_root_links_are_resolved_inside() {
    let tar = Tar::default()
        .dir(b"./")
        .dir(b"bin/")
        .file(b"bin/tool", b"#!")
        .file(b"climbs/x", b"1")
        .file(b"leads-out/y", b"2")
        .dir(b"new/")
        .link(b"new/up", b"../../../../../../usr")
        .file(b"new/up/z", b"3")
        .hard(b"again", b"bin/tool");
    let (out, done) = unpacked(&tar.clone().end(), Policy::Beneath);
    done.unwrap();
    let tree = out.join("tree");
    assert_eq!(fs::read_link(tree.join("bin")).unwrap(), Path::new("usr/bin"));
    assert_eq!(fs::metadata(tree.join("usr/bin/tool")).unwrap().nlink(), 2);
    assert_eq!(fs::read(tree.join("outside/x")).unwrap(), b"1");
    assert_eq!(fs::read(tree.join("usr/z")).unwrap(), b"3");
    let inside = out.join("outside");
    let inside = tree.join(inside.strip_prefix("/").unwrap());
    assert_eq!(fs::read(inside.join("y")).unwrap(), b"2");
    // What is there is replaced, also a link in the last place, and never written through.
    let again =
        Tar::default().file(b"bin/tool", b"v2").file(b"new/up", b"no link").file(b"climbs", b"plain").end();
    into(&out, &again, Policy::Beneath).unwrap();
    assert_eq!(fs::read(tree.join("usr/bin/tool")).unwrap(), b"v2");
    assert_eq!(fs::read(tree.join("again")).unwrap(), b"#!");
    assert_eq!(fs::read(tree.join("new/up")).unwrap(), b"no link");
    assert!(fs::symlink_metadata(tree.join("climbs")).unwrap().is_file());
    refused(&Tar::default().file(b"loop/x", b"").end(), Policy::Beneath, &["`loop/x`", "too many links"]);
    refused(
        &Tar::default().file(b"bin", b"").dir(b"usr").link(b"usr", b"x").end(),
        Policy::Beneath,
        &["`usr`", "directory"],
    );
}
