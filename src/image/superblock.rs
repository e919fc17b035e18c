//! The superblocks of squashfs (linux: fs/squashfs/squashfs_fs.h), erofs (fs/erofs/erofs_fs.h) and Btrfs
//! (uapi/linux/btrfs_tree.h), as far as they tell whether an image is whole. Frozen formats; all numbers are little-endian.

use std::path::Path;

use crate::error::{Context, Error, Result};
use crate::form::Form;
use crate::sys::file;

/// How many bytes of an image hold its superblock, whatever it is.
pub const HEAD: usize = BTRFS + 4096;

/// Where the superblock of Btrfs stands.
const BTRFS: usize = 64 << 10;

/// The flag of a Btrfs that others grow from (BTRFS_SUPER_FLAG_SEEDING).
const SEEDING: u64 = 1 << 32;

/// Tells an image by its first bytes.
pub fn detect(head: &[u8]) -> Option<Form> {
    if head.starts_with(b"hsqs") {
        Some(Form::Squashfs)
    } else if head.get(1024..1028) == Some(&0xE0F5_E1E2u32.to_le_bytes()) {
        Some(Form::Erofs)
    } else if head.get(BTRFS + 64..BTRFS + 72) == Some(b"_BHRfS_M") {
        Some(Form::Btrfs)
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
    /// The number of the image's device in a Btrfs of several; 0 for other formats.
    pub device: u64,
}

impl Superblock {
    /// Reads the superblock of the image at `path`, and compares it with the file's length.
    pub fn read(path: &Path) -> Result<Self> {
        let file = file::open(path).at("open the image", path)?;
        let length = file.metadata().at("look at the image", path)?.len();
        let head = file::read_all(file, HEAD).at("read the image", path)?;
        let Some(block) = Self::parse(&head) else {
            return Err(Error::failed(format_args!(
                "{} has no superblock that this program knows",
                path.display()
            )));
        };
        if block.form == Form::Btrfs {
            seed(&head, path)?;
        }
        if length < block.size {
            return Err(Error::failed(format_args!(
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
                (version == (4, 0)).then_some(Self { form, size: u64_at(head, 40)?, attrs, device: 0 })
            }
            Form::Erofs => {
                let bits = u32::from(*head.get(1024 + 12)?);
                let size = u64::from(u32_at(head, 1024 + 36)?).checked_shl(bits)?;
                // Attributes stand at their inodes; only a walk tells.
                (9..=16).contains(&bits).then_some(Self { form, size, attrs: true, device: 0 })
            }
            Form::Btrfs => {
                let (size, device) = (u64_at(head, BTRFS + 112)?, u64_at(head, BTRFS + 201)?);
                Some(Self { form, size, attrs: true, device })
            }
            Form::Directory => None,
        }
    }
}

/// Refuses a Btrfs that nothing can grow from, or that is not all in this image.
fn seed(head: &[u8], path: &Path) -> Result<()> {
    let number = |at| u64_at(head, BTRFS + at).unwrap_or(0);
    if number(56) & SEEDING == 0 {
        return Err(Error::usage(format_args!("the image {} is a Btrfs, but no seed", path.display()))
            .way_out("unmount the source, make it a seed with `btrfstune -S 1`, and add it again"));
    }
    match number(136) {
        1 => Ok(()),
        devices => Err(Error::usage(format_args!(
            "the image {} is one of {devices} devices of a Btrfs",
            path.display()
        ))
        .way_out("make a seed of one device")),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_le_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

#[inline(never)]
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}
