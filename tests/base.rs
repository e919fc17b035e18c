//! Bases by the real binary: what goes in comes out the same, and what fails leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::node::{Node, run};
use common::tar::Tar;
use common::tree::{Temp, assert_same, full_tree, installed};
use common::{busy, listing, require};

fn node(mib: u64) -> Option<Node> {
    require("root", common::root()).then(|| Node::new("ext4", mib))
}

/// All the tools that a test needs.
fn tools(programs: &[&str]) -> bool {
    programs.iter().all(|program| require(program, installed(program)))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn shell(script: &str, dir: &Path) {
    run(Command::new("sh").arg("-ec").arg(format!("cd \"$1\"; {script}")).arg("sh").arg(dir));
}

/// Runs the binary with a file as its standard input.
fn piped(node: &Node, args: &[&str], input: &Path) -> Output {
    let mut cat = Command::new("cat").arg(input).stdout(Stdio::piped()).spawn().unwrap();
    let pipe = cat.stdout.take().unwrap();
    let output = node.command(args).stdin(pipe).output().unwrap();
    cat.wait().unwrap();
    output
}

fn bases(node: &Node) -> PathBuf {
    node.lxcpath.join(".base")
}

/// Everything in `.base`, staging folders too.
fn in_bases(node: &Node) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(bases(node))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_same_tree_in_every_form_has_one_digest() {
    if !tools(&["tar", "xz", "zstd", "bzip2", "mksquashfs", "mkfs.erofs", "mkfs.btrfs", "setfattr", "setcap"])
    {
        return;
    }
    let Some(node) = node(256) else { return };
    let temp = Temp::new();
    let tree = temp.join("tree");
    full_tree(&tree, true);
    shell(
        r#"tar --format=posix --xattrs --xattrs-include='*' --sparse -C tree -cf posix.tar .
        gzip -k posix.tar; xz -k posix.tar; zstd -qk posix.tar; bzip2 -k posix.tar
        head -c 3000 posix.tar | gzip > members.gz; tail -c +3001 posix.tar | gzip >> members.gz; head -c 999 /dev/zero >> members.gz
        mksquashfs tree own.squashfs -quiet -no-progress >/dev/null; gzip -k own.squashfs; mkfs.erofs own.erofs tree >/dev/null 2>&1"#,
        &temp.0,
    );
    node.ok(&["base", "add", "folder", text(&tree)]);
    let wanted = node.json(&["base", "show", "folder", "--json"]);
    assert_same(
        &listing::of(&bases(&node).join("folder/tree"), true),
        &listing::of(&tree, true),
        "the folder",
    );
    let mut forms = Vec::new();
    for (number, (source, pack)) in [
        ("posix.tar", None),
        ("posix.tar.gz", None),
        ("posix.tar.xz", None),
        ("posix.tar.zst", None),
        ("posix.tar.bz2", None),
        ("members.gz", None),
        ("own.squashfs", None),
        ("own.squashfs.gz", None),
        ("own.erofs", None),
        ("tree", Some("squashfs")),
        ("tree", Some("erofs")),
        ("posix.tar.gz", Some("squashfs")),
        ("posix.tar", Some("erofs")),
        ("tree", Some("btrfs")),
        ("posix.tar.gz", Some("btrfs")),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("n{number}");
        let source = temp.join(source);
        let mut args = vec!["base", "add", &name, text(&source)];
        args.extend(pack.iter().flat_map(|form| ["--pack", form]));
        let said = node.run(&args);
        assert!(said.status.success(), "{args:?}: {}", String::from_utf8_lossy(&said.stderr));
        // No terminal, no progress.
        assert_eq!(String::from_utf8_lossy(&said.stderr), "", "{args:?}");
        let base = node.json(&["base", "show", &name, "--json"]);
        for field in ["digest", "entries", "bytes", "xattrs"] {
            assert_eq!(base[field], wanted[field], "{args:?}: {field}");
        }
        assert_eq!(base["source"], text(&source));
        assert_eq!(base["image_sha256"].is_string(), base["form"] != "directory");
        forms.push(base["form"].as_str().unwrap().to_owned());
        node.ok(&["base", "verify", &name]);
    }
    assert_eq!(forms[6..10], ["squashfs", "squashfs", "erofs", "squashfs"]);
    for (name, file) in [
        ("in1", "posix.tar"),
        ("in2", "posix.tar.gz"),
        ("in3", "posix.tar.xz"),
        ("in4", "own.squashfs"),
        ("in5", "own.erofs"),
    ] {
        let said = piped(&node, &["base", "add", name, "-"], &temp.join(file));
        assert!(said.status.success(), "{file}: {}", String::from_utf8_lossy(&said.stderr));
        let base = node.json(&["base", "show", name, "--json"]);
        assert_eq!((&base["digest"], &base["source"]), (&wanted["digest"], &"-".into()), "{file}");
    }
    assert_eq!(wanted["xattrs"], "kept");
    // Nothing is left mounted, and no image holds a loop device.
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert_eq!(mounts.matches(text(&bases(&node))).count(), 0);
    assert!(in_bases(&node).iter().all(|name| !name.starts_with('.')));
}

#[test]
fn what_is_recorded_and_printed() {
    let Some(node) = node(32) else { return };
    assert_eq!(node.json(&["base", "list", "--json"]), serde_json::json!([]));
    let temp = Temp::new();
    fs::create_dir_all(temp.join("t/d")).unwrap();
    fs::write(temp.join("t/d/f"), vec![b'x'; 5000]).unwrap();
    let said = node.ok(&["base", "add", "b", text(&temp.join("t"))]);
    assert!(said.contains("2 entries") && said.contains("sliverfs-tree-1:"), "{said}");
    let base = &node.json(&["base", "list", "--json"])[0];
    assert_eq!(
        (&base["name"], &base["form"], &base["entries"], &base["bytes"]),
        (&"b".into(), &"directory".into(), &2.into(), &5000.into())
    );
    assert_eq!(
        (&base["disk"], &base["version"], &base["xattrs"]),
        (&(4 * 4096).into(), &1.into(), &"none".into())
    );
    let made = base["created"].as_u64().unwrap();
    let record = bases(&node).join("b/base.json");
    assert!(made.abs_diff(fs::metadata(&record).unwrap().mtime().unsigned_abs()) < 60);
    // Its folder is root's alone: old set-id programs in a base must not be run by the node's users.
    assert_eq!(fs::metadata(bases(&node).join("b")).unwrap().mode() & 0o777, 0o700);
    let table = node.ok(&["base", "list"]);
    assert!(table.starts_with("NAME") && table.lines().nth(1).unwrap().starts_with("b "), "{table}");
    assert!(node.ok(&["base", "show", "b"]).contains("sliverfs-tree-1:"));
    assert_eq!(node.json(&["base", "verify", "b", "--json"])["ok"], true);
    // One damaged record keeps the others from nothing.
    fs::create_dir(bases(&node).join("other")).unwrap();
    let output = node.run(&["base", "list", "--json"]);
    assert_eq!(output.status.code(), Some(5));
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&rows[0]["name"], &rows[1]["name"]), (&"b".into(), &"other".into()));
    assert!(rows[1]["error"].as_str().unwrap().contains("base.json"));
    let whole = fs::read_to_string(&record).unwrap();
    for (damage, code) in [
        (whole.replace("\"version\":1", "\"version\":2"), 3),
        (whole.replace("\"name\":\"b\"", "\"name\":\"c\""), 5),
        (whole[..whole.len() / 2].to_owned(), 5),
        (whole.replace("directory", "tape"), 5),
        (String::new(), 5),
    ] {
        fs::write(&record, &damage).unwrap();
        for command in ["show", "verify"] {
            let said = node.fails(code, &["base", command, "b"]);
            assert!(said.contains(text(&record)), "{said}");
        }
        assert_eq!(fs::read_to_string(&record).unwrap(), damage);
    }
}

#[test]
fn adding_again_is_safe() {
    let Some(node) = node(32) else { return };
    let temp = Temp::new();
    fs::create_dir(temp.join("t")).unwrap();
    fs::write(temp.join("t/f"), "1").unwrap();
    let source = temp.join("t");
    node.ok(&["base", "add", "b", text(&source)]);
    let before = listing::of(&bases(&node), true);
    fs::write(temp.join("t/f"), "2").unwrap();
    let said = node.ok(&["base", "add", "b", text(&source)]);
    assert!(said.contains("already") && said.contains("nothing was imported"), "{said}");
    // The same folder by another way is the same source.
    node.ok(&["base", "add", "b", &format!("{}/../t/.", text(&source))]);
    let said = node.fails(2, &["base", "add", "b", "/etc"]);
    assert!(said.contains(text(&source)) && said.contains("base remove b"), "{said}");
    let said = node.fails(2, &["base", "add", "b", text(&source), "--pack", "squashfs"]);
    assert!(said.contains("as directory"), "{said}");
    assert_eq!(listing::of(&bases(&node), true), before);
}

#[test]
fn a_wrong_source_changes_nothing() {
    let Some(node) = node(32) else { return };
    let temp = Temp::new();
    fs::write(temp.join("empty"), "").unwrap();
    fs::write(temp.join("short"), "x").unwrap();
    fs::write(temp.join("text"), vec![b'x'; 9000]).unwrap();
    fs::write(temp.join("nothing.tar"), vec![0; 10240]).unwrap();
    shell("gzip -k text; gzip -c text.gz > twice.gz; mkdir t; echo 1 > t/f; tar -cf t.tar t", &temp.0);
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
    shell(
        r#"mkdir -p t/d; head -c 200000 /dev/urandom > t/d/f; tar -cf t.tar t
        for c in gzip xz zstd; do $c -ck t.tar 2>/dev/null > t.$c; head -c 100000 t.$c > torn.$c; done; head -c 100000 t.tar > torn.tar
        cp t.xz flipped.xz; printf '\377\000\377' | dd of=flipped.xz bs=1 seek=120000 conv=notrunc 2>/dev/null
        cp t.gzip flipped.gz; printf '\377\000\377' | dd of=flipped.gz bs=1 seek=120000 conv=notrunc 2>/dev/null
        mksquashfs t t.squashfs -quiet -no-progress >/dev/null; head -c 100000 t.squashfs > torn.squashfs
        mkfs.erofs t.erofs t >/dev/null 2>&1; head -c 100000 t.erofs > torn.erofs
        cp t.squashfs bad.squashfs; head -c 300 /dev/zero | tr "\\0" "\\252" | dd of=bad.squashfs bs=1 seek=200110 conv=notrunc 2>/dev/null
        mkdir u; setfattr -n trusted.overlay.opaque -v y u; mksquashfs u u.squashfs -quiet -no-progress >/dev/null
        mkdir w; mknod w/f c 0 0; mkfs.erofs w.erofs w >/dev/null 2>&1; mkdir s"#,
        &temp.0,
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
    shell(
        "mkdir t; echo 1 > t/f; tar -cf t.tar t; xz -k t.tar; zstd -qk t.tar; bzip2 -k t.tar; gzip -k t.tar; mkdir nothing",
        &temp.0,
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
fn verify_finds_every_change() {
    if !tools(&["mksquashfs", "setfattr"]) {
        return;
    }
    let Some(node) = node(64) else { return };
    let temp = Temp::new();
    shell("mkdir -p t/d; echo 1 > t/f; head -c 100000 /dev/urandom > t/d/g", &temp.0);
    let (source, image) = (temp.join("t"), bases(&node).join("i/image.squashfs"));
    node.ok(&["base", "add", "i", text(&source), "--pack", "squashfs"]);
    for change in [
        "echo 2 > f",
        "touch -d @7 f",
        "chmod 600 f",
        "chown 1 f",
        "setfattr -n user.x -v 1 f",
        "touch new",
        "rm d/g",
        "ln f g",
        "cd ..; rm -r tree",
    ] {
        node.ok(&["base", "add", "b", text(&source)]);
        let recorded = node.json(&["base", "show", "b", "--json"])["digest"].as_str().unwrap().to_owned();
        shell(change, &bases(&node).join("b/tree"));
        let said = node.fails(5, &["base", "verify", "b"]);
        if bases(&node).join("b/tree").exists() {
            assert!(said.contains(&recorded) && said.contains(text(&source)), "{change}: {said}");
            assert_eq!(said.matches("sliverfs-tree-1:").count(), 2, "{said}");
            let output = node.run(&["base", "verify", "b", "--json"]);
            let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!((&verdict["ok"], &verdict["digest"]), (&false.into(), &recorded.into()), "{change}");
        } else {
            assert!(said.contains("lost its content"), "{said}");
        }
        node.ok(&["base", "remove", "b"]);
    }
    let verdict = node.json(&["base", "verify", "i", "--json"]);
    assert_eq!((&verdict["ok"], &verdict["image_sha256"]), (&true.into(), &verdict["found_image_sha256"]));
    let file = fs::OpenOptions::new().read(true).write(true).open(&image).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 50_000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 50_000).unwrap();
    assert!(node.fails(5, &["base", "verify", "i"]).contains("SHA-256"));
    fs::remove_file(&image).unwrap();
    assert!(node.fails(5, &["base", "verify", "i"]).contains("lost its content"));
}

/// The kernel mounts an erofs without its end, and squashfs says no more than EINVAL.
#[test]
fn an_image_that_was_cut_later_is_not_mounted() {
    if !tools(&["mksquashfs", "mkfs.erofs"]) {
        return;
    }
    let Some(node) = node(64) else { return };
    let temp = Temp::new();
    shell("mkdir t; echo x >t/a; head -c 300000 /dev/urandom >t/b", &temp.0);
    for form in ["squashfs", "erofs"] {
        node.ok(&["base", "add", form, text(&temp.join("t")), "--pack", form]);
        node.ok(&["create", form, "--base", form]);
        let image = bases(&node).join(form).join(format!("image.{form}"));
        let whole = fs::read(&image).unwrap();
        fs::OpenOptions::new().write(true).open(&image).unwrap().set_len(200_000).unwrap();
        for command in ["mount", "diff"] {
            let said = node.fails(5, &[command, form]);
            assert!(
                said.contains("is cut off: it has 200000 of") && said.contains("bring it here again"),
                "{said}"
            );
        }
        assert!(node.fails(5, &["base", "verify", form]).contains("SHA-256"));
        fs::write(&image, whole).unwrap();
        node.ok(&["mount", form]);
    }
}

#[test]
fn a_base_in_use_stays() {
    if !tools(&["mksquashfs"]) {
        return;
    }
    let Some(node) = node(64) else { return };
    let temp = Temp::new();
    shell("mkdir -p t/d; echo 1 > t/f", &temp.0);
    node.ok(&["base", "add", "i", text(&temp.join("t")), "--pack", "squashfs"]);
    node.ok(&["create", "s", "--base", "i"]);
    assert_eq!(node.json(&["base", "show", "i", "--json"])["slivers"], serde_json::json!(["s"]));
    let said = node.fails(4, &["base", "remove", "i"]);
    assert!(said.contains("used by s"), "{said}");
    // A record that cannot be read may name this base.
    let record = node.store("s").join("sliver.json");
    let whole = fs::read(&record).unwrap();
    fs::write(&record, "{").unwrap();
    node.fails(4, &["base", "remove", "i"]);
    fs::write(&record, whole).unwrap();
    node.ok(&["destroy", "s"]);
    // Mounted where this command does not see it.
    let image = bases(&node).join("i/image.squashfs");
    let mut holder = Command::new("unshare")
        .args(["-m", "sh", "-ec", "mount -t squashfs -o loop,ro \"$1\" /mnt; echo ready; read _", "sh"])
        .arg(&image)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(holder.stdout.take().unwrap()), &mut ready)
        .unwrap();
    assert_eq!(ready.trim(), "ready");
    let said = node.fails(4, &["base", "remove", "i"]);
    assert!(said.contains("/dev/loop"), "{said}");
    assert!(node.ok(&["base", "verify", "i"]).contains("whole"));
    holder.stdin.take().unwrap().write_all(b"\n").unwrap();
    holder.wait().unwrap();
    let plan = node.ok(&["base", "remove", "i", "--dry-run"]);
    assert!(plan.contains("rm -r"), "{plan}");
    assert!(image.exists());
    // The kernel lets a loop device go some time after the last namespace that had it.
    for _ in 0..100 {
        if node.run(&["base", "remove", "i"]).status.success() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(in_bases(&node), [""; 0]);
    assert!(node.fails(2, &["base", "remove", "i"]).contains("no base `i`"));
    node.fails(2, &["create", "s", "--base", "i"]);
}

#[test]
fn a_killed_import_leaves_no_base_and_the_next_one_clears_up() {
    if !tools(&["mksquashfs", "xz"]) {
        return;
    }
    let Some(node) = node(256) else { return };
    let temp = Temp::new();
    shell(
        r#"mkdir t; for d in 1 2 3 4 5 6 7 8; do mkdir t/$d; for f in 1 2 3 4 5 6 7 8 9; do head -c 200000 /dev/urandom > t/$d/$f; done; done
        tar -cf t.tar t; xz -0k t.tar"#,
        &temp.0,
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
        while in_bases(&node).is_empty() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
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
        fs::create_dir_all(&tree).unwrap();
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
    shell(
        "mkdir t; for f in 1 2 3 4 5 6 7 8 9; do head -c 500000 /dev/urandom > t/$f; done; tar -cf t.tar t",
        &temp.0,
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
    shell(
        "mkdir big small; head -c 30000000 /dev/urandom > big/f; echo 1 > small/f; tar -cf big.tar big; mksquashfs big big.squashfs -quiet -no-progress >/dev/null",
        &temp.0,
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
    shell("mkdir t; echo 1 > t/f; setfacl -m u:77:rw t/f", &temp.0);
    let said = node.fails(1, &["base", "add", "b", text(&temp.join("t")), "--pack", "squashfs"]);
    assert!(said.contains("does not hold what") && said.contains("ACL"), "{said}");
    assert_eq!(in_bases(&node), [""; 0]);
    node.ok(&["base", "add", "b", text(&temp.join("t")), "--pack", "erofs"]);
}

#[test]
fn a_terminal_sees_progress() {
    if !tools(&["script"]) {
        return;
    }
    let Some(node) = node(64) else { return };
    let temp = Temp::new();
    shell("mkdir t; head -c 300000 /dev/urandom > t/f; tar -cf t.tar t", &temp.0);
    // Slow enough that there is something to see.
    let slow = format!(
        "(head -c 200000 {tar}; sleep 1; tail -c +200001 {tar}) | {sliverfs} --config /dev/null --lxcpath {lxcpath} base add b -",
        tar = text(&temp.join("t.tar")),
        sliverfs = env!("CARGO_BIN_EXE_sliverfs"),
        lxcpath = text(&node.lxcpath),
    );
    let seen = run(Command::new("script").args(["-qec", &slow, "/dev/null"]));
    assert!(seen.contains("importing: ") && seen.contains("KiB/s"), "{seen:?}");
    assert_eq!(node.json(&["base", "show", "b", "--json"])["entries"], 2);
}
