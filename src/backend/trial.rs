//! Does a kind really work on this disk? A trial view is mounted and edited, and the store is looked at.
//!
//! What it needs of the system is a trait, so that kernels which are not at hand are tried from their recorded answers.

use nix::errno::Errno;

use super::features::Features;
use super::union::{self as dialect, Layers};
use super::verdict::Verdict;
use crate::error::{Result, meaning};
use crate::kind::{Caps, Union};
use crate::mount::options::Options;

/// An edit of the trial view, in the order in which they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Create a file.
    Create,
    /// Append to a file of the base: copy-up.
    Modify,
    /// List the view's root.
    List,
    /// Delete a file of the base: a whiteout. A store on a disk without xattrs mounts, and fails only here.
    Delete,
    /// Rename a file of the base: on overlay it needs RENAME_WHITEOUT from the disk.
    Rename,
    /// Remove a folder of the base and make it anew: an opaque folder.
    ReplaceFolder,
}

/// All of them.
pub const EDITS: [Edit; 6] =
    [Edit::Create, Edit::Modify, Edit::List, Edit::Delete, Edit::Rename, Edit::ReplaceFolder];

impl Edit {
    /// As the subject of a sentence.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Create => "creating a file",
            Self::Modify => "changing a file of the base",
            Self::List => "listing a folder",
            Self::Delete => "deleting a file of the base",
            Self::Rename => "a rename of a file of the base",
            Self::ReplaceFolder => "replacing a folder of the base",
        }
    }

    /// Does the kind promise it?
    const fn wanted(self, caps: Caps) -> bool {
        !matches!(self, Self::ReplaceFolder) || caps.replaces_folders
    }
}

/// What a trial asks of the system. The store and the base of the trial are `upper`, `work` and `lower`.
pub trait Kernel {
    /// The text of /proc/filesystems.
    fn filesystems(&mut self) -> Result<String>;
    /// Tries to load a file system's module; whether that helped is seen in [`Kernel::filesystems`].
    fn load_module(&mut self, fstype: &str);
    /// Tries a mount whose layers do not exist.
    fn ask(&mut self, fstype: &str, options: &Options) -> nix::Result<()>;
    /// Mounts the trial view.
    fn mount(&mut self, fstype: &'static str, options: &Options) -> Result<(), Errno>;
    /// Did the trial view come up read-only?
    fn read_only(&mut self) -> Result<bool, Errno>;
    /// Makes one edit in the trial view.
    fn edit(&mut self, edit: Edit) -> Result<(), Errno>;
    /// Unmounts the trial view.
    fn unmount(&mut self) -> Result<(), Errno>;
    /// Does the store hold the kind's mark for the deleted file?
    fn holds_deletion(&mut self, union: Union) -> bool;
    /// The disk that the store lies on, as a person names it, and its type.
    fn disk(&self) -> &DiskName;
}

/// The disk of a trial.
#[derive(Clone, Copy, Debug)]
pub struct DiskName {
    /// The path that was tried.
    pub path: &'static str,
    /// The file system's type.
    pub fstype: &'static str,
}

/// Is `fstype` a whole word of /proc/filesystems? 2.6.3x lists `overlayfs`, and "overlay" is in it.
pub fn lists(filesystems: &str, fstype: &str) -> bool {
    filesystems.split_whitespace().any(|word| word == fstype)
}

/// Tries a union.
pub fn run(kernel: &mut dyn Kernel, union: Union) -> Result<Verdict> {
    let caps = union.caps();
    if !lists(&kernel.filesystems()?, caps.fstype) {
        kernel.load_module(caps.fstype);
        if !lists(&kernel.filesystems()?, caps.fstype) {
            return Ok(Verdict::unlisted(union.into(), caps.fstype));
        }
    }
    let mut features = Features::ask(union, &mut |options| kernel.ask(caps.fstype, options))?;
    let layers = Layers { lower: "lower", upper: "upper", work: "work" };
    let options = dialect::options(union, &layers, features)?;
    let in_use = dialect::in_use(layers.lower, layers.upper)?;
    let in_use = (caps.tells_in_use && features.index).then_some(in_use);
    let done = view(kernel, union, &options, in_use.as_ref());
    Ok(match done {
        Ok(told) => {
            features.tells_in_use = told;
            Verdict::yes(union.into()).with(features)
        }
        Err((step, errno)) => {
            let (reason, lasting) = explain(union, step, errno, kernel.disk());
            Verdict::no(union.into(), true, reason, lasting).with(features)
        }
    })
}

/// Where a trial failed.
#[derive(Clone, Copy, Debug)]
enum Failed {
    Mount,
    ReadOnly,
    Edit(Edit),
    Unmount,
    NoMark,
}

/// Makes the view and edits it. Was the upper told to be in use while it was up, and free when it was down?
fn view(
    kernel: &mut dyn Kernel,
    union: Union,
    options: &Options,
    in_use: Option<&Options>,
) -> Result<bool, (Failed, Errno)> {
    let caps = union.caps();
    kernel.mount(caps.fstype, options).map_err(|errno| (Failed::Mount, errno))?;
    let edited = edit(kernel, caps);
    let while_up = in_use.map(|options| refusal(kernel, caps, options)).transpose();
    kernel.unmount().map_err(|errno| (Failed::Unmount, errno))?;
    edited?;
    let while_up = while_up?.flatten();
    if !kernel.holds_deletion(union) {
        return Err((Failed::NoMark, Errno::UnknownErrno));
    }
    let after = in_use.map(|options| refusal(kernel, caps, options)).transpose()?.flatten();
    Ok((while_up, after) == (Some(Errno::EBUSY), Some(Errno::EINVAL)))
}

/// What a mount is refused with; none for one that came about, and was taken down again.
fn refusal(kernel: &mut dyn Kernel, caps: Caps, options: &Options) -> Result<Option<Errno>, (Failed, Errno)> {
    match kernel.mount(caps.fstype, options) {
        Ok(()) => kernel.unmount().map(|()| None).map_err(|errno| (Failed::Unmount, errno)),
        Err(errno) => Ok(Some(errno)),
    }
}

fn edit(kernel: &mut dyn Kernel, caps: Caps) -> Result<(), (Failed, Errno)> {
    match kernel.read_only() {
        Ok(false) => {}
        Ok(true) => return Err((Failed::ReadOnly, Errno::EROFS)),
        Err(errno) => return Err((Failed::ReadOnly, errno)),
    }
    for step in EDITS.into_iter().filter(|step| step.wanted(caps)) {
        kernel.edit(step).map_err(|errno| (Failed::Edit(step), errno))?;
    }
    Ok(())
}

/// The sentence for an operator, and whether the reason lasts.
fn explain(union: Union, failed: Failed, errno: Errno, disk: &DiskName) -> (String, bool) {
    let DiskName { path, fstype } = disk;
    let good = "ext4, f2fs, UBIFS, Btrfs or XFS";
    match (failed, errno) {
        (_, Errno::ENOSPC | Errno::EDQUOT) => (full(path), false),
        (_, Errno::EPERM | Errno::EACCES) => (
            format!("{union} was not permitted ({}): run it as root, outside a container", meaning(errno)),
            false,
        ),
        (Failed::Mount | Failed::ReadOnly, _) if is_union(fstype) => (
            format!(
                "`{path}` lies on an {fstype}, which cannot carry the stores of another: use the raw /overlay or another disk"
            ),
            true,
        ),
        (Failed::ReadOnly, _) => (
            format!(
                "{union} on `{path}` comes up read-only: its disk ({fstype}) lacks what {union} needs for writing (the \
                 kernel's log says what): use a disk with {good}"
            ),
            true,
        ),
        (Failed::Edit(_) | Failed::Mount, Errno::EOPNOTSUPP) if union.caps().trusted_xattrs => (
            format!(
                "`{path}` lies on {fstype}, which keeps no trusted extended attributes on this kernel: use a disk with {good}"
            ),
            true,
        ),
        (Failed::Edit(edit @ (Edit::Delete | Edit::Rename | Edit::ReplaceFolder)), Errno::EINVAL) => (
            format!(
                "{} fails in a view on `{path}`: {fstype} on this kernel has no RENAME_WHITEOUT, which {union} needs for \
                 rename and rmdir: use a disk with {good}",
                edit.words()
            ),
            true,
        ),
        (Failed::Edit(edit), _) => {
            (format!("{} fails in a view on `{path}` ({fstype}): {}", edit.words(), meaning(errno)), true)
        }
        (Failed::NoMark, _) => (
            format!(
                "deleting a file of the base left no mark of {union} in the store on `{path}` ({fstype}): this driver \
                 writes another format than this program reads"
            ),
            true,
        ),
        (Failed::Mount, _) => (
            format!(
                "{union} does not mount with its store on `{path}` ({fstype}): {} (the kernel's log may say more)",
                meaning(errno)
            ),
            true,
        ),
        (Failed::Unmount, _) => {
            (format!("a trial view on `{path}` does not unmount: {}", meaning(errno)), false)
        }
    }
}

/// The disk of a path is full, to an operator.
pub fn full(path: &str) -> String {
    format!("the disk of `{path}` is full: free some space and try again")
}

/// A union of its own: an upper cannot lie on it.
fn is_union(fstype: &str) -> bool {
    Union::ALL.iter().any(|union| union.caps().fstype == fstype)
}

#[cfg(test)]
#[path = "trial_tests.rs"]
mod tests;
