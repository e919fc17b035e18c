//! The layers that a command works on: a sliver's, or bare directories, of a disk that was taken out of a node.

use std::path::Path;

use crate::alive::Views;
use crate::catalog::base::Base;
use crate::catalog::{Root, Sliver};
use crate::cli::Args;
use crate::cmd::offline::Held;
use crate::cmd::{Ctx, offline};
use crate::error::{Context, Error, Result};
use crate::form::Form;
use crate::layer::{Format, Scratch, scratch_beside};
use crate::mount::mountinfo::MountInfo;
use crate::mount::{exec, image, private, seed};
use crate::name::Name;
use crate::quota::{image as quota, zfs};
use crate::stay::Below;
use crate::sys::child::Answer;
use crate::sys::mountpoint::look;
use crate::tree::{self, Dir};
use crate::view;

/// What the command line says of them, and what keeps others from them.
pub struct Layers<'a> {
    /// A sliver first, if there is one, and what the command works on in it.
    pub words: &'a [String],
    /// Of bare directories.
    pub format: Option<Format>,
    /// Of bare directories.
    pub base: Option<&'a Path>,
    /// Of bare directories.
    pub store: Option<&'a Path>,
    /// What keeps others from the sliver's store, where something does.
    held: Option<Held>,
    /// The folder of a store that is watched, and which one it was.
    seen: Option<(&'static Path, (u64, u64))>,
}

/// What is done with a store's format, its base, itself, and the other words of the command line.
pub type Work<'a> = &'a mut dyn FnMut(Format, &Dir, &Dir, &[String]) -> Result<()>;

/// The same, with an answer.
pub type Question<'a> = &'a mut dyn FnMut(Format, &Dir, &Dir, &[String]) -> Answer;

impl<'a> Layers<'a> {
    /// Those of a command line.
    pub fn new(args: &'a Args) -> Result<Self> {
        let format = args.format.parse(Format::parse)?;
        Ok(Self { format, base: args.base.path(), store: args.store.path(), ..Self::of(&args.words) })
    }

    /// Those of the sliver that is the first of these words.
    pub fn of(words: &'a [String]) -> Self {
        Self { words, format: None, base: None, store: None, held: None, seen: None }
    }

    /// Holds the sliver that is named, and gives its record; none where bare directories are.
    pub fn hold(&mut self, ctx: &mut Ctx) -> Result<Option<&'static Sliver>> {
        let (None, Some(name)) = (self.format, self.words.first()) else { return Ok(None) };
        let held = self.held.insert(Held::take(ctx.root()?, &Name::parse(name)?)?);
        Ok(Some(held.sliver))
    }

    /// Where the store is changed from, cleared of what a crash left unless this is only a dry run.
    pub fn scratch(&self, format: Format, store: &Dir, dry_run: bool) -> Result<Box<Scratch>> {
        let scratch = match self.held {
            Some(_) => scratch_beside(format, store)?,
            None => Scratch::inside(store)?,
        };
        if !dry_run {
            scratch.settle(format, store)?;
        }
        Ok(scratch)
    }

    /// Remembers which store it is that is read, and refuses one in which a step was cut: it shows neither the one state nor the other.
    pub fn watch(&mut self, ctx: &mut Ctx) -> Result<()> {
        let (None, Some(name)) = (self.format, self.words.first()) else { return Ok(()) };
        let (root, name) = (ctx.root()?, Name::parse(name)?);
        let folder = root.store(&name);
        let Some(seen) = look(folder) else { return Ok(()) };
        zfs::refuse_unmounted(folder)?;
        // In an image that nobody has mounted it is ended before it is read.
        if Scratch::beside(tree::open(quota::content(folder))?).begun() {
            return Err(Error::in_use(format_args!(
                "the store of `{name}` is being changed, or that was cut"
            ))
            .way_out(format_args!("run it again; if that does not help: sliverfs check --repair {name}")));
        }
        // A store that grew from a seed is mounted to be read, and cannot be mounted twice.
        if Sliver::load(root, &name)?.backend.grows_image() && view_of(root, &name)?.is_none() {
            self.held = Some(Held::take(root, &name)?);
        }
        self.seen = Some((folder, (seen.device, seen.inode)));
        Ok(())
    }

    /// Refuses what was read where the store was converted, rebased or removed meanwhile: it may be half of the one and half of the other.
    pub fn same(&self) -> Result<()> {
        match self.seen {
            Some((folder, id)) if look(folder).map(|seen| (seen.device, seen.inode)) != Some(id) => {
                Err(Error::in_use(format_args!("{} was replaced or removed meanwhile", folder.display()))
                    .way_out("run it again"))
            }
            _ => Ok(()),
        }
    }

    /// Opens the layers, and does the work. A base that is an image is mounted in a namespace of its own for as long as it takes,
    /// and the work is done there, in a child.
    pub fn with(&self, ctx: &mut Ctx, work: Work<'_>) -> Result<()> {
        let silent = &mut |format, base: &Dir, store: &Dir, words: &[String]| {
            work(format, base, store, words).map(|()| &[][..])
        };
        self.ask(ctx, silent).map(drop)
    }

    /// The same, and what the work answers comes back.
    pub fn ask(&self, ctx: &mut Ctx, work: Question<'_>) -> Answer {
        match (self.format, self.base, self.store) {
            (Some(format), Some(base), Some(store)) => {
                refuse_within(store, base)?;
                refuse_within(base, store)?;
                return work(format, &tree::open(base)?, &tree::open_store(store)?, self.words);
            }
            (None, None, None) => {}
            _ => return Err(Error::usage("bare directories want all of --format, --base and --store")),
        }
        let Some((name, words)) = self.words.split_first() else {
            return Err(Error::usage("name a sliver")
                .way_out("or give bare directories: --format, --base and --store"));
        };
        let root = ctx.root()?;
        let sliver = Sliver::load(root, &Name::parse(name)?)?;
        let base = view::base_of(root, sliver)?;
        let format = Format::of(sliver.backend);
        let stored = root.store(&sliver.name);
        zfs::refuse_unmounted(stored)?;
        let grown = sliver.backend.grows_image();
        let view = if grown { view_of(root, &sliver.name)? } else { None };
        let inner = match view {
            Some(view) => view,
            None if format.whole() => quota::content(stored).below("tree"),
            None => root.upper(&sliver.name),
        };
        let mut done = || {
            let store = tree::open(inner)?;
            with_base(root, base, &mut |tree| work(format, tree, &store, words))
        };
        if grown && view.is_none() {
            if self.held.is_none() {
                // Its view was there when it was watched.
                return Err(
                    Error::in_use(format_args!("`{name}` was unmounted meanwhile")).way_out("run it again")
                );
            }
            return offline::grown(root, sliver, &mut done);
        }
        if sliver.has_image() && !quota::is_mounted(stored) {
            return private::run(stored, &mut || {
                let mut steps = Vec::new();
                quota::mount_steps(stored, format, &mut steps);
                exec::run(&steps)?;
                let done = done();
                quota::keep_spare(stored.below(quota::POINT));
                quota::release(stored)?;
                done
            });
        }
        done()
    }
}

/// Refuses a folder that is another one, or lies in it: what is written to the one would be read from the other.
pub fn refuse_within(one: &Path, other: &Path) -> Result<()> {
    let real = |path: &Path| std::fs::canonicalize(path).at("open", path);
    if real(one)?.starts_with(real(other)?) {
        return Err(Error::usage(format_args!("{} is or lies in {}", one.display(), other.display()))
            .way_out("base, store and what is written lie apart"));
    }
    Ok(())
}

/// Opens the base's tree, and does the work with it; in a child where it is an image.
fn with_base(root: &Root, base: &Base, work: &mut dyn FnMut(&Dir) -> Answer) -> Answer {
    let Some((fstype, file)) = base.image(root) else {
        return work(&tree::open(base.content(root))?);
    };
    let (folder, mounted) = (root.base(&base.name), root.base_mount(&base.name));
    private::run(folder, &mut || {
        // The namespace has the mount that views stand on, too, whatever becomes of it outside.
        if MountInfo::of_self()?.at(mounted).is_some() {
            return work(&tree::open(mounted)?);
        }
        // While a seed is mounted, no sliver on it can be.
        let _lock = if base.form == Form::Btrfs { Some(seed::lock(file)?) } else { None };
        image::whole(file)?;
        image::mount_read_only(fstype, file, folder)?;
        let done = tree::open(folder).and_then(|tree| work(&tree));
        exec::unmount(folder)?;
        done
    })
}

/// The view of a sliver whose store is an image, where that is mounted.
fn view_of(root: &Root, name: &Name) -> Result<Option<&'static Path>> {
    let view = root.view(name);
    let views = Views::here(root, &MountInfo::of_self()?)?;
    Ok(Some(view).filter(|view| views.of(root, name).any(|place| place.target == *view)))
}
