//! `sliverfs apply`: makes the node what its configuration wants. Adds and mounts; never removes.

use crate::catalog::base;
use crate::catalog::{Root, Sliver, root};
use crate::cli;
use crate::cmd::create::{self, create};
use crate::cmd::{Ctx, mount, probe};
use crate::config::{BaseWanted, Config, SliverWanted};
use crate::error::{Error, Result};
use crate::kind::Choice;
use crate::out;
use crate::shell;

/// Brings every section up that can be; what cannot is told by file, line and section, and the others still come up.
pub fn run(ctx: &mut Ctx, args: &cli::Apply) -> Result<()> {
    let lxcpath = ctx.lxcpath()?;
    let config = ctx.config()?;
    config.check_main()?;
    let mut failed = 0u32;
    for problem in &config.problems {
        if problem.fatal_for_section {
            failed += 1;
            log::error!("{problem}");
        } else {
            log::warn!("{problem}");
        }
    }
    if config.bases.is_empty() && config.slivers.is_empty() {
        return finish(failed);
    }
    if !lxcpath.join(root::MARKER).exists() {
        log::warn!(
            "{} does not carry slivers (no {}): nothing is done until its disk is mounted; on a new disk run \
             `sliverfs --lxcpath {} init` once",
            lxcpath.display(),
            root::MARKER,
            shell::path(&lxcpath)
        );
        return finish(failed);
    }
    let root = Root::open(&lxcpath)?;
    probe::warn_of_upgrade(&root)?;
    for wanted in &config.bases {
        if let Err(err) = add_base(&root, wanted, args.dry_run) {
            failed += 1;
            log::error!("{}", config.problem(&wanted.place, err.to_string()));
        }
    }
    for wanted in config.slivers.iter().filter(|sliver| sliver.enabled) {
        if let Err(err) = bring_up(&root, wanted, args.dry_run) {
            failed += 1;
            log::error!("{}", config.problem(&wanted.place, err.to_string()));
        }
    }
    report_unnamed(&root, config)?;
    finish(failed)
}

fn finish(failed: u32) -> Result<()> {
    match failed {
        0 => Ok(()),
        n => Err(Error::failed(format!("{n} sections could not be applied; the rest of the node is up"))),
    }
}

/// A base that is wanted and missing is imported from its source, which is a path on this node.
fn add_base(root: &Root, wanted: &BaseWanted, dry_run: bool) -> Result<()> {
    if root.base(&wanted.name).exists() {
        return Ok(());
    }
    let Some(source) = &wanted.source else {
        return Err(Error::failed(format!("the base `{}` is missing, and has no source", wanted.name))
            .way_out(format!("bring it here: wget -O- URL | sliverfs base add {} -", wanted.name)));
    };
    if dry_run {
        return out::line(&format!("sliverfs base add {} {}", wanted.name, shell::path(source)));
    }
    log::info!("importing the base `{}` from {}", wanted.name, source.display());
    base::add(root, &wanted.name, source, None).map(drop)
}

/// A sliver that is wanted is created where it is missing, and mounted where it should be.
fn bring_up(root: &Root, wanted: &SliverWanted, dry_run: bool) -> Result<()> {
    let request = create::Wanted {
        name: &wanted.name,
        base: &wanted.base,
        backend: Choice::parse(&wanted.backend)?,
        data: wanted.data.as_deref(),
        size: wanted.size,
    };
    if dry_run {
        return tell(root, wanted);
    }
    create(root, &request, false)?;
    if wanted.mount { mount::mount(root, &wanted.name, false).map(drop) } else { Ok(()) }
}

/// What would be done, as commands: the store of a mount that is planned here may not exist yet.
fn tell(root: &Root, wanted: &SliverWanted) -> Result<()> {
    if Sliver::find(root, &wanted.name)?.is_none() {
        let size = wanted.size.map_or_else(String::new, |size| format!(" --size {size}"));
        let data = match &wanted.data {
            Some(path) => format!(" --data {}", shell::path(path)),
            None => String::new(),
        };
        let line = format!(
            "sliverfs create {} --base {} --backend {}{size}{data}",
            wanted.name, wanted.base, wanted.backend
        );
        out::line(&line)?;
    }
    if wanted.mount { out::line(&format!("sliverfs mount {}", wanted.name)) } else { Ok(()) }
}

/// What the configuration no longer names is told, and left alone.
fn report_unnamed(root: &Root, config: &Config) -> Result<()> {
    for name in Sliver::names(root)? {
        if !config.slivers.iter().any(|sliver| sliver.name == name) {
            log::info!(
                "the sliver `{name}` is not in the configuration; `sliverfs destroy {name}` removes it"
            );
        }
    }
    Ok(())
}
