//! How a new store is made beside the old one.

use super::look_at;
use crate::backend::store::{Ground, layer};
use crate::catalog::{Sliver, sweep};
use crate::error::Result;
use crate::layer::{Format, Survey, Target};
use crate::mount::plan::{Rewrite, Step};
use crate::mount::seed;
use crate::quota::image;
use crate::stay::{Below, for_good};

/// An image that grows from the seed to show it.
const SCRATCH: &str = ".base.raw";

/// The steps.
pub(super) struct Plan {
    /// What must be there to look at the old one; it changes nothing on the disk.
    pub(super) look: Vec<Step>,
    pub(super) make: Vec<Step>,
    /// The record of the new store, which ends it.
    pub(super) record: Sliver,
    work: &'static Rewrite,
    /// The layers can be looked at before the new store is begun.
    open: bool,
}

impl Plan {
    /// In a private mount namespace, where folders of the new store serve as mount points. `size` is that of a new store on a seed.
    pub(super) fn new(sliver: &Sliver, new: &Ground<'_>, size: Option<u64>) -> Result<Self> {
        let (name, root, to) = (&sliver.name, new.root, new.kind);
        let (stored, stage) = (root.store(name), sweep::new_store(root, name));
        let old = Ground { kind: sliver.backend, limit: sliver.quota, ..*new };
        let grows = old.kind.grows_image() || to.grows_image();
        let (from_format, to_format) = (Format::of(old.kind), Format::of(to));
        let (mut look, mut make, mut clear) = (Vec::new(), Vec::new(), Vec::new());
        if sliver.has_image() {
            image::mount_steps(stored, from_format, &mut look);
        }
        let inner = new.begin(stage, image::shape(stored), &mut make);
        let mut mount_point = |make: &mut Vec<Step>, name: &str| {
            let dir = stage.below(name);
            make.push(Step::CreateDir(dir));
            clear.extend([Step::Unmount(dir), Step::RemoveDir(dir)]);
            dir
        };
        let mut tree = old.tree();
        let scratch = stage.below(SCRATCH);
        if grows {
            // The seed cannot be seen by itself while something that grew from it is mounted: one that nothing is written to can.
            tree = mount_point(&mut make, ".base");
            let (seed, store, target) = (new.base.content(root), scratch, tree);
            make.push(Step::GrowSeed { seed, store, size: seed::LEAST, target });
            make.push(Step::MountSeed { seed, store, target });
        } else {
            old.image(&mut look)?;
        }
        let mut from = image::content(stored).below(layer(old.kind));
        if old.kind.grows_image() {
            from = mount_point(&mut make, ".from");
            old.mount(name.as_str(), from, &mut make)?;
        }
        let mut into = inner.below(layer(to));
        if to.grows_image() {
            into = mount_point(&mut make, ".into");
        }
        new.make_of(tree, inner, size, into, &mut make);
        if to.grows_image() {
            new.mount(&format!(".new.{name}"), into, &mut make)?;
        }
        let work = for_good(Rewrite {
            from: from_format,
            store: from,
            base: tree,
            to: to_format,
            new: into,
            tree: if to_format.whole() { Target::Copy } else { Target::Store },
        });
        make.push(Step::Rewrite(work));
        make.extend(clear);
        if grows {
            make.push(Step::RemoveFile(scratch));
        }
        let mut record = sliver.anew(new.limit);
        record.backend = to;
        Ok(Self { look, make, record, work, open: !grows })
    }

    /// What it will come to, where that can be seen.
    pub(super) fn survey(&self) -> Result<Survey> {
        let Rewrite { from, store, base, to, .. } = *self.work;
        if !self.open {
            return Ok(Survey::default());
        }
        look_at(from, store, base, to)
    }
}
