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
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(heapless::String<MAX>);

impl Name {
    /// Takes a text as a name, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        match text.parse() {
            Ok(name) if starts_well && text.chars().all(legal) => Ok(Self(name)),
            _ => Err(Error::usage(format_args!("`{}` is not a name", escape(text.as_bytes())))
                .way_out("a name is 1 to 63 of A-Z a-z 0-9 . _ -, and starts with a letter or a digit")),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
