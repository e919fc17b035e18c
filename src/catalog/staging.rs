//! Folders in `.base` that are being made or removed. Their names start with a dot, which no base's name does; a lock on the
//! folder tells one that is at work from one that a crash left.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::root::Root;
use crate::error::{Context, Error, Result};
use crate::name::Name;
use crate::sys::{file, sync, xattr};
use crate::tree;

const NEW: &str = ".new.";
const REMOVED: &str = ".rm.";

/// A fresh folder `.base/.new.NAME.PID`, removed again unless it is published.
pub struct Staging {
    path: PathBuf,
    lock: Option<Flock<File>>,
}

impl Staging {
    /// Makes the folder of a base to be, for root only, and takes its lock.
    pub fn new(root: &Root, name: &Name) -> Result<Self> {
        for attempt in 0..1000u32 {
            let suffix = if attempt == 0 { String::new() } else { format!("-{attempt}") };
            let path = root.bases().join(format!("{NEW}{name}.{}{suffix}", std::process::id()));
            match file::make_dir(&path, 0o700) {
                Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => continue,
                made => made.at("create", &path)?,
            }
            // Gone or another's: somebody swept it between the two calls, and we begin anew.
            if let Some(lock) = lock(&path)? {
                drop_default_acl(&path)?;
                return Ok(Self { path, lock: Some(lock) });
            }
        }
        Err(Error::failed(format_args!(
            "{} is full of left-over folders of `{name}`",
            root.bases().display()
        )))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder a base: everything to the disk, then the name. The catalog's lock must be held.
    pub fn publish(mut self, root: &Root, name: &Name) -> Result<()> {
        let to = root.base(name);
        if to.symlink_metadata().is_ok() {
            return Err(taken(to));
        }
        fs::rename(&self.path, to).at("rename the new base to", to)?;
        self.lock = None;
        sync::dir(root.bases())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.lock.is_some() {
            if let Err(err) = tree::remove_path(&self.path) {
                crate::warn!("{err}");
            }
        }
    }
}

/// Another process was quicker.
fn taken(path: &Path) -> Error {
    Error::failed(format_args!("{} was made by another process meanwhile", path.display()))
        .way_out("look at it with `sliverfs base show`")
}

/// A default ACL of LXCPATH would be handed down to all that a base holds.
fn drop_default_acl(path: &Path) -> Result<()> {
    match xattr::remove(path, c"system.posix_acl_default") {
        Ok(()) | Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno).at("remove the default ACL of", path),
    }
}

/// Takes a base out of the catalog; its folder is then no base, whatever happens next. The catalog's lock must be held.
pub fn retire(root: &Root, name: &Name) -> Result<()> {
    let from = root.base(name);
    let to = (0..1000u32)
        .map(|n| root.bases().join(format!("{REMOVED}{name}.{}-{n}", std::process::id())))
        .find(|to| to.symlink_metadata().is_err())
        .unwrap_or_else(|| root.bases().join(format!("{REMOVED}{name}")));
    fs::rename(from, &to).at("rename the base to", &to)?;
    sync::dir(root.bases())
}

/// Removes what nobody is at work on: bases that were retired, and imports that were interrupted.
pub fn sweep(root: &Root) -> Result<()> {
    each_left(root, &mut |path| {
        // One that was removed, mostly by this very command, is no news.
        if !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(REMOVED.as_bytes())) {
            crate::info!("clearing away {}, which is no base", path.display());
        }
        tree::remove_path(path)
    })
}

/// Hands over each folder that nobody is at work on.
pub fn each_left(root: &Root, work: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
    let bases = root.bases();
    for name in file::names(bases).at("list", bases)? {
        let ours = name.to_str().is_some_and(|name| name.starts_with(NEW) || name.starts_with(REMOVED));
        let path = bases.join(name);
        if ours && fs::symlink_metadata(&path).at("look at", &path)?.is_dir() {
            // Held while the tree goes, so that two sweepers do not meet in it.
            if let Some(_lock) = lock(&path)? {
                work(&path)?;
            }
        }
    }
    Ok(())
}

/// The lock on a folder; none where another process holds it, or where the folder is not there any more.
fn lock(path: &Path) -> Result<Option<Flock<File>>> {
    let file = match file::open(path) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.at("open", path)?,
    };
    let held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => held,
        Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
        Err((_, errno)) => return Err(errno).at("lock", path),
    };
    let ours = held.metadata().at("look at", path)?;
    match fs::symlink_metadata(path) {
        Ok(now) if (now.dev(), now.ino()) == (ours.dev(), ours.ino()) => Ok(Some(held)),
        _ => Ok(None),
    }
}
