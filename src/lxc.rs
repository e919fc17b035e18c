//! What LXC needs to know of a sliver, and what it tells of one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::catalog::Root;
use crate::error::{Context, Error, Result};
use crate::hash::fnv64a;
use crate::name::Name;
use crate::out::joined;
use crate::shell::quote;
use crate::stay::Below;
use crate::sys::file;
use crate::sys::tool::{self, Stream};

/// The file in a container's folder that LXC reads.
pub const CONFIG: &str = "config";

/// Settings that LXC's own containers start from, where they are installed.
const INCLUDES: [&str; 2] = ["/usr/share/lxc/config/common.conf", "/etc/lxc/default.conf"];

/// What a profile of seccomp must say so that nobody leaves a qgroup: no ioctl of Btrfs, whatever the processor's encoding of it and
/// the upper half of its number, in which the kernel does not look; and no clone by another call. The errors are those that programs
/// know from other file systems (ENOTTY, EXDEV), and have these numbers on all processors.
const CLOSED: [&str; 2] = ["ioctl errno 25 [1,0x9400,SCMP_CMP_MASKED_EQ,0xff00]", "copy_file_range errno 18"];

/// The profile that says so, as it is installed: beside the folder of the program.
pub fn profile() -> Result<PathBuf> {
    let program = program()?;
    let prefix = program.parent().and_then(Path::parent).unwrap_or(Path::new("/usr"));
    Ok(prefix.join("share/sliverfs/qgroup.seccomp"))
}

/// The program that runs.
pub fn program() -> Result<PathBuf> {
    let this = Path::new("/proc/self/exe");
    fs::read_link(this).at("read", this)
}

/// Does the container's configuration name such a profile, or will the one that `create` writes do it?
pub fn is_closed(root: &Root, name: &Name) -> bool {
    let profile = match file::text(root.container(name).below(CONFIG)) {
        Ok(text) => {
            let mut last = None;
            // The last one counts. A file that is included behind it may name another one.
            for line in text.lines().map(str::trim_start) {
                let value = line.strip_prefix("lxc.seccomp.profile").map(str::trim_start);
                if let Some(value) = value.and_then(|value| value.strip_prefix('=')) {
                    last = Some(PathBuf::from(value.trim()));
                } else if line.starts_with("lxc.include") {
                    last = Some(PathBuf::new());
                }
            }
            last
        }
        Err(_) => profile().ok(),
    };
    let text = profile.and_then(|path| file::text(path).ok()).unwrap_or_default();
    CLOSED.iter().all(|rule| text.lines().any(|line| line == *rule))
}

/// A version of LXC: its configuration keys changed at 2.1, and `lxc.rootfs.managed` came with 4.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// What the configuration is written for where LXC is not installed (yet).
    pub const ASSUMED: Self = Self(5, 0);

    /// Asks the installed LXC.
    pub fn installed() -> Option<Self> {
        let streams = [Stream::Null, Stream::Pipe, Stream::Null];
        let mut child = tool::start("lxc-start", &["--version".as_ref()], streams).ok()?;
        let text = file::read_all(child.stdout.take()?, usize::MAX);
        let _told_enough = child.wait();
        Self::parse(&String::from_utf8_lossy(&text.ok()?))
    }

    /// Reads `5.0.2`, `2.1.1`, `6.0.0~rc1`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().split(|c: char| !c.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Some(Self(major, minor)),
            _ => None,
        }
    }
}

/// The configuration of a sliver's container.
///
/// The pre-start hook mounts the view, and a failure of it stops the start; the post-stop hook unmounts it. lxc-destroy is
/// kept from the view: it would fill the store with deletions. A profile of seccomp takes the place of that of LXC's own containers.
pub fn config(
    root: &Root,
    name: &Name,
    lxc: Version,
    program: &Path,
    profile: Option<&Path>,
) -> Result<String> {
    let view = root.view(name);
    let view = view.to_str().filter(|path| !path.contains(|c: char| c.is_ascii_control()));
    let Some(view) = view else {
        return Err(Error::usage(format_args!(
            "LXC's configuration cannot hold the path {}",
            root.view(name).display()
        ))
        .way_out("use an LXCPATH without line breaks, in UTF-8"));
    };
    let hook = |moment: &str| {
        format!(
            "{} --lxcpath {} hook {moment} {name}",
            quote(&program.to_string_lossy()),
            quote(&root.path().to_string_lossy())
        )
    };
    let old_keys = lxc < Version(2, 1);
    let mut lines = vec![
        "# Written by `sliverfs create`. Yours to extend; the rootfs and hook lines keep the sliver's data safe.".to_owned(),
    ];
    for include in INCLUDES.into_iter().filter(|path| Path::new(path).exists()) {
        lines.push(format!("lxc.include = {include}"));
    }
    let (uts, rootfs) =
        if old_keys { ("lxc.utsname", "lxc.rootfs") } else { ("lxc.uts.name", "lxc.rootfs.path") };
    lines.push(format!("{uts} = {name}"));
    lines.push(format!("{rootfs} = dir:{view}"));
    if lxc >= Version(4, 0) {
        lines.push("lxc.rootfs.managed = 0".to_owned());
    } else {
        lines.push(format!("lxc.hook.destroy = {}", hook("destroy")));
    }
    lines.extend(profile.map(|path| format!("lxc.seccomp.profile = {}", path.display())));
    lines.push(format!("lxc.hook.pre-start = {}", hook("pre-start")));
    lines.push(format!("lxc.hook.post-stop = {}", hook("post-stop")));
    lines.push(String::new());
    Ok(joined(&lines, "\n"))
}

/// The sockets on which the monitors of running containers take commands: their addresses, sorted, and inodes.
pub struct Sockets(Vec<(Vec<u8>, u64)>);

impl Sockets {
    /// Reads them from the kernel's list of this network namespace.
    pub fn read() -> Result<Self> {
        let path = Path::new("/proc/net/unix");
        file::read(path).map(|text| Self::parse(&text)).at("read", path)
    }

    fn parse(text: &[u8]) -> Self {
        let lines = text.split(|b| *b == b'\n').filter(|line| line.ends_with(b"/command"));
        let mut sockets: Vec<_> = lines.filter_map(socket).collect();
        sockets.sort_unstable();
        Self(sockets)
    }

    /// Does a monitor listen for the container?
    pub fn running(&self, root: &Root, name: &Name) -> bool {
        !self.inodes(root, name).is_empty()
    }

    /// Does a monitor listen for the container that is not the one which called this process as a hook?
    ///
    /// LXC 5 closes its socket before it calls post-stop, so a new start can be under way by then; older ones close it later.
    pub fn running_anew(&self, root: &Root, name: &Name) -> bool {
        let mut inodes = self.inodes(root, name);
        let mut pid = nix::unistd::getppid().as_raw();
        while pid > 1 && !inodes.is_empty() {
            let held = sockets_of(pid);
            inodes.retain(|inode| !held.contains(inode));
            pid = parent(pid).unwrap_or(0);
        }
        !inodes.is_empty()
    }

    /// The inodes of the sockets that belong to a monitor of the container.
    fn inodes(&self, root: &Root, name: &Name) -> Vec<u64> {
        let lxcpath = root.path().to_string_lossy();
        let plain = format!("@{lxcpath}/{name}/command");
        // Where that does not fit into an address, LXC hashes it (src/lxc/commands_utils.c).
        let hashed = format!("@lxc/{:016x}/command", fnv64a(format!("{lxcpath}/{name}").as_bytes()));
        let mut inodes = Vec::new();
        for address in [plain.as_bytes(), hashed.as_bytes()] {
            let first = self.0.partition_point(|(other, _)| &**other < address);
            let same = self.0.iter().skip(first).take_while(|(other, _)| *other == address);
            inodes.extend(same.map(|(_, inode)| inode));
        }
        inodes
    }
}

/// Address and inode of a line: `NUM: REFCOUNT PROTOCOL FLAGS TYPE STATE INODE PATH` (proc(5)), where the path may hold blanks.
fn socket(line: &[u8]) -> Option<(Vec<u8>, u64)> {
    let mut rest = line;
    let mut inode = &[][..];
    for _ in 0..7 {
        rest = rest.trim_ascii_start();
        (inode, rest) = rest.split_at_checked(rest.iter().position(u8::is_ascii_whitespace)?)?;
    }
    let inode = std::str::from_utf8(inode).ok()?.parse().ok()?;
    Some((rest.strip_prefix(b" ")?.to_vec(), inode))
}

/// The inodes of the sockets that a process holds open.
fn sockets_of(pid: i32) -> Vec<u64> {
    let folder = PathBuf::from(format!("/proc/{pid}/fd"));
    let mut inodes = Vec::new();
    for name in file::names(&folder).unwrap_or_default() {
        inodes.extend(fs::read_link(folder.join(name)).ok().and_then(|link| {
            link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
        }));
    }
    inodes
}

/// The parent of a process.
fn parent(pid: i32) -> Option<i32> {
    let status = file::text(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse::<u32>().ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nix::fcntl::OFlag;

    use super::*;

    #[test]
    fn versions() {
        for (text, version) in
            [("5.0.2\n", Version(5, 0)), ("2.1.1", Version(2, 1)), ("7.0.0~rc1", Version(7, 0))]
        {
            assert_eq!(Version::parse(text), Some(version));
        }
        assert_eq!(Version::parse("lxc-start: not found"), None);
    }

    #[test]
    fn the_profile_that_is_installed_closes_a_qgroup() {
        let text = include_str!("../files/usr/share/sliverfs/qgroup.seccomp");
        assert!(CLOSED.iter().all(|rule| text.lines().any(|line| line == *rule)), "{text}");
        // What LXC's own profile refuses, whose place it takes.
        for call in ["kexec_load", "open_by_handle_at", "init_module", "finit_module", "delete_module"] {
            assert!(text.contains(&format!("\n{call} errno 1\n")), "{call}");
        }
        assert!(text.contains("\nreject_force_umount\n[all]\n"));
    }

    #[test]
    fn an_included_file_may_name_another_profile() {
        let root = Root::locate(&std::env::temp_dir()).unwrap();
        let name = Name::parse(&format!("closed-{}", std::process::id())).unwrap();
        let folder = root.container(&name);
        fs::create_dir(folder).unwrap();
        let profile = folder.below("profile");
        let line = format!("lxc.seccomp.profile = {}\n", profile.display());
        fs::copy("files/usr/share/sliverfs/qgroup.seccomp", profile).unwrap();
        let closed = |text: &str| {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
            let mut file = file::open_as(folder.below(CONFIG), flags, 0o600).unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
            is_closed(root, &name)
        };
        let seen = [
            closed(&line),
            closed(&format!("lxc.include = /x\n{line}")),
            closed(&format!("{line} lxc.include = /x\n")),
            closed(&format!("{line}lxc.seccomp.profile = /x\n")),
        ];
        fs::remove_dir_all(folder).unwrap();
        assert_eq!(seen, [true, true, false, false]);
    }

    #[test]
    fn a_monitor_in_the_list_of_sockets() {
        let root = Root::locate(&std::env::temp_dir()).unwrap();
        let path = root.path().display();
        let text = format!(
            "Num       RefCount Protocol Flags    Type St Inode Path\n\
             0000000000000000: 00000002 00000000 00010000 0001 01  7093 @{path}/web/command\n\
             0000000000000000: 00000002 00000000 00010000 0001 01  8001 @{path}/a b/web/command\n\
             0000000000000000: 00000003 00000000 00000000 0001 03  7094 @{path}/web/command\n\
             0000000000000000: 00000003 00000000 00000000 0001 03 70930\n"
        );
        let sockets = Sockets::parse(text.as_bytes());
        for (name, inodes) in [("web", &[7093, 7094][..]), ("eb", &[]), ("web2", &[])] {
            let name = Name::parse(name).unwrap();
            assert_eq!(sockets.inodes(root, &name), inodes);
            assert_eq!(sockets.running(root, &name), !inodes.is_empty());
            // No ancestor of this test holds it.
            assert_eq!(sockets.running_anew(root, &name), !inodes.is_empty());
        }
    }

    #[test]
    fn keys_of_each_lxc() {
        let root = Root::locate(&std::env::temp_dir()).unwrap();
        let name = Name::parse("web").unwrap();
        let text = |version| config(root, &name, version, Path::new("/usr/sbin/sliverfs"), None).unwrap();
        for (version, has, has_not) in [
            (
                Version(1, 1),
                ["lxc.utsname = web", "lxc.rootfs = dir:", "lxc.hook.destroy = "],
                ["lxc.uts.", "managed"],
            ),
            (
                Version(2, 1),
                ["lxc.uts.name = web", "lxc.rootfs.path = dir:", "lxc.hook.destroy = "],
                ["utsname", "managed"],
            ),
            (
                Version(5, 0),
                ["lxc.uts.name = web", "lxc.rootfs.path = dir:", "lxc.rootfs.managed = 0"],
                ["utsname", "hook.destroy"],
            ),
            (
                Version(7, 0),
                ["lxc.uts.name = web", "lxc.rootfs.path = dir:", "lxc.rootfs.managed = 0"],
                ["lxc.cgroup.", "hook.destroy"],
            ),
        ] {
            let text = text(version);
            for line in has {
                assert!(text.contains(line), "{version:?} wants {line}:\n{text}");
            }
            for line in has_not {
                assert!(!text.contains(line), "{version:?} does not know {line}:\n{text}");
            }
        }
    }
}
