//! Mount options as one bounded string that raw text never enters.

use std::fmt::Write;

use crate::error::{Error, Result};
use crate::out::escape;

/// mount(2) copies one page of options: 4,095 bytes and a NUL on the smallest page.
pub const MAX: usize = 4095;

/// The option string of one mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(heapless::String<MAX>);

impl Options {
    /// No options yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `key=value`, or `key` alone where `value` is empty.
    ///
    /// Refuses a value that any of the union file systems would read as more than one value: they differ in what they
    /// take as an escape (mini_fo and overlayfs know none), so nothing that needs one is let through.
    pub fn add(&mut self, key: &str, value: &str) -> Result<()> {
        if let Some(bad) = value.chars().find(|c| matches!(c, ',' | ':' | '\\' | '=') || c.is_ascii_control())
        {
            return Err(Error::usage(format_args!(
                "`{}` cannot be a mount option: it holds `{}`",
                escape(value.as_bytes()),
                escape(&[u8::try_from(bad).unwrap_or(b'?')])
            )));
        }
        self.push(key, value)
    }

    /// Adds the branches of an aufs: `br=RW=rw:RO=ro`, whose parts were checked as values.
    pub fn add_branches(&mut self, writable: &str, read_only: &str) -> Result<()> {
        let mut parts = Self::new();
        parts.add("", writable)?;
        parts.add("", read_only)?;
        self.push("br", &format!("{writable}=rw:{read_only}=ro"))
    }

    /// Adds an option that this program spells itself.
    pub fn flag(&mut self, option: &'static str) -> Result<()> {
        self.push(option, "")
    }

    /// The string as mount(2) takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn push(&mut self, key: &str, value: &str) -> Result<()> {
        let comma = if self.0.is_empty() { "" } else { "," };
        let equals = if value.is_empty() { "" } else { "=" };
        write!(self.0, "{comma}{key}{equals}{value}").map_err(|_| {
            Error::usage(format_args!(
                "the mount options are longer than {MAX} bytes, which mount(2) takes at most"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_never_become_options() {
        let mut options = Options::new();
        options.add("lowerdir", ".base/b/tree").unwrap();
        options.flag("index=off").unwrap();
        assert_eq!(options.as_str(), "lowerdir=.base/b/tree,index=off");
        for bad in ["a,b", "a:b", "a\\b", "a\nb", "a=rw"] {
            assert!(options.add("upperdir", bad).is_err(), "{bad:?}");
            assert!(options.add_branches(bad, "b").is_err(), "{bad:?}");
        }
        assert_eq!(options.as_str(), "lowerdir=.base/b/tree,index=off");
    }

    #[test]
    fn one_page_and_no_byte_more() {
        let mut options = Options::new();
        options.add("a", &"x".repeat(MAX - 2)).unwrap();
        assert!(options.flag("b").is_err());
    }
}
