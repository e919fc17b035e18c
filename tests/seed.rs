//! Btrfs seeds: many slivers on one image at once, no loop device left behind, and what goes wrong on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::holder::Holder;
use common::node::{Node, run, small_tree};
use common::tree::installed;
use common::{listing, require};

/// A node with a base `b` that is a seed.
fn node(mib: u64) -> Option<Node> {
    let ready = require("root", common::root())
        && ["mkfs.btrfs", "btrfstune"].iter().all(|tool| require("btrfs-seed", installed(tool)));
    ready.then(|| {
        let node = Node::new("ext4", mib);
        let tree = node.dir().join("tree");
        small_tree(&tree);
        node.ok(&["base", "add", "b", text(&tree), "--pack", "btrfs"]);
        node
    })
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn image(node: &Node) -> PathBuf {
    node.lxcpath.join(".base/b/image.btrfs")
}

fn create(node: &Node, name: &str) {
    node.ok(&["create", name, "--base", "b", "--backend", "btrfs-seed", "--size", "256M"]);
}

/// The loop devices over files of this node's bases and stores.
fn loops(node: &Node) -> Vec<String> {
    let all = run(Command::new("losetup").args(["-nO", "NAME,BACK-FILE"]));
    let ours = [".base", ".store"].map(|dir| node.lxcpath.join(dir).to_str().unwrap().to_owned());
    all.lines().filter(|line| ours.iter().any(|dir| line.contains(dir))).map(str::to_owned).collect()
}

/// No loop device of this node's is left, nor a mount below its LXCPATH.
fn is_clean(node: &Node, when: &str) {
    // Another test's program that looks at all loop devices may have one of them open at this moment.
    let start = Instant::now();
    while !loops(node).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(5), "{when}: {:?}", loops(node));
        sleep(Duration::from_millis(20));
    }
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let left: Vec<_> = mounts.lines().filter(|line| line.contains(text(&node.lxcpath))).collect();
    assert!(left.is_empty(), "{when}: {left:?}");
}

/// All that lies in the stores, hidden or not.
fn in_stores(node: &Node) -> Vec<String> {
    let entries = fs::read_dir(node.lxcpath.join(".store")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn actual(node: &Node, name: &str) -> String {
    let list = node.json(&["list", "--json"]);
    let row = list.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap();
    row["actual"].as_str().unwrap().to_owned()
}

#[test]
fn ten_slivers_on_one_seed_at_once() {
    let Some(node) = node(400) else { return };
    let names: Vec<String> = (0..10).map(|number| format!("s{number}")).collect();
    let tree = listing::of(&node.dir().join("tree"), true);
    for name in &names {
        create(&node, name);
        is_clean(&node, "a sliver is made");
    }
    let space = node.json(&["list", "--space", "--json"])[0]["space"].as_u64().unwrap();
    assert!(space < 8 << 20, "a new store takes {space} bytes");
    // All at the same moment, as after a boot.
    let mounting: Vec<_> = names.iter().map(|name| node.command(&["mount", name]).spawn().unwrap()).collect();
    for mut mount in mounting {
        assert!(mount.wait().unwrap().success());
    }
    for name in &names {
        assert_eq!(listing::of(&node.view(name), true), tree, "{name} starts as the base");
    }
    assert_eq!(fs::metadata(image(&node)).unwrap().len() % 4096, 0, "a loop device would leave the rest out");
    assert_eq!(loops(&node).len(), 20, "each has a device for the seed and one of its own");
    for name in &names {
        fs::write(node.view(name).join("etc/b.txt"), name).unwrap();
    }
    let ids = names.iter().map(|name| fs::metadata(node.view(name)).unwrap().dev());
    let mut ids: Vec<u64> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 10, "each is a file system of its own");
    assert!(node.ok(&["base", "verify", "b"]).contains("whole"), "also while they are up");
    // In any order, and again: what each wrote is in its own.
    for name in names.iter().rev().step_by(2) {
        node.ok(&["umount", name]);
        assert_eq!(actual(&node, name), "unmounted");
        node.ok(&["mount", name]);
    }
    for name in &names {
        assert_eq!(fs::read_to_string(node.view(name).join("etc/b.txt")).unwrap(), *name);
        assert_eq!(actual(&node, name), "mounted");
    }
    let sheet = node.json(&["show", "s3", "--json"]);
    assert_eq!(sheet["limit"], 256 << 20);
    assert_eq!(sheet["mounted_at"][0], text(&node.view("s3")));
    node.ok(&["umount", "--all"]);
    is_clean(&node, "all are unmounted");
    for name in &names {
        node.ok(&["destroy", name]);
    }
    assert_eq!(in_stores(&node), [""; 0]);
    node.ok(&["base", "verify", "b"]);
    node.ok(&["base", "remove", "b"]);
}

#[test]
fn a_limit_is_kept_and_named() {
    let Some(node) = node(500) else { return };
    let args = ["create", "a", "--base", "b", "--backend", "btrfs-seed"];
    for (size, says) in
        [("24M", "256 MiB or more"), ("0", "too small"), ("255M", "too small"), ("x", "no size")]
    {
        let said = node.fails(2, &[&args[..], &["--size", size]].concat());
        assert!(said.contains(says), "{size}: {said}");
    }
    let said = node.fails(2, &["create", "a", "--base", "b", "--backend", "overlay", "--size", "1G"]);
    assert!(said.contains("keeps no limit"), "{said}");
    let plan = node.ok(&[&args[..], &["--dry-run"]].concat());
    assert!(
        plan.contains(&format!("truncate -s {}", 1u64 << 30)) && plan.contains("btrfs device add"),
        "{plan}"
    );
    assert_eq!(in_stores(&node), [""; 0]);
    create(&node, "a");
    create(&node, "a");
    node.ok(&args);
    let said = node.fails(2, &[&args[..], &["--size", "1G"]].concat());
    assert!(said.contains("limit is 256 MiB, and not 1 GiB"), "{said}");
    node.ok(&["mount", "a"]);
    let view = node.view("a");
    let full = fs::write(view.join("big"), vec![1; 257 << 20]).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(28), "{full}");
    fs::remove_file(view.join("big")).unwrap();
    fs::write(view.join("small"), "still writable").unwrap();
    node.ok(&["umount", "a"]);
    is_clean(&node, "full");
    // Freed space comes back by fstrim, as the documentation says.
    let space = || node.json(&["show", "a", "--json"])["space"].as_u64().unwrap();
    node.ok(&["mount", "a"]);
    run(Command::new("fstrim").arg(&view));
    node.ok(&["umount", "a"]);
    assert!(space() < 64 << 20, "{}", space());
    node.ok(&["destroy", "a"]);
}

#[test]
fn a_view_is_known_wherever_it_is_alive() {
    let Some(node) = node(400) else { return };
    create(&node, "a");
    node.ok(&["mount", "a"]);
    let view = node.view("a");
    let mut elsewhere = Command::new("unshare");
    elsewhere.args(["-m", "--propagation", "private", "sh", "-c", "echo ready; read x"]);
    let holder = Holder::start(&mut elsewhere);
    run(Command::new("umount").arg(&view));
    assert_eq!(actual(&node, "a"), "elsewhere");
    for command in ["mount", "destroy", "umount"] {
        let said = node.fails(4, &[command, "a"]);
        assert!(said.contains("in the mount namespace of process"), "{command}: {said}");
    }
    let said = node.fails(4, &["base", "remove", "b"]);
    assert!(said.contains("is used by a"), "{said}");
    drop(holder);
    node.ok(&["mount", "a"]);
    // Detached, and a process stands in it.
    let mut standing = Command::new("sh");
    standing.args(["-c", "cd \"$0/etc\"; echo ready; read x"]).arg(&view);
    let holder = Holder::start(&mut standing);
    run(Command::new("umount").args(["-l"]).arg(&view));
    assert_eq!(actual(&node, "a"), "unmounted");
    for command in ["mount", "destroy"] {
        let said = node.fails(4, &[command, "a"]);
        assert!(said.contains(&format!("process {} (sh)", holder.0.id())), "{command}: {said}");
    }
    let sheet = node.json(&["show", "a", "--json"]);
    assert!(sheet["held_by"][0].as_str().unwrap().contains(&holder.0.id().to_string()), "{sheet}");
    drop(holder);
    node.ok(&["umount", "a"]);
    // Bound by hand, under another name of the same file.
    let store = node.store("a").join("store.raw");
    let link = node.dir().join("disk/other-name");
    fs::hard_link(&store, &link).unwrap();
    let device = run(Command::new("losetup").args(["-f", "--show"]).arg(&link));
    let said = node.fails(4, &["mount", "a"]);
    assert!(said.contains(device.trim()), "{said}");
    run(Command::new("losetup").arg("-d").arg(device.trim()));
    node.ok(&["mount", "a"]);
    node.ok(&["umount", "a"]);
    node.ok(&["destroy", "a"]);
    is_clean(&node, "destroyed");
}

#[test]
fn slivers_on_the_mounted_seed_are_named_as_in_the_way() {
    let Some(node) = node(400) else { return };
    create(&node, "grown");
    node.ok(&["create", "union", "--base", "b", "--backend", "overlay"]);
    node.ok(&["mount", "union"]);
    for args in [&["mount", "grown"][..], &["create", "new", "--base", "b", "--backend", "btrfs-seed"]] {
        let said = node.fails(4, args);
        assert!(said.contains("mounted as the base of union"), "{said}");
    }
    assert_eq!(in_stores(&node).iter().filter(|name| name.starts_with('.')).count(), 0);
    node.ok(&["umount", "union"]);
    node.ok(&["mount", "grown"]);
    node.ok(&["mount", "union"]);
    for name in ["grown", "union"] {
        assert_eq!(actual(&node, name), "mounted");
    }
    node.ok(&["umount", "--all"]);
    is_clean(&node, "unmounted");
    // The seed mounted by somebody else, from this very file.
    let mnt = node.dir().join("mnt");
    fs::create_dir(&mnt).unwrap();
    run(Command::new("mount").args(["-t", "btrfs", "-o", "loop,ro"]).arg(image(&node)).arg(&mnt));
    for args in [&["mount", "grown"][..], &["create", "new", "--base", "b", "--backend", "btrfs-seed"]] {
        let said = node.fails(4, args);
        assert!(said.contains("is mounted somewhere") && said.contains("losetup -j"), "{said}");
    }
    run(Command::new("umount").arg(&mnt));
    is_clean(&node, "refused");
    node.ok(&["mount", "grown"]);
    node.ok(&["umount", "grown"]);
}

#[test]
fn sources_that_are_seeds_and_those_that_are_none() {
    let Some(node) = node(400) else { return };
    let dir = node.dir().join("disk");
    let script = r#"
        cd "$0"; mkdir mnt; truncate -s 52M own.img; mkfs.btrfs -q -m single -d single own.img >/dev/null 2>&1
        cp --sparse=always own.img none.img
        btrfstune -S 1 own.img; gzip -1 -k own.img
        cp --sparse=always own.img short.img; truncate -s 40M short.img
        cp --sparse=always own.img torn.img
        head -c 24000000 /dev/zero | tr '\0' x | dd of=torn.img bs=1M seek=1 conv=notrunc 2>/dev/null
        cp --sparse=always own.img head.img; printf x | dd of=head.img bs=1 seek=66000 conv=notrunc 2>/dev/null
        head -c 200000 /dev/zero >zero.img; head -c 200000 /dev/urandom >noise.img
        truncate -s 256M a.img b.img; mkfs.btrfs -q -m single a.img b.img >/dev/null 2>&1; btrfstune -S 1 a.img
    "#;
    run(Command::new("sh").args(["-ec", script]).arg(&dir));
    let add = |source: &str| ["base", "add", "own", text(&dir.join(source))].map(str::to_owned);
    for (code, source, says) in [
        (2, "none.img", "is a Btrfs, but no seed"),
        (1, "short.img", "is cut off"),
        (1, "torn.img", "mount the btrfs image"),
        (1, "head.img", "mount the btrfs image"),
        (2, "noise.img", "no archive or image"),
        (2, "a.img", "one of 2 devices"),
    ] {
        let args = add(source);
        let said = node.fails(code, &args.each_ref().map(String::as_str));
        assert!(said.contains(says), "{source}: {said}");
        assert_eq!(fs::read_dir(node.lxcpath.join(".base")).unwrap().count(), 1, "{source} left something");
    }
    // While another copy of it is mounted, it cannot be looked into.
    run(Command::new("mount").args(["-o", "loop,ro"]).arg(dir.join("own.img")).arg(dir.join("mnt")));
    let args = add("own.img");
    let said = node.fails(1, &args.each_ref().map(String::as_str));
    assert!(said.contains("unmount that one first"), "{said}");
    run(Command::new("umount").arg(dir.join("mnt")));
    for source in ["own.img", "own.img.gz"] {
        let args = add(source);
        node.ok(&args.each_ref().map(String::as_str));
        let file = fs::metadata(node.lxcpath.join(".base/own/image.btrfs")).unwrap();
        assert!(file.blocks() * 512 < 20 << 20, "{source}: holes are kept");
        node.ok(&["create", "a", "--base", "own", "--backend", "auto"]);
        node.ok(&["destroy", "a"]);
        node.ok(&["create", "a", "--base", "own", "--backend", "btrfs-seed"]);
        node.ok(&["mount", "a"]);
        node.ok(&["umount", "a"]);
        node.ok(&["destroy", "a"]);
        node.ok(&["base", "remove", "own"]);
    }
    // Cut off after it was added.
    node.ok(&["create", "a", "--base", "b", "--backend", "btrfs-seed"]);
    let whole = fs::metadata(image(&node)).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(image(&node)).unwrap();
    file.set_len(40 << 20).unwrap();
    let said = node.fails(5, &["mount", "a"]);
    assert!(said.contains("is cut off"), "{said}");
    file.set_len(whole).unwrap();
    node.ok(&["destroy", "a"]);
    node.ok(&["base", "add", "plain", text(&node.dir().join("tree"))]);
    let said = node.fails(2, &["create", "a", "--base", "plain", "--backend", "btrfs-seed"]);
    assert!(said.contains("--pack btrfs"), "{said}");
    is_clean(&node, "all sources");
}

/// A seed that is another one with the same id: the kernel must not take it for ours.
#[test]
fn another_seed_with_the_same_id_is_not_taken_for_ours() {
    let Some(node) = node(400) else { return };
    create(&node, "a");
    let copy = node.dir().join("disk/copy.img");
    run(Command::new("cp").arg("--sparse=always").arg(image(&node)).arg(&copy));
    let device = run(Command::new("losetup").args(["-rf", "--show"]).arg(&copy));
    run(Command::new("btrfs").args(["device", "scan", device.trim()]));
    // As if somebody made the other one known between our two calls: ours are done by nobody.
    let robbed = |times: &str| {
        let plain = node.command(&["mount", "a"]);
        let mut strace = Command::new("strace");
        let inject = format!("inject=ioctl:retval=0:when={times}");
        strace.args(["-qq", "-o", "/dev/null", "-P", "/dev/btrfs-control", "-e", &inject]);
        strace.arg(plain.get_program()).args(plain.get_args()).output().unwrap()
    };
    let output = robbed("1+");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains(device.trim()) && said.contains("the same id"), "{said}");
    is_clean(&node, "refused");
    run(Command::new("btrfs").args(["device", "scan", device.trim()]));
    let output = robbed("1");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(loops(&node).iter().any(|line| line.contains("image.btrfs")), "it stands on its own seed");
    node.ok(&["umount", "a"]);
    run(Command::new("losetup").arg("-d").arg(device.trim()));
    is_clean(&node, "unmounted");
}

#[test]
fn a_full_disk_ends_it_and_leaves_nothing() {
    let Some(node) = node(200) else { return };
    let fill = node.lxcpath.join("fill");
    let free = || nix::sys::statvfs::statvfs(&node.lxcpath).unwrap();
    let leave = |mib: u64| {
        let _emptied = fs::remove_file(&fill);
        let now = free();
        let bytes = now.blocks_available() * now.fragment_size() - (mib << 20);
        run(Command::new("fallocate").args(["-l", &bytes.to_string()]).arg(&fill));
    };
    let args = ["create", "a", "--base", "b", "--backend", "btrfs-seed"];
    leave(3);
    let said = node.fails(1, &args);
    assert!(said.contains("No space left") && said.contains("are free on its disk"), "{said}");
    assert_eq!(in_stores(&node), [""; 0]);
    // In the middle: while the base is packed.
    fs::remove_file(&fill).unwrap();
    let big = node.dir().join("big");
    fs::create_dir(&big).unwrap();
    run(Command::new("sh").args(["-ec", "head -c 40000000 /dev/urandom >\"$0/random\""]).arg(&big));
    leave(16);
    let said = node.fails(1, &["base", "add", "big", text(&big), "--pack", "btrfs"]);
    assert!(said.contains("No space left") || said.contains("are free"), "{said}");
    assert_eq!(fs::read_dir(node.lxcpath.join(".base")).unwrap().count(), 1);
    fs::remove_file(&fill).unwrap();
    node.ok(&args);
    is_clean(&node, "full");
    // Below a view that is up: what was written before is there when the disk has room again.
    node.ok(&["mount", "a"]);
    let view = node.view("a");
    fs::write(view.join("kept"), "kept").unwrap();
    nix::unistd::syncfs(fs::File::open(&view).unwrap()).unwrap();
    leave(1);
    let random = fs::read(big.join("random")).unwrap();
    let _torn = fs::write(view.join("lost"), &random);
    let synced = fs::File::open(&view).map(nix::unistd::syncfs);
    assert!(!matches!(synced, Ok(Ok(()))), "38 MiB fit into 1 MiB");
    fs::remove_file(&fill).unwrap();
    node.ok(&["umount", "a"]);
    node.ok(&["mount", "a"]);
    assert_eq!(fs::read_to_string(view.join("kept")).unwrap(), "kept");
    fs::write(view.join("lost"), &random).unwrap();
    node.ok(&["umount", "a"]);
    node.ok(&["destroy", "a"]);
    is_clean(&node, "at the end");
}

#[test]
fn loop_devices_that_are_missing_or_vanish() {
    let Some(node) = node(300) else { return };
    create(&node, "a");
    // What becomes of a command on whose nth call of that name the kernel says so.
    let inject = |args: &[&str], fault: &str| {
        let plain = node.command(args);
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", fault]).arg(plain.get_program());
        let output = strace.args(plain.get_args()).stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let create = ["create", "n", "--base", "b", "--backend", "btrfs-seed"];
    // The device goes between being found and being mounted.
    for (args, fault) in [
        (&["mount", "a"][..], "inject=mount:error=ENXIO:when=1"),
        (&create[..], "inject=mount:error=ENXIO:when=3"),
        (&create[..], "inject=mount:error=EIO:when=2"),
        (&create[..], "inject=syncfs:error=EIO:when=1"),
    ] {
        let (code, said) = inject(args, fault);
        assert_eq!(code, Some(1), "{args:?} {fault}: {said}");
        assert!(said.contains("the kernel's log") || fault.contains("syncfs"), "{fault}: {said}");
        is_clean(&node, fault);
        assert_eq!(in_stores(&node), ["a"], "{fault}");
    }
    // A kernel without LOOP_CONFIGURE: the two older calls make the same of it.
    let trace = node.dir().join("trace");
    let plain = node.command(&create);
    let mut old = Command::new("strace");
    old.args(["-f", "-qq", "-e", "trace=ioctl", "-e", "inject=ioctl:error=EINVAL:when=2", "-o"]).arg(&trace);
    run(old.arg(plain.get_program()).args(plain.get_args()));
    let calls = fs::read_to_string(&trace).unwrap();
    assert!(calls.contains("LOOP_SET_FD") && calls.contains("LOOP_SET_STATUS64"), "{calls}");
    is_clean(&node, "made by the older calls");
    node.ok(&["mount", "n"]);
    node.ok(&["umount", "n"]);
    node.ok(&["destroy", "n"]);
    // There is none at all: a /dev without them.
    let dev = "mount --bind /dev /mnt; mount -t tmpfs tmpfs /dev; for f in null zero urandom btrfs-control; do \
               touch /dev/$f; mount --bind /mnt/$f /dev/$f; done; umount /mnt; exec \"$0\" \"$@\"";
    let without = |args: &[&str]| {
        let plain = node.command(args);
        let mut shell = Command::new("unshare");
        shell.args(["-m", "--propagation", "private", "sh", "-ec", dev]).arg(plain.get_program());
        let output = shell.args(plain.get_args()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said, String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said, _) = without(&create);
    assert_eq!(code, Some(1));
    assert!(said.contains("no loop device is free"), "{said}");
    assert_eq!(in_stores(&node), ["a"]);
    let seed = |text: &str| {
        let verdicts: serde_json::Value = serde_json::from_str(text).unwrap();
        verdicts.as_array().unwrap().iter().find(|verdict| verdict["kind"] == "btrfs-seed").unwrap().clone()
    };
    let (code, said, printed) = without(&["probe", "--fresh", "--json"]);
    assert_eq!(code, Some(0), "overlay works there: {said}");
    let verdict = seed(&printed);
    assert_eq!((&verdict["works"], &verdict["lasting"]), (&false.into(), &false.into()), "{verdict}");
    assert!(verdict["reason"].as_str().unwrap().contains("no loop device is free"), "{verdict}");
    let verdict = seed(&node.ok(&["probe", "--json"]));
    assert_eq!((&verdict["works"], &verdict["auto"]), (&true.into(), &false.into()), "{verdict}");
    assert!(verdict["reason"].as_str().unwrap().contains("--pack btrfs"), "{verdict}");
    node.ok(&create);
    node.ok(&["mount", "--all"]);
    node.ok(&["umount", "--all"]);
    is_clean(&node, "at the end");
}

#[test]
fn what_a_container_gets_on_its_way_in() {
    let Some(node) = node(300) else { return };
    let tar = node.dir().join("data.tar");
    run(Command::new("tar").args(["-cf"]).arg(&tar).arg("-C").arg(node.dir().join("tree")).arg("var/deep"));
    node.ok(&["create", "a", "--base", "b", "--backend", "btrfs-seed", "--data", text(&tar)]);
    is_clean(&node, "created with data");
    let config = node.dir().join("uci");
    fs::write(
        &config,
        "config sliver 'u'\n option base 'b'\n option backend 'btrfs-seed'\n option size '300M'\n\
         config sliver 'w'\n option base 'b'\n option size 'wide'\n option backend 'btrfs-seed'\n",
    )
    .unwrap();
    let apply = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sliverfs"));
        command.arg("--config").arg(&config).arg("--lxcpath").arg(&node.lxcpath).args(args).output().unwrap()
    };
    let planned = apply(&["apply", "--dry-run"]);
    let planned = String::from_utf8_lossy(&planned.stdout).into_owned();
    assert!(planned.contains(&format!("--backend btrfs-seed --size {}", 300 << 20)), "{planned}");
    for _ in 0..2 {
        let output = apply(&["apply"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("`wide` is no size"), "{said}");
        assert_eq!(actual(&node, "u"), "mounted", "{said}");
    }
    assert_eq!(node.json(&["show", "u", "--json"])["limit"], 300 << 20);
    node.ok(&["umount", "--all"]);
    is_clean(&node, "applied");
}

#[test]
fn a_store_whose_record_is_damaged_can_be_destroyed() {
    let Some(node) = node(512) else { return };
    create(&node, "a");
    node.ok(&["mount", "a"]);
    fs::write(node.store("a").join("sliver.json"), "{").unwrap();
    node.fails(4, &["destroy", "a"]);
    let mut shell = Command::new("sh");
    let holder = Holder::start(shell.args(["-c", "echo ready; read x"]).current_dir(node.view("a")));
    run(Command::new("umount").arg("-l").arg(node.view("a")));
    // As after a move to another node, where nothing is noted of its mount.
    let meta = fs::metadata(&node.lxcpath).unwrap();
    let noted = format!("/var/run/sliverfs/{:x}-{:x}/mounted/a", meta.dev(), meta.ino());
    fs::remove_file(noted).unwrap();
    node.fails(4, &["destroy", "a"]);
    drop(holder);
    node.ok(&["destroy", "a"]);
    assert!(!node.store("a").exists());
    is_clean(&node, "after it was destroyed");
}
