//! The package's life on a router: its scripts run in a folder with busybox and nothing else, under stand-ins for OpenWrt's
//! own (`tests/service/`), and a program in the place of sliverfs that writes down how it was called.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::tree::{Temp, installed};
use common::{busy, require, root};

/// Notes its arguments, and whether procd's lock was left open for it; ends as /fail says.
const SLIVERFS: &str = "#!/bin/sh
echo \"$*\" >>/calls
(echo held >&1000) 2>/dev/null && echo 'has the lock' >>/calls
[ ! -e /fail ]
";

struct Router(Temp);

impl Router {
    /// One with the package's files on it, whose scripts have not run yet; nothing, where there can be none.
    fn new() -> Option<Self> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let venv = std::env::var_os("SLIVERFS_VENV").map_or(repository.join(".venv"), PathBuf::from);
        let packer = if venv.exists() { Ok(()) } else { Err("no .venv: run cross/setup".to_string()) };
        if !require("root", root()) || !require("cross", installed("busybox").and(packer)) {
            return None;
        }
        let router = Self(Temp::new());
        for dir in ["bin", "etc/rc.d", "lib", "tmp", "var/run", "usr/lib/opkg/info", "etc/lxc", "dev"] {
            fs::create_dir_all(router.path(dir)).unwrap();
        }
        let busybox = Command::new("sh").args(["-c", "command -v busybox"]).output().unwrap().stdout;
        busy::program(Path::new(String::from_utf8(busybox).unwrap().trim()), &router.path("bin/busybox"));
        for applet in "sh sed head tail grep md5sum cut ln rm mkdir cat basename readlink ls".split(' ') {
            symlink("busybox", router.path(&format!("bin/{applet}"))).unwrap();
        }
        fs::copy(repository.join("tests/service/functions.sh"), router.path("lib/functions.sh")).unwrap();
        fs::copy(repository.join("tests/service/rc.common"), router.path("etc/rc.common")).unwrap();
        router.script("bin/uci", "#!/bin/sh\necho \"sliverfs.main=sliverfs # $*\"\n");
        router.script("program", SLIVERFS);
        let unpack = "set -e
            ipk=$($1/openwrt/build-ipk mips_24kc $2/program $2/ipk)
            tar -xzOf $ipk ./data.tar.gz | tar -xzf - -C $2
            mkdir $2/control
            tar -xzOf $ipk ./control.tar.gz | tar -xzf - -C $2/control
            for file in $2/control/*; do mv $file $2/usr/lib/opkg/info/sliverfs.${file##*/}; done";
        let out =
            Command::new("sh").args(["-c", unpack, "sh"]).arg(repository).arg(&router.0.0).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Some(router)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn script(&self, path: &str, text: &str) {
        busy::script(&self.path(path), text);
    }

    /// Runs a command on the router; it must succeed, and say nothing.
    fn run(&self, environment: &[(&str, &str)], words: &[&str]) {
        let mut command = Command::new("busybox");
        command.arg("chroot").arg(&self.0.0).args(words).env_clear().env("PATH", "/bin:/usr/sbin");
        // busybox itself is looked for on this machine's path.
        command.envs(environment.iter().copied());
        let out = command.output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{words:?}: {:?} {said}", out.status);
        assert_eq!(said, "", "{words:?}");
    }

    fn service(&self, action: &str) {
        self.run(&[], &["/bin/sh", "/etc/rc.common", "/etc/init.d/sliverfs", action]);
    }

    /// A maintainer script, as opkg calls it.
    fn opkg(&self, environment: &[(&str, &str)], script: &str, words: &[&str]) {
        let script = format!("/usr/lib/opkg/info/sliverfs.{script}");
        self.run(environment, &[&[script.as_str()], words].concat());
    }

    fn install(&self) {
        self.opkg(&[("PKG_UPGRADE", "0")], "postinst", &["configure"]);
    }

    fn upgrade(&self) {
        self.opkg(&[("PKG_UPGRADE", "1")], "prerm", &["upgrade", "0.2.0-r1"]);
        self.opkg(&[("PKG_UPGRADE", "1")], "postinst", &["configure"]);
    }

    /// What was written to a file since it was last asked for.
    fn taken(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(file)).unwrap_or_default();
        let _ = fs::remove_file(self.path(file));
        text.lines().map(str::to_owned).collect()
    }

    fn enabled(&self) -> bool {
        self.path("etc/rc.d/S79sliverfs").is_symlink()
    }
}

#[test]
fn an_install_enables_and_applies() {
    let Some(router) = Router::new() else { return };
    router.install();
    assert!(router.enabled());
    assert_eq!(router.taken("calls"), ["apply"], "once, and without procd's lock");
    assert_eq!(router.taken("procd"), ["config sliverfs", "mount /srv/lxc"]);
}

/// Where the program leaves what it unpacked: from a boot or the installation until it is removed, unless the operator takes it away.
#[test]
fn the_folder_of_the_unpacked_program() {
    let Some(router) = Router::new() else { return };
    let folder = router.path("var/run/sliverfs-unpacked");
    let with_program = || fs::write(folder.join("program"), "unpacked").unwrap();
    router.install();
    assert_eq!(fs::symlink_metadata(&folder).unwrap().mode(), 0o40755);
    with_program();
    router.upgrade();
    router.service("reload");
    assert!(folder.join("program").exists());
    fs::remove_dir_all(&folder).unwrap();
    router.upgrade();
    for action in ["reload", "stop", "start"] {
        router.service(action);
    }
    assert!(!folder.exists(), "it was turned off");
    router.taken("calls");
    router.service("boot");
    assert_eq!(fs::symlink_metadata(&folder).unwrap().mode(), 0o40755);
    assert_eq!(router.taken("calls"), ["apply"]);
    with_program();
    router.service("boot");
    router.opkg(&[("PKG_UPGRADE", "0")], "prerm", &["remove"]);
    assert!(!folder.exists());
    // Without procd, which gave no PKG_UPGRADE.
    fs::write(router.path("old"), "").unwrap();
    router.service("boot");
    router.opkg(&[], "prerm", &["upgrade", "0.2.0-r1"]);
    assert!(folder.exists());
    router.opkg(&[], "prerm", &["remove"]);
    assert!(!folder.exists());
}

#[test]
fn an_apply_that_fails_does_not_fail_the_install() {
    let Some(router) = Router::new() else { return };
    fs::write(router.path("fail"), "").unwrap();
    router.install();
    assert_eq!(router.taken("calls"), ["apply"]);
    assert!(router.enabled());
    // Nor does anything else: opkg would try again with every later install.
    router.script("usr/lib/opkg/info/sliverfs.postinst-pkg", "exit 1\n");
    router.install();
}

#[test]
fn an_upgrade_touches_no_sliver() {
    let Some(router) = Router::new() else { return };
    router.install();
    router.taken("calls");
    router.opkg(&[("PKG_UPGRADE", "1")], "prerm", &["upgrade", "0.2.0-r1"]);
    assert!(router.taken("calls").is_empty(), "stopping calls nothing");
    assert!(router.enabled());
    router.opkg(&[("PKG_UPGRADE", "1")], "postinst", &["configure"]);
    assert_eq!(router.taken("calls"), ["apply"]);
}

#[test]
fn an_upgrade_leaves_a_disabled_service_alone() {
    let Some(router) = Router::new() else { return };
    router.install();
    router.service("disable");
    router.taken("calls");
    router.upgrade();
    assert!(router.taken("calls").is_empty());
    assert!(!router.enabled());
    router.service("start");
    assert_eq!(router.taken("calls"), ["apply"], "by hand it starts all the same");
}

#[test]
fn a_removal_touches_no_sliver() {
    let Some(router) = Router::new() else { return };
    router.install();
    router.taken("calls");
    router.opkg(&[("PKG_UPGRADE", "0")], "prerm", &["remove"]);
    assert!(router.taken("calls").is_empty());
    assert!(!router.enabled());
}

#[test]
fn a_reload_applies_and_looks_again_at_what_to_wait_for() {
    let Some(router) = Router::new() else { return };
    router.install();
    router.taken("calls");
    router.taken("procd");
    fs::write(
        router.path("etc/config/sliverfs"),
        "config sliverfs 'main'\n\toption lxcpath '/mnt/usb/lxc'\n",
    )
    .unwrap();
    router.service("reload");
    assert_eq!(router.taken("calls"), ["apply"]);
    assert_eq!(router.taken("procd"), ["config sliverfs", "mount /mnt/usb/lxc"]);
}

#[test]
fn stop_and_restart_unmount_nothing() {
    let Some(router) = Router::new() else { return };
    router.service("start");
    router.service("stop");
    assert_eq!(router.taken("calls"), ["apply"]);
    router.service("restart");
    assert_eq!(router.taken("calls"), ["apply"]);
}

#[test]
fn the_disk_is_where_lxc_has_its_containers() {
    let Some(router) = Router::new() else { return };
    let mount = |router: &Router| {
        router.service("start");
        router.taken("procd").pop().unwrap()
    };
    // A folder that is not there yet, and one that is a link to the disk.
    fs::write(router.path("etc/lxc/lxc.conf"), "# lxc.lxcpath = /no\nlxc.lxcpath = /mnt/sda1/lxc\n").unwrap();
    assert_eq!(mount(&router), "mount /mnt/sda1/lxc");
    fs::create_dir_all(router.path("mnt/sda1/lxc")).unwrap();
    fs::create_dir_all(router.path("srv")).unwrap();
    symlink("/mnt/sda1/lxc", router.path("srv/lxc")).unwrap();
    fs::write(router.path("etc/lxc/lxc.conf"), "lxc.lxcpath=/srv/lxc\n").unwrap();
    assert_eq!(mount(&router), "mount /mnt/sda1/lxc");
    fs::remove_file(router.path("etc/lxc/lxc.conf")).unwrap();
    assert_eq!(mount(&router), "mount /mnt/sda1/lxc", "LXC's default on OpenWrt is /srv/lxc");
}

#[test]
fn releases_without_mount_triggers_and_without_procd() {
    let Some(router) = Router::new() else { return };
    fs::write(router.path("18.06"), "").unwrap();
    router.install();
    assert_eq!(router.taken("procd"), ["config sliverfs"]);
    assert_eq!(router.taken("calls"), ["apply"]);
    fs::write(router.path("old"), "").unwrap();
    for action in ["start", "reload", "stop"] {
        router.service(action);
    }
    assert_eq!(router.taken("calls"), ["apply", "apply"]);
    assert!(router.taken("procd").is_empty());
    // Before 14.07 there was no default_postinst either.
    fs::write(router.path("lib/functions.sh"), "config_load() { :; }\n").unwrap();
    router.service("disable");
    router.install();
    assert!(router.enabled());
    assert_eq!(router.taken("calls"), ["apply"]);
    router.opkg(&[], "prerm", &["remove"]);
    assert!(!router.enabled());
}

#[test]
fn in_an_image_it_is_enabled_and_not_run() {
    let Some(router) = Router::new() else { return };
    let image = router.path("image");
    fs::create_dir(&image).unwrap();
    for dir in ["etc", "lib", "usr", "bin"] {
        let out = Command::new("cp").arg("-a").arg(router.path(dir)).arg(&image).output().unwrap();
        assert!(out.status.success());
    }
    router.run(&[("IPKG_INSTROOT", "/image")], &["/image/usr/lib/opkg/info/sliverfs.postinst", "configure"]);
    assert!(image.join("etc/rc.d/S79sliverfs").is_symlink());
    assert!(!router.enabled());
    assert!(router.taken("calls").is_empty());
    assert!(!router.path("var/run/sliverfs-unpacked").exists() && !image.join("var/run").exists());
}

#[test]
fn the_first_reload_config_after_an_install_sees_us() {
    let Some(router) = Router::new() else { return };
    let sums = router.path("var/run/config.md5");
    router.install();
    assert!(!sums.exists(), "only where reload_config has looked already");
    let others = "d41d8cd98f00b204e9800998ecf8427e  /var/run/config.check/network\n";
    fs::write(&sums, others).unwrap();
    router.upgrade();
    router.upgrade();
    let text = fs::read_to_string(&sums).unwrap();
    assert!(text.starts_with(others));
    let ours: Vec<_> = text.lines().skip(1).collect();
    assert_eq!(ours.len(), 1, "one line, however often: {text}");
    // What reload_config compares it with: the sum of what `uci show sliverfs` prints.
    fs::create_dir_all(router.path("var/run/config.check")).unwrap();
    fs::write(router.path("var/run/config.check/sliverfs"), "sliverfs.main=sliverfs # -q show sliverfs\n")
        .unwrap();
    let check = format!("echo '{}' | md5sum -c >/dev/null", ours[0]);
    router.run(&[], &["/bin/sh", "-c", &check]);
    // Releases that took the sums of /etc/config itself.
    let old = "d41d8cd98f00b204e9800998ecf8427e  /etc/config/network\n";
    fs::write(&sums, old).unwrap();
    router.upgrade();
    assert_eq!(fs::read_to_string(&sums).unwrap(), old);
}
