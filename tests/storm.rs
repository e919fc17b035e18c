//! All commands against each other, several processes at a time, some of which are killed: nothing of a tenant's is lost, nothing is
//! left over, and each command ends with one of its exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::node::{Node, run};
use common::require;
use common::scripts::Random;

const SLIVERS: [&str; 2] = ["s", "t"];
/// Processes at a time, and commands of each.
const SIZE: (u64, u32) = (4, 60);

/// What is done with a sliver, and what with the node.
const ON_ONE: [&str; 19] = [
    "mount NAME",
    "mount NAME",
    "umount NAME",
    "umount NAME",
    "diff NAME --json",
    "export NAME -o OUT",
    "convert NAME --to KIND",
    "convert NAME --to KIND",
    "convert NAME --undo",
    "rebase NAME --onto b --ours",
    "rebase NAME --onto c --ours",
    "rebase NAME --undo",
    "rebase NAME --commit",
    "compact NAME",
    "restore NAME etc/dir",
    "restore NAME var/deep",
    "show NAME --json",
    "sync other SOURCE",
    "import other LAYER --replace",
];
const ON_ALL: [&str; 8] = [
    "check --json",
    "check --repair --json",
    "list --space --json",
    "rebase --all --from b --onto c --ours",
    "base remove b",
    "base verify c",
    "create other --base c",
    "destroy other",
];

/// One process after the other; what they do follows from the seed.
fn commands(node: &Node, kinds: &[&str], seed: u64) -> Vec<String> {
    let mut random = Random(seed);
    let mut wrong = Vec::new();
    for _ in 0..SIZE.1 {
        let one = random.below(3) > 0;
        let line = if one { ON_ONE[random.pick(ON_ONE.len())] } else { ON_ALL[random.pick(ON_ALL.len())] };
        let place = |name: &str| node.dir().join(name).to_str().unwrap().to_owned();
        let (name, kind) = (SLIVERS[random.pick(SLIVERS.len())], kinds[random.pick(kinds.len())]);
        let words: Vec<String> = line
            .split(' ')
            .map(|word| match word {
                "NAME" => name.to_owned(),
                "KIND" => kind.to_owned(),
                "OUT" => place(&format!("out{seed}.tar")),
                "SOURCE" => place("tree"),
                "LAYER" => place("layer.tar"),
                word => word.to_owned(),
            })
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = node.command(&words);
        if random.below(8) == 0 {
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            // Where it is hit is left to chance.
            std::thread::sleep(Duration::from_millis(random.below(40)));
            child.kill().unwrap();
            child.wait().unwrap();
            continue;
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let json = words.contains(&"--json") && output.status.success();
        let known = matches!(output.status.code(), Some(0 | 2..=4))
            || output.status.code() == Some(5) && line.starts_with("check")
            || said.contains("and not mounted since");
        if !known || json && serde_json::from_slice::<serde_json::Value>(&output.stdout).is_err() {
            wrong.push(format!("{words:?}: {:?}: {said}", output.status));
        }
    }
    wrong
}

/// The threads work in this one's mount namespace, as processes of one node do.
fn storm(fstype: &str, mib: u64, kinds: &[&str]) {
    if !require("root", common::root()) {
        return;
    }
    let node = Node::with_base(fstype, mib);
    let tree = node.dir().join("tree");
    node.ok(&["base", "add", "c", tree.to_str().unwrap()]);
    let made = "cd $1; echo precious > mark; chmod 4755 mark; ln mark hard; rm etc/b.txt; rm -r var; mkdir var; echo mine > var/mine";
    for name in SLIVERS {
        node.ok(&["create", name, "--base", "b", "--backend", "overlay"]);
        node.ok(&["mount", name]);
        run(Command::new("sh").args(["-ec", made, "sh"]).arg(node.view(name)));
        node.ok(&["umount", name]);
    }
    node.ok(&["export", "s", "-o", node.dir().join("layer.tar").to_str().unwrap()]);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=SIZE.0)
            .map(|seed| {
                scope.spawn({
                    let node = &node;
                    move || commands(node, kinds, seed)
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(wrong, [""; 0], "{fstype}");
    node.ok(&["umount", "--all"]);
    node.ok(&["check", "--repair"]);
    node.ok(&["check"]);
    for name in SLIVERS {
        node.ok(&["convert", name, "--to", "overlay"]);
        node.ok(&["mount", name]);
        let mark = node.view(name).join("mark");
        assert_eq!(fs::read_to_string(&mark).unwrap(), "precious\n", "{fstype} {name}");
        let seen = fs::metadata(&mark).unwrap();
        assert_eq!(seen.mode() & 0o7777, 0o4755, "{fstype} {name}");
        assert_eq!(fs::read_to_string(node.view(name).join("hard")).unwrap(), "precious\n");
        assert!(!node.view(name).join("etc/b.txt").exists());
        node.ok(&["umount", name]);
    }
    for name in [SLIVERS[0], SLIVERS[1], "other"] {
        node.ok(&["destroy", name]);
    }
    assert_eq!(fs::read_dir(node.lxcpath.join(".store")).unwrap().count(), 0, "{fstype}");
    node.ok(&["base", "verify", "c"]);
}

#[test]
fn on_ext4() {
    storm("ext4", 128, &["overlay", "copy", "aufs", "mini_fo"]);
}

#[test]
fn on_btrfs() {
    storm("btrfs", 256, &["overlay", "btrfs-snapshot", "reflink", "mini_fo"]);
}
