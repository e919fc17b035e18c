//! The packages, byte by byte: what opkg was seen to refuse or to misread must not be in them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "ipk/archive.rs"]
mod archive;
mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use archive::{Member, gunzip, members};
use common::require;
use common::tree::{Temp, installed};

/// What stands in for the router's program: what is packed is not looked at.
const BINARY: &[u8] = b"\x7fELF\x01\x02\x01 not a program\n";
const EPOCH: u64 = 1_700_000_000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|err| panic!("{path}: {err}"))
}

/// Whether there is what packs; cross/setup makes it.
fn packer() -> bool {
    let python =
        std::env::var_os("SLIVERFS_VENV").map_or(root().join(".venv"), PathBuf::from).join("bin/python3");
    require(
        "cross",
        if python.exists() { Ok(()) } else { Err(format!("no {}: run cross/setup", python.display())) },
    )
}

/// A command of openwrt/, in a given moment.
fn openwrt(script: &str) -> Command {
    let mut command = Command::new(root().join("openwrt").join(script));
    command.env("SOURCE_DATE_EPOCH", EPOCH.to_string());
    command
}

fn done(command: &mut Command) -> Output {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    out
}

/// Packs for an architecture into a folder below `temp`.
fn build(temp: &Temp, arch: &str, out: &str) -> PathBuf {
    let binary = temp.join("binary");
    fs::write(&binary, BINARY).unwrap();
    let said = done(openwrt("build-ipk").arg(arch).arg(&binary).arg(temp.join(out))).stdout;
    PathBuf::from(String::from_utf8(said).unwrap().trim_end())
}

/// An ipk and the two archives in it.
struct Ipk {
    outer: Vec<Member>,
    data_size: usize,
    data: Vec<Member>,
    control: Vec<Member>,
}

impl Ipk {
    fn open(path: &Path) -> Self {
        let outer = members(&gunzip(&fs::read(path).unwrap()));
        let content = |name: &str| gunzip(&outer.iter().find(|member| member.name == name).unwrap().content);
        let data = content("./data.tar.gz");
        let (data_size, control) = (data.len(), members(&content("./control.tar.gz")));
        Self { data_size, data: members(&data), control, outer }
    }

    fn control(&self, name: &str) -> String {
        let member = self.control.iter().find(|member| member.name == format!("./{name}")).unwrap();
        String::from_utf8(member.content.clone()).unwrap()
    }

    /// The fields of `control`, in order; lines that go on belong to the one before them.
    fn fields(&self) -> Vec<(String, String)> {
        let text = self.control("control");
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in text.lines() {
            match (line.starts_with(' '), line.split_once(": ")) {
                (true, _) => fields.last_mut().unwrap().1.push_str(&format!("\n{line}")),
                (false, Some((key, value))) => fields.push((key.into(), value.into())),
                (false, None) => panic!("control: {line:?}"),
            }
        }
        fields
    }
}

fn one() -> Option<(Temp, Ipk)> {
    packer().then(|| {
        let temp = Temp::new();
        let ipk = Ipk::open(&build(&temp, "mips_24kc", "out"));
        (temp, ipk)
    })
}

fn names(members: &[Member]) -> Vec<(&str, u32)> {
    members.iter().map(|member| (member.name.as_str(), member.mode)).collect()
}

#[test]
fn the_three_members_in_opkgs_order() {
    let Some((_temp, ipk)) = one() else { return };
    let wanted = [("./debian-binary", 0o644), ("./data.tar.gz", 0o644), ("./control.tar.gz", 0o644)];
    assert_eq!(names(&ipk.outer), wanted);
    assert_eq!(ipk.outer[0].content, b"2.0\n");
}

#[test]
fn what_lands_on_the_router() {
    let Some((_temp, ipk)) = one() else { return };
    let wanted = [
        ("./", 0o755),
        ("./etc/", 0o755),
        ("./etc/config/", 0o755),
        ("./etc/config/sliverfs", 0o600),
        ("./etc/init.d/", 0o755),
        ("./etc/init.d/sliverfs", 0o755),
        ("./lib/", 0o755),
        ("./lib/upgrade/", 0o755),
        ("./lib/upgrade/keep.d/", 0o755),
        ("./lib/upgrade/keep.d/sliverfs", 0o644),
        ("./usr/", 0o755),
        ("./usr/sbin/", 0o755),
        ("./usr/sbin/sliverfs", 0o755),
        ("./usr/share/", 0o755),
        ("./usr/share/sliverfs/", 0o755),
        ("./usr/share/sliverfs/qgroup.seccomp", 0o644),
    ];
    assert_eq!(names(&ipk.data), wanted);
    for member in ipk.data.iter().filter(|member| !member.name.ends_with('/')) {
        let path = member.name.strip_prefix('.').unwrap();
        let wanted = match path {
            "/usr/sbin/sliverfs" => BINARY.to_vec(),
            path => fs::read(root().join(format!("files{path}"))).unwrap(),
        };
        assert!(member.content == wanted, "{path}");
        assert!(path == "/usr/sbin/sliverfs" || !member.content.contains(&b'\r'), "{path}: CR");
    }
}

#[test]
fn control_says_what_opkg_asks() {
    let Some((_temp, ipk)) = one() else { return };
    assert!(!ipk.control("control").contains('\r'), "opkg takes CRLF for a foreign architecture");
    assert!(ipk.control("control").ends_with('\n'));
    let fields = ipk.fields();
    let keys: Vec<_> = fields.iter().map(|(key, _)| key.as_str()).collect();
    // No Depends: the binary is static, and an unmet one is reported as a wrong architecture.
    let wanted =
        ["Package", "Version", "Section", "Architecture", "Installed-Size", "License", "Description"];
    assert_eq!(keys, wanted);
    let field = |key: &str| fields.iter().find(|(name, _)| name == key).unwrap().1.as_str();
    assert_eq!(field("Package"), "sliverfs");
    assert_eq!(field("Architecture"), "mips_24kc");
    assert_eq!(field("Installed-Size"), ipk.data_size.to_string(), "bytes of the unpacked data");
    // Legal for apk too.
    assert_eq!(field("Version"), format!("{}-r1", env!("CARGO_PKG_VERSION")));
    let version = field("Version").strip_suffix("-r1").unwrap();
    assert!(
        version.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    );
    assert!(field("Description").lines().count() > 1 && !field("Description").starts_with(' '));
}

#[test]
fn maintainer_scripts_and_conffiles() {
    let Some((temp, ipk)) = one() else { return };
    let wanted = [
        ("./", 0o755),
        ("./conffiles", 0o644),
        ("./control", 0o644),
        ("./postinst", 0o755),
        ("./postinst-pkg", 0o755),
        ("./prerm", 0o755),
    ];
    assert_eq!(names(&ipk.control), wanted);
    assert_eq!(ipk.control("conffiles"), "/etc/config/sliverfs\n");
    for conffile in ipk.control("conffiles").lines() {
        assert!(ipk.data.iter().any(|member| member.name == format!(".{conffile}")), "{conffile}");
    }
    assert!(ipk.control("postinst").contains("default_postinst \"$0\" \"$@\""));
    assert!(ipk.control("prerm").contains("default_prerm \"$0\" \"$@\""));
    // make's dollars are doubled in the feed's Makefile, from which this one comes.
    assert!(!ipk.control("postinst-pkg").contains("$$"));
    for script in ["postinst", "postinst-pkg", "prerm"] {
        let text = ipk.control(script);
        assert!(text.starts_with("#!/bin/sh\n") && !text.contains('\r'), "{script}");
        let path = temp.join(script);
        fs::write(&path, text).unwrap();
        if require("cross", installed("busybox")) {
            done(Command::new("busybox").args(["ash", "-n"]).arg(&path));
        }
        let judge = root().join(".venv/bin/shellcheck");
        if require(
            "cross",
            if judge.exists() { Ok(()) } else { Err("no shellcheck: run cross/setup".into()) },
        ) {
            let out =
                Command::new(judge).args(["-s", "busybox", "-e", "SC1091"]).arg(&path).output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
        }
    }
}

#[test]
fn every_member_is_of_the_same_moment_and_sorted() {
    let Some((_temp, ipk)) = one() else { return };
    for member in ipk.outer.iter().chain(&ipk.data).chain(&ipk.control) {
        assert_eq!(member.mtime, EPOCH, "{}", member.name);
    }
    for members in [&ipk.data, &ipk.control] {
        let names: Vec<_> = members.iter().map(|member| member.name.trim_end_matches('/')).collect();
        assert!(names.is_sorted(), "{names:?}");
    }
}

#[test]
fn the_same_bytes_again_and_elsewhere() {
    if !packer() {
        return;
    }
    let temp = Temp::new();
    let first = fs::read(build(&temp, "mips_24kc", "first")).unwrap();
    assert!(first == fs::read(build(&temp, "mips_24kc", "second")).unwrap(), "a second time");
    // Another user's shell, on another disk.
    let strange = Temp::quick();
    let script = format!(
        "umask 077; exec {}/openwrt/build-ipk mips_24kc {} {}",
        root().display(),
        temp.join("binary").display(),
        strange.join("out").display()
    );
    done(
        Command::new("sh")
            .args(["-c", &script])
            .current_dir("/")
            .env("SOURCE_DATE_EPOCH", EPOCH.to_string())
            .env("TMPDIR", &strange.0)
            .env("TZ", "Pacific/Auckland")
            .env("LANG", "de_DE.UTF-8")
            .env("TAR_OPTIONS", "")
            .env("GZIP", ""),
    );
    let ipk = temp.join("first").read_dir().unwrap().next().unwrap().unwrap().file_name();
    assert!(first == fs::read(strange.join("out").join(&ipk)).unwrap(), "elsewhere");
    // What is in it does count.
    let later = openwrt("build-ipk")
        .arg("mips_24kc")
        .args([temp.join("binary"), temp.join("later")])
        .env("SOURCE_DATE_EPOCH", (EPOCH + 1).to_string())
        .output()
        .unwrap();
    assert!(
        later.status.success() && first != fs::read(temp.join("later").join(&ipk)).unwrap(),
        "a second later"
    );
}

#[test]
fn without_a_binary_no_package() {
    if !packer() {
        return;
    }
    let temp = Temp::new();
    let out =
        openwrt("build-ipk").args(["mips_24kc", "/nonexistent"]).arg(temp.join("out")).output().unwrap();
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("/nonexistent is missing"), "{out:?}");
    assert!(!temp.join("out").exists());
}

#[test]
fn a_folder_becomes_a_feed() {
    if !packer() {
        return;
    }
    let temp = Temp::new();
    let (mips, arm) = (build(&temp, "mips_24kc", "feed"), build(&temp, "arm_cortex-a7", "feed"));
    done(openwrt("build-index").arg(temp.join("feed")));
    let packages = fs::read_to_string(temp.join("feed/Packages")).unwrap();
    assert_eq!(gunzip(&fs::read(temp.join("feed/Packages.gz")).unwrap()), packages.as_bytes());
    let stanzas: Vec<_> = packages.split_terminator("\n\n").collect();
    assert_eq!(stanzas.len(), 2, "one package, one stanza: {packages}");
    for (stanza, path) in stanzas.iter().zip([arm, mips]) {
        let ipk = Ipk::open(&path);
        let sum = String::from_utf8(done(Command::new("sha256sum").arg(&path)).stdout).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let about_file = format!(
            "Filename: {name}\nSize: {}\nSHA256sum: {}\nDescription: ",
            fs::metadata(&path).unwrap().len(),
            sum.split_whitespace().next().unwrap()
        );
        let wanted = ipk.control("control").replacen("Description: ", &about_file, 1);
        assert_eq!(format!("{stanza}\n"), wanted);
    }
}

/// The rows of a table without its comments.
fn table(path: &str) -> Vec<Vec<String>> {
    let text = read(path);
    let lines = text.lines().map(|line| line.split('#').next().unwrap());
    lines
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .filter(|row: &Vec<_>| !row.is_empty())
        .collect()
}

#[test]
fn every_architecture_has_a_target_and_every_target_a_package() {
    let archs: BTreeMap<_, _> =
        table("openwrt/architectures").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let targets: Vec<_> = table("cross/targets").into_iter().map(|row| row[0].clone()).collect();
    let prefixes = [
        ("mips_", "mips-"),
        ("mipsel_", "mipsel-"),
        ("arm_cortex-", "armv7-"),
        ("arm_", "armv5te-"),
        ("aarch64_", "aarch64-"),
        ("x86_64", "x86_64-"),
    ];
    for (arch, target) in &archs {
        assert!(targets.contains(target), "{arch}: {target} is not in cross/targets");
        let (_, wanted) = prefixes.iter().find(|(prefix, _)| arch.starts_with(prefix)).unwrap();
        assert!(target.starts_with(wanted), "{arch} does not run {target}");
    }
    for target in &targets {
        assert!(archs.values().any(|used| used == target), "{target} is in no package");
        assert!(table("cross/size-budget").iter().any(|row| row[0] == *target), "{target} has no budget");
    }
    for arch in [
        "mips_24kc",
        "mipsel_24kc",
        "mipsel_74kc",
        "arm_cortex-a7",
        "arm_cortex-a7_neon-vfpv4",
        "arm_cortex-a9",
        "arm_cortex-a9_vfpv3-d16",
        "arm_cortex-a15_neon-vfpv4",
        "arm_arm926ej-s",
        "aarch64_cortex-a53",
        "aarch64_cortex-a72",
        "aarch64_generic",
        "x86_64",
    ] {
        assert!(archs.contains_key(arch), "no package for {arch}");
    }
}

#[test]
fn the_feeds_makefile_packs_the_same() {
    let makefile = read("openwrt/Makefile");
    assert!(makefile.contains(&format!("\nPKG_VERSION:={}\nPKG_RELEASE:=1\n", env!("CARGO_PKG_VERSION"))));
    let mut wanted: Vec<_> = Vec::new();
    walk(&root().join("files"), &mut wanted);
    for path in wanted {
        let path = path.strip_prefix(root()).unwrap().display().to_string();
        assert!(makefile.contains(&format!("$(PKG_BUILD_DIR)/{path} ")), "{path} is not installed");
    }
    let license = makefile.lines().find_map(|line| line.strip_prefix("PKG_LICENSE_FILES:=")).unwrap();
    for file in license.split_whitespace() {
        assert!(root().join(file).is_file(), "{file} is named, and is not there");
    }
    // The profile must not inherit what the feed sets for `release`.
    let profile = read("cross/profile.toml");
    for setting in
        ["panic = \"abort\"", "overflow-checks = false", "opt-level = ", "lto = ", "codegen-units = 1"]
    {
        assert!(profile.contains(setting), "{setting}");
    }
    assert!(makefile.contains("CARGO_PKG_PROFILE:=router\n") && profile.contains("[profile.router]"));
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}
