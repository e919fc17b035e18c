//! What a trial came to.

use std::fmt;

use serde::Serialize;

use super::features::Features;
use crate::error::Result;
use crate::json::{FromJson, Json};
use crate::kind::Kind;

/// What is known of a kind on this kernel and disk. Printed by `probe --json`: see docs/json.md.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Verdict {
    /// The kind.
    pub kind: Kind,
    /// The kernel lists its file system.
    pub offered: bool,
    /// A trial on this disk succeeded.
    pub works: bool,
    /// Why not, or why `auto` takes it or not, in a sentence; none where the trial says all.
    pub reason: Option<&'static str>,
    /// False where the reason can pass by itself (a full disk, missing rights): such a verdict is not remembered.
    pub lasting: bool,
    /// `auto` may take it.
    pub auto: bool,
    /// The optional mount options that the driver knows.
    pub features: Features,
}

impl FromJson for Verdict {
    fn from_json(json: &Json) -> Result<Self> {
        Ok(Self {
            kind: Kind::parse(json.text("kind")?)?,
            offered: json.is_true("offered"),
            works: json.is_true("works"),
            reason: json.text("reason").ok(),
            lasting: json.is_true("lasting"),
            auto: json.is_true("auto"),
            features: Features::from_json(json.get("features")),
        })
    }
}

impl Verdict {
    /// It works.
    pub fn yes(kind: Kind) -> Self {
        let features = Features::default();
        Self { kind, offered: true, works: true, reason: None, lasting: true, auto: true, features }
    }

    /// It does not work, for this reason.
    pub fn no(kind: Kind, offered: bool, reason: impl fmt::Display, lasting: bool) -> Self {
        Self { offered, works: false, lasting, ..Self::by_name(kind, reason) }
    }

    /// It does not work, since the kernel does not have its file system.
    pub fn unlisted(kind: Kind, fstype: &str) -> Self {
        let reason =
            format_args!("this kernel does not list {fstype}, and no module of that name could be loaded");
        Self::no(kind, false, reason, true)
    }

    /// It works, but `auto` does not take it, for this reason.
    pub fn by_name(kind: Kind, reason: impl fmt::Display) -> Self {
        Self { auto: false, ..Self::because(kind, &reason) }
    }

    /// It works, and `auto` takes it for this reason.
    pub fn because(kind: Kind, reason: &dyn fmt::Display) -> Self {
        Self { reason: Some(reason.to_string().leak()), ..Self::yes(kind) }
    }

    /// With what the driver knows.
    #[must_use]
    pub fn with(self, features: Features) -> Self {
        Self { features, ..self }
    }

    /// The verdict where the trial itself could not be made.
    pub fn untried(kind: Kind, reason: impl fmt::Display) -> Self {
        Self::no(kind, true, reason, false)
    }
}
