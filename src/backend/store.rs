//! From a base and a store to a view, for every backend: the steps that make the store, and those that bring it to be seen.

use std::path::Path;

use super::features::Features;
use super::fuse as daemon;
use super::union::{self, Layers};
use crate::catalog::base::Base;
use crate::catalog::mounted::source;
use crate::catalog::{Root, Sliver};
use crate::error::{Context, Result};
use crate::form::Form;
use crate::kind::{Kind, Union};
use crate::layer::{Format, Target};
use crate::mount::fuse;
use crate::mount::mountinfo::MountInfo;
use crate::mount::plan::{MountCall, Rewrite, Step};
use crate::mount::seed;
use crate::quota::image::{self, Shape};
use crate::quota::{Limit, Means, by};
use crate::stay::{Below, for_good};
use crate::sys::btrfs;
use crate::tree::{self, Content};

/// What a sliver stands on.
pub struct Ground<'a> {
    /// The node.
    pub root: &'a Root,
    /// The base.
    pub base: &'a Base,
    /// The backend.
    pub kind: Kind,
    /// The options that the kernel knows for it.
    pub features: Features,
    /// What limits the sliver: by an image, its layers lie in that, which is mounted.
    pub limit: Option<&'static Limit>,
}

impl Ground<'_> {
    /// The layers of the store folder `.store/STORE`.
    fn layers(&self, store: &str) -> Layers {
        let image = if by(self.limit, Means::Image).is_some() { "/quota" } else { "" };
        Layers::new(self.lower(), &format!(".store/{store}{image}"))
    }

    /// The folder of the base's tree, as a layer's name: relative to LXCPATH, or the image's mount point.
    fn lower(&self) -> &'static str {
        match self.base.form {
            Form::Directory => format!(".base/{}/tree", self.base.name).leak(),
            Form::Squashfs | Form::Erofs | Form::Btrfs => {
                self.root.base_mount(&self.base.name).display().to_string().leak()
            }
        }
    }

    /// The folder of the base's tree.
    pub fn tree(&self) -> &'static Path {
        self.root.path().below(self.lower())
    }

    /// Adds the steps that mount the base's image, where it is one that is not mounted yet.
    pub fn image(&self, steps: &mut Vec<Step>) -> Result<()> {
        let image = self.base.image(self.root).filter(|_| !self.kind.grows_image());
        let Some((fstype, image)) = image else { return Ok(()) };
        let target = self.root.base_mount(&self.base.name);
        if MountInfo::of_self()?.at(target).is_none_or(|mount| mount.fstype != fstype.as_bytes()) {
            steps.extend([Step::CreateDir(target), Step::MountImage { fstype, image, target }]);
        }
        Ok(())
    }

    /// Adds the steps that bring the layers of a sliver into sight: its base's, and its store's, where that lies in an image.
    pub fn open(&self, sliver: &Sliver, steps: &mut Vec<Step>) -> Result<()> {
        self.image(steps)?;
        if sliver.has_image() {
            image::mount_steps(self.root.store(&sliver.name), Format::of(sliver.backend), steps);
        }
        Ok(())
    }

    /// Adds the steps that make the folder of a new store, for its limit; the folder that it is to be filled in. An image is made in
    /// this shape.
    pub fn begin(&self, store: &'static Path, shape: Shape, steps: &mut Vec<Step>) -> &'static Path {
        steps.push(Step::CreateDir(store));
        match self.limit {
            Some(Limit { means: Means::Image, bytes, .. }) => {
                image::make_steps(store, *bytes, shape, steps);
                return store.below(image::POINT);
            }
            Some(Limit { means: Means::Project, project, .. }) => {
                steps.push(Step::JoinProject(store, *project));
            }
            Some(Limit { means: Means::Zfs, .. }) => {
                steps.push(Step::MakeDataset(store));
                return image::content(store);
            }
            _ => {}
        }
        store
    }

    /// Adds the steps that fill the folder of a new store, with the base's image mounted. `size` is the limit of a store that is an
    /// image. In the private mount namespace that they are made for, `target` is a free mount point.
    pub fn make(
        &self,
        store: &'static Path,
        size: Option<u64>,
        target: &'static Path,
        steps: &mut Vec<Step>,
    ) {
        self.make_of(self.tree(), store, size, target, steps);
    }

    /// As [`Ground::make`], with the base's tree in another place.
    pub fn make_of(
        &self,
        tree: &'static Path,
        store: &'static Path,
        size: Option<u64>,
        target: &'static Path,
        steps: &mut Vec<Step>,
    ) {
        let (from, mut to) = (tree, store.below("tree"));
        let content = match self.kind {
            Kind::Union(union) => return layers(from, store, union.caps().work_dir, steps),
            Kind::BtrfsSnapshot => {
                steps.push(Step::Snapshot(from, to));
                steps.extend(by(self.limit, Means::Qgroup).map(|limit| Step::Limit(store, limit, false)));
                return;
            }
            Kind::BtrfsSeed => {
                let (seed, store) = (self.base.content(self.root), store.below(seed::STORE));
                return steps.push(Step::GrowSeed { seed, store, size: size.unwrap_or(seed::USUAL), target });
            }
            Kind::Reflink => Content::Shared,
            Kind::Copy => Content::Written,
            Kind::FuseOverlayfs => {
                to = store.below("upper");
                Content::Special
            }
        };
        steps.push(Step::CopyTree { from, to, content });
        // What it cannot copy up starts in the store.
        if content == Content::Special {
            steps.extend([Step::CopyAttributes(from, to), Step::CreateDir(store.below("work"))]);
        }
    }

    /// Of what grows from a seed: adds the steps that mount the store of a folder in there, where other whole trees lie; a new one is
    /// grown first, as large as that.
    pub fn hang(&self, folder: &'static Path, new: Option<u64>, steps: &mut Vec<Step>) {
        let (seed, store) = (self.base.content(self.root), folder.below(seed::STORE));
        let target = folder.below("tree");
        steps.push(Step::CreateDir(target));
        steps.extend(new.map(|size| Step::GrowSeed { seed, store, size, target }));
        steps.push(Step::MountSeed { seed, store, target });
    }

    /// Adds the steps that show the seed itself. It cannot be seen while something that grew from it is mounted, and nobody could mount
    /// that meanwhile: one that nothing is written to can, and lies in the folder of a new store until the steps that hide it.
    pub fn show(&self, folder: &'static Path, steps: &mut Vec<Step>, hide: &mut Vec<Step>) {
        let (seed, target) = (self.base.content(self.root), self.tree());
        let store = folder.below(&[".", self.base.name.as_str(), ".raw"].concat());
        steps.extend([
            Step::CreateDir(target),
            Step::GrowSeed { seed, store, size: seed::LEAST, target },
            Step::MountSeed { seed, store, target },
        ]);
        hide.extend([Step::Unmount(target), Step::RemoveFile(store)]);
    }

    /// Adds the steps that fill the folder of a new store with what another of the kind has, whose layer is `old`.
    pub fn again(&self, old: &'static Path, store: &'static Path, steps: &mut Vec<Step>) {
        let (from, to, format) = (old, store.below(layer(self.kind)), Format::of(self.kind));
        let content = match self.kind {
            // What a snapshot of a limited one shares with it would be counted for neither.
            Kind::BtrfsSnapshot if by(self.limit, Means::Qgroup).is_none() => {
                return steps.push(Step::Snapshot(from, to));
            }
            Kind::Reflink => Content::Shared,
            Kind::Copy => Content::Written,
            _ => {
                let mut after = Vec::new();
                match old.parent().filter(|_| self.kind.grows_image()) {
                    Some(folder) => {
                        // As large as it was, where it is promised no other size.
                        let size =
                            || std::fs::metadata(folder.below(seed::STORE)).ok().map(|image| image.len());
                        let size = by(self.limit, Means::Seed).map(|limit| limit.bytes).or_else(size);
                        self.show(store, steps, &mut after);
                        self.hang(folder, None, steps);
                        self.hang(store, size, steps);
                        take_down(store, &mut after);
                        take_down(folder, &mut after);
                    }
                    None => self.make(store, None, to, steps),
                }
                steps.push(Step::Rewrite(for_good(Rewrite {
                    from: format,
                    store: from,
                    base: self.tree(),
                    to: format,
                    new: to,
                    tree: if format.whole() { Target::Copy } else { Target::Store },
                })));
                return steps.extend(after);
            }
        };
        steps.push(Step::CopyTree { from, to, content });
    }

    /// Adds the steps that mount the view of the store folder `.store/STORE`.
    pub fn mount(&self, store: &str, target: &'static Path, steps: &mut Vec<Step>) -> Result<()> {
        let folder = self.root.stores().below(store);
        let step = match self.kind {
            Kind::Union(union) => Step::Mount(for_good(self.call(union, store, target)?)),
            Kind::BtrfsSeed => {
                let (seed, store) = (self.base.content(self.root), folder.below(seed::STORE));
                Step::MountSeed { seed, store, target }
            }
            Kind::BtrfsSnapshot | Kind::Reflink | Kind::Copy => {
                let tree = image::content(folder).below("tree");
                // So is what came with `btrfs receive`; and its tenant can make it so, too.
                let read_only = tree::open(tree).and_then(|dir| btrfs::read_only(&dir).at("look at", tree));
                if self.kind == Kind::BtrfsSnapshot && read_only.is_ok_and(|read_only| read_only) {
                    steps.push(Step::MakeWritable(tree));
                }
                Step::Bind(tree, target)
            }
            Kind::FuseOverlayfs => {
                let layers = self.layers(store);
                Step::Serve(for_good(fuse::Call {
                    source: source(folder),
                    layers: daemon::options(&layers)?,
                    upper: layers.upper,
                    from: self.root.path(),
                    target,
                    // Elsewhere a store is mounted for a step of this process only.
                    ends_with_us: self.root.path().join(store).join("rootfs") != target,
                }))
            }
        };
        steps.push(step);
        Ok(())
    }

    fn call(&self, union: Union, store: &str, target: &'static Path) -> Result<MountCall> {
        let layers = self.layers(store);
        Ok(MountCall {
            fstype: union.caps().fstype,
            source: source(self.root.stores().below(store)),
            options: union::options(union, &layers, self.features)?,
            from: self.root.path(),
            target,
        })
    }
}

/// Adds the steps that undo [`Ground::hang`].
pub fn take_down(folder: &'static Path, steps: &mut Vec<Step>) {
    let target = folder.below("tree");
    steps.extend([Step::Unmount(target), Step::RemoveDir(target)]);
}

/// The folder of a store that holds the layer: what was changed, or the whole tree.
#[inline(never)]
pub fn layer(kind: Kind) -> &'static str {
    if kind.reads_base() { "upper" } else { "tree" }
}

fn layers(base: &'static Path, store: &'static Path, work: bool, steps: &mut Vec<Step>) {
    let upper = store.below("upper");
    steps.push(Step::CreateDir(upper));
    if work {
        steps.push(Step::CreateDir(store.below("work")));
    }
    // The view's root shows what the upper folder has.
    steps.push(Step::CopyAttributes(base, upper));
}
