//! `sliverfs import`: a store filled with what a layer holds.

use std::fs;
use std::path::Path;

use crate::archive::{is_stdin, is_unnamed, open_tar, unpack_layer};
use crate::backend::probe;
use crate::backend::store::{Ground, layer};
use crate::catalog::{Root, Sliver, sweep};
use crate::cli::Args;
use crate::cmd::replace::{self, Keep};
use crate::cmd::{offline, print_plan};
use crate::error::{Context, Error, Result};
use crate::layer::{Aspects, Change, Changes, Format, Show, Side, Step as Seen, Target, Writer, differences};
use crate::mount::plan::{Rewrite, Step};
use crate::mount::{exec, seed};
use crate::out::{self, escape};
use crate::progress::Progress;
use crate::quota::{anew, image};
use crate::stay::{Below, for_good};
use crate::sys::statfs;
use crate::sys::writeback::Writeback;
use crate::tree::{self, Kind, shown};
use crate::view;

/// Makes a store of the layer beside the sliver's own, and puts it in its place at once.
pub fn run(root: &Root, args: &Args) -> Result<()> {
    let (name, source) = (&args.name()?, Path::new(args.word(1)));
    let dump = match args.archive.text() {
        None => None,
        Some("oci") => Some(false),
        Some("overlayfs") => Some(true),
        Some(other) => {
            return Err(Error::usage(format_args!("`{}` is no format of a layer", escape(other.as_bytes())))
                .way_out("take oci or overlayfs"));
        }
    };
    let _lock = root.lock_sliver(name)?;
    let sliver = Sliver::load(root, name)?;
    let base = view::base_of(root, sliver)?;
    offline::refuse_to_read(root, sliver)?;
    // A kernel that does not offer the backend needs none of its options here.
    let features = probe::features(root, sliver.backend).unwrap_or_default();
    statfs::refuse_read_only(root.stores())?;
    // A command may have promised to keep the store from before it: only the sliver's own is given up.
    let kept = replace::kept(root, sliver)?.is_some();
    if !is_stdin(source) {
        fs::metadata(source).at("look at", source)?;
    }
    let mut import = Import {
        root,
        sliver,
        ground: Ground { root, base, kind: sliver.backend, features, limit: sliver.quota },
        stage: sweep::new_store(root, name),
        target: root.run().below("mounted"),
    };
    if !args.dry_run {
        sweep::new(root, name)?;
        view::free_seed(root, sliver.backend, &base.name)?;
        anew::prepare(root, name, sliver.quota)?;
    }
    replace::beside(root, name, sliver.quota, args.dry_run, &mut || {
        let mut steps = Vec::new();
        import.ground.image(&mut steps)?;
        exec::run(&steps)?;
        if !args.replace {
            import.refuse_changes()?;
        }
        if !args.dry_run {
            import.ground.limit = anew::renew(root, sliver.quota, (sliver.backend, base), false)?;
            import.stage(source, dump)?;
        }
        Ok(&[])
    })?;
    if args.dry_run {
        return import.plan(source);
    }
    replace::put(root, name, &import.publish(), &|_| Ok(()))?;
    if !kept {
        // A conversion that was cut may have left a store that was never published.
        sweep::told(sweep::drop_kept(root, name));
    }
    out::line(format_args!("`{name}` holds the layer"))
}

/// The folder of the layer as it was unpacked, in the new store's.
const LAYER: &str = "layer";

struct Import<'a> {
    root: &'a Root,
    sliver: &'a Sliver,
    ground: Ground<'a>,
    /// The folder of the new store.
    stage: &'static Path,
    /// In the private mount namespace a free mount point.
    target: &'static Path,
}

impl Import<'_> {
    /// The upper folder or the tree in a store's folder.
    fn inner(&self, store: &Path) -> &'static Path {
        match self.sliver.backend {
            backend if backend.grows_image() => self.target,
            backend => store.below(layer(backend)),
        }
    }

    /// Adds what makes the new store without the layer; how that is written into it from where it is unpacked.
    fn make(&self, steps: &mut Vec<Step>) -> Result<Rewrite> {
        let store = self.stage.below(LAYER);
        // Before the folder is put into a project: the layer is none of what is limited.
        steps.extend([Step::CreateDir(self.stage), Step::CreateDir(store)]);
        let into = self.ground.begin(self.stage, image::shape(self.root.store(&self.sliver.name)), steps);
        self.ground.make(into, self.sliver.limit(self.root), self.target, steps);
        if self.sliver.backend.grows_image() {
            self.ground.mount(&format!(".new.{}", self.sliver.name), self.target, steps)?;
        }
        let new = self.inner(into);
        // A seed has no other tree than what grew from it.
        let base = if self.sliver.backend.grows_image() { new } else { self.ground.tree() };
        let (from, to) = (Format::Aufs, Format::of(self.sliver.backend));
        Ok(Rewrite { from, store, base, to, new, tree: Target::Store })
    }

    /// What puts the new store in the place of the old one, which is given up. A command may have promised to keep the one before that.
    fn publish(&self) -> Vec<Step> {
        replace::publish(self.root, &self.sliver.name, Keep::Earlier)
    }

    fn plan(&self, source: &Path) -> Result<()> {
        let mut steps = Vec::new();
        let work = for_good(self.make(&mut steps)?);
        steps.extend([Step::Unpack(source.stays(), work.store), Step::Rewrite(work)]);
        if self.sliver.backend.grows_image() {
            steps.push(Step::Unmount(self.target));
        }
        steps.push(Step::RemoveTree(work.store));
        replace::last_steps(self.root, self.sliver, &mut steps)?;
        steps.extend(self.publish());
        steps.push(Step::RemoveTree(self.stage));
        print_plan(&steps)
    }

    /// Refuses a store that holds something.
    fn refuse_changes(&self) -> Result<()> {
        let name = &self.sliver.name;
        let way_out = "--replace gives up what it holds; `sliverfs export` keeps it";
        if self.sliver.backend.grows_image() {
            return Err(Error::usage(format_args!(
                "the store of `{name}` is an image, and may hold something"
            ))
            .way_out(way_out));
        }
        let format = Format::of(self.sliver.backend);
        let stored = self.root.store(name);
        if self.sliver.has_image() {
            let mut steps = Vec::new();
            image::mount_steps(stored, format, &mut steps);
            exec::run(&steps)?;
        }
        let store = tree::open(self.inner(image::content(stored)))?;
        let mut changes = Changes::new(format, store, &tree::open(self.ground.tree())?, Show::Changes)?;
        while let Some(step) = changes.step()? {
            let Seen::Entry(entry) = step else { continue };
            let folder = entry.node.is_some_and(|node| node.stat.kind == Kind::Dir);
            let same = entry.doubt.is_none()
                && entry.change != Change::Opaque
                && entry.node.is_some() == entry.base.is_some()
                && entry.node.is_some()
                && differences(format, &entry)?.without(if folder { Aspects::TIME } else { Aspects::NONE })
                    == Aspects::NONE;
            if !same {
                return Err(Error::usage(format_args!(
                    "the sliver `{name}` has changes already: {} is one",
                    shown(if entry.path.is_empty() { b"." } else { entry.path }).display()
                ))
                .way_out(way_out));
            }
            changes.enter()?;
        }
        Ok(())
    }

    /// Makes the new store, all of it durable.
    fn stage(&self, source: &Path, dump: Option<bool>) -> Result<()> {
        let mut steps = Vec::new();
        let work = &self.make(&mut steps)?;
        exec::run(&steps)?;
        unpack(source, work.store, dump)?;
        apply(work)?;
        if self.sliver.backend.grows_image() {
            seed::written(self.target)?;
            exec::unmount(self.target)?;
        }
        // No store, whatever it holds.
        tree::remove_path(work.store)?;
        replace::finish(self.root, &self.sliver.limited(self.ground.limit))
    }
}

fn unpack(source: &Path, layer: &Path, dump: Option<bool>) -> Result<()> {
    if unpack_layer(&mut *open_tar(source)?, &tree::open(layer)?, dump)? {
        crate::info!("it is the dump of an overlayfs store: links to `(overlay-whiteout)` are whiteouts");
    }
    Ok(())
}

/// Writes the layer that was unpacked into a new store.
fn apply(work: &Rewrite) -> Result<()> {
    let progress = Progress::new("writing", None);
    let mut each = |bytes| progress.add(bytes);
    let (base, new) = (tree::open(work.base)?, tree::open(work.new)?);
    let mut files = Writeback::default();
    let mut writer = Writer::new(work.from, work.to, &new, &mut files, &mut each)?;
    let mut changes = Changes::new(work.from, tree::open(work.store)?, &base, Show::Flat)?;
    // Of the folders on the way down, as the base had them: in a seed what is written changes them.
    let mut times = Vec::new();
    while let Some(mut step) = changes.step()? {
        let (entry, enter) = match &mut step {
            Seen::Entry(entry) => (entry, true),
            Seen::Leave(entry) => (entry, false),
        };
        if let Some(doubt) = entry.doubt {
            return Err(Error::failed(format_args!(
                "the layer is refused: its entry `{}` is {}",
                shown(entry.path).display(),
                doubt.words()
            )));
        }
        let folder = matches!(entry.change, Change::Meta | Change::Opaque);
        let now = entry.base.map(|base| base.stat.mtime);
        let time = if folder && !enter { times.pop().flatten() } else { now };
        if folder && enter {
            times.push(now);
        }
        let mut stat;
        match entry.node {
            // It stands for a whiteout: see `archive::unpack_layer`.
            Some(node) if node.stat.kind == Kind::Socket => {
                entry.change = Change::Delete;
                entry.node = None;
            }
            // A folder that the layer does not name is the base's, with the time that it had there, or a plain one where the base has none.
            Some(node) if node.stat.kind == Kind::Dir && is_unnamed(node.stat) => {
                let base = entry.base.filter(|base| base.stat.kind == Kind::Dir);
                let shown = base.unwrap_or(node);
                stat = *shown.stat;
                if base.is_some() {
                    entry.stored = false;
                    stat.mtime = time.unwrap_or(stat.mtime);
                } else {
                    (stat.mode, stat.uid, stat.gid) = (0o755, 0, 0);
                }
                entry.node = Some(Side { stat: &stat, ..shown });
            }
            _ => {}
        }
        writer.take(&step)?;
        if enter {
            changes.enter()?;
        }
    }
    Ok(())
}
