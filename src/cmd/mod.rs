//! The commands: policy. What a command means, one file each.

mod apply;
pub mod base;
mod check;
mod compact;
mod convert;
mod create;
mod dedupe;
mod destroy;
mod diff;
mod export;
mod hook;
mod import;
mod layers;
mod list;
mod mount;
mod offline;
mod probe;
mod rebase;
mod restore;
mod show;
mod sync;
mod umount;

use std::path::PathBuf;

use crate::catalog::{Root, Sliver};
use crate::cli::{BaseCommand, Cli, Command};
use crate::config::{self, Config, lxcconf};
use crate::error::{Error, Result};
use crate::mount::plan::Step;
use crate::name::Name;
use crate::out;

/// Runs the command.
pub fn run(cli: Cli) -> Result<()> {
    let mut ctx = Ctx { lxcpath: cli.lxcpath, file: cli.config, config: None };
    match cli.command {
        Command::Init(_) => {
            let root = Root::init(&ctx.lxcpath()?)?;
            probe::warn_of_upgrade(&root)?;
            out::line(&format!("{} carries slivers", root.path().display()))
        }
        Command::Probe(args) => probe::run(&ctx.root()?, &args),
        Command::Base(args) => match args.command {
            // The first base that is added by hand marks the disk; `apply` never does.
            BaseCommand::Add(args) => base::add(&Root::locate(&ctx.lxcpath()?)?, &args),
            BaseCommand::List(args) => base::list(&ctx.root()?, &args),
            BaseCommand::Show(args) => base::show(&ctx.root()?, &args),
            BaseCommand::Verify(args) => base::verify(&ctx.root()?, &args),
            BaseCommand::Remove(args) => base::remove(&ctx.root()?, &args),
        },
        Command::Create(args) => create::run(&mut ctx, &args),
        Command::Mount(args) => mount::run(&mut ctx, &args),
        Command::Umount(args) => umount::run(&ctx.root()?, &args),
        Command::List(args) => list::run(&mut ctx, &args),
        Command::Show(args) => show::run(&mut ctx, &args),
        Command::Destroy(args) => destroy::run(&ctx.root()?, &args),
        Command::Dedupe(args) => dedupe::run(&ctx.root()?, &args),
        Command::Apply(args) => apply::run(&mut ctx, &args),
        Command::Convert(args) => convert::run(&mut ctx, &args),
        Command::Check(args) => check::run(&mut ctx, &args),
        Command::Compact(args) => compact::run(&mut ctx, &args),
        Command::Restore(args) => restore::run(&mut ctx, &args),
        Command::Rebase(args) => rebase::run(&mut ctx, &args),
        Command::Diff(args) => diff::run(&mut ctx, &args),
        Command::Export(args) => export::run(&mut ctx, &args),
        Command::Import(args) => import::run(&ctx.root()?, &args),
        Command::Sync(args) => sync::run(&mut ctx, &args),
        Command::Hook(args) => hook::run(&mut ctx, &args),
        Command::Version(_) => out::line(concat!("sliverfs ", env!("CARGO_PKG_VERSION"))),
    }
}

/// What the commands share: where the node's slivers lie, and what its operator wants.
pub(crate) struct Ctx {
    lxcpath: Option<PathBuf>,
    file: Option<PathBuf>,
    config: Option<Config>,
}

impl Ctx {
    /// The node's configuration, read once.
    pub(crate) fn config(&mut self) -> Result<&Config> {
        let config = match self.config.take() {
            Some(config) => config,
            None => config::load(self.file.as_deref())?,
        };
        Ok(self.config.insert(config))
    }

    /// LXCPATH: from the command line, the environment, UCI, or LXC's own settings, in this order.
    pub(crate) fn lxcpath(&mut self) -> Result<PathBuf> {
        if let Some(path) = &self.lxcpath {
            return Ok(path.clone());
        }
        let path = match std::env::var_os("SLIVERFS_LXCPATH").filter(|path| !path.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => {
                let config = self.config()?;
                config.check_main()?;
                match &config.main.lxcpath {
                    Some(path) => path.clone(),
                    None => lxcconf::default_lxcpath()?,
                }
            }
        };
        Ok(self.lxcpath.insert(path).clone())
    }

    /// The node's LXCPATH, which must carry the marker.
    pub(crate) fn root(&mut self) -> Result<Root> {
        Root::open(&self.lxcpath()?)
    }
}

/// Prints a plan as steps that a person could type.
pub(crate) fn print_plan(steps: &[Step]) -> Result<()> {
    steps.iter().try_for_each(|step| out::line(&step.to_string()))
}

/// The slivers that a command was given: by name, or all of them.
fn chosen(root: &Root, names: &[Name], all: bool) -> Result<Vec<Name>> {
    match (names.is_empty(), all) {
        (false, false) => Ok(names.to_vec()),
        (true, true) => Sliver::names(root),
        _ => Err(Error::usage("name the slivers, or give --all")),
    }
}

/// Does one thing for each sliver. One that fails is told, and does not keep the others from their turn.
fn for_each(names: &[Name], mut work: impl FnMut(&Name) -> Result<()>) -> Result<()> {
    let mut failed = Vec::new();
    for name in names {
        match work(name) {
            Ok(()) => {}
            Err(err) if names.len() == 1 => return Err(err),
            Err(err) => {
                log::error!("{name}: {err}");
                failed.push(err);
            }
        }
    }
    match failed.first() {
        None => Ok(()),
        Some(first) => {
            Err(Error::new(first.class(), format!("{} of {} slivers failed", failed.len(), names.len())))
        }
    }
}
