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
mod quota;
mod rebase;
mod replace;
mod restore;
mod show;
mod sync;
mod umount;
mod usage;

use std::path::Path;

use crate::catalog::{Root, Sliver};
use crate::cli::{Args, Cli, Command};
use crate::config::{self, Config, lxcconf};
use crate::error::{Error, Result};
use crate::mount::plan::Step;
use crate::name::Name;
use crate::out;
use crate::stay::{Below, stay};
use crate::sys::env::var;

/// Runs the command.
pub fn run(cli: Cli) -> Result<()> {
    let args = &cli.args;
    let mut ctx = Ctx { lxcpath: args.lxcpath.path(), file: args.config.path(), config: None };
    match cli.command {
        Command::Init => {
            let root = Root::init(ctx.lxcpath()?)?;
            probe::warn_of_upgrade(root)?;
            out::line(format_args!("{} carries slivers", root.path().display()))
        }
        Command::Probe => probe::run(ctx.root()?, args),
        // The first base that is added by hand marks the disk; `apply` never does.
        Command::BaseAdd => base::add(Root::locate(ctx.lxcpath()?)?, args),
        Command::BaseList => base::list(ctx.root()?, args),
        Command::BaseShow => base::show(ctx.root()?, args),
        Command::BaseVerify => base::verify(ctx.root()?, args),
        Command::BaseRemove => base::remove(ctx.root()?, args),
        Command::Create => create::run(&mut ctx, args),
        Command::Mount => mount::run(&mut ctx, args),
        Command::Umount => umount::run(ctx.root()?, args),
        Command::List => list::run(&mut ctx, args),
        Command::Show => show::run(&mut ctx, args),
        Command::Destroy => destroy::run(ctx.root()?, args),
        Command::Dedupe => dedupe::run(ctx.root()?, args),
        Command::Apply => apply::run(&mut ctx, args),
        Command::Convert => convert::run(&mut ctx, args),
        Command::Rebase => rebase::run(&mut ctx, args),
        Command::Diff => diff::run(&mut ctx, args),
        Command::Restore => restore::run(&mut ctx, args),
        Command::Compact => compact::run(&mut ctx, args),
        Command::Check => check::run(&mut ctx, args),
        Command::Export => export::run(&mut ctx, args),
        Command::Import => import::run(ctx.root()?, args),
        Command::Sync => sync::run(&mut ctx, args),
        Command::Quota => quota::run(&mut ctx, args),
        Command::Usage => usage::run(&mut ctx, args),
        Command::Hook => hook::run(&mut ctx, args),
        Command::Version => out::line(concat!("sliverfs ", env!("CARGO_PKG_VERSION"))),
    }
}

/// What the commands share: where the node's slivers lie, and what its operator wants.
pub(crate) struct Ctx {
    lxcpath: Option<&'static Path>,
    file: Option<&'static Path>,
    config: Option<Config>,
}

impl Ctx {
    /// The node's configuration, read once.
    pub(crate) fn config(&mut self) -> Result<&Config> {
        let config = match self.config.take() {
            Some(config) => config,
            None => config::load(self.file)?,
        };
        Ok(self.config.insert(config))
    }

    /// LXCPATH: from the command line, the environment, UCI, or LXC's own settings, in this order.
    pub(crate) fn lxcpath(&mut self) -> Result<&'static Path> {
        if let Some(path) = self.lxcpath {
            return Ok(path);
        }
        let path = match var(c"SLIVERFS_LXCPATH").filter(|path| !path.is_empty()) {
            Some(path) => stay(path.into()),
            None => {
                let config = self.config()?;
                config.check_main()?;
                match &config.main.lxcpath {
                    Some(path) => path.stays(),
                    None => stay(lxcconf::default_lxcpath()?),
                }
            }
        };
        Ok(self.lxcpath.insert(path))
    }

    /// The node's LXCPATH, which must carry the marker.
    pub(crate) fn root(&mut self) -> Result<&'static Root> {
        Root::open(self.lxcpath()?)
    }
}

/// Prints a plan as steps that a person could type.
pub(crate) fn print_plan(steps: &[Step]) -> Result<()> {
    steps.iter().try_for_each(out::line)
}

/// The slivers that a command was given: by name, or all of them.
fn chosen(root: &Root, args: &Args) -> Result<Vec<Name>> {
    match (args.words.is_empty(), args.all) {
        (false, false) => args.names(),
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
            Err(Error::new(first.class(), format_args!("{} of {} slivers failed", failed.len(), names.len())))
        }
    }
}
