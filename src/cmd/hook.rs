//! `sliverfs hook`: what LXC calls. Its output goes to the system's log: LXC keeps none of it.

use crate::catalog::Sliver;
use crate::cli;
use crate::cmd::{Ctx, mount};
use crate::error::{Class, Error, Result};
use crate::lxc::Sockets;
use crate::name::Name;
use crate::view;

/// Runs a hook. A failing pre-start stops the start; a failing post-stop would turn a reboot into a stop.
pub fn run(ctx: &mut Ctx, args: &cli::Hook) -> Result<()> {
    match args.moment.as_str() {
        "pre-start" => mount::mount(&ctx.root()?, &args.name, false).map(drop),
        "post-stop" => post_stop(ctx, &args.name),
        "destroy" => Err(Error::in_use(format!(
            "lxc-destroy must not remove `{}`: it would delete through the view, into the store",
            args.name
        ))
        .way_out(format!("use `sliverfs destroy {}`", args.name))),
        other => {
            Err(Error::usage(format!("`{other}` is no hook")).way_out("take pre-start, post-stop or destroy"))
        }
    }
}

/// The container is down: so is its view, unless it comes up again at once.
fn post_stop(ctx: &mut Ctx, name: &Name) -> Result<()> {
    if std::env::var_os("LXC_TARGET").is_some_and(|target| target == "reboot") {
        return Ok(());
    }
    let root = ctx.root()?;
    let _lock = root.lock_sliver(name)?;
    Sliver::load(&root, name)?;
    if Sockets::read()?.running_anew(&root, name) {
        // Its pre-start found the view up, or is about to.
        log::info!("`{name}` is being started again: its view stays");
        return Ok(());
    }
    let steps = view::own_mounts(&root, name)?;
    match view::down(&root, name, &steps) {
        // Somebody still looks at it: the next start takes the view as it is.
        Err(err) if err.class() == Class::InUse => {
            log::warn!("{err}");
            Ok(())
        }
        done => done.map(drop),
    }
}
