//! sliverfs runs many LXC containers ("slivers") on one shared read-only base image.

pub mod backend;
pub mod catalog;
pub mod config;
pub mod error;
pub mod hash;
pub mod mount;
pub mod name;
pub mod shell;
pub mod size;
pub mod sys;
