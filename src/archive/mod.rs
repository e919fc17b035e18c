//! Archives from anywhere: what they are, what is in them, and their unpacking by rules that no archive can get around.

mod gzip;
mod header;
mod input;
mod layer;
mod pax;
mod place;
mod reader;
mod sparse;
mod stream;
mod tool;
mod unpack;
mod write;

pub use input::{Content, is_stdin, open};
pub use layer::unpack_layer;
pub use place::is_unnamed;
pub use stream::{Fault, Stream};
pub use unpack::{Policy, unpack};
pub use write::{Head, Tar};

use std::path::Path;
use std::rc::Rc;

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::tree::{self, shown};

/// Unpacks a tar, compressed or not, into the view at `view`: links on the way are resolved beneath the view's root.
pub fn unpack_beneath(archive: &Path, view: &Path) -> Result<()> {
    unpack(&mut *open_tar(archive)?, &tree::open(view)?, Policy::Beneath).map(drop)
}

/// Opens a tar to be unpacked, with its progress.
pub fn open_tar(archive: &Path) -> Result<Box<dyn Stream>> {
    let size = std::fs::metadata(archive).ok().filter(std::fs::Metadata::is_file).map(|meta| meta.len());
    let progress = Rc::new(Progress::new("unpacking", size));
    match open(archive, &progress)? {
        Content::Tar(stream) => Ok(stream),
        Content::Image(form, _) => {
            Err(Error::usage(format_args!("{} is a {} image and not a tar", archive.display(), form.name()))
                .way_out("give an archive to be unpacked"))
        }
    }
}

/// The refusal of an archive because of one of its entries.
fn refuse(entry: &[u8], why: impl std::fmt::Display) -> Error {
    Error::failed(format_args!("the archive is refused: its entry `{}` {why}", shown(entry).display()))
}
