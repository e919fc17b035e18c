//! Real containers: Debian's LXC boots a Debian on slivers that share one base.
//!
//! Needed: root, the package lxc, and what `tests/make-base small` makes (`tests/setup` brings all of it). Where it is
//! missing the tests say so and skip, unless SLIVERFS_REQUIRE contains the word `lxc`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "lxc/host.rs"]
mod host;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use common::require;
use host::{Host, kill, package, ready, text};

/// The life of two slivers on one base, as their tenants see it.
#[test]
fn two_slivers_on_one_base() {
    if !ready() {
        return;
    }
    let host = Host::new();
    for name in ["a", "b"] {
        host.create(name);
        host.start(name);
        assert_eq!(host.actual(name), "running");
    }

    // Each has a world of its own, made of the same base.
    host.inside("a", "echo a >/etc/who; rm /etc/debian_version; echo more >>/etc/issue; mkdir /srv/d; mv /etc/apt /srv/d/apt");
    host.inside("b", "echo b >/etc/who; test -f /etc/debian_version; ! grep more /etc/issue; test ! -e /srv/d; test -d /etc/apt");
    assert_eq!(host.inside("a", "cat /etc/who"), "a\n");
    assert_eq!(fs::read_to_string(host.node.view("b").join("etc/who")).unwrap(), "b\n");
    assert!(
        !host.node.lxcpath.join(".base/debian/tree/etc/who").exists(),
        "the base got what a sliver wrote"
    );

    install_a_package(&host);
    refused_while_running(&host);
    reboots(&host);

    // A stop from outside takes the view down; the other sliver does not notice.
    let stop = host.lxc("lxc-stop", "a").output().unwrap();
    assert!(stop.status.success(), "{}", text(&stop.stderr));
    host.wait_for_end("a");
    assert_eq!(host.actual("a"), "unmounted");
    assert_eq!(fs::read_dir(host.node.view("a")).unwrap().count(), 0, "something lies in the mount point");
    assert_eq!(host.inside("b", "cat /etc/who"), "b\n");

    // So does one from inside.
    host.attach("b", "halt");
    host.wait_for_end("b");

    host.node.ok(&["base", "verify", "debian"]);
    for name in ["a", "b"] {
        host.node.ok(&["destroy", name]);
    }
    host.node.ok(&["base", "remove", "debian"]);
}

/// A package of Debian's is unpacked and configured by the dpkg inside, and its program runs there and nowhere else.
fn install_a_package(host: &Host) {
    assert!(!host.attach("a", "hello").status.success(), "the base has the package already");
    let mut install = host.lxc("lxc-attach", "a");
    install.args(["--", "sh", "-ec", "cat >/root/hello.deb; dpkg -i /root/hello.deb; rm /root/hello.deb"]);
    install.stdin(Stdio::from(fs::File::open(package()).unwrap()));
    let output = install.output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(host.inside("a", "hello -g 'from inside'"), "from inside\n");
    assert_eq!(host.inside("a", "dpkg-query -W -f '${db:Status-Status}' hello"), "installed");
    assert!(!host.attach("b", "hello").status.success(), "the package is in the other sliver, too");
}

/// Nothing pulls the disk from under a running container.
fn refused_while_running(host: &Host) {
    for args in [["umount", "a"], ["destroy", "a"]] {
        let said = host.node.fails(4, &args);
        assert!(said.contains("running") && said.contains("lxc-stop"), "{args:?}: {said}");
    }
    host.node.fails(4, &["umount", "--all"]);
    // Another mount of it would be a second writer; the one that is there is taken as it is.
    host.node.ok(&["mount", "a"]);
    assert_eq!(host.inside("a", "cat /etc/who"), "a\n");
    host.node.fails(4, &["base", "remove", "debian"]);
}

/// A reboot from inside: post-stop runs, then pre-start, and the view stays what it is.
fn reboots(host: &Host) {
    let before = host.init("a").expect("it runs");
    host.inside("a", "touch /run/here /root/kept; sync");
    host.attach("a", "reboot");
    host.until("a", "has not rebooted", || host.init("a").is_some_and(|init| init != before));
    host.wait_for_boot("a");
    assert!(host.mounted("a"), "a reboot must leave the view mounted");
    assert_eq!(host.actual("a"), "running");
    host.inside("a", "test -e /root/kept; test ! -e /run/here; hello; echo again >/etc/who");
}

/// The page's open problem: "halting the container locks the console". Whoever is attached when the container halts gets
/// the terminal back, with the settings that it had.
#[test]
fn a_halt_frees_the_console() {
    if !ready() {
        return;
    }
    let host = Host::new();
    host.create("c");
    // Somebody is logged in on the console and on the tty, as an operator would be.
    host.node.ok(&["mount", "c"]);
    let inittab = host.node.view("c").join("etc/inittab");
    let text = fs::read_to_string(&inittab).unwrap();
    assert!(text.contains("getty --noclear"), "not the inittab of tests/make-base: {text}");
    fs::write(&inittab, text.replace("getty --noclear", "getty --autologin root --noclear")).unwrap();

    let lxcpath = host.node.lxcpath.to_str().unwrap().to_owned();
    halt_on(&host, &format!("lxc-attach -P {lxcpath} -n c"), false);
    halt_on(&host, &format!("lxc-console -P {lxcpath} -n c -t 1"), false);
    halt_on(&host, &format!("lxc-start -F -P {lxcpath} -n c"), true);
}

/// Types `halt` at a container's prompt that the command `way` shows on a terminal; `starts` where it starts the container.
fn halt_on(host: &Host, way: &str, starts: bool) {
    let shells = || text(&host.attach("c", "ps -C bash -o tty=").stdout).lines().count();
    let logged_in = 2;
    if !starts {
        host.start("c");
        host.until("c", "has nobody logged in", || shells() == logged_in);
    }
    let [before, after, screen] = ["before", "after", "screen"].map(|name| host.node.dir().join(name));
    let script = format!("stty -g >{}; {way}; stty -g >{}", before.display(), after.display());
    let mut terminal = host.terminal(&script, &screen);
    if starts {
        host.wait_for_boot("c");
    }
    // lxc-attach brings a shell of its own.
    let expected = if way.starts_with("lxc-attach") { logged_in + 1 } else { logged_in };
    host.until("c", "has no shell to type at", || shells() == expected && shown(&screen).contains("c:"));
    let mut keyboard = terminal.stdin.take().unwrap();
    keyboard.write_all(b"halt\n").unwrap();
    keyboard.flush().unwrap();

    // The keyboard stays plugged in: only the end of the container ends the command.
    host.until("c", "still holds the terminal", || terminal.try_wait().unwrap().is_some());
    drop(keyboard);
    let settings = |path: &Path| {
        fs::read_to_string(path).unwrap_or_else(|err| panic!("{way}: {err}: {}", shown(&screen)))
    };
    assert_eq!(
        settings(&after),
        settings(&before),
        "{way} leaves the terminal as it found it: {}",
        shown(&screen)
    );
    host.wait_for_end("c");
}

/// What the terminal shows.
fn shown(screen: &Path) -> String {
    fs::read(screen).map_or_else(|_| String::new(), |bytes| text(&bytes))
}

/// Awkward, and too long for the socket's name: LXC hashes it then, and `list` must still see that the container runs.
#[test]
fn a_long_and_awkward_lxcpath() {
    if !ready() {
        return;
    }
    let host = Host::at(&format!("on a disk, with: 'quotes' & $signs/{}", "long/".repeat(12)));
    host.create("far-away");
    host.start("far-away");
    assert_eq!(host.actual("far-away"), "running");
    host.node.fails(4, &["umount", "far-away"]);
    host.node.fails(4, &["destroy", "far-away"]);
    host.inside("far-away", "echo here >/etc/who");
    let store = host.node.store("far-away").join("upper/etc/who");
    assert_eq!(fs::read_to_string(store).unwrap(), "here\n");
    host.attach("far-away", "halt");
    host.wait_for_end("far-away");
    host.node.ok(&["destroy", "far-away"]);
}

/// A container on a view that a daemon serves, and what is left when that dies under it.
#[test]
fn on_fuse_overlayfs() {
    let program = std::process::Command::new("fuse-overlayfs").arg("--version").output().map(drop);
    if !ready() || !require("fuse-overlayfs", program.map_err(|err| format!("fuse-overlayfs: {err}"))) {
        return;
    }
    let host = Host::new();
    host.node.ok(&["create", "f", "--base", "debian", "--backend", "fuse-overlayfs"]);
    // It is there already, and as wanted.
    host.create("f");
    host.start("f");
    assert_eq!(host.actual("f"), "running");
    host.inside("f", "echo f >/etc/who; rm /etc/debian_version; mv /etc/apt /srv/apt; perl -e 1; su -s /bin/sh -c id games");
    let mut install = host.lxc("lxc-attach", "f");
    install.args(["--", "sh", "-ec", "cat >/root/hello.deb; dpkg -i /root/hello.deb"]);
    install.stdin(Stdio::from(fs::File::open(package()).unwrap()));
    let output = install.output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let before = host.init("f").expect("it runs");
    host.attach("f", "reboot");
    host.until("f", "has not rebooted", || host.init("f").is_some_and(|init| init != before));
    host.wait_for_boot("f");
    host.inside("f", "test -d /srv/apt; test ! -e /etc/debian_version; hello");

    // Its daemon is killed: the container cannot go on, and says so in the list until it is stopped.
    let sheet = host.node.json(&["show", "f", "--json"]);
    assert!(sheet["daemon"]["memory"].as_u64().unwrap() > 1 << 20, "{sheet}");
    kill(sheet["daemon"]["pid"].as_u64().unwrap().try_into().unwrap());
    host.until("f", "is not told to be dead", || host.actual("f") == "dead");
    assert!(host.node.fails(4, &["umount", "f"]).contains("lxc-stop"));
    host.node.fails(4, &["destroy", "f"]);
    assert!(host.lxc("lxc-stop", "f").arg("-k").status().unwrap().success());
    host.wait_for_end("f");
    assert_eq!(host.actual("f"), "unmounted");

    host.start("f");
    assert_eq!(host.inside("f", "cat /etc/who"), "f\n");
    host.attach("f", "halt");
    host.wait_for_end("f");
    assert_eq!(host.actual("f"), "unmounted");
    host.node.ok(&["base", "verify", "debian"]);
    host.node.ok(&["destroy", "f"]);
}
