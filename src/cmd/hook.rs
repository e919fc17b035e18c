//! `sliverfs hook`: what LXC calls. Its output goes to the system's log: LXC keeps none of it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::catalog::{Root, Sliver};
use crate::cli::Args;
use crate::cmd::{Ctx, mount};
use crate::error::{Class, Error, Result};
use crate::lxc::{CONFIG, Sockets};
use crate::name::Name;
use crate::out::escape;
use crate::stay::Below;
use crate::sys::env::var;
use crate::view;

/// Runs a hook. A failing pre-start stops the start; a failing post-stop would turn a reboot into a stop.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let name = &Name::parse(args.word(1))?;
    let root = ctx.root()?;
    refuse_another(root, name)?;
    match args.word(0) {
        "pre-start" => mount::mount(ctx, root, name, false).map(drop),
        "post-stop" => post_stop(root, name),
        "destroy" => Err(Error::in_use(format_args!(
            "lxc-destroy must not remove `{name}`: it would delete through the view, into the store"
        ))
        .way_out(format_args!("use `sliverfs destroy {name}`"))),
        other => Err(Error::usage(format_args!("`{other}` is no hook"))
            .way_out("take pre-start, post-stop or destroy")),
    }
}

/// Refuses a container that has the sliver's hooks and is another one, or does not start on the view.
///
/// lxc-copy(1) leaves the hooks to the copy of a sliver's container, but no lxc.rootfs.path: LXC 5.0 would start it on the node's
/// own root. Where a person calls a hook there is no LXC_NAME, and nothing that starts.
fn refuse_another(root: &Root, name: &Name) -> Result<()> {
    let Some(container) = var(c"LXC_NAME") else { return Ok(()) };
    if container != *name.as_str() {
        return Err(Error::usage(format_args!(
            "the container `{}` has the hooks of the sliver `{name}`, and is another one",
            escape(container.as_bytes())
        ))
        .way_out("a copy of its container is no sliver: remove the folder of the copy, and `sliverfs create` a sliver"));
    }
    let view = root.view(name);
    let path = var(c"LXC_ROOTFS_PATH").unwrap_or_default();
    if !same(path.as_bytes().strip_prefix(b"dir:").unwrap_or(path.as_bytes()), view) {
        let place = if path.is_empty() { "the node's own root".to_owned() } else { escape(path.as_bytes()) };
        return Err(Error::usage(format_args!(
            "the container `{name}` would start on {place}, and not on its view"
        ))
        .way_out(format_args!("its configuration must say: lxc.rootfs.path = dir:{}", view.display())));
    }
    let config = var(c"LXC_CONFIG_FILE").unwrap_or_default();
    if config.is_empty() || same(config.as_bytes(), root.container(name).below(CONFIG)) {
        return Ok(());
    }
    // Nobody would see that it runs.
    Err(Error::usage(format_args!(
        "{} is not the configuration of the sliver `{name}`",
        escape(config.as_bytes())
    ))
    .way_out(format_args!("start it with: lxc-start -P {} -n {name}", crate::shell::path(root.path()))))
}

/// Do both paths lead to the same place?
fn same(told: &[u8], expected: &Path) -> bool {
    let told = Path::new(OsStr::from_bytes(told));
    told == expected
        || fs::canonicalize(told).is_ok_and(|told| fs::canonicalize(expected).is_ok_and(|it| it == told))
}

/// The container is down: so is its view, unless it comes up again at once.
fn post_stop(root: &Root, name: &Name) -> Result<()> {
    if var(c"LXC_TARGET").is_some_and(|target| target == "reboot") {
        return Ok(());
    }
    let _lock = root.lock_sliver(name)?;
    Sliver::load(root, name)?;
    if Sockets::read()?.running_anew(root, name) {
        // Its pre-start found the view up, or is about to.
        crate::info!("`{name}` is being started again: its view stays");
        return Ok(());
    }
    let steps = view::own_mounts(root, name)?;
    match view::down(root, name, &steps) {
        // Somebody still looks at it: the next start takes the view as it is.
        Err(err) if err.class() == Class::InUse => {
            crate::warn!("{err}");
            Ok(())
        }
        done => done.map(drop),
    }
}
