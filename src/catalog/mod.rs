//! Bases, stores and slivers: their folders, records and locks, and their crash-safe publication.

pub mod lock;
pub mod record;
pub mod root;

pub use root::Root;
