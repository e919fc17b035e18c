//! The mounts of a namespace that no process tells: none is in it, or one that is locked into a folder of it.

use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;

use crate::error::{Context, Result};
use crate::mount::mountinfo::MountInfo;
use crate::sys::child;
use crate::sys::file::{self, read_all};
use crate::tree;

/// Reads the mounts of the namespace that the file `path` stands for (Linux 3.8), by a child that goes in.
pub fn mountinfo(path: &Path) -> Result<MountInfo> {
    let text = child::given(&mut || {
        // Opened before: in there may be another /proc, or none.
        let proc = tree::open(Path::new("/proc"))?;
        let namespace = file::open(path).at("open the mount namespace", path)?;
        setns(&namespace, CloneFlags::CLONE_NEWNS).at("look into the mount namespace", path)?;
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        openat(&proc, c"self/mountinfo", flags, Mode::empty())
            .and_then(|info| Ok(&*read_all(info, usize::MAX)?.leak()))
            .at("read the mounts of the mount namespace", path)
    })
    .map_err(|err| {
        err.way_out(
            "run it as root; every mount namespace must be looked at, and what keeps one can be unmounted",
        )
    })?;
    Ok(MountInfo::new(text))
}
