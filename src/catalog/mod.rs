//! Bases, stores and slivers: their folders, records and locks, and their crash-safe publication.

pub mod base;
pub mod import;
pub mod lock;
pub mod mounted;
pub mod record;
pub mod root;
pub mod sliver;
pub mod staging;
pub mod sweep;

pub use mounted::Mounted;
pub use root::Root;
pub use sliver::Sliver;
