//! Trees by descriptors: copies are equal, removals stay on their disk, and no depth is too deep.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use common::node::run;
use common::tree::{Temp, assert_same, full_tree};
use common::{busy, listing, require};
use sliverfs::tree::{self, Dir, Step, Walk};

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::create_dir(to).unwrap();
    let (source, target) = (tree::open(from).unwrap(), tree::open(to).unwrap());
    tree::copy(source, from.as_os_str().as_bytes(), &target, (0, 0), tree::Content::Written, &mut |_| ())
        .map(drop)
        .map_err(|err| err.to_string())
}

fn digest(of: &Path) -> Result<String, String> {
    let root = tree::open(of).unwrap();
    tree::digest(&root, of.as_os_str().as_bytes(), true, &mut |_| ())
        .map(|sum| sum.digest.to_owned())
        .map_err(|err| err.to_string())
}

/// The same tree on any machine at any time, and its digest as another program computed it from docs/digest.md.
#[test]
fn the_digest_is_frozen() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::new();
    run(Command::new("sh").arg("-c").arg(
        r#"set -e; umask 022; mkdir -p "$1/sub/empty"; cd "$1"; printf hello > a; ln a sub/hard; ln -s ../a sub/link; : > nothing
        truncate -s 10000 holes; printf x | dd of=holes bs=1 seek=8192 conv=notrunc 2>/dev/null; mkfifo fifo; mknod zero c 1 5; mknod disk b 8 17
        printf z > "$(printf 'b\377\n')"; chown 7:8 a; chmod 4751 a; chown -h 9 sub/link; setfattr -n user.k -v v a; setfattr -n trusted.d -v '' sub
        find . -depth -exec touch -h -d @1000000000 {} +; touch -d @-1 nothing; touch -d 2001-09-09T01:46:41.5Z fifo"#,
    ).arg("sh").arg(temp.join("t")));
    assert_eq!(
        digest(&temp.join("t")).unwrap(),
        "sliverfs-tree-1:92c2d789648bb718ad369c7233d8b25e7612a6ca4a560713bdd400513f3e34e3"
    );
    let no_attrs = tree::digest(&tree::open(&temp.join("t")).unwrap(), b"", false, &mut |_| ()).unwrap();
    assert_eq!(
        no_attrs.digest,
        "sliverfs-tree-1-noxattr:899fa61fd15a4b9b09d27ee9d03d292207436ad9a9d28d652806e775145dfee9"
    );
    assert_eq!((no_attrs.entries, no_attrs.bytes), (11, 10006));
}

/// Whatever differs in two trees shows in their digests; what does not belong to a tree does not.
#[test]
fn the_digest_sees_every_difference() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::new();
    full_tree(&temp.join("a"), true);
    copy(&temp.join("a"), &temp.join("b")).unwrap();
    let whole = digest(&temp.join("a")).unwrap();
    assert_eq!(digest(&temp.join("b")).unwrap(), whole);
    for change in [
        "touch -a -d @3 etc/file",
        "touch -d @1500000000.5 etc/file",
        "cp --sparse=never var/holes h; touch -r var/holes h; mv h var/holes; touch -d @1500000000 var; touch -d @1234567890 .",
        "setfattr -n security.other -v x etc/file",
    ] {
        run(Command::new("sh").arg("-ec").arg(format!("cd \"$1\"; {change}")).arg("sh").arg(temp.join("b")));
        assert_eq!(digest(&temp.join("b")).unwrap(), whole, "{change}");
    }
    for (number, change) in [
        "touch -d @1500000001 etc/file",
        "touch -h -d @1500000001 etc/relative",
        "touch -d @1500000001 .",
        "chmod 4754 etc/file",
        "chown 1000:1002 etc/file",
        "chown -h 7 dangling",
        "printf j | dd of=etc/file bs=1 conv=notrunc; touch -d @1500000000 etc/file",
        "truncate -s 3000001 var/holes; touch -d @1500000000 var/holes",
        "mv etc/file etc/fiLe; touch -d @1500000000 etc",
        "rm zz; cp -p etc/file zz; setfattr -n user.text -v \"$(printf 'a\\nb = c')\" zz; touch -d @1500000000 zz; touch -d @1234567890 .",
        "ln -sfn nowherE dangling; touch -h -d @1500000000 dangling; touch -d @1234567890 .",
        "setfattr -n user.text -v other etc/file",
        "setfattr -x trusted.dir etc",
        "setfattr -n user.new -v 1 var",
        "rm dev/null; mknod -m 666 dev/null c 1 4; touch -d @1500000000 dev/null dev",
        "rm dev/sda; mknod dev/sda c 8 0; touch -d @1500000000 dev/sda dev",
        "mkdir var/empty/deep/new; touch -d @1500000000 var/empty/deep/new var/empty/deep",
        "mv var/empty/deep deep; touch -d @1500000000 var/empty; touch -d @1234567890 .",
    ]
    .into_iter()
    .enumerate()
    {
        let other = temp.join(&format!("c{number}"));
        copy(&temp.join("a"), &other).unwrap();
        run(Command::new("sh").arg("-ec").arg(format!("cd \"$1\"; {change}")).arg("sh").arg(&other));
        assert_ne!(digest(&other).unwrap(), whole, "{change}");
    }
}

#[test]
fn a_copy_is_equal_to_its_source() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::new();
    let source = temp.join("source");
    full_tree(&source, true);
    run(Command::new("sh").arg("-ec").arg(
        r#"cd "$1"; ln dev/null dev/same; ln dev/fifo fifo; touch -d @1500000000.123456789 etc/nothing
        if command -v setfacl >/dev/null; then setfacl -d -m u:77:rwx etc/dir; mkdir etc/dir/sub; setfacl -k -b etc/dir/sub; echo x > etc/dir/x; fi"#,
    ).arg("sh").arg(&source));
    copy(&source, &temp.join("copy")).unwrap();
    assert_same(&listing::of(&temp.join("copy"), true), &listing::of(&source, true), "the copy");
    for file in ["var/holes", "var/all-hole", "var/end-hole", "var/zeros"] {
        let disk = |tree: &str| {
            std::os::unix::fs::MetadataExt::blocks(&fs::metadata(temp.join(tree).join(file)).unwrap())
        };
        assert_eq!(disk("copy"), disk("source"), "{file}");
    }
    assert_eq!(tree::space(&temp.join("copy")).unwrap(), tree::space(&source).unwrap());
    let du = run(Command::new("du").args(["-s", "-B1"]).arg(&source));
    assert_eq!(tree::space(&source).unwrap().to_string(), du.split_whitespace().next().unwrap());
}

#[test]
fn what_a_copy_refuses_and_leaves_out() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::new();
    let source = temp.join("source");
    for (number, (script, words)) in [
        ("mknod d/wh c 0 0", "whiteout"),
        ("setfattr -n trusted.overlay.opaque -v y d", "trusted.overlay.opaque"),
        ("echo > d/f; setfattr -n user.overlay.redirect -v /x d/f", "user.overlay.redirect"),
    ]
    .into_iter()
    .enumerate()
    {
        fs::create_dir_all(source.join("d")).unwrap();
        run(Command::new("sh").arg("-ec").arg(format!("cd \"$1\"; {script}")).arg("sh").arg(&source));
        let said = copy(&source, &temp.join(&format!("copy{number}"))).unwrap_err();
        assert!(said.contains(words) && said.contains("merged view"), "{said}");
        assert!(digest(&source).unwrap_err().contains(words));
        fs::remove_dir_all(&source).unwrap();
    }
    fs::create_dir_all(source.join("d")).unwrap();
    let _socket = UnixListener::bind(source.join("d/socket")).unwrap();
    copy(&source, &temp.join("without")).unwrap();
    assert!(temp.join("without/d").is_dir() && !temp.join("without/d/socket").exists());
}

/// A disk without attributes (JFFS2, ext2 and vfat of small kernels; ramfs here) takes a tree that has none, and never one whose
/// programs would lose their capabilities.
#[test]
fn a_disk_that_cannot_keep_a_tree_refuses_it() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::new();
    for (name, attrs) in [("plain", false), ("capable", true)] {
        full_tree(&temp.join(name), attrs);
    }
    fs::create_dir(temp.join("disk")).unwrap();
    run(Command::new("mount").args(["-t", "ramfs", "none"]).arg(temp.join("disk")));
    let done = ["plain", "capable"].map(|name| copy(&temp.join(name), &temp.join("disk").join(name)));
    let sum = digest(&temp.join("disk/plain"));
    busy::umount(&temp.join("disk"));
    assert_eq!((done[0].clone(), sum.unwrap()), (Ok(()), digest(&temp.join("plain")).unwrap()));
    let said = done[1].clone().unwrap_err();
    assert!(said.contains("set the attributes of") && said.contains("use another one"), "{said}");
}

#[test]
fn nothing_crosses_a_mount() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::new();
    let source = temp.join("source");
    fs::create_dir_all(source.join("deep/mnt")).unwrap();
    fs::write(source.join("deep/last"), "").unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(source.join("deep/mnt")));
    fs::write(source.join("deep/mnt/precious"), "kept").unwrap();
    let said = [copy(&source, &temp.join("copy")).unwrap_err(), digest(&source).unwrap_err(), {
        tree::remove_path(&source).unwrap_err().to_string()
    }];
    let precious = fs::read_to_string(source.join("deep/mnt/precious"));
    let at_once = tree::remove_path(&source.join("deep/mnt")).unwrap_err().to_string();
    let still = fs::read_to_string(source.join("deep/mnt/precious"));
    busy::umount(&source.join("deep/mnt"));
    for said in said {
        assert!(said.contains("deep/mnt is another file system") && said.contains("unmount"), "{said}");
    }
    assert!(at_once.contains("unmount"), "{at_once}");
    assert_eq!((precious.unwrap(), still.unwrap()), ("kept".to_owned(), "kept".to_owned()));
    tree::remove_path(&source).unwrap();
    assert!(!source.exists());
    tree::remove_path(&source).unwrap();
}

/// What goes, or becomes another thing, between a look and the step into it is passed over by who wants to.
#[test]
fn a_walk_goes_on_where_a_directory_went() {
    let temp = Temp::new();
    for name in ["a", "b", "c", "d"] {
        fs::create_dir_all(temp.join("t").join(name).join("in")).unwrap();
    }
    let mut walk = Walk::new(tree::open(&temp.join("t")).unwrap(), b"").unwrap();
    let mut seen = Vec::new();
    while let Some(step) = walk.step().unwrap() {
        let Step::Entry(entry) = step else { continue };
        let name = String::from_utf8(entry.path.to_vec()).unwrap();
        match name.as_str() {
            "a" => {
                fs::rename(temp.join("t/a"), temp.join("old")).unwrap();
                fs::create_dir_all(temp.join("t/a/other")).unwrap();
            }
            "b" => fs::remove_dir_all(temp.join("t/b")).unwrap(),
            "c" => {
                fs::remove_dir_all(temp.join("t/c")).unwrap();
                std::os::unix::fs::symlink(temp.join("old"), temp.join("t/c")).unwrap();
            }
            _ => {}
        }
        let entered = walk.enter_unmounted();
        assert_eq!(entered.is_err(), ["a", "b", "c"].contains(&name.as_str()), "{name}");
        seen.push(name);
    }
    assert_eq!(seen, ["a", "b", "c", "d", "d/in"]);
}

#[test]
fn a_removal_follows_no_link_and_names_what_it_cannot() {
    if !require("root", common::root()) {
        return;
    }
    let temp = Temp::new();
    run(Command::new("sh").arg("-ec").arg(
        r#"cd "$1"; mkdir -p out t/ro; echo > out/f; ln -s ../out t/l; ln -s "$1/out/f" t/ro/f; mkfifo t/fifo; mknod t/wh c 0 0; chmod 0 t/ro; ln -s out top"#,
    ).arg("sh").arg(&temp.0));
    tree::remove_path(&temp.join("t")).unwrap();
    tree::remove_path(&temp.join("top")).unwrap();
    assert!(temp.join("out/f").exists() && !temp.join("t").exists() && !temp.join("top").exists());
    run(Command::new("sh")
        .arg("-ec")
        .arg("mkdir -p \"$1/t/d\"; echo > \"$1/t/d/f\"; chattr +i \"$1/t/d/f\"")
        .arg("sh")
        .arg(&temp.0));
    let said = tree::remove_path(&temp.join("t")).unwrap_err().to_string();
    run(Command::new("chattr").arg("-i").arg(temp.join("t/d/f")));
    assert!(said.contains("t/d/f") && said.contains("chattr -i"), "{said}");
}

/// 100,000 levels: any recursion would end its stack, any descriptor a level the process's limit, any path PATH_MAX.
#[test]
fn no_tree_is_too_deep() {
    if !require("root", common::root()) {
        return;
    }
    const LEVELS: usize = 100_000;
    let temp = Temp::quick();
    let top = temp.join("deep");
    fs::create_dir(&top).unwrap();
    let mut here = Dir::open(&top).unwrap();
    for _ in 0..LEVELS {
        here.make_dir(c"d").unwrap();
        here = here.child(c"d").unwrap();
    }
    here.create_file(c"bottom").unwrap();
    here.hard_link(c"second", &here, c"bottom").unwrap();
    drop(here);
    copy(&top, &temp.join("copy")).unwrap();
    let sum = |path: &Path| tree::digest(&tree::open(path).unwrap(), b"", true, &mut |_| ()).unwrap();
    let (wanted, found) = (sum(&top), sum(&temp.join("copy")));
    assert_eq!(wanted.entries, LEVELS as u64 + 2);
    assert_eq!(found.digest, wanted.digest);
    tree::space(&top).unwrap();
    tree::remove_path(&top).unwrap();
    tree::remove_path(&temp.join("copy")).unwrap();
    assert_eq!(fs::read_dir(&temp.0).unwrap().count(), 0);
}
