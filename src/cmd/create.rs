//! `sliverfs create`: a new sliver on a base.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::backend::probe;
use crate::backend::store::Ground;
use crate::catalog::base::Base;
use crate::catalog::{Root, Sliver, record, sliver, sweep};
use crate::cli::Args;
use crate::cmd::quota::limit as set_limit;
use crate::cmd::{Ctx, print_plan, probe as probe_cmd};
use crate::config::lxcconf;
use crate::error::{Context, Error, Result};
use crate::kind::{Choice, Kind};
use crate::lxc;
use crate::mount::plan::Step;
use crate::mount::{exec, private, seed};
use crate::name::Name;
use crate::quota::admission::{self, Policy};
use crate::quota::{self, Limit, Means, anew};
use crate::size::Size;
use crate::stay::{Below, stay};
use crate::sys::{clock, file, statfs};
use crate::view;

/// Creates the sliver that the command line names.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let (name, size) = (&args.name()?, args.size.parse(Size::parse)?.map(|size| size.0));
    let Some(base) = &args.on.parse(Name::parse)? else {
        return Err(Error::usage("a sliver stands on a base").way_out("name it: --base BASE"));
    };
    let choice = args.backend.parse(Choice::parse)?;
    let root = ctx.root()?;
    let backend = match choice {
        Some(choice) => choice,
        None => Choice::parse(&ctx.config()?.main.backend)?,
    };
    let quota = args.quota.parse(Size::parse)?.map(|size| size.0);
    if quota.or(size).is_some() {
        // What may be promised is what the operator meant, and no default in its place.
        ctx.config()?.check_main()?;
    }
    let main = &ctx.config()?.main;
    let means = args.means.parse(quota::parse_mode)?.unwrap_or(main.quota_mode);
    let (data, policy) = (args.data.path(), main.policy);
    let wanted = Wanted { name, base, backend, data, size, quota, means, policy };
    let steps = create(root, &wanted, args.dry_run)?;
    if args.dry_run {
        return print_plan(&steps);
    }
    probe_cmd::warn_of_upgrade(root)?;
    let start = match lxcconf::default_lxcpath() {
        Ok(default) if default == root.path() => format!("lxc-start -n {name}"),
        _ => format!("lxc-start -P {} -n {name}", crate::shell::path(root.path())),
    };
    crate::info!("start it with: {start}");
    Ok(())
}

/// A sliver as the command line or UCI asks for it.
pub struct Wanted<'a> {
    /// Its name.
    pub name: &'a Name,
    /// Its base.
    pub base: &'a Name,
    /// Its backend.
    pub backend: Choice,
    /// An archive to unpack into it.
    pub data: Option<&'a Path>,
    /// The limit of a store that is an image, in bytes: a promise, as a quota is.
    pub size: Option<u64>,
    /// The bytes that it may add to its base.
    pub quota: Option<u64>,
    /// What keeps it to them, where that is named.
    pub means: Option<Means>,
    /// What may be promised of the disk.
    pub policy: Policy,
}

/// Creates a sliver, or completes one whose creation was cut. One that is there as wanted is left as it is: then there are no
/// steps. Otherwise those that were taken are returned, or would be.
pub fn create(root: &Root, wanted: &Wanted<'_>, dry_run: bool) -> Result<Vec<Step>> {
    let name = wanted.name;
    let _lock = root.lock_sliver(name)?;
    let there = Sliver::find(root, name)?;
    if root.container(name).exists() && !is_ours(root, name)? {
        return Err(Error::in_use(format_args!(
            "{} is there already, and is no sliver's",
            root.container(name).display()
        ))
        .way_out("take another name, or move that container away"));
    }
    let (mut planned, mut promised) = (Vec::new(), None);
    let (base, publish) = match there {
        Some(sliver) => {
            check_same(root, sliver, wanted)?;
            let Container { mut make, publish: reveal } = container_steps(root, name, sliver.quota)?;
            make.extend(reveal.first().map(|_| Step::SyncDisk(root.container(name))));
            make.extend(reveal);
            (None, make)
        }
        None => {
            let base = Base::load(root, wanted.base)?;
            base.present(root)?;
            statfs::refuse_read_only(root.stores())?;
            let kind = choose(root, wanted.backend, base, dry_run)?;
            let limit = match wanted.quota {
                Some(bytes) => Some(set_limit(root, name, kind, (wanted.means, None), bytes)?),
                None => wanted.size.map(Limit::of_seed),
            };
            let of_seed = quota::by(limit, Means::Seed).map(|limit| limit.bytes);
            check_kind(kind, base, wanted.size.or(of_seed))?;
            if wanted.size.is_some_and(|size| of_seed != Some(size)) {
                return Err(Error::usage("the size of a store on a seed is its limit: two were given")
                    .way_out("leave the size out, or the quota"));
            }
            admission::admit(root, &wanted.policy, None, limit, None)?;
            let data = wanted.data.map(real_file).transpose()?;
            let Container { make, publish: reveal } = container_steps(root, name, limit)?;
            promised = limit;
            let stage = |limit| stage(root, wanted, (base, kind, limit), data, &make);
            let renew = || anew::renew(root, limit, (kind, base), dry_run);
            if dry_run {
                planned = stage(renew()?)?;
            } else {
                sweep::all(root, name)?;
                view::free_seed(root, kind, &base.name)?;
                anew::prepare(root, name, limit)?;
                // Planned in there, too: nobody can let go of a base's image that this namespace has.
                private::make(root, name, &mut || {
                    let limit = renew()?;
                    exec::run(&stage(limit)?)?;
                    anew::settle(root, name, limit).map(|()| &[][..])
                })
                .inspect_err(|_| left_over(root, name))?;
            }
            // The store first: a container without one would not start, one without a configuration is completed.
            let mut publish = vec![Step::Rename(sweep::new_store(root, name), root.store(name))];
            publish.extend(reveal);
            (Some(base), publish)
        }
    };
    if !dry_run {
        match base {
            None => exec::run(&publish)?,
            Some(base) => {
                let publish = |catalog| {
                    same_base(base, Base::load(root, wanted.base)?)?;
                    // Another one may have been promised the rest meanwhile.
                    admission::admit(root, &wanted.policy, None, promised, Some(&catalog))?;
                    exec::run(&publish)
                };
                root.lock_catalog().and_then(publish).inspect_err(|_| left_over(root, name))?;
            }
        }
    }
    planned.extend(publish);
    Ok(planned)
}

/// The base that a store was made of must still be the one of its name: another process may have removed it meanwhile, and
/// added another.
pub(super) fn same_base(made_of: &Base, now: &Base) -> Result<()> {
    if (&made_of.digest, made_of.created) == (&now.digest, now.created) {
        return Ok(());
    }
    Err(Error::failed(format_args!("the base `{}` was replaced while the sliver was made of it", now.name))
        .way_out("create it again"))
}

/// Removes a staged store, and LXC's folder where it has no configuration yet; a failure of that is told, and what is left is
/// removed by the next `create`.
fn left_over(root: &Root, name: &Name) {
    if let Err(err) = sweep::all(root, name) {
        crate::warn!("{err}");
    }
    let container = root.container(name);
    if container.below(lxc::CONFIG).symlink_metadata().is_err() {
        // Folders go only when they are empty.
        let _gone = fs::remove_file(container.below(NEW_CONFIG));
        let _gone = fs::remove_dir(root.view(name)).and_then(|()| fs::remove_dir(container));
    }
}

/// The sliver that is there must be the one that is wanted.
fn check_same(root: &Root, sliver: &Sliver, wanted: &Wanted<'_>) -> Result<()> {
    let limit = sliver.limit(root);
    if let Some(size) = wanted.size.filter(|size| limit != Some(*size)) {
        let has = limit.map_or_else(|| "none".to_owned(), |limit| Size(limit).to_string());
        return Err(Error::usage(format_args!(
            "the sliver `{}` is there already: its store's limit is {has}, and not {}",
            sliver.name,
            Size(size)
        ))
        .way_out(format_args!(
            "leave the size out, or change it: sliverfs quota {} {}",
            sliver.name,
            Size(size).typed()
        )));
    }
    if let Some(bytes) =
        wanted.quota.filter(|bytes| quota::limit(root, sliver).map(|limit| limit.bytes) != Some(*bytes))
    {
        return Err(Error::usage(format_args!(
            "the sliver `{}` is there already, with another limit",
            sliver.name
        ))
        .way_out(format_args!("sliverfs quota {} {} changes it", sliver.name, Size(bytes).typed())));
    }
    let other_backend = matches!(wanted.backend, Choice::Named(kind) if kind != sliver.backend);
    if sliver.base != *wanted.base || other_backend {
        return Err(Error::usage(format_args!(
            "the sliver `{}` is there already, with base {} and backend {}",
            sliver.name, sliver.base, sliver.backend
        ))
        .way_out(match wanted.backend {
            Choice::Named(kind) if sliver.base == *wanted.base => {
                format!("`sliverfs convert {} --to {kind}` writes its store anew, or ask for the backend that it has", sliver.name)
            }
            _ => format!(
                "ask for what it has, or take another name; `sliverfs rebase {} --onto {}` puts it on that base",
                sliver.name, wanted.base
            ),
        }));
    }
    Ok(())
}

/// The base must be one that the kind can stand on, and a limit one that the kind keeps.
pub(super) fn check_kind(kind: Kind, base: &Base, size: Option<u64>) -> Result<()> {
    if !kind.takes(base.form) {
        let way_out = if kind.grows_image() {
            "add the base again, under another name, with --pack btrfs"
        } else {
            "take another backend, or add the base as a folder"
        };
        return Err(Error::usage(format_args!(
            "{kind} cannot stand on the base `{}`, which is kept as {}",
            base.name,
            base.form.name()
        ))
        .way_out(way_out));
    }
    match size {
        Some(size) if !kind.grows_image() => {
            Err(Error::usage(format_args!("a store of {kind} keeps no limit of {}", Size(size)))
                .way_out("leave the size out, or take btrfs-seed, or a quota in its place"))
        }
        Some(size) if size < seed::LEAST => Err(seed::too_small(size)),
        _ => Ok(()),
    }
}

/// The steps that make a store beside its place, and `container`, the rest that is made; all of it durable at once.
fn stage(
    root: &Root,
    wanted: &Wanted<'_>,
    (base, kind, limit): (&Base, Kind, Option<&'static Limit>),
    data: Option<&'static Path>,
    container: &[Step],
) -> Result<Vec<Step>> {
    let name = wanted.name;
    // In the private mount namespace any folder serves as a mount point.
    let target = root.run().below("mounted");
    let stage = sweep::new_store(root, name);
    let ground = Ground { root, base, kind, features: probe::features(root, kind)?, limit };
    let mut steps = Vec::new();
    ground.image(&mut steps)?;
    let inner = ground.begin(stage, wanted.policy.shape(), &mut steps);
    let size = quota::by(limit, Means::Seed).map(|limit| limit.bytes);
    ground.make(inner, size, target, &mut steps);
    let image = quota::by(limit, Means::Image).map(|_| inner);
    if let Some(data) = data {
        ground.mount(&format!(".new.{name}"), target, &mut steps)?;
        steps.push(Step::Unpack(data, target));
    }
    // The unmount tells nothing of what did not fit on the disk below.
    let grown = data.filter(|_| kind.grows_image()).map(|_| target);
    steps.extend(grown.or(image).map(Step::SyncDisk));
    steps.extend(data.map(|_| Step::Unmount(target)));
    steps.extend(image.map(Step::Unmount));
    let record = Sliver {
        version: record::VERSION,
        name: *name,
        base: base.name,
        digest: base.digest,
        backend: kind,
        converted: 0,
        quota: limit,
        created: clock::now(),
    };
    steps.push(Step::WriteFile(stage.below(sliver::FILE), record::to_text(stage, &record)?.leak()));
    steps.extend_from_slice(container);
    let device = |dir: &Path| fs::metadata(dir).at("look at", dir).map(|meta| meta.dev());
    // Else one call writes both: but to a disk in user space, to which it is not handed on.
    if device(root.path())? != device(root.stores())? || statfs::of(root.path())?.magic == statfs::FUSE {
        steps.push(Step::SyncDisk(root.container(name)));
    }
    steps.push(Step::SyncDisk(stage));
    Ok(steps)
}

/// Only a real run may try things on the disk.
pub(super) fn choose(root: &Root, choice: Choice, base: &Base, dry_run: bool) -> Result<Kind> {
    if dry_run { probe::remembered(root, choice, base) } else { probe::choose(root, choice, base) }
}

/// An archive by its absolute path, since mounting changes the working folder.
fn real_file(path: &Path) -> Result<&'static Path> {
    let real = fs::canonicalize(path).at("open the archive", path)?;
    // A FIFO would hold the sliver's lock until somebody writes to it.
    if !fs::metadata(&real).at("look at the archive", &real)?.is_file() {
        return Err(Error::usage(format_args!("the archive {} is not a file", path.display())));
    }
    Ok(stay(real))
}

/// LXC's configuration before it is whole.
const NEW_CONFIG: &str = ".config.new";

/// LXC's folder, where parts of it are missing.
struct Container {
    /// The steps that make all of it but the configuration's name.
    make: Vec<Step>,
    /// The steps that give the configuration its name, when it is durable.
    publish: Vec<Step>,
}

fn container_steps(root: &Root, name: &Name, limit: Option<&'static Limit>) -> Result<Container> {
    let container = root.container(name);
    let config = container.below(lxc::CONFIG);
    let mut make = vec![Step::CreateDir(container), Step::CreateDir(root.view(name))];
    make.retain(|step| !matches!(step, Step::CreateDir(dir) if dir.is_dir()));
    let mut publish = Vec::new();
    if !config.exists() {
        let version = lxc::Version::installed().unwrap_or(lxc::Version::ASSUMED);
        let profile = match quota::by(limit, Means::Qgroup) {
            Some(_) if lxc::is_closed(root, name) => Some(lxc::profile()?),
            _ => None,
        };
        let text = lxc::config(root, name, version, &lxc::program()?, profile.as_deref())?;
        // By a rename: half a configuration would be taken for somebody else's.
        let whole = container.below(NEW_CONFIG);
        if whole.symlink_metadata().is_ok() {
            make.push(Step::RemoveFile(whole));
        }
        make.push(Step::WriteFile(whole, text.leak().as_bytes()));
        publish.push(Step::Rename(whole, config));
    }
    Ok(Container { make, publish })
}

/// Is LXC's folder of this name one that `create` made, whole or cut short?
pub fn is_ours(root: &Root, name: &Name) -> Result<bool> {
    let container = root.container(name);
    let config = container.below(lxc::CONFIG);
    match file::text(config) {
        Ok(text) => {
            let hook = format!(" hook pre-start {name}\n");
            Ok(text.split_inclusive('\n').any(|line| line.ends_with(&hook)))
        }
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => match file::names(container) {
            Ok(names) => Ok(names.iter().all(|name| name == "rootfs" || name == NEW_CONFIG)
                && file::names(root.view(name)).map_or(true, |inner| inner.is_empty())),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(err) => Err(err).at("list", container),
        },
        Err(err) => Err(err).at("read", config),
    }
}
