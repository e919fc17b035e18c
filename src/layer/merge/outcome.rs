//! What a rebase tells of each name.

use std::ffi::CStr;

/// Whose version stays of what both sides changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    /// The sliver's, and the new base's is put in beside it.
    Both,
    /// The sliver's.
    Ours,
    /// The new base's.
    Theirs,
}

/// What becomes of a name that the store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It stays as the sliver has it.
    Keep,
    /// It comes from the new base.
    Take,
    /// The content of one side, and owner, mode or attributes of the other.
    Merge,
    /// Both sides changed it.
    Conflict,
}

impl Action {
    /// For a plan and for JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Take => "take",
            Self::Merge => "merge",
            Self::Conflict => "conflict",
        }
    }
}

/// A name and what becomes of it.
pub struct Outcome<'a> {
    /// The path in the view.
    pub path: &'a [u8],
    /// What becomes of it.
    pub action: Action,
    /// Of a conflict: what both sides did. Of a directory that is kept, in a plan: that it hides what the new base changed.
    pub why: &'static str,
    /// Of a conflict: the name that the new base's version gets in the same folder.
    pub beside: Option<&'a CStr>,
}
