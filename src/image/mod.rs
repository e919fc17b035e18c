//! File-system images: told by their superblocks, looked at through a mount that nobody else sees, and packed by the
//! installed programs.

mod pack;
mod seed;
mod superblock;
mod view;

pub use pack::{Packer, packer, require, run_on};
pub use seed::typed as seed_typed;
pub use superblock::{HEAD, Superblock, detect};
pub use view::{Seen, look};
