//! The three states of a sliver: wanted, recorded, actual.

use serde::Serialize;

use crate::alive::{Namespace, Views};
use crate::catalog::{Root, Sliver};
use crate::config::Config;
use crate::error::{Class, Result};
use crate::lxc::Sockets;
use crate::mount::fuse;
use crate::name::Name;

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// Created and mounted.
    Mounted,
    /// Created.
    Created,
    /// UCI says nothing of it, or leaves it as it is.
    Any,
}

/// What the records say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Recorded {
    /// There is a store with a good record.
    Created,
    /// There is a store, but its record is damaged, or of a newer version.
    Unreadable,
    /// There is none.
    Missing,
}

/// What the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Actual {
    /// Its container runs.
    Running,
    /// Its view is up.
    Mounted,
    /// Its view is up, but read-only: the driver cannot write to the store.
    ReadOnly,
    /// Its view is mounted, but the daemon that served it ended; its container may run.
    Dead,
    /// Mounted only in another mount namespace.
    Elsewhere,
    /// Mounted nowhere.
    Unmounted,
}

impl Wanted {
    /// As a word in a table.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Mounted => "mounted",
            Self::Created => "created",
            Self::Any => "-",
        }
    }

    /// What a configuration wants of a sliver.
    pub fn of(config: &Config, name: &Name) -> Self {
        match config.slivers.iter().find(|sliver| sliver.name == *name && sliver.enabled) {
            Some(sliver) if sliver.mount => Self::Mounted,
            Some(_) => Self::Created,
            None => Self::Any,
        }
    }
}

impl Recorded {
    /// As a word in a table.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Unreadable => "unreadable",
            Self::Missing => "missing",
        }
    }

    /// What loading a record came to. Any other failure than an unreadable record is one of the caller.
    pub fn of(loaded: Result<&'static Sliver>) -> Result<(Self, Option<&'static Sliver>)> {
        match loaded {
            Ok(sliver) => Ok((Self::Created, Some(sliver))),
            Err(err) if matches!(err.class(), Class::Damaged | Class::Unsupported) => {
                crate::warn!("{err}");
                Ok((Self::Unreadable, None))
            }
            Err(err) => Err(err),
        }
    }
}

impl Actual {
    /// As a word in a table.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Mounted => "mounted",
            Self::ReadOnly => "read-only",
            Self::Dead => "dead",
            Self::Elsewhere => "elsewhere",
            Self::Unmounted => "unmounted",
        }
    }

    /// What the kernel says of a sliver.
    pub fn of(root: &Root, name: &Name, views: &Views, sockets: &Sockets) -> Self {
        let mut actual = Self::Unmounted;
        for place in views.of(root, name) {
            match place.namespace {
                // Where the lock cannot be asked for, nothing says that it is dead.
                Namespace::Ours if place.is_served() && !fuse::serves(root.upper(name)).unwrap_or(true) => {
                    return Self::Dead;
                }
                Namespace::Ours if place.read_only => return Self::ReadOnly,
                Namespace::Ours => actual = Self::Mounted,
                _ if actual == Self::Unmounted => actual = Self::Elsewhere,
                _ => {}
            }
        }
        if sockets.running(root, name) { Self::Running } else { actual }
    }
}
