//! The choice of a means: by name, or by what holds the tenant here.

use crate::catalog::Root;
use crate::error::{Error, Result};
use crate::kind::Kind;
use crate::lxc;
use crate::quota::{Limit, Means, OVERLAY, image, project, qgroup, zfs};
use crate::size::Size;
use crate::stay::for_good;

/// What is known of who is to be held.
#[derive(Clone, Copy)]
pub struct Tenant {
    /// His root is nobody special outside the container.
    pub mapped: bool,
    /// He may call no ioctl of Btrfs.
    pub closed: bool,
}

impl Limit {
    /// A new limit for a store of this kind, by the means that is named, or else by what holds the `tenant`.
    pub fn new(
        root: &Root,
        kind: Kind,
        means: Option<Means>,
        tenant: Tenant,
        bytes: u64,
    ) -> Result<&'static Self> {
        let means = match means {
            Some(means) => means,
            None => means_for(root, kind, tenant)?,
        };
        if !means.keeps(kind) {
            return Err(Error::usage(format_args!("{} keeps no store of {kind} to a limit", means.name()))
                .way_out("leave the means out, or take soft, which only measures"));
        }
        if matches!(means, Means::Image | Means::Project | Means::Zfs) && bytes < image::LEAST {
            return Err(Error::usage(format_args!("{} is too small for a limit", Size(bytes)))
                .way_out("give 4 MiB or more: the tables of a file system come out of it"));
        }
        Ok(for_good(Self::plain(bytes, means)))
    }
}

/// What holds a tenant to a limit here whose store is of this kind.
fn means_for(root: &Root, kind: Kind, tenant: Tenant) -> Result<Means> {
    if kind == Kind::BtrfsSnapshot {
        return match tenant.closed {
            true => Ok(Means::Qgroup),
            false => Err(Error::unsupported(format_args!(
                "a store of btrfs-snapshot is limited by a qgroup: {}",
                qgroup::open()
            ))
            .way_out("--means qgroup takes it all the same")),
        };
    }
    if tenant.mapped && Means::Project.keeps(kind) && project::Disk::of(root.stores()).is_ok() {
        return Ok(Means::Project);
    }
    if kind.reads_base() {
        return Ok(Means::Image);
    }
    if kind.grows_image() {
        return Ok(Means::Seed);
    }
    if kind == Kind::Copy && zfs::need(root.stores()).is_ok() {
        return Ok(Means::Zfs);
    }
    Err(Error::unsupported(format_args!("nothing keeps a store of {kind} to a limit here")).way_out(
        "take overlay; or name what only a container with lxc.idmap is held by: --means project; or soft, which only measures",
    ))
}

/// What keeps a store of this kind to a limit here, or why nothing does; `image` is what came of the trial of one.
pub fn offer(root: &Root, kind: Kind, image: &Result<()>) -> (Option<Means>, Option<String>) {
    let offered = || -> Result<Means> {
        if kind == Kind::BtrfsSnapshot {
            qgroup::need(root.stores())?;
        }
        let closed = lxc::profile().is_ok_and(|path| path.exists());
        let means = means_for(root, kind, Tenant { mapped: false, closed })?;
        if means == Means::Zfs {
            zfs::trial(root)?;
        }
        Ok(means)
    };
    let both =
        "holds a tenant who is root, too; project quotas are on, and taken where a container has lxc.idmap";
    match (offered(), image) {
        (Err(err), _) => (None, Some(err.to_string())),
        (Ok(Means::Image), Err(err)) => (None, Some(err.to_string())),
        (Ok(means), _) if kind == OVERLAY && project::Disk::of(root.stores()).is_ok() => {
            (Some(means), Some(both.to_owned()))
        }
        (Ok(means), _) => (Some(means), None),
    }
}
