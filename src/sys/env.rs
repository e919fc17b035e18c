//! The environment. std's way locks it against threads that change it, of which this program has none.

use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use nix::libc;

/// A variable's value.
pub fn var(name: &CStr) -> Option<OsString> {
    // SAFETY: the name ends, and nobody changes the environment.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: getenv(3) gives a text with an end, which stays as long as nobody changes the environment.
    Some(OsStr::from_bytes(unsafe { CStr::from_ptr(value) }.to_bytes()).to_owned())
}
