//! File-system images: told by their superblocks, looked at through a mount that nobody else sees, and packed by the
//! installed programs.

mod pack;
mod seed;
mod superblock;
mod view;

pub use pack::{Packer, packer, require};
pub use seed::typed as seed_typed;
pub use superblock::{HEAD, Superblock, detect};
pub use view::{Seen, look};

/// What can be done where no program packs.
const NOT_PACKED: &str = ", or add the base without --pack";
