//! Work in a mount namespace of its own: whatever happens to it, no mount of it stays.

use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::error::{Context, Result};
use crate::sys::child;

/// Runs `work` in a child with a private mount namespace, and returns its answer.
pub fn run(work: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    child::answer(|| {
        let slash = Path::new("/");
        unshare(CloneFlags::CLONE_NEWNS).at("make a mount namespace from", slash)?;
        mount(None::<&str>, slash, None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .at("make private", slash)?;
        work()
    })
}
