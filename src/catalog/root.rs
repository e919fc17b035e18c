//! LXCPATH and its folders, and the run folder that belongs to it.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::lock::Lock;
use super::{record, sweep};
use crate::error::{Context, Error, Result};
use crate::json::{FromJson, Json};
use crate::name::Name;
use crate::out::escape;
use crate::quota::image;
use crate::stay::{Below, for_good, stay};
use crate::sys::file;

/// The marker's name: it says that this is the disk that carries the slivers, and not its empty mount point.
pub const MARKER: &str = ".sliverfs";

/// Where the state of this boot lives, in a folder of its own: a tmpfs, so that nothing here wears flash.
const RUN: &str = "/var/run";

/// LXCPATH: where the bases, the stores and the views of a node lie.
pub struct Root {
    path: &'static Path,
    /// Made once: each path that is made stays.
    stores: &'static Path,
    run: &'static Path,
}

#[derive(Serialize)]
struct Marker {
    version: u64,
}

impl FromJson for Marker {
    fn from_json(json: &Json) -> Result<Self> {
        Ok(Self { version: json.number("version")? })
    }
}

impl Root {
    /// Opens an LXCPATH that carries the marker.
    pub fn open(path: &Path) -> Result<&'static Self> {
        let root = Self::locate(path)?;
        let marker = root.path.below(MARKER);
        match record::read::<Marker>(marker) {
            Ok(_) => Ok(root),
            Err(err) if err.errno() == Some(nix::errno::Errno::ENOENT) => {
                Err(Error::failed(format_args!("{} does not carry slivers", path.display())).way_out(
                    format_args!(
                        "if its disk is not mounted yet, mount it; else `sliverfs --lxcpath {} init` once",
                        path.display()
                    ),
                ))
            }
            Err(err) => Err(err),
        }
    }

    /// Puts the marker and the folders in place where they are missing.
    pub fn init(path: &Path) -> Result<&'static Self> {
        let root = Self::locate(path)?;
        for dir in [root.bases(), root.stores()] {
            // For root only: tenants make set-id programs and devices in their stores. The kernel needs no way in.
            match file::make_dir(dir, 0o700) {
                Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => made.at("create", dir)?,
            }
        }
        if !root.path.below(MARKER).exists() {
            record::write(root.path, MARKER, &Marker { version: record::VERSION })?;
        }
        Self::open(path)
    }

    /// Finds the folder and its run folder, marker or not.
    pub fn locate(path: &Path) -> Result<&'static Self> {
        let real = fs::canonicalize(path)
            .at("open LXCPATH", path)
            .map_err(|err| err.way_out("create it, mount its disk, or name another one with --lxcpath"))?;
        // It goes into mount sources, LXC's configuration and messages.
        if real.to_str().is_none_or(|text| text.contains(|c: char| c.is_ascii_control())) {
            return Err(Error::usage(format_args!(
                "LXCPATH `{}` is not UTF-8, or holds a control character",
                escape(real.as_os_str().as_bytes())
            ))
            .way_out("use another folder"));
        }
        let meta = fs::metadata(&real).at("look at LXCPATH", &real)?;
        if !meta.is_dir() {
            return Err(Error::usage(format_args!("LXCPATH {} is not a folder", path.display())));
        }
        // The same folder reached by another path (a bind mount, a link) has the same key.
        // Without the links in it (/var is one on OpenWrt, /var/run on Debian), as mountinfo shows what is mounted below it.
        let tmpfs = fs::canonicalize(RUN).unwrap_or_else(|_| PathBuf::from(RUN));
        let run = tmpfs.below(&format!("sliverfs/{:x}-{:x}", meta.dev(), meta.ino()));
        let path = stay(real);
        Ok(for_good(Self { path, stores: path.below(".store"), run }))
    }

    /// Makes the run folder with its sub-folders, where it is missing.
    pub fn make_run(&self) -> Result<()> {
        for sub in ["base", "lock", "mounted"] {
            let dir = self.run.join(sub);
            if !dir.is_dir() {
                // For root only: a base that is mounted there holds set-id programs, and the locks are nobody else's.
                make_dirs(&dir).at("create the run folder", &dir)?;
            }
        }
        Ok(())
    }

    /// LXCPATH itself, without links in it.
    pub fn path(&self) -> &'static Path {
        self.path
    }

    /// The folder of this boot's state.
    pub fn run(&self) -> &'static Path {
        self.run
    }

    /// `.base`: the folder of all bases.
    pub fn bases(&self) -> &'static Path {
        self.path.below(".base")
    }

    /// The folder of one base.
    pub fn base(&self, name: &Name) -> &'static Path {
        self.bases().below(name.as_str())
    }

    /// Where an image base is mounted, once for all its slivers.
    pub fn base_mount(&self, name: &Name) -> &'static Path {
        self.run.below("base").below(name.as_str())
    }

    /// `.store`: the folder of all stores.
    pub fn stores(&self) -> &'static Path {
        self.stores
    }

    /// The folder of one sliver's store.
    pub fn store(&self, name: &Name) -> &'static Path {
        self.stores().below(name.as_str())
    }

    /// The upper folder of one sliver's store, where it is a union's. Where it lies in an image, it is there while that is mounted.
    pub fn upper(&self, name: &Name) -> &'static Path {
        image::content(self.store(name)).below("upper")
    }

    /// `NAME`: LXC's folder of the sliver, with its configuration and the view's mount point.
    pub fn container(&self, name: &Name) -> &'static Path {
        self.path.below(name.as_str())
    }

    /// The view's mount point.
    pub fn view(&self, name: &Name) -> &'static Path {
        self.container(name).below("rootfs")
    }

    /// What is known of the sliver's mount in this boot.
    pub fn mounted(&self, name: &Name) -> &'static Path {
        self.run.below("mounted").below(name.as_str())
    }

    /// The lock of what changes the catalog. Taken after a sliver's lock, never before it.
    pub fn lock_catalog(&self) -> Result<Lock> {
        self.make_run()?;
        Lock::take(self.run.below("catalog.lock"))
    }

    /// The lock of one sliver. What a cut `convert` left in the way is settled under it.
    pub fn lock_sliver(&self, name: &Name) -> Result<Lock> {
        self.make_run()?;
        let lock = Lock::take(&self.run.below("lock").join(name))?;
        sweep::settle(self, name)?;
        Ok(lock)
    }
}

/// Creates a folder for root only, with those above it that are missing.
fn make_dirs(dir: &Path) -> io::Result<()> {
    if let (false, Some(above)) = (dir.is_dir(), dir.parent()) {
        make_dirs(above)?;
        match file::make_dir(dir, 0o700) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
    }
    Ok(())
}
