//! Btrfs seeds where something is wrong: with a source, another image, the disk, or the loop devices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use common::listing;
use common::node::run;
use common::seed::{create, image, is_clean, loops, node, text};
use common::slivers::in_stores;

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
    // What has nothing to do with the room says what it is.
    leave(6);
    let said = node.fails(2, &["restore", "a", "nosuch"]);
    assert!(said.contains("the base has no nosuch"), "{said}");
    is_clean(&node, "nosuch");
    fs::remove_file(&fill).unwrap();
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

/// What a command that was cut left in a store, and cannot be removed, is not told as put right.
#[test]
fn what_cannot_be_removed_is_told() {
    let Some(node) = node(200) else { return };
    node.ok(&["create", "a", "--base", "b", "--backend", "btrfs-seed"]);
    let inside = |script: &str| {
        node.ok(&["mount", "a"]);
        run(Command::new("sh").args(["-ec", script]).current_dir(node.view("a")));
        node.ok(&["umount", "a"]);
    };
    inside("mkdir .sliverfs-room-0; echo >.sliverfs-room-0/f; chattr +i .sliverfs-room-0/f");
    let note = node.store("a").join(".sliverfs-room");
    fs::write(&note, ".sliverfs-room-0\n").unwrap();
    let output = node.run(&["check", "a", "--repair"]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("not put right") && told.contains("chattr -i"), "{told}");
    assert!(note.exists());
    is_clean(&node, "stuck");
    fs::remove_file(&note).unwrap();
    inside("chattr -i .sliverfs-room-0/f");
    fs::write(&note, ".sliverfs-room-0\n").unwrap();
    assert!(node.ok(&["check", "a", "--repair"]).contains("put right"));
    assert!(!note.exists());
    node.ok(&["check", "a"]);
}

/// What does not fit is known only when it is written to the disk.
#[test]
fn a_store_that_is_made_anew_on_a_full_disk() {
    let Some(node) = node(340) else { return };
    // With a size that is promised, and cannot be changed.
    create(&node, "s");
    node.ok(&["create", "o", "--base", "b", "--backend", "overlay"]);
    let big = node.dir().join("big");
    fs::create_dir(&big).unwrap();
    run(Command::new("sh").args(["-ec", "head -c 40000000 /dev/urandom >\"$0/random\""]).arg(&big));
    let mut wanted = Vec::new();
    for name in ["s", "o"] {
        node.ok(&["mount", name]);
        fs::copy(big.join("random"), node.view(name).join("random")).unwrap();
        wanted.push(listing::of(&node.view(name), true));
        node.ok(&["umount", name]);
    }
    let (tar, layer) = (node.dir().join("big.tar"), node.dir().join("layer.tar"));
    run(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&big).arg("."));
    node.ok(&["export", "o", "-o", text(&layer)]);
    // More than a new store begins with, and less than it needs: root may have another 14 MiB.
    let free = nix::sys::statvfs::statvfs(&node.lxcpath).unwrap();
    let most = (free.blocks_available() * free.fragment_size() - (14 << 20)).to_string();
    run(Command::new("fallocate").args(["-l", &most]).arg(node.lxcpath.join("fill")));
    let stores = in_stores(&node);
    let another = ["create", "c", "--base", "b", "--backend", "btrfs-seed", "--data", text(&tar)];
    for args in [
        &["compact", "s"][..],
        &["sync", "s", text(&big)],
        &["convert", "o", "--to", "btrfs-seed"],
        &["import", "s", text(&layer), "--replace"],
        &another,
    ] {
        let said = node.fails(1, args);
        assert!(said.contains("No space left") && !said.contains("give it more"), "{args:?}: {said}");
        assert!(!said.contains("make room for"), "{args:?} did not come to write: {said}");
        assert_eq!(in_stores(&node), stores, "{args:?}");
        is_clean(&node, &args.join(" "));
    }
    for (name, wanted) in ["s", "o"].iter().zip(&wanted) {
        node.ok(&["mount", name]);
        assert_eq!(listing::of(&node.view(name), true), *wanted, "{name}");
        node.ok(&["umount", name]);
    }
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
    node.ok(&["destroy", "n"]);
    // Somebody else took the free device between the question and the answer: the next one is asked for.
    let plain = node.command(&create);
    let mut robbed = Command::new("strace");
    robbed
        .args(["-f", "-qq", "-e", "trace=ioctl", "-e", "inject=ioctl:error=EBUSY:when=2", "-o"])
        .arg(&trace);
    run(robbed.arg(plain.get_program()).args(plain.get_args()));
    let calls = fs::read_to_string(&trace).unwrap();
    let calls: Vec<_> = calls.lines().filter(|line| line.contains("LOOP_")).take(4).collect();
    let wanted = ["LOOP_CTL_GET_FREE", "LOOP_CONFIGURE", "LOOP_CTL_GET_FREE", "LOOP_CONFIGURE"];
    assert!(calls.iter().zip(wanted).all(|(line, call)| line.contains(call)), "{calls:?}");
    assert!(
        calls[1].contains("EBUSY") && calls[1].contains("INJECTED") && calls[3].contains("= 0"),
        "{calls:?}"
    );
    is_clean(&node, "made with the next device");
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
