//! Names of bases and slivers, checked at the edge.

use std::fmt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::out::escape;

/// The longest name: a host name's label (RFC 1035), since LXC gives the name to the container.
pub const MAX: usize = 63;

/// A base's or a sliver's name: `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`.
///
/// It holds no `/`, no `,`, no `:`, no `\` and no white space, and never starts with a dot, so that it can stand in
/// a path, a mount option and a message as it is, and never meets `.base`, `.store` or a staging folder.
///
/// A name is carried far and to many places. It stays until the program ends, so that it is copied and not cloned, and no code
/// stands anywhere to drop it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(&'static str);

impl Name {
    /// Takes a text as a name, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self> {
        let legal = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
        let starts_well = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if text.len() <= MAX && starts_well && text.bytes().all(legal) {
            return Ok(Self(text.to_owned().leak()));
        }
        Err(Error::usage(format_args!("`{}` is not a name", escape(text.as_bytes())))
            .way_out("a name is 1 to 63 of A-Z a-z 0-9 . _ -, and starts with a letter or a digit"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl AsRef<Path> for Name {
    fn as_ref(&self) -> &Path {
        Path::new(self.as_str())
    }
}

impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_name() {
        let longest = "a".repeat(MAX);
        for good in ["a", "0", "exp-1", "debian_12.5", "A.b", longest.as_str()] {
            assert!(Name::parse(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(MAX + 1);
        for bad in [
            "",
            ".",
            "..",
            ".base",
            "-a",
            "_a",
            "a/b",
            "a b",
            "a,b",
            "a:b",
            "a\\b",
            "a\nb",
            "ä",
            "a\0",
            too_long.as_str(),
        ] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }
}
