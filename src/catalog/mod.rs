//! Bases, stores and slivers: their folders, records and locks, and their crash-safe publication.

pub mod lock;
pub mod mounted;
pub mod record;
pub mod root;
pub mod sliver;

pub use mounted::Mounted;
pub use root::Root;
pub use sliver::Sliver;
