//! sliverfs runs many LXC containers ("slivers") on one shared read-only base image.

pub mod catalog;
pub mod config;
pub mod error;
pub mod name;
pub mod size;
pub mod sys;
