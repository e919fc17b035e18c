//! `sliverfs create`: a new sliver on a base.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::backend::probe;
use crate::backend::store::Ground;
use crate::catalog::base::Base;
use crate::catalog::{Root, Sliver, record, sliver, sweep};
use crate::cli;
use crate::cmd::{Ctx, print_plan, probe as probe_cmd};
use crate::config::lxcconf;
use crate::error::{Context, Error, Result};
use crate::kind::{Choice, Kind};
use crate::lxc;
use crate::mount::mountinfo::MountInfo;
use crate::mount::plan::Step;
use crate::mount::{exec, private};
use crate::name::Name;
use crate::sys::file;

/// Creates the sliver that the command line names.
pub fn run(ctx: &mut Ctx, args: &cli::Create) -> Result<()> {
    let root = ctx.root()?;
    let backend = match args.backend {
        Some(choice) => choice,
        None => Choice::parse(&ctx.config()?.main.backend)?,
    };
    create(
        &root,
        &Wanted { name: &args.name, base: &args.base, backend, data: args.data.as_deref() },
        args.dry_run,
    )?;
    if !args.dry_run {
        probe_cmd::warn_of_upgrade(&root)?;
        let start = match lxcconf::default_lxcpath() {
            Ok(default) if default == root.path() => format!("lxc-start -n {}", args.name),
            _ => format!("lxc-start -P {} -n {}", crate::shell::path(root.path()), args.name),
        };
        log::info!("start it with: {start}");
    }
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
}

/// Creates a sliver, or completes one whose creation was cut. One that is there as wanted is left as it is.
pub fn create(root: &Root, wanted: &Wanted<'_>, dry_run: bool) -> Result<()> {
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
    let publish = match there {
        Some(sliver) => {
            check_same(&sliver, wanted)?;
            Vec::new()
        }
        None => {
            let base = base.insert(Base::load(root, wanted.base)?);
            let kind = choose(root, wanted.backend, dry_run)?;
            let data = wanted.data.map(real_file).transpose()?;
            let stage = || stage(root, name, base, kind, data.as_deref());
            if dry_run {
                print_plan(&stage()?)?;
            } else {
                sweep::all(root, name)?;
                // Planned in there, too: nobody can let go of a base's image that this namespace has.
                private::run(root.path(), || exec::run(&stage()?).map(|()| Vec::new()))
                    .inspect_err(|_| left_over(root, name))?;
            }
            vec![Step::Rename(sweep::new_store(root, name), root.store(name))]
        }
    };
    let container = container_steps(root, name)?;
    if dry_run {
        print_plan(&publish)?;
        return print_plan(&container);
    }
    if !publish.is_empty() {
        let _catalog = root.lock_catalog()?;
        Base::load(root, wanted.base)
            .and_then(|now| same_base(base.as_ref(), &now))
            .and_then(|()| exec::run(&publish))
            .inspect_err(|_| left_over(root, name))?;
    }
    exec::run(&container)
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
fn check_same(sliver: &Sliver, wanted: &Wanted<'_>) -> Result<()> {
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

/// The steps that make a store beside its place.
fn stage(root: &Root, name: &Name, base: &Base, kind: Kind, data: Option<&Path>) -> Result<Vec<Step>> {
    let stage = sweep::new_store(root, name);
    let ground = Ground { root, base, kind, features: probe::features(root, kind)? };
    let mut steps = vec![Step::CreateDir(stage.clone())];
    steps.extend(ground.image(&MountInfo::of_self()?));
    steps.extend(ground.make(&stage));
    if let Some(data) = data {
        // In the private mount namespace any folder serves as a mount point.
        let target = root.run().join("mounted");
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
fn choose(root: &Root, choice: Choice, dry_run: bool) -> Result<Kind> {
    if dry_run { probe::remembered(root, choice) } else { probe::choose(root, choice) }
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
    match file::text(&config) {
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
