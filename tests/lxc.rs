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
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{listing, require};
use host::{Host, kill, package, text};

fn ready() -> bool {
    require("lxc", host::available())
}

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

/// A container with a limit: inside, it is the size of the disk, a full disk is ENOSPC and no more, and it stops and boots again.
#[test]
fn on_a_limit() {
    if !ready() {
        return;
    }
    let host = Host::new();
    host.create_with("q", &["--quota", "64M"]);
    host.start("q");
    let df = |what: &str| -> u64 {
        host.inside("q", &format!("df -B1 --output={what} / | tail -n 1")).trim().parse().unwrap()
    };
    assert!((52 << 20..=64 << 20).contains(&df("size")), "{}", df("size"));
    let said = host.inside(
        "q",
        "if head -c 100000000 /dev/zero >/root/fill 2>/tmp/said; then exit 1; fi; rm -f /tmp/said; \
        if head -c 100000 /dev/zero 2>&1 >/root/more; then exit 1; fi",
    );
    assert!(said.contains("No space left on device"), "{said}");
    assert!(df("avail") <= 64 << 10, "{}", df("avail"));
    assert_eq!(host.inside("q", "cat /etc/debian_version >/dev/null; ls /root"), "fill\nmore\n");

    // Full as it is.
    for _ in 0..2 {
        assert!(host.lxc("lxc-stop", "q").output().unwrap().status.success());
        host.wait_for_end("q");
        assert_eq!(host.actual("q"), "unmounted");
        assert_eq!(fs::read_dir(host.node.store("q").join("quota")).unwrap().count(), 0);
        host.start("q");
        assert_eq!(host.actual("q"), "running");
    }
    assert!(host.node.fails(4, &["quota", "q", "none"]).contains("running"));
    // It gets more while it runs, where root may let a file system grow (CAP_SYS_RESOURCE); less only when it does not.
    let more = host.node.run(&["quota", "q", "96M"]);
    match more.status.code() {
        Some(0) => assert!(df("size") > 80 << 20, "{}", df("size")),
        code => assert!(code == Some(3) && df("size") < 64 << 20, "{}", text(&more.stderr)),
    }
    host.inside("q", "rm /root/fill; head -c 20000000 /dev/zero >/root/more; echo kept >/root/kept");
    host.attach("q", "halt");
    host.wait_for_end("q");
    host.node.ok(&["quota", "q", "48M"]);
    host.start("q");
    assert!(df("size") < 48 << 20);
    assert_eq!(host.inside("q", "cat /root/kept"), "kept\n");
    host.attach("q", "halt");
    host.wait_for_end("q");
    host.node.ok(&["check", "q"]);
    host.node.ok(&["destroy", "q"]);
}
