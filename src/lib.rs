//! sliverfs runs many LXC containers ("slivers") on one shared read-only base image.

// What the ipk has no room for: clippy.toml.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod alive;
pub mod archive;
pub mod backend;
pub mod catalog;
pub mod cli;
pub mod cmd;
pub mod config;
pub mod error;
pub mod flock;
pub mod form;
pub mod hash;
pub mod image;
pub mod json;
pub mod kind;
pub mod layer;
pub mod logger;
pub mod lxc;
pub mod mount;
pub mod name;
pub mod out;
pub mod proc;
pub mod progress;
pub mod quota;
pub mod shell;
pub mod size;
pub mod state;
pub mod stay;
pub mod sum;
pub mod sys;
pub mod tree;
pub mod usage;
pub mod view;
