//! Options that only some kernels know, asked for one by one without touching a disk.

use nix::errno::Errno;
use serde::Serialize;

use crate::error::Result;
use crate::json::Json;
use crate::kind::Union;
use crate::mount::options::Options;

/// Which optional mount options this kernel's driver knows.
///
/// Their defaults are module parameters and differ from kernel to kernel, and a store written with one of them on must never
/// be changed offline. So what the kernel knows is passed explicitly off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Features {
    /// overlay: `redirect_dir=` (4.10).
    pub redirect_dir: bool,
    /// overlay: `redirect_dir=nofollow` (4.16); off alone would still follow redirects.
    pub redirect_nofollow: bool,
    /// overlay: `metacopy=` (4.19).
    pub metacopy: bool,
    /// overlay: `index=` (4.13).
    pub index: bool,
    /// overlay: `xino=` (4.17).
    pub xino: bool,
    /// overlay: `userxattr` (5.11); reported only, since it changes the store's attribute prefix.
    pub userxattr: bool,
    /// overlayfs: `workdir=` (v23).
    pub workdir: bool,
    /// overlay: the mount of [`super::union::in_use`] told a busy upper from a free one in the trial on this disk.
    pub tells_in_use: bool,
}

/// A folder that cannot exist: /proc has no such entry, and nobody can make one.
const NOWHERE: &str = "/proc/sliverfs-is-not-here";

impl Features {
    /// Takes them from a record; what is not in it is not known.
    pub fn from_json(json: &Json) -> Self {
        let known = |key| json.is_true(key);
        Self {
            redirect_dir: known("redirect_dir"),
            redirect_nofollow: known("redirect_nofollow"),
            metacopy: known("metacopy"),
            index: known("index"),
            xino: known("xino"),
            userxattr: known("userxattr"),
            workdir: known("workdir"),
            tells_in_use: known("tells_in_use"),
        }
    }

    /// Asks the kernel through `try_mount`, which mounts nothing: the layers do not exist, so a driver that knows the option
    /// fails on them (ENOENT), and one that does not fails on the option (EINVAL), which it parses first.
    pub fn ask(union: Union, try_mount: &mut dyn FnMut(&Options) -> nix::Result<()>) -> Result<Self> {
        let mut knows = |option: &'static str| -> Result<bool> {
            let mut options = Options::new();
            options.flag(option)?;
            for layer in ["lowerdir", "upperdir", "workdir"] {
                if layer != "workdir" || union.caps().work_dir && option != WORKDIR {
                    options.add(layer, NOWHERE)?;
                }
            }
            Ok(matches!(try_mount(&options), Err(Errno::ENOENT)))
        };
        Ok(match union {
            Union::Overlay => Self {
                redirect_dir: knows("redirect_dir=off")?,
                redirect_nofollow: knows("redirect_dir=nofollow")?,
                metacopy: knows("metacopy=off")?,
                index: knows("index=off")?,
                xino: knows("xino=off")?,
                userxattr: knows("userxattr")?,
                workdir: true,
                tells_in_use: false,
            },
            Union::Overlayfs => Self { workdir: knows(WORKDIR)?, ..Self::default() },
            Union::MiniFo | Union::Aufs => Self::default(),
        })
    }

    /// Adds what the kernel knows, off.
    pub fn pass_off(self, options: &mut Options) -> Result<()> {
        let redirect = if self.redirect_nofollow { "redirect_dir=nofollow" } else { "redirect_dir=off" };
        for (known, option) in [
            (self.redirect_dir || self.redirect_nofollow, redirect),
            (self.metacopy, "metacopy=off"),
            (self.index, "index=off"),
            (self.xino, "xino=off"),
        ] {
            if known {
                options.flag(option)?;
            }
        }
        Ok(())
    }
}

/// overlayfs v23's option, with a folder that cannot exist.
const WORKDIR: &str = "workdir=/proc/sliverfs-is-not-here";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A kernel that knows the given options: EINVAL comes before the look at the layers.
    fn kernel(known: &'static [&'static str]) -> impl FnMut(&Options) -> nix::Result<()> {
        move |options| {
            let all = options.as_str().split(',').all(|o| known.contains(&o.split('=').next().unwrap_or("")));
            Err(if all { Errno::ENOENT } else { Errno::EINVAL })
        }
    }

    #[test]
    fn what_a_kernel_knows_is_passed_off() {
        let layers = ["lowerdir", "upperdir", "workdir"];
        for (known, passed) in [
            (&["lowerdir", "upperdir", "workdir"][..], ""),
            (&["lowerdir", "upperdir", "workdir", "index"], "index=off"),
            (
                &[
                    "lowerdir",
                    "upperdir",
                    "workdir",
                    "redirect_dir",
                    "metacopy",
                    "index",
                    "xino",
                    "userxattr",
                ],
                "redirect_dir=nofollow,metacopy=off,index=off,xino=off",
            ),
        ] {
            assert!(layers.iter().all(|layer| known.contains(layer)));
            let features = Features::ask(Union::Overlay, &mut kernel(known)).unwrap();
            let mut options = Options::new();
            features.pass_off(&mut options).unwrap();
            assert_eq!(options.as_str(), passed);
        }
    }

    #[test]
    fn overlayfs_takes_a_workdir_from_v23_on() {
        let v21 = Features::ask(Union::Overlayfs, &mut kernel(&["lowerdir", "upperdir"])).unwrap();
        assert!(!v21.workdir, "workdir= is EINVAL on v21");
        let v23 = Features::ask(Union::Overlayfs, &mut kernel(&["lowerdir", "upperdir", "workdir"])).unwrap();
        assert!(v23.workdir);
    }
}
