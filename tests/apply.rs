//! `sliverfs apply`: a node becomes what its UCI file wants, section by section, and nothing is ever removed by it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output};

use common::node::{Node, run, small_tree};
use common::{listing, require};

/// A node with a UCI file beside its disk.
struct Managed(Node);

impl Managed {
    fn new() -> Option<Self> {
        require("root", common::root()).then(|| {
            let node = Node::new("ext4", 64);
            small_tree(&node.dir().join("tree"));
            Self(node)
        })
    }

    fn apply(&self, sections: &str, args: &[&str]) -> Output {
        let file = self.0.dir().join("uci");
        let main = format!("config sliverfs 'main'\n\toption lxcpath '{}'\n", self.0.lxcpath.display());
        fs::write(&file, main + sections).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sliverfs"));
        command.env_remove("SLIVERFS_LXCPATH").arg("--config").arg(&file).arg("apply").args(args);
        command.output().unwrap()
    }

    fn base(&self) -> String {
        format!("config base 'deb'\n\toption source '{}'\n", self.0.dir().join("tree").display())
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const TWO: &str = "config sliver 'one'\n\toption base 'deb'\n\
    config sliver\n\toption name 'exp-2'\n\toption base 'deb'\n\toption mount '0'\n";

#[test]
fn adds_creates_and_mounts_what_is_missing() {
    let Some(node) = Managed::new() else { return };
    let wanted = node.base() + TWO;
    let planned = node.apply(&wanted, &["--dry-run"]);
    let plan = String::from_utf8(planned.stdout.clone()).unwrap();
    assert!(
        plan.contains("sliverfs base add deb ") && plan.contains("sliverfs create exp-2 --base deb"),
        "{plan}"
    );
    assert!(!node.0.lxcpath.join(".base/deb").exists());
    for again in [false, true] {
        let output = node.apply(&wanted, &[]);
        let said = said(&output);
        assert!(output.status.success(), "{said}");
        // A line for each thing that was done, and none where nothing was to do.
        let done = [
            "added the base `deb`",
            "created the sliver `one`",
            "mounted the sliver `one`",
            "created the sliver `exp-2`",
        ];
        assert_eq!(said.lines().count(), if again { 0 } else { done.len() }, "{said}");
        for (line, done) in said.lines().zip(done) {
            assert!(line.contains(done), "{said}");
        }
        let planned = node.apply(&wanted, &["--dry-run"]);
        assert_eq!(String::from_utf8_lossy(&planned.stdout), "", "nothing is to do");
        let list = node.0.json(&["list", "--json"]);
        assert_eq!((&list[0]["name"], &list[0]["actual"]), (&"exp-2".into(), &"unmounted".into()));
        assert_eq!((&list[1]["name"], &list[1]["actual"]), (&"one".into(), &"mounted".into()));
    }
    fs::write(node.0.view("one").join("mine"), "x").unwrap();
    // What is no longer named is told and left.
    let output = node.apply(&node.base(), &[]);
    assert!(output.status.success());
    let said = said(&output);
    assert!(said.contains("`one` is not in the configuration, and is left as it is"), "{said}");
    assert!(node.0.view("one").join("mine").exists());
}

#[test]
fn an_error_in_a_section_leaves_the_rest_of_the_node_up() {
    let Some(node) = Managed::new() else { return };
    let sections = node.base()
        + "config sliver 'bad name!'\n\toption base 'deb'\n"
        + "config base 'missing'\n"
        + "config sliver 'orphan'\n\toption base 'missing'\n"
        + "config sliver 'odd'\n\toption base 'deb'\n\toption backend 'paper'\n"
        + "config sliver 'good'\n\toption base 'deb'\n";
    let output = node.apply(&sections.replace("'bad name!'", "bad_one\n\toption name 'bad name'"), &[]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let file = node.0.dir().join("uci");
    let line = |what: &str| {
        let found =
            said.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what} in {said}"));
        assert!(found.contains(&format!("{}:", file.display())), "{found}");
        found.to_owned()
    };
    assert!(line("`bad name` is not a name").contains("sliver 'bad_one'"));
    assert!(line("wget -O- URL | sliverfs base add missing -").contains("base 'missing'"));
    assert!(line("`paper` is no backend").contains("sliver 'odd'"));
    line("sliver 'orphan'");
    let list = node.0.json(&["list", "--json"]);
    let actual: Vec<_> =
        list.as_array().unwrap().iter().map(|row| (row["name"].as_str(), row["actual"].as_str())).collect();
    assert_eq!(actual, [(Some("good"), Some("mounted"))]);
}

#[test]
fn a_dry_run_refuses_what_a_real_run_would() {
    let Some(node) = Managed::new() else { return };
    let both = |sections: &str| {
        let dry = node.apply(sections, &["--dry-run"]);
        let planned = String::from_utf8_lossy(&dry.stdout).into_owned();
        let real = node.apply(sections, &[]);
        let errors = |output: &Output| {
            let said = said(output);
            said.lines().filter(|line| line.starts_with("ERROR")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(errors(&dry), errors(&real));
        assert_eq!(dry.status.code(), real.status.code());
        (planned, errors(&real).concat())
    };
    // Nothing was tried in this boot yet: auto is no reason to refuse. The last base that there will be is not a file.
    let wanted = node.base()
        + "config base 'none'\n\toption source '/nowhere'\n"
        + "config sliver 'good'\n\toption base 'deb'\n"
        + "config sliver 'orphan'\n\toption base 'none'\n";
    let (planned, errors) = both(&wanted);
    assert!(planned.contains("create good") && planned.contains("mount good"), "{planned}");
    assert!(!planned.contains("orphan") && !planned.contains("none"), "{planned}");
    assert!(errors.contains("base 'none'") && errors.contains("sliver 'orphan'"), "{errors}");
    // What is there.
    node.0.ok(&["umount", "good"]);
    fs::write(node.0.view("good").join("in the way"), "x").unwrap();
    fs::create_dir(node.0.lxcpath.join("theirs")).unwrap();
    fs::write(node.0.lxcpath.join("theirs/config"), "lxc.uts.name = theirs\n").unwrap();
    let wanted = node.base()
        + "config sliver 'good'\n\toption base 'deb'\n"
        + "config sliver 'theirs'\n\toption base 'deb'\n"
        + "config sliver 'old'\n\toption base 'deb'\n\toption backend 'mini_fo'\n"
        + "config sliver 'full'\n\toption base 'deb'\n\toption data '/nowhere.tar'\n";
    let (planned, errors) = both(&wanted);
    assert_eq!(planned, "");
    for what in ["is not empty", "is no sliver's", "mini_fo", "/nowhere.tar"] {
        assert!(errors.contains(what), "{what}: {errors}");
    }
    fs::remove_file(node.0.view("good").join("in the way")).unwrap();
    let other = node.base() + "config sliver 'good'\n\toption base 'deb'\n\toption backend 'copy'\n";
    assert!(both(&other).1.contains("is there already"));
}

#[test]
fn a_disk_that_is_not_there_yet_is_waited_for() {
    let Some(node) = Managed::new() else { return };
    let wanted = node.base() + TWO;
    fs::remove_file(node.0.lxcpath.join(".sliverfs")).unwrap();
    let before = listing::of(&node.0.lxcpath, true);
    let output = node.apply(&wanted, &[]);
    assert!(output.status.success());
    assert!(said(&output).contains("until its disk is mounted"), "{}", said(&output));
    assert_eq!(listing::of(&node.0.lxcpath, true), before, "nothing was written");
    node.0.ok(&["init"]);
    assert!(node.apply(&wanted, &[]).status.success());
    assert!(node.0.view("one").join("etc/a.txt").exists());
}

#[test]
fn a_file_that_is_not_uci_changes_nothing() {
    let Some(node) = Managed::new() else { return };
    let output = node.apply(&(node.base() + TWO + "config sliver 'open\n"), &[]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(!node.0.lxcpath.join(".base/deb").exists());
}

#[test]
fn a_wrong_lxcpath_is_not_replaced_by_a_default() {
    let Some(node) = Managed::new() else { return };
    let file = node.0.dir().join("uci");
    fs::write(&file, "config sliverfs 'main'\n\toption lxcpath 'relative/path'\nconfig base 'b'\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sliverfs"));
    command.env_remove("SLIVERFS_LXCPATH");
    let output = command.arg("--config").arg(&file).arg("apply").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

#[test]
fn what_apply_says_goes_to_the_system_log_too() {
    let Some(node) = Managed::new() else { return };
    // A log daemon of our own, in a mount namespace where /dev is ours.
    let dev = node.0.dir().join("dev");
    fs::create_dir(&dev).unwrap();
    let socket = UnixDatagram::bind(dev.join("log")).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let file = node.0.dir().join("uci");
    fs::write(
        &file,
        format!(
            "config sliverfs 'main'\n\toption lxcpath '{}'\nconfig base 'far'\n",
            node.0.lxcpath.display()
        ),
    )
    .unwrap();
    let script = "mount --bind \"$1\" /dev; \"$2\" --config \"$3\" apply 2>&1 || true";
    let mut shell = Command::new("unshare");
    shell.args(["-m", "sh", "-c", script, "sh"]).arg(&dev).arg(env!("CARGO_BIN_EXE_sliverfs")).arg(&file);
    let terminal = run(&mut shell);
    let mut datagram = [0; 2048];
    let length = socket.recv(&mut datagram).unwrap();
    let logged = String::from_utf8_lossy(&datagram[..length]).into_owned();
    let words = logged.split_once("]: ").unwrap().1;
    assert!(logged.starts_with("<27>sliverfs["), "{logged}");
    assert!(words.contains("sliverfs base add far -") && terminal.contains(words), "{logged}\n{terminal}");
}

#[test]
fn hooks_mount_unmount_and_stop_a_start() {
    let Some(node) = Managed::new() else { return };
    assert!(node.apply(&(node.base() + TWO), &[]).status.success());
    let node = &node.0;
    node.ok(&["umount", "one"]);
    // LXC adds its own arguments behind ours.
    node.ok(&["hook", "pre-start", "one", "one", "lxc", "pre-start"]);
    assert_eq!(node.json(&["show", "one", "--json"])["actual"], "mounted");
    let mut reboot = node.command(&["hook", "post-stop", "one"]);
    assert!(reboot.env("LXC_TARGET", "reboot").status().unwrap().success());
    assert_eq!(node.json(&["show", "one", "--json"])["actual"], "mounted");
    node.ok(&["hook", "post-stop", "one"]);
    assert_eq!(node.json(&["show", "one", "--json"])["actual"], "unmounted");
    node.fails(4, &["hook", "destroy", "one"]);
    node.fails(2, &["hook", "dance", "one"]);
    fs::write(node.view("one").join("in the way"), "x").unwrap();
    node.fails(1, &["hook", "pre-start", "one"]);
    fs::remove_file(node.lxcpath.join(".sliverfs")).unwrap();
    node.fails(1, &["hook", "pre-start", "one"]);
}
