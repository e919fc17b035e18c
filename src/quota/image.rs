//! A store's layers in an ext4 of their own, in a file whose size is the limit.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::sys::statfs;

/// The image, in the store's folder.
pub const FILE: &str = "quota.img";

/// The folder that the image is mounted on, in the store's folder.
pub const POINT: &str = "quota";

/// The folder of a store in which its layers lie: the store's own, or the one that its image is mounted on.
pub fn content(store: &Path) -> PathBuf {
    let point = store.join(POINT);
    if point.is_dir() && store.join(FILE).exists() { point } else { store.to_owned() }
}

/// Is the store's image mounted in our mount namespace?
pub fn is_mounted(store: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).map(|meta| meta.dev()).ok();
    device(store).is_some_and(|own| device(&store.join(POINT)).is_some_and(|device| device != own))
}

/// Bytes of the image that nobody else can have: all but what its file system has free.
pub fn used(store: &Path) -> Result<u64> {
    let path = store.join(FILE);
    let file = File::open(&path).at("open the image", &path)?;
    let size = file.metadata().at("look at", &path)?.len();
    let free = if is_mounted(store) {
        statfs::of(&store.join(POINT))?.free
    } else {
        let mut block = [0; 1024];
        file.read_exact_at(&mut block, 1024).at("read", &path)?;
        free_of(&block).ok_or_else(|| {
            Error::damaged(format!("{} holds no ext4", path.display()))
                .way_out("put a copy of it back, or destroy the sliver")
        })?
    };
    Ok(size.saturating_sub(free))
}

/// The free bytes that a superblock tells (fs/ext4/ext4.h: struct ext4_super_block; little endian).
fn free_of(block: &[u8; 1024]) -> Option<u64> {
    let word = |at: usize| {
        let bytes = block.get(at..)?.first_chunk::<4>()?;
        Some(u64::from(u32::from_le_bytes(*bytes)))
    };
    if word(0x38)? & 0xffff != 0xef53 {
        return None;
    }
    // The upper halves count only where blocks have 64 bits.
    let high = if word(0x60)? & 0x80 == 0 { 0 } else { word(0x158)? };
    (high << 32 | word(0xc)?).checked_mul(1 << (10 + word(0x18)?.min(6)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_bytes_of_a_superblock() {
        let mut block = [0; 1024];
        assert_eq!(free_of(&block), None);
        block[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        block[0xc..0x10].copy_from_slice(&7u32.to_le_bytes());
        block[0x18] = 2;
        block[0x158] = 1;
        assert_eq!(free_of(&block), Some(7 << 12));
        block[0x60] = 0x80;
        assert_eq!(free_of(&block), Some(((1 << 32) + 7) << 12));
    }
}
