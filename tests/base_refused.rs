//! Bases that come to nothing: what is hostile, torn, killed or finds no room leaves nothing behind, and is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::bases::{bases, in_bases, node, tools};
use common::busy;
use common::node::run;
use common::seed::text;
use common::tar::Tar;
use common::tree::{Temp, sh_in};

#[test]
fn a_wrong_source_changes_nothing() {
    let Some(node) = node(32) else { return };
    let temp = Temp::new();
    fs::write(temp.join("empty"), "").unwrap();
    fs::write(temp.join("short"), "x").unwrap();
    fs::write(temp.join("text"), vec![b'x'; 9000]).unwrap();
    fs::write(temp.join("nothing.tar"), vec![0; 10240]).unwrap();
    sh_in(&temp.0, "gzip -k text; gzip -c text.gz > twice.gz; mkdir t; echo 1 > t/f; tar -cf t.tar t");
    fs::remove_dir_all(bases(&node)).unwrap();
    fs::remove_dir_all(node.lxcpath.join(".store")).unwrap();
    fs::remove_file(node.lxcpath.join(".sliverfs")).unwrap();
    let add = |source: &str| node.fails(2, &["base", "add", "b", text(&temp.join(source))]);
    assert!(add("empty").contains("it is empty"));
    assert!(add("short").contains("no archive or image"));
    assert!(add("text").contains("it takes tar"));
    assert!(add("text.gz").contains("no archive or image"));
    assert!(add("twice.gz").contains("compressed twice"));
    assert!(node.fails(1, &["base", "add", "b", text(&temp.join("missing"))]).contains("No such file"));
    assert!(
        node.fails(2, &["base", "add", "b", text(&temp.join("t.tar")), "--pack", "zip"])
            .contains("squashfs, erofs or btrfs")
    );
    for name in [".base", "a/b", "", "-x", "ä"] {
        assert_eq!(
            node.run(&["base", "add", name, text(&temp.join("t.tar"))]).status.code(),
            Some(2),
            "{name}"
        );
    }
    assert!(node.fails(2, &["base", "add", "b", text(&node.lxcpath)]).contains("LXCPATH"));
    assert!(node.fails(2, &["base", "add", "b", "/"]).contains("LXCPATH"));
    // Not even the marker was made.
    assert_eq!(fs::read_dir(&node.lxcpath).unwrap().count(), 0);
    let plan = node.ok(&["base", "add", "b", text(&temp.join("t.tar")), "--dry-run"]);
    assert!(plan.contains("mkdir -p") && plan.contains("tar -xpf"), "{plan}");
    assert_eq!(fs::read_dir(&node.lxcpath).unwrap().count(), 0);
    assert!(node.fails(2, &["base", "add", "b", text(&temp.join("nothing.tar"))]).contains("no entries"));
    assert!(node.lxcpath.join(".sliverfs").exists());
    assert_eq!(in_bases(&node), [""; 0]);
    node.ok(&["base", "add", "b", text(&temp.join("t.tar"))]);
}

#[test]
fn hostile_and_torn_sources_leave_nothing() {
    if !tools(&["xz", "zstd", "mksquashfs", "mkfs.erofs", "setfattr"]) {
        return;
    }
    let Some(node) = node(64) else { return };
    let temp = Temp::new();
    let hostile = Tar::default().dir(b"d/").link(b"d/out", b"/").file(b"d/out/pwned", b"x").end();
    fs::write(temp.join("hostile.tar"), hostile).unwrap();
    let odd = Tar::default().dir(b"d/").file(b"d/\x1b[2J\xff/../../x", b"x").end();
    fs::write(temp.join("odd.tar"), odd).unwrap();
    sh_in(
        &temp.0,
        r#"mkdir -p t/d; head -c 200000 /dev/urandom > t/d/f; tar -cf t.tar t
        for c in gzip xz zstd; do $c -ck t.tar 2>/dev/null > t.$c; head -c 100000 t.$c > torn.$c; done; head -c 100000 t.tar > torn.tar
        cp t.xz flipped.xz; printf '\377\000\377' | dd of=flipped.xz bs=1 seek=120000 conv=notrunc 2>/dev/null
        cp t.gzip flipped.gz; printf '\377\000\377' | dd of=flipped.gz bs=1 seek=120000 conv=notrunc 2>/dev/null
        mksquashfs t t.squashfs -quiet -no-progress >/dev/null; head -c 100000 t.squashfs > torn.squashfs
        mkfs.erofs t.erofs t >/dev/null 2>&1; head -c 100000 t.erofs > torn.erofs
        cp t.squashfs bad.squashfs; head -c 300 /dev/zero | tr "\\0" "\\252" | dd of=bad.squashfs bs=1 seek=200110 conv=notrunc 2>/dev/null
        mkdir u; setfattr -n trusted.overlay.opaque -v y u; mksquashfs u u.squashfs -quiet -no-progress >/dev/null
        mkdir w; mknod w/f c 0 0; mkfs.erofs w.erofs w >/dev/null 2>&1; mkdir s"#,
    );
    let _socket = UnixListener::bind(temp.join("s/socket")).unwrap();
    for (source, words) in [
        ("hostile.tar", &["`d/out/pwned`", "through the link `out`"][..]),
        ("odd.tar", &["`d/\\x1b[2J\\xff/../../x`", "climbs"]),
        ("torn.tar", &["ends too early", "t/d/f"]),
        ("torn.gzip", &["t/d/f"]),
        ("torn.xz", &["t/d/f"]),
        ("torn.zstd", &["t/d/f"]),
        ("flipped.xz", &["t/d/f"]),
        ("flipped.gz", &["t/d/f"]),
        ("torn.squashfs", &["is cut off"]),
        ("torn.erofs", &["is cut off"]),
        ("bad.squashfs", &[]),
        ("u.squashfs", &["trusted.overlay.opaque"]),
        ("w.erofs", &["whiteout"]),
    ] {
        let said = node.fails(1, &["base", "add", "b", text(&temp.join(source))]);
        for word in words {
            assert!(said.contains(word), "{source}: `{word}` is not in: {said}");
        }
        assert_eq!(in_bases(&node), [""; 0], "{source}");
    }
    let said = node.run(&["base", "add", "b", text(&temp.join("s"))]);
    assert!(said.status.success() && String::from_utf8_lossy(&said.stderr).contains("s/socket is a socket"));
}

#[test]
fn missing_tools_are_named() {
    if !tools(&["xz", "zstd", "bzip2"]) {
        return;
    }
    let Some(node) = node(32) else { return };
    let temp = Temp::new();
    sh_in(
        &temp.0,
        "mkdir t; echo 1 > t/f; tar -cf t.tar t; xz -k t.tar; zstd -qk t.tar; bzip2 -k t.tar; gzip -k t.tar; mkdir nothing",
    );
    let without = |args: &[&str]| node.command(args).env("PATH", temp.join("nothing")).output().unwrap();
    for (args, words) in [
        (&["t.tar.xz"][..], &["undoes xz", "xz-utils", "gzip, which needs nothing"][..]),
        (&["t.tar.zst"], &["undoes zstd", "package zstd"]),
        (&["t.tar.bz2"], &["undoes bzip2"]),
        (&["t.tar", "--pack", "squashfs"], &["mksquashfs is not installed", "squashfs-tools"]),
        (&["t", "--pack", "erofs"], &["mkfs.erofs is not installed", "erofs-utils"]),
        (&["t", "--pack", "btrfs"], &["mkfs.btrfs is not installed", "btrfs-progs"]),
    ] {
        let source = temp.join(args[0]);
        let output = without(&[&["base", "add", "b", text(&source)], &args[1..]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        for word in words {
            assert!(said.contains(word), "`{word}` is not in: {said}");
        }
        assert_eq!(in_bases(&node), [""; 0]);
    }
    // gzip needs nothing, and nor does anything else.
    assert!(without(&["base", "add", "b", text(&temp.join("t.tar.gz"))]).status.success());
    assert!(without(&["base", "verify", "b"]).status.success());
}

#[test]
fn a_killed_import_leaves_no_base_and_the_next_one_clears_up() {
    if !tools(&["mksquashfs", "xz"]) {
        return;
    }
    let Some(node) = node(256) else { return };
    let temp = Temp::new();
    sh_in(
        &temp.0,
        r#"mkdir t; for d in 1 2 3 4 5 6 7 8; do mkdir t/$d; for f in 1 2 3 4 5 6 7 8 9; do head -c 200000 /dev/urandom > t/$d/$f; done; done
        tar -cf t.tar t; xz -0k t.tar"#,
    );
    let mut killed = 0;
    for round in 0..36u64 {
        let source = temp.join(["t", "t.tar", "t.tar.xz"][usize::try_from(round % 3).unwrap()]);
        let mut args = vec!["base", "add", "b", text(&source)];
        if round % 2 == 0 {
            args.extend(["--pack", "squashfs"]);
        }
        let mut child = node.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(round * 13));
        child.kill().unwrap();
        let done = child.wait().unwrap().success();
        killed += u32::from(!done);
        let names = in_bases(&node);
        let whole = names.iter().any(|name| name == "b");
        assert!(whole || !done);
        if whole {
            // It got that far: then it is all there.
            node.ok(&["base", "verify", "b"]);
            node.ok(&["base", "remove", "b"]);
        } else {
            assert_eq!(node.json(&["base", "list", "--json"]), serde_json::json!([]));
            node.fails(2, &["base", "show", "b"]);
        }
    }
    assert!(killed >= 6, "only {killed} were killed in time");
    node.ok(&["base", "add", "b", text(&temp.join("t.tar"))]);
    assert_eq!(in_bases(&node), ["b"]);
    node.ok(&["base", "verify", "b"]);
}

#[test]
fn an_interrupted_import_says_what_stays_and_the_next_one_clears_up() {
    let Some(node) = node(64) else { return };
    for (signal, pack) in [(2, &[][..]), (15, &["--pack", "squashfs"])] {
        if !pack.is_empty() && !tools(&["mksquashfs"]) {
            continue;
        }
        let mut command = node.command(&[&["base", "add", "b", "-"], pack].concat());
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The rest never comes.
        let tar = Tar::default().file(b"file", &[b'x'; 300_000]).end();
        child.stdin.as_mut().unwrap().write_all(&tar[..200_000]).unwrap();
        busy::until("it has not begun", || {
            !in_bases(&node).is_empty() || child.try_wait().unwrap().is_some()
        });
        run(Command::new("kill").args([format!("-{signal}"), child.id().to_string()]));
        let stdin = child.stdin.take();
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(signal));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.matches("interrupted: nothing was added; the next").count(), 1, "{said}");
        let left = in_bases(&node).concat();
        assert!(left.starts_with(".new.b."), "{left}");
        let tree = node.dir().join("tree");
        fs::create_dir_all(tree.join("etc")).unwrap();
        let output = node.run(&["base", "add", "b", text(&tree)]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("clearing away") && said.contains(&left), "{said}");
        assert_eq!(in_bases(&node), ["b"]);
        let output = node.run(&["base", "remove", "b"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("clearing away"), "{said}");
    }
}

#[test]
fn two_at_once_do_not_meet() {
    let Some(node) = node(256) else { return };
    let temp = Temp::new();
    sh_in(
        &temp.0,
        "mkdir t; for f in 1 2 3 4 5 6 7 8 9; do head -c 500000 /dev/urandom > t/$f; done; tar -cf t.tar t",
    );
    for round in 0..5 {
        let children: Vec<_> = (0..6)
            .map(|n| {
                let name = if n < 4 { "same".to_owned() } else { format!("other{n}") };
                node.command(&["base", "add", &name, text(&temp.join("t.tar"))])
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let codes: Vec<_> = children.into_iter().map(|mut child| child.wait().unwrap().code()).collect();
        assert!(codes[..4].contains(&Some(0)) && codes[4..] == [Some(0); 2], "round {round}: {codes:?}");
        assert_eq!(in_bases(&node), ["other4", "other5", "same"], "round {round}");
        for name in ["other4", "other5", "same"] {
            node.ok(&["base", "verify", name]);
            node.ok(&["base", "remove", name]);
        }
    }
    assert_eq!(in_bases(&node), [""; 0]);
}

#[test]
fn a_full_disk_is_told_and_given_back() {
    if !tools(&["mksquashfs"]) {
        return;
    }
    let Some(node) = node(12) else { return };
    let temp = Temp::new();
    sh_in(
        &temp.0,
        "mkdir big small; head -c 30000000 /dev/urandom > big/f; echo 1 > small/f; tar -cf big.tar big; mksquashfs big big.squashfs -quiet -no-progress >/dev/null",
    );
    for source in ["big", "big.tar", "big.squashfs"] {
        let said = node.fails(1, &["base", "add", "b", text(&temp.join(source))]);
        assert!(said.contains("No space left") && said.contains(" MiB are free on the disk of"), "{said}");
        assert_eq!(in_bases(&node), [""; 0], "{source}");
    }
    let said = node.fails(1, &["base", "add", "b", text(&temp.join("big")), "--pack", "squashfs"]);
    assert!(said.contains("mksquashfs could not pack"), "{said}");
    assert_eq!(in_bases(&node), [""; 0]);
    node.ok(&["base", "add", "b", text(&temp.join("small"))]);
    // A disk that cannot be written at all.
    busy::remount("ro", node.lxcpath.parent().unwrap());
    let said = node.fails(1, &["base", "add", "c", text(&temp.join("small"))]);
    assert!(said.contains("Read-only file system"), "{said}");
    node.ok(&["base", "list"]);
    node.ok(&["base", "verify", "b"]);
}

#[test]
fn squashfs_that_would_lose_acls_is_not_published() {
    if !tools(&["mksquashfs", "mkfs.erofs", "setfacl"]) {
        return;
    }
    let Some(node) = node(64) else { return };
    let temp = Temp::new();
    sh_in(&temp.0, "mkdir t; echo 1 > t/f; setfacl -m u:77:rw t/f");
    let said = node.fails(1, &["base", "add", "b", text(&temp.join("t")), "--pack", "squashfs"]);
    assert!(said.contains("does not hold what") && said.contains("ACL"), "{said}");
    assert_eq!(in_bases(&node), [""; 0]);
    node.ok(&["base", "add", "b", text(&temp.join("t")), "--pack", "erofs"]);
}
