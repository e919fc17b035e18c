//! `sliverfs apply`: makes the node what its configuration wants. Adds and mounts; never removes.

use crate::backend::probe;
use crate::catalog::base::{self, Base};
use crate::catalog::{Root, Sliver, root};
use crate::cli::Args;
use crate::cmd::create::{self, create};
use crate::cmd::quota::set as set_quota;
use crate::cmd::{Ctx, convert, mount, probe as probe_cmd};
use crate::config::{BaseWanted, Config, Main, SliverWanted};
use crate::error::{Class, Error, Result};
use crate::kind::{Choice, Kind};
use crate::out;
use crate::shell;
use crate::size::Size;
use crate::stay::Below;

/// Brings every section up that can be; what cannot is told by file, line and section, and the others still come up.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let lxcpath = ctx.lxcpath()?;
    let config = ctx.config()?;
    config.check_main()?;
    let mut failed = 0u32;
    for problem in &config.problems {
        if problem.fatal_for_section {
            failed += 1;
            log::error!("{problem}");
        } else {
            crate::warn!("{problem}");
        }
    }
    if config.bases.is_empty() && config.slivers.is_empty() {
        return finish(failed);
    }
    if !lxcpath.below(root::MARKER).exists() {
        crate::warn!(
            "{} does not carry slivers (no {}): nothing is done until its disk is mounted; on a new disk run \
             `sliverfs --lxcpath {} init` once",
            lxcpath.display(),
            root::MARKER,
            shell::path(lxcpath)
        );
        return finish(failed);
    }
    let root = Root::open(lxcpath)?;
    probe_cmd::warn_of_upgrade(root)?;
    let mut to_come = Vec::new();
    for wanted in &config.bases {
        match add_base(root, wanted, args.dry_run) {
            Ok(()) => to_come.push(&wanted.name),
            Err(err) => {
                failed += 1;
                log::error!("{}", config.problem(&wanted.place, err.to_string()));
            }
        }
    }
    for wanted in config.slivers.iter().filter(|sliver| sliver.enabled) {
        let to_come = args.dry_run && !root.base(&wanted.base).exists() && to_come.contains(&&wanted.base);
        if let Err(err) = bring_up(root, wanted, &config.main, args.dry_run, to_come) {
            failed += 1;
            log::error!("{}", config.problem(&wanted.place, err.to_string()));
        }
    }
    report_unnamed(root, config)?;
    finish(failed)
}

fn finish(failed: u32) -> Result<()> {
    match failed {
        0 => Ok(()),
        n => {
            Err(Error::failed(format_args!("{n} sections could not be applied; the rest of the node is up")))
        }
    }
}

/// A base that is wanted and missing is imported from its source, which is a path on this node.
fn add_base(root: &Root, wanted: &BaseWanted, dry_run: bool) -> Result<()> {
    if root.base(&wanted.name).exists() {
        return Ok(());
    }
    let Some(source) = &wanted.source else {
        return Err(Error::failed(format_args!("the base `{}` is missing, and has no source", wanted.name))
            .way_out(format_args!("bring it here: wget -O- URL | sliverfs base add {} -", wanted.name)));
    };
    if dry_run {
        base::plan(root, &wanted.name, source, None)?;
        return out::line(format_args!("sliverfs base add {} {}", wanted.name, shell::path(source)));
    }
    base::add(root, &wanted.name, source, None)?;
    crate::info!("added the base `{}` from {}", wanted.name, source.display());
    Ok(())
}

/// A sliver that is wanted is created where it is missing, and mounted where it should be. In a dry run its base may be one that
/// is yet to come.
fn bring_up(
    root: &Root,
    wanted: &SliverWanted,
    main: &Main,
    dry_run: bool,
    base_to_come: bool,
) -> Result<()> {
    let name = &wanted.name;
    let mut request = create::Wanted {
        name,
        base: &wanted.base,
        backend: Choice::parse(&wanted.backend)?,
        data: wanted.data.as_deref(),
        size: wanted.size,
        // Where it is there already, that is seen to below.
        quota: wanted.quota,
        means: main.quota_mode,
        policy: main.policy,
    };
    if convert::settle(root, name, main.convert, &wanted.backend, dry_run, true)? && dry_run {
        out::line(format_args!("sliverfs convert {name} --to {}", wanted.backend))?;
        return if wanted.mount { out::line(format_args!("sliverfs mount {name}")) } else { Ok(()) };
    }
    let there = Sliver::find(root, name)?;
    // Another limit that cannot be had now is no reason not to mount.
    let mut limited = Ok(());
    if let Some((sliver, bytes)) = there.as_ref().and_then(|sliver| Some((sliver, request.quota.take()?))) {
        let has = sliver.quota.map(|limit| limit.bytes);
        if has != Some(bytes) && dry_run {
            out::line(format_args!("sliverfs quota {name} {}", Size(bytes).typed()))?;
        } else if has != Some(bytes) {
            limited = set_quota(root, name, Some(bytes), main.quota_mode, &main.policy);
            if limited.is_ok() {
                crate::info!("the sliver `{name}` is given {}", Size(bytes));
            }
        }
    }
    let there = there.is_some();
    if let (true, false, Ok(base)) = (dry_run, there, Base::load(root, &wanted.base)) {
        let tried = probe::remembered(root, request.backend, base);
        if tried.is_err_and(|err| err.class() == Class::Failed) {
            // A real run would try what works; any other thing that is wrong comes out with a backend that needs no trial.
            request.backend = Choice::Named(Kind::Copy);
        }
    }
    let created = base_to_come && !there || !create(root, &request, dry_run)?.is_empty();
    if created && dry_run {
        let limit = |option: &str, bytes: Option<u64>| {
            bytes.map_or_else(String::new, |bytes| format!(" {option} {}", Size(bytes).typed()))
        };
        let (size, quota) = (limit("--size", wanted.size), limit("--quota", wanted.quota));
        let data = match &wanted.data {
            Some(path) => format!(" --data {}", shell::path(path)),
            None => String::new(),
        };
        out::line(format_args!(
            "sliverfs create {name} --base {} --backend {}{size}{quota}{data}",
            wanted.base, wanted.backend
        ))?;
    } else if created {
        crate::info!("created the sliver `{name}` on the base `{}`", wanted.base);
    }
    // The store of a mount that is planned here may not exist yet.
    if !wanted.mount || (there || !dry_run) && mount::mount_as_it_is(root, name, dry_run)?.is_empty() {
        return limited;
    }
    if dry_run {
        return out::line(format_args!("sliverfs mount {name}"));
    }
    crate::info!("mounted the sliver `{name}`");
    limited
}

/// What the configuration no longer names is told, and left alone.
fn report_unnamed(root: &Root, config: &Config) -> Result<()> {
    for name in Sliver::names(root)? {
        if !config.slivers.iter().any(|sliver| sliver.name == name) {
            crate::info!(
                "the sliver `{name}` is not in the configuration, and is left as it is: `config sliver '{name}'` \
                 makes it known, `sliverfs destroy {name}` removes it"
            );
        }
    }
    Ok(())
}
