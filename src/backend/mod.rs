//! The ways in which a base and a store become a view: their dialects, their trial, and what is remembered of it.

pub mod dedup;
pub mod features;
pub mod fuse;
pub mod kernel;
pub mod probe;
pub mod seed;
pub mod store;
pub mod tree;
pub mod trial;
pub mod union;
pub mod verdict;
