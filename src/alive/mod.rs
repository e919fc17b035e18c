//! Is a store alive anywhere? In any mount namespace, in a detached view, in a running container.

mod holders;
mod kept;
mod views;

use std::path::PathBuf;

use nix::errno::Errno;

use crate::backend::features::Features;
use crate::backend::union as dialect;
use crate::catalog::Root;
use crate::error::{Error, Result};
use crate::kind::Kind;
use crate::mount::exec::{mount_union, unmount};
use crate::mount::fuse;
use crate::mount::plan::MountCall;
use crate::mount::seed;
use crate::name::Name;
use crate::out::joined;
use crate::quota::image;
use crate::stay::Below;
use crate::sys::console::Quiet;
use crate::sys::{loopdev, pause};

pub use holders::holders;
pub use views::{Namespace, Place, Views};

/// Refuses when the store is alive anywhere.
pub fn refuse_alive(root: &Root, name: &Name, kind: Kind, features: Features, views: &Views) -> Result<()> {
    let places: Vec<String> = views.of(root, name).map(Place::words).collect();
    if !places.is_empty() {
        return Err(Error::in_use(format_args!(
            "the store of `{name}` is mounted at {}",
            joined(&places, ", and at ")
        ))
        .way_out(format_args!(
            "stop the container, or end the processes there, and unmount it: sliverfs umount {name}"
        )));
    }
    let mut held = in_use(root, name, kind, features)?;
    // The kernel takes a view apart some time after its last user ended: a container that was just stopped.
    for turn in 0..PATIENCE {
        // A daemon ends after its view, whose device the kernel may have given to another mount by then: who holds that is believed
        // to hold the view only when the daemon had the time to end.
        let believed = kind != Kind::FuseOverlayfs || turn >= PATIENCE / 5;
        if held != Some(true) || believed && !holders(root, name)?.is_empty() {
            break;
        }
        pause();
        held = in_use(root, name, kind, features)?;
    }
    let mut who = if held == Some(false) { Vec::new() } else { holders(root, name)? };
    // Also where somebody seems to hold the view: the kernel may have given its device to another mount.
    if held == Some(true) && kind == Kind::FuseOverlayfs {
        who.extend(
            fuse::daemon(root.upper(name))
                .map(|pid| format!("its daemon, process {pid}: kill -9 it if it hangs")),
        );
    }
    if held.unwrap_or(!who.is_empty()) {
        who.extend(bound(root, name)?.map(|device| format!("the loop device {}", device.display())));
        let who = if who.is_empty() { "a process".to_owned() } else { joined(&who, ", ") };
        return Err(Error::in_use(format_args!(
            "the store of `{name}` is mounted nowhere, but a detached view of it is still held by {who}"
        ))
        .way_out("end what holds it: a shell that stands in it, or an open file of it"));
    }
    Ok(())
}

/// How often a store that nobody visible holds is asked for again, a [`pause`] apart.
const PATIENCE: u32 = 50;

/// The loop device on the image of a store that grew from a seed or is limited by it. Since the kernel frees it with its last user, it tells of every
/// use: mounted anywhere, detached, or another's.
fn bound(root: &Root, name: &Name) -> Result<Option<PathBuf>> {
    let store = root.store(name);
    let limited = store.below(image::FILE);
    loopdev::bound_to(if limited.exists() { limited } else { store.below(seed::STORE) })
}

/// Asks the kernel whether the store's upper folder is in use by any mount, also a detached one.
///
/// By a mount that never comes about ([`union::in_use`]), or by the lock of the daemon that serves it. None where the driver cannot
/// tell.
pub fn in_use(root: &Root, name: &Name, kind: Kind, features: Features) -> Result<Option<bool>> {
    let store = root.store(name);
    if store.below(image::FILE).exists() && !image::is_mounted(store) {
        // Who holds a view of it holds its image, too, in whatever namespace.
        return bound(root, name).map(|device| Some(device.is_some()));
    }
    let union = match kind {
        Kind::Union(union) => union,
        Kind::FuseOverlayfs => return fuse::serves(root.upper(name)).map(Some),
        Kind::BtrfsSeed => return bound(root, name).map(|device| Some(device.is_some())),
        Kind::BtrfsSnapshot | Kind::Reflink | Kind::Copy => return Ok(None),
    };
    if !union.caps().tells_in_use || !features.index {
        return Ok(None);
    }
    let folder = if image::is_mounted(store) { "/quota" } else { "" };
    let options = dialect::in_use(".base", &format!(".store/{name}{folder}/upper"))?;
    let target = root.run().below("mounted");
    let call = MountCall {
        fstype: union.caps().fstype,
        source: "sliverfs:in-use",
        options,
        from: root.path(),
        target,
    };
    // The kernel calls the answer an error.
    let answer = {
        let mark = root.run().below("console");
        let _quiet = Quiet::begin(mark);
        mount_union(&call)
    };
    match answer {
        Ok(()) => unmount(target).map(|()| None),
        Err(err) => match err.errno() {
            Some(Errno::EBUSY) => Ok(Some(true)),
            Some(Errno::EINVAL) => Ok(Some(false)),
            _ => Ok(None),
        },
    }
}
