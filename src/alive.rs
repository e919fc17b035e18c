//! Is a store alive anywhere? In any mount namespace, in a detached view, in a running container.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::makedev;

use crate::backend::features::Features;
use crate::backend::union;
use crate::catalog::mounted::source;
use crate::catalog::{Mounted, Root};
use crate::error::{Context, Error, Result};
use crate::hash::fnv64a;
use crate::kind::Kind;
use crate::mount::exec::{mount_union, unmount};
use crate::mount::mountinfo::{Mount, MountInfo};
use crate::mount::plan::MountCall;
use crate::name::Name;
use crate::sys::pause;

/// Where a view is mounted.
#[derive(Clone, Debug)]
pub struct Place {
    /// A process whose mount namespace has it; none for our own namespace.
    pub pid: Option<u32>,
    /// The mount point, as that namespace names it.
    pub target: PathBuf,
    /// Mounted, but read-only: the driver could not use the store for writing.
    pub read_only: bool,
    /// The file-system type.
    pub fstype: String,
    source: Vec<u8>,
    device: u64,
}

/// All views of this program in all mount namespaces, at one moment.
pub struct Views(Vec<Place>);

impl Views {
    /// The views among the mounts of this process's own namespace.
    pub fn here(own: &MountInfo) -> Self {
        let mut views = Self(Vec::new());
        views.add(None, own);
        views
    }

    /// Reads the mountinfo of every distinct mount namespace that a process is in.
    pub fn everywhere() -> Result<Self> {
        let own = MountInfo::of_self()?;
        let mut views = Self::here(&own);
        let mut seen = BTreeSet::new();
        seen.extend([own.hash()].into_iter().chain(namespace("self")));
        for pid in processes()? {
            match namespace(&pid.to_string()) {
                Some(id) if seen.insert(id) => {
                    if let Some(info) = mountinfo(pid)? {
                        views.add(Some(pid), &info);
                    }
                }
                Some(_) => {}
                // Before Linux 3.8 a process does not tell its mount namespace, and some hide it: the mounts stand for it.
                None => {
                    if let Some(info) = mountinfo(pid)?.filter(|info| seen.insert(info.hash())) {
                        views.add(Some(pid), &info);
                    }
                }
            }
        }
        Ok(views)
    }

    /// As [`Views::everywhere`], and again for a while where only other namespaces have the sliver's store.
    ///
    /// A namespace that was just made has a copy of every mount until its maker has left the old root behind (a container
    /// that starts) or taken the copies down (another sliverfs at work).
    pub fn settled(root: &Root, name: &Name) -> Result<Self> {
        let mut views = Self::everywhere()?;
        for _ in 0..PATIENCE_FOR_NAMESPACES {
            let places: Vec<&Place> = views.of(root, name).collect();
            if places.is_empty() || places.iter().any(|place| place.pid.is_none()) {
                break;
            }
            pause();
            views = Self::everywhere()?;
        }
        Ok(views)
    }

    fn add(&mut self, pid: Option<u32>, info: &MountInfo) {
        self.0.extend(info.mounts().filter(Mount::is_ours).map(|mount| Place::of(pid, &mount)));
    }

    /// Where the sliver's store is mounted: matched by source, or by what was noted when it was mounted. Never by path: a
    /// namespace may show it anywhere, and a container shows it as `/`.
    pub fn of<'a>(&'a self, root: &Root, name: &Name) -> impl Iterator<Item = &'a Place> + use<'a> {
        let source = source(&root.store(name)).into_bytes();
        let noted = if self.0.is_empty() { None } else { Mounted::find(root, name) };
        self.0.iter().filter(move |place| {
            place.source == source
                || noted.as_ref().is_some_and(|noted| {
                    place.device == noted.device && place.source == noted.source.as_bytes()
                })
        })
    }
}

impl Place {
    fn of(pid: Option<u32>, mount: &Mount<'_>) -> Self {
        Self {
            pid,
            target: mount.target().into_owned(),
            read_only: mount.read_only(),
            fstype: String::from_utf8_lossy(mount.fstype).into_owned(),
            source: mount.source().into_owned(),
            device: device(mount.device),
        }
    }

    /// The place in a sentence.
    pub fn words(&self) -> String {
        match self.pid {
            None => self.target.display().to_string(),
            Some(pid) => {
                format!(
                    "{} in the mount namespace of process {pid} ({})",
                    self.target.display(),
                    command(pid)
                )
            }
        }
    }
}

/// Refuses when the store is alive anywhere: mounted in any namespace, or held by a process.
pub fn refuse_alive(root: &Root, name: &Name, kind: Kind, features: Features, views: &Views) -> Result<()> {
    let places: Vec<String> = views.of(root, name).map(Place::words).collect();
    if !places.is_empty() {
        return Err(Error::in_use(format!(
            "the store of `{name}` is mounted at {}",
            places.join(", and at ")
        ))
        .way_out("stop the container, or end the processes there, and unmount it"));
    }
    let mut held = in_use(root, name, kind, features)?;
    // The kernel takes a view apart some time after its last user ended: a container that was just stopped.
    for _ in 0..PATIENCE {
        if held != Some(true) || !holders(root, name)?.is_empty() {
            break;
        }
        pause();
        held = in_use(root, name, kind, features)?;
    }
    let who = if held == Some(false) { Vec::new() } else { holders(root, name)? };
    if held.unwrap_or(!who.is_empty()) {
        let who = if who.is_empty() { "a process".to_owned() } else { who.join(", ") };
        return Err(Error::in_use(format!(
            "the store of `{name}` is mounted nowhere, but a detached view of it is still held by {who}"
        ))
        .way_out("end what holds it: a shell that stands in it, or an open file of it"));
    }
    Ok(())
}

/// How often a store that nobody visible holds is asked for again, a [`pause`] apart.
const PATIENCE: u32 = 50;

/// How often the places in other namespaces are looked at again, a [`pause`] apart.
const PATIENCE_FOR_NAMESPACES: u32 = 10;

/// Asks the kernel whether the store's upper folder is in use by any mount, also a detached one.
///
/// By a mount that never comes about ([`union::in_use`]). None where the driver cannot tell.
pub fn in_use(root: &Root, name: &Name, kind: Kind, features: Features) -> Result<Option<bool>> {
    if !kind.caps().tells_in_use || !features.index {
        return Ok(None);
    }
    let options = union::in_use(".base", &format!(".store/{name}/upper"))?;
    let target = root.run().join("mounted");
    let call = MountCall {
        fstype: kind.caps().fstype,
        source: "sliverfs:in-use".to_owned(),
        options,
        from: root.path().to_owned(),
        target: target.clone(),
    };
    match mount_union(&call) {
        Ok(()) => unmount(&target).map(|()| None),
        Err(err) => match err.errno() {
            Some(Errno::EBUSY) => Ok(Some(true)),
            Some(Errno::EINVAL) => Ok(Some(false)),
            _ => Ok(None),
        },
    }
}

/// Processes that stand in the sliver's view or hold files of it open, found by the device that was noted when it was mounted.
pub fn holders(root: &Root, name: &Name) -> Result<Vec<String>> {
    let Some(noted) = Mounted::find(root, name) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for pid in processes()? {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let on_view = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.dev() == noted.device);
        let open = || {
            fs::read_dir(proc.join("fd"))
                .is_ok_and(|mut fds| fds.any(|fd| fd.is_ok_and(|fd| on_view(&fd.path()))))
        };
        if on_view(&proc.join("cwd")) || on_view(&proc.join("root")) || on_view(&proc.join("exe")) || open() {
            found.push(format!("process {pid} ({})", command(pid)));
        }
    }
    Ok(found)
}

/// The process numbers in /proc.
fn processes() -> Result<impl Iterator<Item = u32>> {
    let proc = Path::new("/proc");
    let entries = fs::read_dir(proc).at("list", proc)?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// A process's mounts; none where it ended meanwhile. A zombie's mountinfo is EINVAL.
fn mountinfo(pid: u32) -> Result<Option<MountInfo>> {
    match MountInfo::read(Path::new(&format!("/proc/{pid}/mountinfo"))) {
        Ok(info) => Ok(Some(info)),
        Err(err) => match err.errno() {
            Some(Errno::ENOENT | Errno::ESRCH | Errno::EINVAL) => Ok(None),
            _ => Err(err.way_out("run it as root: every mount namespace must be looked at")),
        },
    }
}

/// The number that stands for a process's mount namespace, where it can be asked.
fn namespace(pid: &str) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()?;
    Some(fnv64a(link.as_os_str().as_bytes()))
}

/// The command name of a process, for messages.
fn command(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .map_or_else(|_| "ended".to_owned(), |name| name.trim().to_owned())
}

/// `major:minor` as st_dev has it; 0, which no file system has, where it is neither.
fn device(text: &[u8]) -> u64 {
    let numbers = std::str::from_utf8(text).ok().and_then(|text| text.split_once(':'));
    match numbers.map(|(major, minor)| (major.parse(), minor.parse())) {
        Some((Ok(major), Ok(minor))) => makedev(major, minor),
        _ => 0,
    }
}
