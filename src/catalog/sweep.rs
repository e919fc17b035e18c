//! What a crash leaves of a sliver: folders that are hidden behind a leading dot, half made or half removed.

use std::path::PathBuf;

use super::root::Root;
use crate::error::Result;
use crate::name::Name;
use crate::tree;

/// A store that is being made.
pub fn new_store(root: &Root, name: &Name) -> PathBuf {
    root.stores().join(format!(".new.{name}"))
}

/// A store that is being removed.
pub fn removed_store(root: &Root, name: &Name) -> PathBuf {
    root.stores().join(format!(".rm.{name}"))
}

/// A container's folder that is being removed.
pub fn removed_container(root: &Root, name: &Name) -> PathBuf {
    root.path().join(format!(".rm.{name}"))
}

/// Clears what an interrupted `destroy` left of the name. The sliver's lock is held, so nobody is at it.
pub fn removed(root: &Root, name: &Name) -> Result<()> {
    clear(&[removed_store(root, name), removed_container(root, name)])
}

/// Clears what an interrupted `create` or `destroy` left of the name. The sliver's lock is held.
pub fn all(root: &Root, name: &Name) -> Result<()> {
    clear(&[new_store(root, name)])?;
    removed(root, name)
}

/// The folders that an interrupted `create` or `destroy` left of the name.
pub fn left(root: &Root, name: &Name) -> Vec<PathBuf> {
    let mut dirs = vec![new_store(root, name), removed_store(root, name), removed_container(root, name)];
    dirs.retain(|dir| dir.symlink_metadata().is_ok());
    dirs
}

fn clear(dirs: &[PathBuf]) -> Result<()> {
    dirs.iter().filter(|dir| dir.exists()).try_for_each(|dir| tree::remove_path(dir))
}
