//! Mounts: option strings, what is mounted where, and the one executor of plans.

pub mod disk;
pub mod exec;
pub mod fuse;
pub mod image;
pub mod mountinfo;
pub mod options;
pub mod plan;
pub mod private;
pub mod seed;
