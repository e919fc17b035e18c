//! Bases by the real binary: what goes in comes out the same, what changes later is found, and what is used stays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::bases::{bases, in_bases, node, tools};
use common::holder::Holder;
use common::node::{Node, run};
use common::seed::text;
use common::tree::{Temp, assert_same, full_tree, sh_in};
use common::{busy, listing};

/// Runs the binary with a file as its standard input.
fn piped(node: &Node, args: &[&str], input: &Path) -> Output {
    let mut cat = Command::new("cat").arg(input).stdout(Stdio::piped()).spawn().unwrap();
    let pipe = cat.stdout.take().unwrap();
    let output = node.command(args).stdin(pipe).output().unwrap();
    cat.wait().unwrap();
    output
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
    sh_in(
        &temp.0,
        r#"tar --format=posix --xattrs --xattrs-include='*' --sparse -C tree -cf posix.tar .
        gzip -k posix.tar; xz -k posix.tar; zstd -qk posix.tar; bzip2 -k posix.tar
        head -c 3000 posix.tar | gzip > members.gz; tail -c +3001 posix.tar | gzip >> members.gz; head -c 999 /dev/zero >> members.gz
        mksquashfs tree own.squashfs -quiet -no-progress >/dev/null; gzip -k own.squashfs; mkfs.erofs own.erofs tree >/dev/null 2>&1"#,
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
fn verify_finds_every_change() {
    if !tools(&["mksquashfs", "setfattr"]) {
        return;
    }
    let Some(node) = node(64) else { return };
    let temp = Temp::new();
    sh_in(&temp.0, "mkdir -p t/d; echo 1 > t/f; head -c 100000 /dev/urandom > t/d/g");
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
        sh_in(&bases(&node).join("b/tree"), change);
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
    sh_in(&temp.0, "mkdir t; echo x >t/a; head -c 300000 /dev/urandom >t/b");
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
    sh_in(&temp.0, "mkdir -p t/d; echo 1 > t/f");
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
    let script = "mount -t squashfs -o loop,ro \"$1\" /mnt; echo ready; read _";
    let holder = Holder::start(Command::new("unshare").args(["-m", "sh", "-ec", script, "sh"]).arg(&image));
    let said = node.fails(4, &["base", "remove", "i"]);
    assert!(said.contains("/dev/loop"), "{said}");
    assert!(node.ok(&["base", "verify", "i"]).contains("whole"));
    drop(holder);
    let plan = node.ok(&["base", "remove", "i", "--dry-run"]);
    assert!(plan.contains("rm -r"), "{plan}");
    assert!(image.exists());
    // The kernel lets a loop device go some time after the last namespace that had it.
    busy::until("the base is still in use", || node.run(&["base", "remove", "i"]).status.success());
    assert_eq!(in_bases(&node), [""; 0]);
    assert!(node.fails(2, &["base", "remove", "i"]).contains("no base `i`"));
    node.fails(2, &["create", "s", "--base", "i"]);
}

#[test]
fn a_terminal_sees_progress() {
    if !tools(&["script"]) {
        return;
    }
    let Some(node) = node(64) else { return };
    let temp = Temp::new();
    sh_in(&temp.0, "mkdir t; head -c 300000 /dev/urandom > t/f; tar -cf t.tar t");
    // Slow enough that there is something to see, once it has begun.
    let slow = format!(
        "(head -c 200000 {tar}; for n in $(seq 6000); do ls -d {bases}/.new.* >/dev/null 2>&1 && break; sleep 0.01; done; sleep 1; tail -c +200001 {tar}) | {sliverfs} --config /dev/null --lxcpath {lxcpath} base add b -",
        tar = text(&temp.join("t.tar")),
        bases = text(&bases(&node)),
        sliverfs = env!("CARGO_BIN_EXE_sliverfs"),
        lxcpath = text(&node.lxcpath),
    );
    let seen = run(Command::new("script").args(["-qec", &slow, "/dev/null"]));
    assert!(seen.contains("importing: ") && seen.contains("KiB/s"), "{seen:?}");
    assert_eq!(node.json(&["base", "show", "b", "--json"])["entries"], 2);
}
