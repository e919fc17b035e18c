//! `sliverfs create`: a new sliver on a base.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::backend::probe;
use crate::backend::store::Ground;
use crate::catalog::base::{Base, Form};
use crate::catalog::{Root, Sliver, record, sliver, sweep};
use crate::cli;
use crate::cmd::{Ctx, print_plan, probe as probe_cmd};
use crate::config::lxcconf;
use crate::error::{Context, Error, Result};
use crate::kind::{Choice, Kind};
use crate::lxc;
use crate::mount::mountinfo::MountInfo;
use crate::mount::plan::Step;
use crate::mount::{exec, private, seed};
use crate::name::Name;
use crate::size::Size;
use crate::sys::statfs;
use crate::view;

/// Creates the sliver that the command line names.
pub fn run(ctx: &mut Ctx, args: &cli::Create) -> Result<()> {
    let root = ctx.root()?;
    let size = args.size.map(|size| size.0);
    let backend = match args.backend {
        Some(choice) => choice,
        None => Choice::parse(&ctx.config()?.main.backend)?,
    };
    let wanted = Wanted { name: &args.name, base: &args.base, backend, data: args.data.as_deref(), size };
    let steps = create(&root, &wanted, args.dry_run)?;
    if args.dry_run {
        return print_plan(&steps);
    }
    probe_cmd::warn_of_upgrade(&root)?;
    let start = match lxcconf::default_lxcpath() {
        Ok(default) if default == root.path() => format!("lxc-start -n {}", args.name),
        _ => format!("lxc-start -P {} -n {}", crate::shell::path(root.path()), args.name),
    };
    log::info!("start it with: {start}");
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
    /// The limit of a store that is an image, in bytes.
    pub size: Option<u64>,
}

/// Creates a sliver, or completes one whose creation was cut. One that is there as wanted is left as it is: then there are no
/// steps. Otherwise those that were taken are returned, or would be.
pub fn create(root: &Root, wanted: &Wanted<'_>, dry_run: bool) -> Result<Vec<Step>> {
    let name = wanted.name;
    let _lock = root.lock_sliver(name)?;
    let there = Sliver::find(root, name)?;
    if root.container(name).exists() && !is_ours(root, name)? {
        return Err(Error::in_use(format!(
            "{} is there already, and is no sliver's",
            root.container(name).display()
        ))
        .way_out("take another name, or move that container away"));
    }
    let mut base = None;
    let mut steps = Vec::new();
    let publish = match there {
        Some(sliver) => {
            check_same(root, &sliver, wanted)?;
            Vec::new()
        }
        None => {
            let base = base.insert(Base::load(root, wanted.base)?);
            statfs::refuse_read_only(&root.stores())?;
            let kind = choose(root, wanted.backend, base.form, dry_run)?;
            check_kind(kind, base, wanted.size)?;
            let data = wanted.data.map(real_file).transpose()?;
            let stage = || stage(root, wanted, base, kind, data.as_deref());
            if dry_run {
                steps = stage()?;
            } else {
                sweep::all(root, name)?;
                view::free_seed(root, kind, &base.name)?;
                // Planned in there, too: nobody can let go of a base's image that this namespace has.
                private::run(root.path(), || exec::run(&stage()?).map(|()| Vec::new()))
                    .inspect_err(|_| left_over(root, name))?;
            }
            vec![Step::Rename(sweep::new_store(root, name), root.store(name))]
        }
    };
    let container = container_steps(root, name)?;
    if !dry_run && !publish.is_empty() {
        let _catalog = root.lock_catalog()?;
        Base::load(root, wanted.base)
            .and_then(|now| same_base(base.as_ref(), &now))
            .and_then(|()| exec::run(&publish))
            .inspect_err(|_| left_over(root, name))?;
    }
    if !dry_run {
        exec::run(&container)?;
    }
    steps.extend(publish);
    steps.extend(container);
    Ok(steps)
}

/// The base that a store was made of must still be the one of its name: another process may have removed it meanwhile, and
/// added another.
fn same_base(made_of: Option<&Base>, now: &Base) -> Result<()> {
    match made_of {
        Some(base) if (&base.digest, base.created) != (&now.digest, now.created) => Err(Error::failed(
            format!("the base `{}` was replaced while the sliver was made of it", base.name),
        )
        .way_out("create it again")),
        _ => Ok(()),
    }
}

/// Removes a staged store; a failure of that is told, and what is left is removed by the next `create`.
fn left_over(root: &Root, name: &Name) {
    if let Err(err) = sweep::all(root, name) {
        log::warn!("{err}");
    }
}

/// The sliver that is there must be the one that is wanted.
fn check_same(root: &Root, sliver: &Sliver, wanted: &Wanted<'_>) -> Result<()> {
    let limit = sliver.limit(root);
    if let Some(size) = wanted.size.filter(|size| limit != Some(*size)) {
        let has = limit.map_or_else(|| "none".to_owned(), |limit| Size(limit).to_string());
        return Err(Error::usage(format!(
            "the sliver `{}` is there already: its store's limit is {has}, and not {}",
            sliver.name,
            Size(size)
        ))
        .way_out("leave the size out, or destroy it first"));
    }
    let other_backend = matches!(wanted.backend, Choice::Named(kind) if kind != sliver.backend);
    if sliver.base != *wanted.base || other_backend {
        return Err(Error::usage(format!(
            "the sliver `{}` is there already, with base {} and backend {}",
            sliver.name, sliver.base, sliver.backend
        ))
        .way_out("take another name, or destroy it first"));
    }
    Ok(())
}

/// The base must be one that the kind can stand on, and a limit one that the kind keeps.
fn check_kind(kind: Kind, base: &Base, size: Option<u64>) -> Result<()> {
    if !kind.takes(base.form) {
        let way_out = if kind.grows_image() {
            "add the base again, under another name, with --pack btrfs"
        } else {
            "take another backend, or add the base as a folder"
        };
        return Err(Error::usage(format!(
            "{kind} cannot stand on the base `{}`, which is kept as {}",
            base.name,
            base.form.name()
        ))
        .way_out(way_out));
    }
    match size {
        Some(size) if !kind.grows_image() => {
            Err(Error::usage(format!("a store of {kind} keeps no limit of {}", Size(size)))
                .way_out("leave the size out, or take btrfs-seed"))
        }
        Some(size) if size < seed::LEAST => Err(seed::too_small(size)),
        _ => Ok(()),
    }
}

/// The steps that make a store beside its place.
fn stage(
    root: &Root,
    wanted: &Wanted<'_>,
    base: &Base,
    kind: Kind,
    data: Option<&Path>,
) -> Result<Vec<Step>> {
    let name = wanted.name;
    // In the private mount namespace any folder serves as a mount point.
    let target = root.run().join("mounted");
    let stage = sweep::new_store(root, name);
    let ground = Ground { root, base, kind, features: probe::features(root, kind)? };
    let mut steps = vec![Step::CreateDir(stage.clone())];
    steps.extend(ground.image(&MountInfo::of_self()?));
    steps.extend(ground.make(&stage, wanted.size, &target));
    if let Some(data) = data {
        steps.extend(ground.mount(&format!(".new.{name}"), &target)?);
        steps.push(Step::Unpack(data.to_owned(), target.clone()));
        steps.push(Step::Unmount(target));
    }
    let record = Sliver {
        version: record::VERSION,
        name: name.clone(),
        base: base.name.clone(),
        digest: base.digest.clone(),
        backend: kind,
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    };
    steps.push(Step::WriteFile(stage.join(sliver::FILE), record::to_text(&stage, &record)?));
    steps.push(Step::SyncDisk(stage));
    Ok(steps)
}

/// Only a real run may try things on the disk.
fn choose(root: &Root, choice: Choice, form: Form, dry_run: bool) -> Result<Kind> {
    if dry_run { probe::remembered(root, choice, form) } else { probe::choose(root, choice, form) }
}

/// An archive by its absolute path, since mounting changes the working folder.
fn real_file(path: &Path) -> Result<PathBuf> {
    let real = fs::canonicalize(path).at("open the archive", path)?;
    // A FIFO would hold the sliver's lock until somebody writes to it.
    if !fs::metadata(&real).at("look at the archive", &real)?.is_file() {
        return Err(Error::usage(format!("the archive {} is not a file", path.display())));
    }
    Ok(real)
}

/// LXC's configuration before it is whole.
const NEW_CONFIG: &str = ".config.new";

/// The steps that make LXC's folder, where parts of it are missing.
fn container_steps(root: &Root, name: &Name) -> Result<Vec<Step>> {
    let container = root.container(name);
    let config = container.join(lxc::CONFIG);
    let mut steps = vec![Step::CreateDir(container), Step::CreateDir(root.view(name))];
    steps.retain(|step| !matches!(step, Step::CreateDir(dir) if dir.is_dir()));
    if !config.exists() {
        let this = Path::new("/proc/self/exe");
        let program = fs::read_link(this).at("read", this)?;
        let version = lxc::Version::installed().unwrap_or(lxc::Version::ASSUMED);
        let text = lxc::config(root, name, version, &program)?;
        // By a rename: half a configuration would be taken for somebody else's.
        let whole = root.container(name).join(NEW_CONFIG);
        if whole.symlink_metadata().is_ok() {
            steps.push(Step::RemoveFile(whole.clone()));
        }
        steps.push(Step::WriteFile(whole.clone(), text.into_bytes()));
        steps.push(Step::Rename(whole, config));
    }
    Ok(steps)
}

/// Is LXC's folder of this name one that `create` made, whole or cut short?
pub fn is_ours(root: &Root, name: &Name) -> Result<bool> {
    let container = root.container(name);
    let config = container.join(lxc::CONFIG);
    match fs::read_to_string(&config) {
        Ok(text) => Ok(text.contains(&format!(" hook pre-start {name}\n"))),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => match fs::read_dir(&container) {
            Ok(mut entries) => Ok(entries.all(|entry| {
                entry.is_ok_and(|entry| entry.file_name() == "rootfs" || entry.file_name() == NEW_CONFIG)
            }) && fs::read_dir(root.view(name))
                .map_or(true, |mut inner| inner.next().is_none())),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(err) => Err(err).at("list", &container),
        },
        Err(err) => Err(err).at("read", &config),
    }
}
