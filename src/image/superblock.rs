//! The superblocks of squashfs (linux: fs/squashfs/squashfs_fs.h) and erofs (fs/erofs/erofs_fs.h), as far as they tell
//! whether an image is whole. Frozen formats; all numbers are little-endian.

use std::fs::File;
use std::path::Path;

use crate::catalog::base::Form;
use crate::error::{Context, Error, Result};
use crate::sys::file;

/// How many bytes of an image hold its superblock.
const HEAD: usize = 2048;

/// Tells an image by its first bytes.
pub fn detect(head: &[u8]) -> Option<Form> {
    if head.starts_with(b"hsqs") {
        Some(Form::Squashfs)
    } else if head.get(1024..1028) == Some(&0xE0F5_E1E2u32.to_le_bytes()) {
        Some(Form::Erofs)
    } else {
        None
    }
}

/// What an image says of itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The format.
    pub form: Form,
    /// Bytes that the file system takes; the file may be longer.
    pub size: u64,
    /// May there be extended attributes in it?
    pub attrs: bool,
}

impl Superblock {
    /// Reads the superblock of the image at `path`, and compares it with the file's length.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).at("open the image", path)?;
        let length = file.metadata().at("look at the image", path)?.len();
        let head = file::read_all(file, HEAD).at("read the image", path)?;
        let Some(block) = Self::parse(&head) else {
            return Err(Error::failed(format!(
                "{} has no superblock that this program knows",
                path.display()
            )));
        };
        if length < block.size {
            return Err(Error::failed(format!(
                "the image {} is cut off: it has {length} of {} bytes",
                path.display(),
                block.size
            ))
            .way_out("bring it here again"));
        }
        Ok(block)
    }

    fn parse(head: &[u8]) -> Option<Self> {
        let form = detect(head)?;
        match form {
            Form::Squashfs => {
                let version = (u16_at(head, 28)?, u16_at(head, 30)?);
                // The table of attributes; all ones where there is none.
                let attrs = u64_at(head, 56)? != u64::MAX;
                (version == (4, 0)).then_some(Self { form, size: u64_at(head, 40)?, attrs })
            }
            Form::Erofs => {
                let bits = u32::from(*head.get(1024 + 12)?);
                let size = u64::from(u32_at(head, 1024 + 36)?).checked_shl(bits)?;
                // Attributes stand at their inodes; only a walk tells.
                (9..=16).contains(&bits).then_some(Self { form, size, attrs: true })
            }
            Form::Directory => None,
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_le_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}
