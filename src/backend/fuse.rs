//! The trial of fuse-overlayfs: a union in user space, for kernels that have no union but FUSE.

use std::path::Path;

use nix::errno::Errno;

use super::kernel::{self, Running};
use super::trial::{DiskName, EDITS, Kernel};
use super::union::{self, Layers};
use super::verdict::Verdict;
use crate::error::{Class, Result, meaning};
use crate::kind::Kind;
use crate::mount::fuse::{self, Call};
use crate::mount::options::Options;
use crate::size::Size;
use crate::stay::Below;
use crate::sys::{file, memory};
use crate::tree::{self, Dir};

/// What the kernel lists, and the module's name.
pub const KERNEL: &str = "fuse";

/// The layers, as the program takes them.
pub fn options(layers: &Layers) -> Result<Options> {
    let mut options = Options::new();
    union::add_layers(&mut options, layers)?;
    Ok(options)
}

/// Serves a trial view in `dir`, edits it, and looks at what the store holds.
pub fn run(dir: &Path, disk: DiskName) -> Result<Verdict> {
    let kind = Kind::FuseOverlayfs;
    if !kernel::offers(KERNEL)? {
        return Ok(Verdict::unlisted(kind, KERNEL));
    }
    let DiskName { path, fstype } = disk;
    let mut kernel = Running::lay_out(dir, disk)?;
    let layers = Layers { lower: "lower", upper: "upper", work: "work" };
    let call = Call {
        source: "sliverfs:probe",
        layers: options(&layers)?,
        upper: layers.upper,
        from: dir.stays(),
        target: dir.below("view"),
        ends_with_us: true,
    };
    let mut daemon = match fuse::serve(&call) {
        Ok(daemon) => daemon,
        // A package that is installed meanwhile changes it.
        Err(err) => return Ok(Verdict::no(kind, err.class() != Class::Unsupported, err, false)),
    };
    let edited = edit(&mut kernel, dir);
    let memory = memory::of(daemon.id()).unwrap_or(0);
    let unmounted = kernel.unmount();
    daemon.kill();
    let failed = match (edited, unmounted) {
        (Err(failed), _) => failed,
        (Ok(()), Err(errno)) => ("unmounting it", errno),
        (Ok(()), Ok(())) if !holds(dir) => {
            let reason = format_args!(
                "what was changed in a view on `{path}` ({fstype}) is not in the store as fuse-overlayfs 1.10 writes it"
            );
            return Ok(Verdict::no(kind, true, reason, true));
        }
        (Ok(()), Ok(())) => {
            let memory = Size(memory);
            let reason = format_args!(
                "a daemon for each view: {memory} of memory in the trial, more as more is looked at"
            );
            return Ok(Verdict::because(kind, &reason));
        }
    };
    let (what, errno) = failed;
    let passes = matches!(errno, Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS | Errno::EACCES);
    Ok(Verdict::no(
        kind,
        true,
        format_args!("{what} fails in a view on `{path}` ({fstype}): {}", meaning(errno)),
        !passes,
    ))
}

/// Edits the view; where that fails, says what.
fn edit(kernel: &mut Running, dir: &Path) -> Result<(), (&'static str, Errno)> {
    for step in EDITS {
        kernel.edit(step).map_err(|errno| (step.words(), errno))?;
    }
    // A store on vfat takes all of the above.
    let kept = Dir::open(dir.below("view")).and_then(|view| {
        view.make_link(c"link", b"new")?;
        view.chown(c"new", 1, 2)
    });
    kept.map_err(|errno| ("making a link, or giving a file to another owner,", errno))
}

/// Does the store hold what was done? A deletion is a device 0:0, or a file where the disk refuses such a device; a
/// folder that was made anew holds a file that says so.
fn holds(dir: &Path) -> bool {
    let folder = dir.below("upper");
    let Ok(upper) = Dir::open(folder) else { return false };
    let gone =
        upper.stat_at(c"gone").is_ok_and(|gone| gone.kind == tree::Kind::Char && gone.device == (0, 0));
    (gone || upper.stat_at(c".wh.gone").is_ok())
        && folder.below("folder/.wh..wh..opq").exists()
        && file::read(folder.below("changed")).is_ok_and(|text| text == b"base\nchanged\n")
        && upper.stat_at(c"new").is_ok_and(|new| (new.uid, new.gid) == (1, 2))
}
