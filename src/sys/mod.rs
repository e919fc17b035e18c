//! Safe wrappers of system calls that the standard library and nix do not wrap. The only module with `unsafe`.
#![allow(unsafe_code)]

pub mod child;
pub mod loopdev;
pub mod statfs;
pub mod sync;
pub mod tool;
pub mod xattr;
