//! What is known of a sliver's mount in this boot: kept on the tmpfs, since some drivers do not show their layers.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use super::record;
use super::root::Root;
use crate::error::{Context, Result};
use crate::json::{FromJson, Json};
use crate::kind::Kind;
use crate::mount::mountinfo::SOURCE;
use crate::name::Name;
use crate::stay::Below;

/// A mount that this program made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mounted {
    /// The record's format.
    pub version: u64,
    /// The backend.
    pub backend: Kind,
    /// The source that mountinfo shows.
    pub source: &'static str,
    /// The st_dev of the view: what is held open of it has this device, in every namespace.
    pub device: u64,
}

impl FromJson for Mounted {
    fn from_json(json: &Json) -> Result<Self> {
        Ok(Self {
            version: json.number("version")?,
            backend: Kind::parse(json.text("backend")?)?,
            source: json.text("source")?,
            device: json.number("device")?,
        })
    }
}

impl Mounted {
    /// Notes that the sliver is mounted, where that is not what stands there from its last mount.
    pub fn note(root: &Root, name: &Name, backend: Kind, source: &'static str) -> Result<()> {
        let view = root.view(name);
        let device = fs::metadata(view).at("look at the view", view)?.dev();
        let mounted = Self { version: record::VERSION, backend, source, device };
        if Self::find(root, name) == Some(&mounted) {
            return Ok(());
        }
        record::write_volatile(root.run().below("mounted"), name.as_str(), &mounted)
    }

    /// What was noted in this boot, if it was. A note that cannot be read is none: mountinfo has the truth.
    pub fn find(root: &Root, name: &Name) -> Option<&'static Self> {
        record::read(root.mounted(name)).ok()
    }

    /// Forgets the note.
    pub fn forget(root: &Root, name: &Name) -> Result<()> {
        let path = root.mounted(name);
        match fs::remove_file(path) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
            done => done.at("remove", path),
        }
    }
}

/// The source that a view's mount carries: `sliverfs:` and the store's absolute path.
pub fn source(store: &Path) -> &'static str {
    format!("{SOURCE}{}", store.display()).leak()
}
