//! Containers that end, start or are destroyed as nobody planned it. Needed: as for `tests/lxc.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "lxc/host.rs"]
mod host;

use std::fs;
use std::path::{Path, PathBuf};

use common::listing;
use host::{Host, kill, ready, text};

/// kill -9 of the monitor: the container dies with it and post-stop never runs.
#[test]
fn after_the_monitor_was_killed() {
    if !ready() {
        return;
    }
    let host = Host::new();
    host.create("k");
    for unmount in [true, false] {
        host.start("k");
        host.inside("k", "echo kept >/etc/who; sync");
        let init = host.init("k").unwrap();
        kill(host.monitor("k"));
        host.until("k", "outlives its monitor", || !Path::new(&format!("/proc/{init}")).exists());
        assert_eq!(host.state("k"), "STOPPED");
        assert!(host.mounted("k"), "who unmounted it? post-stop cannot have run");
        assert_eq!(host.actual("k"), "mounted", "list must tell that it does not run");
        if unmount {
            host.node.ok(&["umount", "k"]);
            assert!(!host.mounted("k"));
            assert_eq!(host.actual("k"), "unmounted");
        }
    }
    // The next start takes the view as it is, and its end takes it down.
    host.start("k");
    assert_eq!(host.inside("k", "cat /etc/who"), "kept\n");
    host.attach("k", "halt");
    host.wait_for_end("k");
    host.node.ok(&["destroy", "k"]);
}

/// LXC says that a container is stopped before it calls post-stop. A start in between finds the view up, and must keep it: on the
/// empty mount point LXC would leave folders that are in the way of every later mount.
#[test]
fn started_again_before_post_stop() {
    if !ready() {
        return;
    }
    let host = Host::new();
    host.create("r");
    // More hooks around ours: the first container's post-stop waits until the second one's pre-start has run, and the second
    // one goes on when that post-stop has run.
    let hooks = host.node.dir();
    let wait = |file: &str| format!("while [ ! -e {0}/{file} ]; do sleep 0.1; done", hooks.display());
    let touch = |file: &str| format!("touch {0}/{file}", hooks.display());
    let started =
        format!("if [ -e {0}/again ]; then {1}; {2}; fi", hooks.display(), touch("started"), wait("stopped"));
    for (name, script) in [("before", wait("started")), ("after", touch("stopped")), ("second", started)] {
        fs::write(hooks.join(name), script).unwrap();
    }
    let config = host.node.lxcpath.join("r/config");
    let text = fs::read_to_string(&config).unwrap();
    let hook = |moment: &str, name: &str| format!("lxc.hook.{moment} = sh {}/{name}\n", hooks.display());
    let ours = "lxc.hook.post-stop = ";
    assert!(text.contains(ours), "{text}");
    fs::write(&config, text.replacen(ours, &(hook("post-stop", "before") + ours), 1)).unwrap();
    host.configure("r", &(hook("post-stop", "after") + &hook("pre-start", "second")));

    host.start("r");
    kill(host.init("r").unwrap());
    host.until("r", "still runs", || host.state("r") == "STOPPED");
    fs::write(hooks.join("again"), "").unwrap();
    host.start("r");
    assert!(host.mounted("r"), "the first container's post-stop took the second one's view");
    host.inside("r", "touch /root/here");

    host.attach("r", "halt");
    host.wait_for_end("r");
    assert_eq!(fs::read_dir(host.node.view("r")).unwrap().count(), 0, "something lies in the mount point");
    host.node.ok(&["destroy", "r"]);
}

/// A container whose view cannot be mounted does not start on the empty mount point.
#[test]
fn a_start_without_a_view_is_stopped() {
    if !ready() {
        return;
    }
    let host = Host::new();
    host.create("s");
    let lxcpath = &host.node.lxcpath;
    let marker = (lxcpath.join(".sliverfs"), lxcpath.join("marker-away"));
    let base = (lxcpath.join(".base/debian"), lxcpath.join(".base/away"));
    let store = (lxcpath.join(".store/s"), lxcpath.join("store-away"));
    for (what, away) in [("the marker", &marker), ("the base", &base), ("the store", &store)] {
        fs::rename(&away.0, &away.1).unwrap();
        refuses_to_start(&host, what);
        fs::rename(&away.1, &away.0).unwrap();
    }
    // What lies in the mount point would be hidden.
    let stray = host.node.view("s").join("stray");
    fs::write(&stray, "mine").unwrap();
    refuses_to_start(&host, "a clear mount point");
    assert_eq!(fs::read_to_string(&stray).unwrap(), "mine");
    fs::remove_file(&stray).unwrap();

    // And nothing else was in the way.
    host.start("s");
    assert!(host.lxc("lxc-stop", "s").arg("-k").status().unwrap().success());
    host.wait_for_end("s");
}

fn refuses_to_start(host: &Host, without: &str) {
    let before = beside_the_base(host);
    let output = host.lxc("lxc-start", "s").output().unwrap();
    assert!(!output.status.success(), "LXC started the container without {without}");
    assert_eq!(host.state("s"), "STOPPED", "without {without}");
    assert!(!host.mounted("s"), "without {without}");
    // The hook said no; nothing later did.
    assert!(host.told("s").contains("pre-start"), "without {without}: {}", host.told("s"));
    assert_eq!(beside_the_base(host), before, "a start without {without} wrote something");
}

/// All of LXCPATH but the base, which takes long to read.
fn beside_the_base(host: &Host) -> String {
    let mut paths: Vec<_> =
        fs::read_dir(&host.node.lxcpath).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| !path.ends_with(".base"));
    paths.sort();
    let list = |path: &PathBuf| format!("{}:\n{}", path.display(), listing::of(path, true));
    paths.iter().map(list).collect::<Vec<_>>().join("\n")
}

/// lxc-destroy works through the view and would fill the store with deletions. It must not.
#[test]
fn lxc_destroy_leaves_the_store() {
    if !ready() {
        return;
    }
    let host = Host::new();
    let node = &host.node;
    let managed = "lxc.rootfs.managed = 0\n";
    for name in ["managed", "hook", "neither"] {
        host.create(name);
        node.ok(&["mount", name]);
        fs::write(node.view(name).join("etc/who"), name).unwrap();
        let config = node.lxcpath.join(name).join("config");
        let text = fs::read_to_string(&config).unwrap();
        assert!(text.contains(managed), "{text}");
        if name != "managed" {
            fs::write(&config, text.replace(managed, "")).unwrap();
        }
    }
    // What an LXC that does not know the key gets.
    let program = env!("CARGO_BIN_EXE_sliverfs");
    let hook =
        format!("lxc.hook.destroy = {program} --lxcpath {} hook destroy hook\n", node.lxcpath.display());
    host.configure("hook", &hook);

    for (name, kept) in [("managed", true), ("hook", true), ("neither", false)] {
        let before = listing::of(&node.store(name), true);
        let output = host.lxc("lxc-destroy", name).output().unwrap();
        let after = listing::of(&node.store(name), true);
        assert_eq!(before == after, kept, "{name}: {}{}", text(&output.stdout), text(&output.stderr));
        if kept {
            assert_eq!(fs::read_to_string(node.view(name).join("etc/who")).unwrap(), name);
        }
    }

    // A configuration that is lost is written again, and the sliver is what it was.
    let config = node.lxcpath.join("managed/config");
    fs::remove_file(&config).unwrap();
    node.ok(&["umount", "managed"]);
    host.create("managed");
    host.start("managed");
    assert_eq!(host.inside("managed", "cat /etc/who"), "managed");
}
