//! What a command is going to do, as data: printed by `--dry-run`, carried out by [`super::exec`].

use std::fmt;
use std::path::Path;

use super::fuse;
use super::options::Options;
use crate::layer::{self, Format};
use crate::quota::Limit;
use crate::quota::image::{PROGRAM, Shape};
use crate::shell::{path, quote};
use crate::sum::Sum;
use crate::tree::Content;

/// One call of mount(2).
#[derive(Clone, Debug)]
pub struct MountCall {
    /// The file-system type.
    pub fstype: &'static str,
    /// What mountinfo will show as the source: it carries the identity, since layers may stand there as relative names.
    pub source: &'static str,
    /// The options, with layers as names relative to `from`.
    pub options: Options,
    /// The folder to stand in while mounting.
    pub from: &'static Path,
    /// The mount point.
    pub target: &'static Path,
}

/// The changes of a store, to be written in another format.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite {
    /// The format that they are written in.
    pub from: Format,
    /// The upper folder, or the whole tree.
    pub store: &'static Path,
    /// The base's tree.
    pub base: &'static Path,
    /// The format to write them in.
    pub to: Format,
    /// The folder to write into.
    pub new: &'static Path,
    /// What it is.
    pub tree: layer::Target,
}

/// One step. Each is undone when a later one fails. What it holds stays: of a plan nothing is given back.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Create a folder; one that is there is taken as it is.
    CreateDir(&'static Path),
    /// Write a file whose folder is private to the plan or that is not there yet. A later [`Step::SyncDisk`] makes it durable.
    WriteFile(&'static Path, &'static [u8]),
    /// Mount a union.
    Mount(&'static MountCall),
    /// Mount what a daemon serves, and start that.
    Serve(&'static fuse::Call),
    /// Mount an image read-only through a loop device.
    MountImage {
        /// The image's file-system type.
        fstype: &'static str,
        /// The image.
        image: &'static Path,
        /// The mount point.
        target: &'static Path,
    },
    /// Give a folder (the second) the owner, mode and times of another.
    CopyAttributes(&'static Path, &'static Path),
    /// Unpack an archive (the first) into a view, with links resolved beneath it.
    Unpack(&'static Path, &'static Path),
    /// Show a folder (the first) at a mount point, too.
    Bind(&'static Path, &'static Path),
    /// Make a writable snapshot of a Btrfs subvolume (the first).
    Snapshot(&'static Path, &'static Path),
    /// Make a Btrfs subvolume writable.
    MakeWritable(&'static Path),
    /// Copy a tree.
    CopyTree {
        /// The tree.
        from: &'static Path,
        /// The copy, which is not there yet.
        to: &'static Path,
        /// Whether the files' extents are shared.
        content: Content,
    },
    /// Grow a new writable image from a Btrfs seed.
    GrowSeed {
        /// The seed's image.
        seed: &'static Path,
        /// The new image.
        store: &'static Path,
        /// Its size in bytes.
        size: u64,
        /// A free mount point.
        target: &'static Path,
    },
    /// Mount an image that grew from a seed.
    MountSeed {
        /// The seed's image.
        seed: &'static Path,
        /// The image that grew from it.
        store: &'static Path,
        /// The mount point.
        target: &'static Path,
    },
    /// Make an image that a limited store lies in.
    MakeImage {
        /// The image.
        image: &'static Path,
        /// Its size in bytes.
        size: u64,
        /// How it is laid out.
        shape: Shape,
    },
    /// Make the ZFS dataset that the tree of a limited store lies in.
    MakeDataset(&'static Path),
    /// Mount the image that a store lies in.
    MountStore {
        /// The image.
        image: &'static Path,
        /// The mount point.
        target: &'static Path,
        /// It is being made, and written to the disk when it is whole.
        new: bool,
    },
    /// Put a new folder, with all that will be in it, into a project.
    JoinProject(&'static Path, u32),
    /// Tell whoever keeps a store to its limit what that is, and the room for a mount where that is said.
    Limit(&'static Path, &'static Limit, bool),
    /// End what a command that was cut began in the folder with a store's layers.
    Settle(&'static Path, Format),
    /// Make the kernel forget a device of a Btrfs that was unmounted.
    Forget(&'static Path),
    /// Unmount what is mounted on a folder; undone by nothing, so it comes last.
    Unmount(&'static Path),
    /// Unmount, whoever holds it, what is mounted on a folder and works no more.
    Detach(&'static Path),
    /// Write a folder with all that is in it to the disk, and the rest of its disk with it.
    SyncDisk(&'static Path),
    /// Write the changes of a store anew, in another format.
    Rewrite(&'static Rewrite),
    /// Let two folders change places; where the kernel cannot do it at once, by way of the third name.
    Exchange(&'static Path, &'static Path, &'static Path),
    /// Make a finished folder visible, or hide one that is to be removed, by renaming it.
    Rename(&'static Path, &'static Path),
    /// Remove a folder with all that is in it; undone by nothing, so it comes last.
    RemoveTree(&'static Path),
    /// Remove a folder when nothing is in it.
    RemoveDir(&'static Path),
    /// Remove a file.
    RemoveFile(&'static Path),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateDir(dir) => write!(f, "mkdir -p {}", path(dir)),
            Self::WriteFile(file, text) => {
                write!(f, "printf %s {} > {}", quote(&String::from_utf8_lossy(text)), path(file))
            }
            Self::Mount(call) => write!(
                f,
                "cd {} && mount -i -t {} -o noatime,{} {} {}",
                path(call.from),
                call.fstype,
                quote(call.options.as_str()),
                quote(call.source),
                path(call.target)
            ),
            Self::Serve(call) => call.fmt(f),
            Self::MountImage { fstype, image, target } => {
                write!(f, "mount -t {fstype} -o loop,ro {} {}", path(image), path(target))
            }
            Self::CopyAttributes(from, to) => {
                let (from, to) = (path(from), path(to));
                write!(
                    f,
                    "chown --reference={from} {to} && chmod --reference={from} {to} && touch -r {from} {to}"
                )
            }
            Self::Unpack(archive, view) => {
                write!(f, "tar -xp --xattrs -f {} -C {}", path(archive), path(view))
            }
            Self::Bind(from, to) => write!(f, "mount --bind {} {}", path(from), path(to)),
            Self::Snapshot(from, to) => write!(f, "btrfs subvolume snapshot {} {}", path(from), path(to)),
            Self::MakeWritable(dir) => write!(f, "btrfs property set -f {} ro false", path(dir)),
            Self::CopyTree { from, to, content: Content::Special } => write!(
                f,
                "mkdir {0} && ( cd {1} && find . ! -type d '(' -links +1 -o ! -type f ! -type l ')' -print0 | xargs -0r cp -a --parents -t {0} )",
                path(to),
                path(from)
            ),
            Self::CopyTree { from, to, content } => {
                let how = match content {
                    Content::Shared => "always",
                    Content::Written | Content::Special => "never",
                };
                write!(f, "cp -aT --reflink={how} {} {}", path(from), path(to))
            }
            Self::GrowSeed { seed, store, size, target } => {
                let (seed, store, target) = (path(seed), path(store), path(target));
                write!(
                    f,
                    "truncate -s {size} {store} && mount -t btrfs $(losetup -rf --show {seed}) {target} && \
                     btrfs device add $(losetup -f --show {store}) {target} && mount -o remount,rw {target} && umount {target}"
                )
            }
            Self::MountSeed { seed, store, target } => write!(
                f,
                "btrfs device scan $(losetup -rf --show {}) && mount -t btrfs -o noatime $(losetup -f --show {}) {}",
                path(seed),
                path(store),
                path(target)
            ),
            Self::MakeImage { image, size, shape } => {
                let how = if shape.sparse { "truncate -s" } else { "fallocate -l" };
                let journal = if shape.journal { "" } else { " -O ^has_journal" };
                write!(f, "{how} {size} {0} && {PROGRAM} -qF -m 0{journal} -E nodiscard {0}", path(image))
            }
            Self::MountStore { image, target, .. } => {
                write!(f, "mount -t ext4 -o loop,noatime {} {}", path(image), path(target))
            }
            Self::MakeDataset(store) => {
                write!(f, "# make a ZFS dataset for {}, which is limited when it is filled", path(store))
            }
            Self::JoinProject(dir, id) => write!(f, "chattr +P -p {id} {}", path(dir)),
            Self::Limit(store, limit, more) => {
                let (means, more) = (limit.means.name(), if *more { " and what a mount needs" } else { "" });
                write!(f, "# limit {} by {means} to {}{more}", path(store), limit.bytes.plus(limit.base))
            }
            Self::Settle(dir, _) => write!(f, "# end what a command that was cut began in {}", path(dir)),
            Self::Forget(device) => write!(f, "btrfs device scan --forget {}", path(device)),
            Self::Unmount(target) => write!(f, "umount {}", path(target)),
            Self::Detach(target) => write!(f, "umount -l {}", path(target)),
            Self::SyncDisk(dir) => write!(f, "sync -f {}", path(dir)),
            Self::Rewrite(work) => {
                let what = if work.tree == layer::Target::Whole { "the view" } else { "the changes" };
                write!(
                    f,
                    "# write {what} of the {} store {} over {} to {}, as {}",
                    work.from.name(),
                    path(work.store),
                    path(work.base),
                    path(work.new),
                    work.to.name()
                )
            }
            Self::Exchange(one, other, _) => write!(f, "mv -T --exchange {} {}", path(one), path(other)),
            Self::Rename(from, to) => write!(f, "mv -T {} {}", path(from), path(to)),
            Self::RemoveTree(dir) => write!(f, "rm -rf {}", path(dir)),
            Self::RemoveDir(dir) => write!(f, "rmdir {}", path(dir)),
            Self::RemoveFile(file) => write!(f, "rm -f {}", path(file)),
        }
    }
}
