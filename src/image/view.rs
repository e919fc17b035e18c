//! A look into an image: mounted where nobody else sees it, for as long as the look lasts.

use std::path::Path;

use nix::errno::Errno;
use serde::Serialize;

use super::Superblock;
use crate::error::{Context, Result};
use crate::form::Form;
use crate::json::{self, FromJson, Json};
use crate::mount::{exec, image, private, seed};
use crate::progress::Progress;
use crate::sys::xattr;
use crate::tree::{self, Dir, SELF, Summary};

/// What a look into an image found.
#[derive(Serialize)]
pub struct Seen {
    /// The digest of its tree and what was counted on the way.
    pub summary: Summary,
    /// This kernel does not show the attributes that the image may hold; the digest does not count them.
    pub hidden: bool,
}

/// Sums up the tree of the image `file`. `folder` is an empty or unimportant directory: in a mount namespace of its own the image
/// lies over it. `attrs` is false where the digest shall leave attributes out whether they show or not. `total` is
/// the number of bytes in it, where it is known.
pub fn look(file: &Path, form: Form, folder: &Path, attrs: bool, total: Option<u64>) -> Result<Seen> {
    let block = Superblock::read(file)?;
    // While a seed is mounted, no sliver on it can be.
    let _lock = if form == Form::Btrfs { Some(seed::lock(file)?) } else { None };
    let answer = private::run(folder, &mut || {
        image::mount_read_only(form.name(), file, folder)?;
        let seen = sum_up(folder, block.attrs, attrs, total);
        exec::unmount(folder)?;
        Ok(json::write(&seen?)?.leak())
    })?;
    let seen = Json::parse(answer)?;
    Ok(Seen { summary: Summary::from_json(seen.get("summary"))?, hidden: seen.is_true("hidden") })
}

fn sum_up(folder: &Path, may_have_attrs: bool, attrs: bool, total: Option<u64>) -> Result<Seen> {
    let root = tree::open(folder)?;
    let hidden = may_have_attrs && hides_attrs(&root).at("look for attributes in", folder)?;
    let progress = Progress::new("reading the image", total);
    // The paths of the tree begin at the image's root: where it was mounted means nothing to the reader.
    let summary = tree::digest(&root, b"", attrs && !hidden, &mut |bytes| progress.add(bytes))?;
    Ok(Seen { summary, hidden })
}

/// Does the kernel lack the attributes of this file system (CONFIG_SQUASHFS_XATTR, CONFIG_EROFS_FS_XATTR)? With them, a
/// name that is not set is ENODATA.
fn hides_attrs(root: &Dir) -> nix::Result<bool> {
    hides(xattr::get(&root.proc_path(SELF), c"trusted.sliverfs").map(drop))
}

fn hides(answer: nix::Result<()>) -> nix::Result<bool> {
    match answer {
        Ok(()) | Err(Errno::ENODATA) => Ok(false),
        Err(Errno::EOPNOTSUPP) => Ok(true),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernels_answer() {
        assert_eq!(hides(Ok(())), Ok(false));
        assert_eq!(hides(Err(Errno::ENODATA)), Ok(false));
        assert_eq!(hides(Err(Errno::EOPNOTSUPP)), Ok(true));
        assert_eq!(hides(Err(Errno::EIO)), Err(Errno::EIO));
    }
}
