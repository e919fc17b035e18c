//! Bases: their records, and where what they describe lies.

use std::fs;
use std::path::Path;

use serde::Serialize;

pub use super::import::{Added, add, plan};
use super::record;
use super::root::Root;
use super::sliver::names_in;
use crate::error::{Context, Error, Result};
use crate::form::Form;
use crate::json::{FromJson, Json};
use crate::name::Name;
use crate::stay::Below;
use crate::tree;

/// The record's file name, in the base's folder.
pub const FILE: &str = "base.json";

/// What became of the extended attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Attrs {
    /// The tree has some, and the digest counts them.
    Kept,
    /// The tree has none.
    None,
    /// The image may have some, but the kernel that added it does not show them: file capabilities have no effect there, and
    /// the digest does not count them.
    Hidden,
}

impl Attrs {
    /// A word for tables.
    pub fn name(self) -> &'static str {
        match self {
            Attrs::Kept => "kept",
            Attrs::None => "none",
            Attrs::Hidden => "hidden by the kernel that added it",
        }
    }
}

/// What is recorded of a base. It never changes after the base was published.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Base {
    /// The record's format.
    pub version: u64,
    /// The name.
    pub name: Name,
    /// What the tree is kept in.
    pub form: Form,
    /// The digest of the whole tree (docs/digest.md).
    pub digest: &'static str,
    /// Names below the tree's root.
    pub entries: u64,
    /// Bytes of all files, as read.
    pub bytes: u64,
    /// Bytes on the disk, of the tree or of the image.
    pub disk: u64,
    /// Where it came from: an absolute path, or `-` for standard input. Bytes that are no text stand as `\xNN`.
    pub source: &'static str,
    /// When it was added, in seconds since 1970.
    pub created: u64,
    /// SHA-256 of the image file, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image_sha256: Option<&'static str>,
    /// What became of the extended attributes.
    pub xattrs: Attrs,
}

impl FromJson for Base {
    fn from_json(json: &Json) -> Result<Self> {
        let form = json.text("form")?;
        let xattrs = json.text("xattrs")?;
        Ok(Self {
            version: json.number("version")?,
            name: Name::parse(json.text("name")?)?,
            form: Form::ALL.into_iter().find(|known| known.name() == form).ok_or_else(|| unknown("form"))?,
            digest: json.text("digest")?,
            entries: json.number("entries")?,
            bytes: json.number("bytes")?,
            disk: json.number("disk")?,
            source: json.text("source")?,
            created: json.number("created")?,
            image_sha256: json.text("image_sha256").ok(),
            xattrs: match xattrs {
                "kept" => Attrs::Kept,
                "none" => Attrs::None,
                "hidden" => Attrs::Hidden,
                _ => return Err(unknown("xattrs")),
            },
        })
    }
}

#[cold]
fn unknown(key: &str) -> Error {
    Error::damaged(format_args!("`{key}` is nothing that this program knows"))
}

impl Base {
    /// Loads a base's record.
    pub fn load(root: &Root, name: &Name) -> Result<&'static Self> {
        let path = root.base(name).below(FILE);
        let base: &Self = record::read(path).map_err(|err| match err.errno() {
            Some(nix::errno::Errno::ENOENT) if !root.base(name).exists() => {
                Error::usage(format_args!("there is no base `{name}` in {}", root.path().display()))
                    .way_out("`sliverfs base list` shows what there is; `sliverfs base add` adds one")
            }
            Some(nix::errno::Errno::ENOENT) => {
                Error::damaged(format_args!("the base {} has no record {FILE}", root.base(name).display()))
                    .way_out("put its record back, or move the folder out of the way")
            }
            _ => err,
        })?;
        if base.name != *name {
            return Err(Error::damaged(format_args!("{} is the record of `{}`", path.display(), base.name))
                .way_out("a base's folder has the base's name: rename the folder back"));
        }
        Ok(base)
    }

    /// Loads the record where there is such a base.
    pub fn find(root: &Root, name: &Name) -> Result<Option<&'static Self>> {
        if root.base(name).symlink_metadata().is_ok() { Self::load(root, name).map(Some) } else { Ok(None) }
    }

    /// The names of all bases, sorted. What is being added or removed has none.
    pub fn names(root: &Root) -> Result<Vec<Name>> {
        names_in(root.bases(), "")
    }

    /// The base's image and its file-system type; none for a directory.
    pub fn image(&self, root: &Root) -> Option<(&'static str, &'static Path)> {
        match self.form {
            Form::Directory => None,
            Form::Squashfs | Form::Erofs | Form::Btrfs => Some((self.form.name(), self.content(root))),
        }
    }

    /// The folder of the tree or the file of the image.
    pub fn content(&self, root: &Root) -> &'static Path {
        root.base(&self.name).below(self.form.file())
    }

    /// The same, where it is there: a base that lost it is damaged.
    pub fn present(&self, root: &Root) -> Result<&'static Path> {
        let content = self.content(root);
        let lost = match fs::symlink_metadata(content) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => "not there",
            // Where another disk was mounted, and is not.
            Ok(there) if there.is_dir() && self.entries > 0 && tree::is_empty(content)? => "empty",
            looked => return looked.map(|_| content).at("look at", content),
        };
        Err(Error::damaged(format_args!(
            "the base `{}` has lost its content: {} is {lost}",
            self.name,
            content.display()
        ))
        .way_out("put it back, from a copy or another node"))
    }

    /// Writes the record into a folder of a base.
    pub fn write(&self, folder: &Path) -> Result<()> {
        record::write(folder, FILE, self)
    }
}
