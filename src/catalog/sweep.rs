//! What a crash leaves of a sliver: folders that are hidden behind a leading dot, half made or half removed.

use std::fs;
use std::path::Path;

use super::root::Root;
use crate::error::{Context, Result};
use crate::name::Name;
use crate::quota::held::remove_store;
use crate::stay::Below;
use crate::sys::{file, sync};

/// The start of the name of a folder in which something is tried. No sliver's name starts with a dot.
pub const TRIAL: &str = ".probe.";

/// What stands beside a store, hidden by this prefix.
fn hidden(root: &Root, prefix: &str, name: &Name) -> &'static Path {
    root.stores().below(&[prefix, name.as_str()].concat())
}

/// A store that is being made.
pub fn new_store(root: &Root, name: &Name) -> &'static Path {
    hidden(root, ".new.", name)
}

/// A store that is being removed.
pub fn removed_store(root: &Root, name: &Name) -> &'static Path {
    hidden(root, ".rm.", name)
}

/// The store as it was before it was converted; or, when a crash cut that, the new one that was never published.
pub fn kept_store(root: &Root, name: &Name) -> &'static Path {
    hidden(root, ".old.", name)
}

/// The slivers that such a store is kept of, sorted.
pub fn kept(root: &Root) -> Result<Vec<Name>> {
    hidden_in(&[root.stores()], &[".old."])
}

/// What the store's folder is called while it changes places with another one, on a kernel that cannot do that at once.
pub fn swapped_store(root: &Root, name: &Name) -> &'static Path {
    hidden(root, SWAPPED, name)
}

/// What the name of such a folder starts with.
pub const SWAPPED: &str = ".swap.";

/// Goes on where an exchange of two stores was cut. The sliver's lock is held.
pub fn settle(root: &Root, name: &Name) -> Result<()> {
    let swapped = swapped_store(root, name);
    if swapped.symlink_metadata().is_err() {
        return Ok(());
    }
    let free = |path: &&'static Path| path.symlink_metadata().is_err();
    match [root.store(name), kept_store(root, name), new_store(root, name)].into_iter().find(free) {
        Some(to) => {
            fs::rename(swapped, to).at("rename to", to)?;
            sync::dir(root.stores())
        }
        // Nothing is missing: it may stay where it cannot be removed.
        None => {
            told(remove_store(swapped));
            Ok(())
        }
    }
}

/// After what was wanted is done: what could not be removed is told, and stays for the next command, or for `check --repair`.
pub fn told(removed: Result<()>) {
    if let Err(err) = removed {
        crate::warn!("{err}");
    }
}

/// Removes the store that was kept when the sliver was converted, and one that came to nothing. The sliver's lock is held.
pub fn drop_kept(root: &Root, name: &Name) -> Result<()> {
    let (kept, removed) = (kept_store(root, name), removed_store(root, name));
    new(root, name)?;
    if kept.symlink_metadata().is_err() {
        return Ok(());
    }
    clear(std::slice::from_ref(&removed))?;
    fs::rename(kept, removed).at("rename to", removed)?;
    // Half of it would be no store to go back to: it is hidden for good before anything of it goes.
    sync::dir(root.stores()).inspect_err(|_| {
        let _removed_by_the_next = fs::rename(removed, kept);
    })?;
    remove_store(removed)
}

/// A container's folder that is being removed.
pub fn removed_container(root: &Root, name: &Name) -> &'static Path {
    root.path().below(&[".rm.", name.as_str()].concat())
}

/// Clears what an interrupted `destroy` left of the name. The sliver's lock is held, so nobody is at it.
pub fn removed(root: &Root, name: &Name) -> Result<()> {
    clear(&[removed_store(root, name), removed_container(root, name)])
}

/// Clears what an interrupted `create`, `convert` or `destroy` left of the name, and the store that `convert` kept. The sliver's
/// lock is held.
pub fn all(root: &Root, name: &Name) -> Result<()> {
    clear(&[new_store(root, name), kept_store(root, name)])?;
    removed(root, name)
}

/// The folders that interrupted commands left of the name, and the store that `convert` kept.
pub fn left(root: &Root, name: &Name) -> Vec<&'static Path> {
    let mut dirs = vec![
        new_store(root, name),
        kept_store(root, name),
        removed_store(root, name),
        removed_container(root, name),
    ];
    dirs.retain(|dir| dir.symlink_metadata().is_ok());
    dirs
}

/// Clears a store that is being made. The sliver's lock is held.
pub fn new(root: &Root, name: &Name) -> Result<()> {
    clear(&[new_store(root, name)])
}

/// The names of which there may be such folders, sorted.
pub fn names(root: &Root) -> Result<Vec<Name>> {
    hidden_in(&[root.stores(), root.path()], &[".new.", ".rm.", ".old.", SWAPPED])
}

fn hidden_in(dirs: &[&'static Path], prefixes: &[&str]) -> Result<Vec<Name>> {
    let mut names = Vec::new();
    for dir in dirs {
        for file in file::names(dir).at("list", dir)? {
            let hidden =
                file.to_str().and_then(|file| prefixes.iter().find_map(|prefix| file.strip_prefix(prefix)));
            names.extend(hidden.and_then(|name| Name::parse(name).ok()));
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

fn clear(dirs: &[&'static Path]) -> Result<()> {
    dirs.iter().filter(|dir| dir.exists()).try_for_each(|dir| remove_store(dir))
}
