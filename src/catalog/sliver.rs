//! Slivers: the records of the stores.

use std::fs::{self, File};
use std::path::Path;

use serde::Serialize;

use super::record;
use super::root::Root;
use super::sweep::{SWAPPED, kept_store, swapped_store};
use crate::error::{Class, Context, Error, Result};
use crate::json::{FromJson, Json};
use crate::kind::Kind;
use crate::mount::seed;
use crate::name::Name;
use crate::quota::{self, Limit, Means};
use crate::stay::{Below, for_good};
use crate::sum::Sum;
use crate::sys::file;

/// The record's file name, in the store's folder.
pub const FILE: &str = "sliver.json";

/// What is recorded of a sliver, in its store: move the folder, and the sliver moves.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sliver {
    /// The record's format.
    pub version: u64,
    /// The name.
    pub name: Name,
    /// The base that the store belongs to. Over another one its contents mean nothing.
    pub base: Name,
    /// The base's digest when the sliver was made.
    pub digest: &'static str,
    /// The backend that writes the store.
    pub backend: Kind,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// How often the store was converted: of two stores of one sliver, the newer one has more.
    #[serde(skip_serializing_if = "is_zero")]
    pub converted: u64,
    /// The bytes that it may add to its base, and what keeps it to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<&'static Limit>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for it so
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl FromJson for Sliver {
    fn from_json(json: &Json) -> Result<Self> {
        Ok(Self {
            version: json.number("version")?,
            name: Name::parse(json.text("name")?)?,
            base: Name::parse(json.text("base")?)?,
            digest: json.text("digest")?,
            backend: Kind::parse(json.text("backend")?)?,
            created: json.number("created")?,
            converted: json.count("converted"),
            quota: match json.get("quota") {
                Json::Null => None,
                limit => Some(for_good(Limit::from_json(limit)?)),
            },
        })
    }
}

impl Sliver {
    /// Loads a sliver's record.
    pub fn load(root: &Root, name: &Name) -> Result<&'static Self> {
        Self::load_open(root, name).map(|(sliver, _)| sliver)
    }

    /// The same, and the record's file.
    pub fn load_open(root: &Root, name: &Name) -> Result<(&'static Self, File)> {
        let path = root.store(name).below(FILE);
        let (sliver, file): (&Self, _) = record::read_open(path).map_err(|err| match err.errno() {
            Some(nix::errno::Errno::ENOENT) if swapped_store(root, name).exists() => Error::damaged(
                format_args!("a conversion of the store of `{name}` was cut"),
            )
            .way_out(format_args!("any command that works on it goes on from there: sliverfs mount {name}")),
            Some(nix::errno::Errno::ENOENT) if !root.store(name).exists() => {
                Error::usage(format_args!("there is no sliver `{name}` in {}", root.path().display()))
                    .way_out("`sliverfs list` shows what there is")
            }
            Some(nix::errno::Errno::ENOENT) => {
                Error::damaged(format_args!("the store {} has no record {FILE}", root.store(name).display()))
                    .way_out("put its record back, or move the folder out of the way")
            }
            _ => err,
        })?;
        if sliver.name != *name {
            return Err(Error::damaged(format_args!(
                "{} is the record of `{}`",
                path.display(),
                sliver.name
            ))
            .way_out("a store's folder has the sliver's name: rename the folder back"));
        }
        Ok((sliver, file))
    }

    /// Loads the record where there is one.
    pub fn find(root: &Root, name: &Name) -> Result<Option<&'static Self>> {
        if root.store(name).exists() { Self::load(root, name).map(Some) } else { Ok(None) }
    }

    /// The same with another limit.
    #[must_use]
    pub fn limited(&self, quota: Option<&'static Limit>) -> Self {
        Self { quota, ..*self }
    }

    /// The record of a store that takes this one's place, with a limit.
    #[must_use]
    #[inline(never)]
    pub fn anew(&self, quota: Option<&'static Limit>) -> Self {
        Self { converted: self.converted.plus(1), quota, ..*self }
    }

    /// Writes the record into a store's folder.
    pub fn write(&self, store: &Path) -> Result<()> {
        record::write(store, FILE, self)
    }

    /// Do the layers of its store lie in an image, which is mounted for it?
    pub fn has_image(&self) -> bool {
        quota::by(self.quota, Means::Image).is_some()
    }

    /// The limit of a store that is an image, in bytes; none where the backend keeps none.
    pub fn limit(&self, root: &Root) -> Option<u64> {
        if !self.backend.grows_image() {
            return None;
        }
        fs::metadata(root.store(&self.name).below(seed::STORE)).ok().map(|image| image.len())
    }

    /// The names of all slivers with a store, sorted.
    pub fn names(root: &Root) -> Result<Vec<Name>> {
        names_in(root.stores(), SWAPPED)
    }

    /// Do any slivers use the base, or stores that are kept of them? A record that cannot be read counts as one that does.
    pub fn users(root: &Root, base: &Name) -> Result<Vec<Name>> {
        let mut users = Vec::new();
        for name in Self::names(root)? {
            let kept = kept_store(root, &name).below(FILE);
            if kept.exists() && record::read::<Self>(kept).map_or(true, |kept| kept.base == *base) {
                users.push(name);
                continue;
            }
            match Self::load(root, &name) {
                Ok(sliver) if sliver.base == *base => users.push(name),
                Ok(_) => {}
                Err(err) if matches!(err.class(), Class::Damaged | Class::Unsupported) => users.push(name),
                Err(err) => return Err(err),
            }
        }
        Ok(users)
    }
}

/// The entries of a folder whose names are names of ours, sorted. Staging folders start with a dot and are none, but for what
/// stands in for another.
pub fn names_in(dir: &Path, stand_in: &str) -> Result<Vec<Name>> {
    let mut names = Vec::new();
    for name in file::names(dir).at("list", dir)? {
        let name = name.to_str().map(|name| name.strip_prefix(stand_in).unwrap_or(name));
        names.extend(name.and_then(|name| Name::parse(name).ok()));
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}
