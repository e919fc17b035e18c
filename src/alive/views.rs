//! Where the views of this program are mounted, in every mount namespace.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::makedev;

use super::kept;
use crate::catalog::mounted::source;
use crate::catalog::{Mounted, Root};
use crate::error::{Context, Result};
use crate::hash::fnv64a;
use crate::mount::mountinfo::{Mount, MountInfo, SOURCE};
use crate::mount::{disk, fuse, seed};
use crate::name::Name;
use crate::proc::{processes, tasks, words};
use crate::quota::zfs;
use crate::sys::{loopdev, pause};
use crate::tree::shown;

/// Where a view is mounted.
#[derive(Clone, Debug)]
pub struct Place {
    /// The mount namespace that has it.
    pub namespace: Namespace,
    /// The mount point, as that namespace names it.
    pub target: PathBuf,
    /// Mounted, but read-only: the driver could not use the store for writing.
    pub read_only: bool,
    /// The file-system type.
    pub fstype: String,
    /// The source, where that has to say whose store it is: of all that are mounted, the place is kept in memory.
    source: Vec<u8>,
    device: u64,
    /// The loop device below a Btrfs, and the device and inode of the image that it stands on.
    image: Option<(PathBuf, (u64, u64))>,
    /// The sliver of this node whose store it is, where the mount itself says so.
    sliver: Option<Vec<u8>>,
}

/// A mount namespace, as messages name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// Our own.
    Ours,
    /// That of a process.
    Of(u32),
    /// One that is kept by a mount (nsenter(1), snapd), perhaps without any process in it.
    Kept(PathBuf),
}

/// How often the places in other namespaces are looked at again, a [`pause`] apart.
const PATIENCE: u32 = 10;

/// All views of a node in all mount namespaces, at one moment.
pub struct Views {
    places: Vec<Place>,
    /// The disk of the stores, and their folder in it.
    stores: (u64, PathBuf),
    /// What the source of a union starts with, before the sliver's name.
    prefix: Vec<u8>,
    /// Some places do not say whose they are.
    strangers: bool,
}

impl Views {
    /// Reads the mountinfo of every distinct mount namespace that a thread of any process is in, or that a mount of ours keeps.
    pub fn everywhere(root: &Root) -> Result<Self> {
        let own = MountInfo::of_self()?;
        let mut seen: Vec<u64> = [own.hash()].into_iter().chain(namespace("self")).collect();
        let mut locked_in = Vec::new();
        let mut views = Self::here(root, &own)?;
        for pid in processes()? {
            for task in tasks(pid) {
                match namespace(&task) {
                    Some(id) if seen.contains(&id) => {}
                    // A process that is locked into a folder is shown only the mounts in there.
                    Some(id) if is_locked_in(&task) => locked_in.push((id, pid, task)),
                    Some(id) => {
                        if let Some(info) = mountinfo(&task)? {
                            seen.push(id);
                            views.add(&Namespace::Of(pid), &info);
                        }
                    }
                    // Before Linux 3.8 a process does not tell its mount namespace, and some hide it: the mounts stand for it.
                    None => {
                        if let Some(info) = mountinfo(&task)?.filter(|info| insert(&mut seen, info.hash())) {
                            views.add(&Namespace::Of(pid), &info);
                        }
                    }
                }
            }
        }
        for (id, pid, task) in locked_in {
            if seen.contains(&id) {
                continue;
            }
            match kept::mountinfo(Path::new(&format!("/proc/{task}/ns/mnt"))) {
                Ok(info) => {
                    seen.push(id);
                    views.add(&Namespace::Of(pid), &info);
                }
                // It ended meanwhile.
                Err(_) if namespace(&task) != Some(id) => {}
                Err(err) => return Err(err),
            }
        }
        // What a container keeps so has no more than the container itself; that is looked at while it runs.
        for mount in own.mounts().filter(|mount| mount.fstype == b"nsfs") {
            let id = mount.root();
            if id.starts_with(b"mnt:") && insert(&mut seen, fnv64a(&id)) {
                let target = mount.target().into_owned();
                views.add(&Namespace::Kept(target.clone()), &kept::mountinfo(&target)?);
            }
        }
        Ok(views)
    }

    /// As [`Views::everywhere`], and again for a while where only other namespaces have the sliver's store.
    ///
    /// A namespace that was just made has a copy of every mount until its maker has left the old root behind (a container
    /// that starts) or taken the copies down (another sliverfs at work).
    pub fn settled(root: &Root, name: &Name) -> Result<Self> {
        Self::settled_without(root, name, None)
    }

    /// The same, with what is mounted on `target` in our own mount namespace left out.
    pub fn settled_without(root: &Root, name: &Name, target: Option<&Path>) -> Result<Self> {
        let look = || -> Result<Self> {
            let mut views = Self::everywhere(root)?;
            views.places.retain(|place| place.namespace != Namespace::Ours || Some(&*place.target) != target);
            Ok(views)
        };
        let mut views = look()?;
        for _ in 0..PATIENCE {
            let places: Vec<&Place> = views.of(root, name).collect();
            if places.is_empty() || places.iter().any(|place| place.namespace == Namespace::Ours) {
                break;
            }
            pause();
            views = look()?;
        }
        Ok(views)
    }

    /// The views among the mounts of our own mount namespace.
    pub fn here(root: &Root, own: &MountInfo) -> Result<Self> {
        let stores = fs::canonicalize(root.stores()).at("open", root.stores())?;
        let disk = disk::of(own, &stores);
        let stores = disk.map(|disk| (device(&disk.device), disk.inside(&stores))).unwrap_or_default();
        let prefix = format!("{}/", source(root.stores())).into_bytes();
        let mut views = Self { places: Vec::new(), stores, prefix, strangers: false };
        views.add(&Namespace::Ours, own);
        Ok(views)
    }

    fn add(&mut self, namespace: &Namespace, info: &MountInfo) {
        for mount in info.mounts() {
            let sliver = self.sliver(&mount);
            // The folder of the stores may be a link to one of another name, which a bound tree then shows.
            let ours = sliver.is_some() || mount.is_ours();
            // One that cannot be asked is no reason to see nothing else: whether a store is alive, its own device tells.
            let image = mount.loop_device().filter(|_| !ours).and_then(|device| {
                let id = loopdev::backing(&device).ok().flatten()?;
                Some((device, id))
            });
            if ours || image.is_some() {
                self.strangers |= ours && sliver.is_none();
                self.places.push(Place::of(namespace.clone(), &mount, sliver, image));
            }
        }
    }

    /// The sliver whose store is mounted, by the source that unions carry, or by the disk and the folder in it that bound
    /// trees show.
    fn sliver(&self, mount: &Mount<'_>) -> Option<Vec<u8>> {
        if let Some(name) = mount.source().strip_prefix(&*self.prefix) {
            return Some(name.to_vec());
        }
        let root = mount.root();
        let below = Path::new(OsStr::from_bytes(&root)).strip_prefix(&self.stores.1).ok()?;
        let name = below.iter().next().filter(|_| device(mount.device) == self.stores.0)?;
        Some(name.as_bytes().to_vec())
    }

    /// Where the sliver's store is mounted. Matched by what the mount says of its store, or by what was noted when it was
    /// made. Never by mount point: a namespace may have it anywhere, and a container has it as `/`.
    pub fn of<'a>(&'a self, root: &Root, name: &Name) -> impl Iterator<Item = &'a Place> + use<'a> {
        let name_of_it = name.as_str().as_bytes().to_vec();
        let noted = if self.strangers { Mounted::find(root, name) } else { None };
        let images = self.places.iter().any(|place| place.image.is_some());
        let image = if images { fs::metadata(root.store(name).join(seed::STORE)).ok() } else { None };
        let image = image.map(|meta| (meta.dev(), meta.ino()));
        let datasets =
            self.places.iter().any(|place| place.sliver.is_none() && place.fstype.ends_with("zfs"));
        let dataset = if datasets { zfs::name(root.store(name)) } else { None };
        self.places.iter().filter(move |place| {
            place.sliver.as_ref() == Some(&name_of_it)
                || place.image.as_ref().is_some_and(|(_, id)| Some(*id) == image)
                || place.sliver.is_none()
                    && dataset.as_ref().is_some_and(|name| place.source == name.as_bytes())
                || noted.as_ref().is_some_and(|noted| {
                    place.device == noted.device
                        && place.source.starts_with(SOURCE.as_bytes())
                        && place.source == noted.source.as_bytes()
                })
        })
    }
}

impl Place {
    fn of(
        namespace: Namespace,
        mount: &Mount<'_>,
        sliver: Option<Vec<u8>>,
        image: Option<(PathBuf, (u64, u64))>,
    ) -> Self {
        Self {
            namespace,
            target: mount.target().into_owned(),
            read_only: mount.read_only(),
            fstype: String::from_utf8_lossy(mount.fstype).into_owned(),
            source: if sliver.is_none() { mount.source().into_owned() } else { Vec::new() },
            device: device(mount.device),
            sliver,
            image,
        }
    }

    /// The loop device of a view that grew from a seed.
    pub fn loop_device(&self) -> Option<&Path> {
        self.image.as_ref().map(|(device, _)| device.as_path())
    }

    /// Does a daemon serve it, or did one?
    pub fn is_served(&self) -> bool {
        self.fstype == fuse::FSTYPE
    }

    /// The place in a sentence.
    pub fn words(&self) -> String {
        let target = shown(self.target.as_os_str().as_bytes());
        let target = target.display();
        match &self.namespace {
            Namespace::Ours => target.to_string(),
            Namespace::Of(pid) => {
                format!("{target} in the mount namespace of {}", words(*pid))
            }
            Namespace::Kept(path) => {
                let path = shown(path.as_os_str().as_bytes());
                format!("{target} in the mount namespace that is kept on {}", path.display())
            }
        }
    }
}

/// Notes a namespace, and says whether it is a new one. There are as many as containers: a list will do.
fn insert(seen: &mut Vec<u64>, id: u64) -> bool {
    let new = !seen.contains(&id);
    if new {
        seen.push(id);
    }
    new
}

/// A thread's mounts; none where it ended meanwhile. A zombie's mountinfo is EINVAL.
fn mountinfo(task: &str) -> Result<Option<MountInfo>> {
    match MountInfo::read(Path::new(&format!("/proc/{task}/mountinfo"))) {
        Ok(info) => Ok(Some(info)),
        Err(err) => match err.errno() {
            Some(Errno::ENOENT | Errno::ESRCH | Errno::EINVAL) => Ok(None),
            _ => Err(err.way_out("run it as root: every mount namespace must be looked at")),
        },
    }
}

/// The number that stands for a thread's mount namespace, where it can be asked.
fn namespace(task: &str) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{task}/ns/mnt")).ok()?;
    Some(fnv64a(link.as_os_str().as_bytes()))
}

/// Is the thread's root another folder than its namespace's (chroot(2))?
fn is_locked_in(task: &str) -> bool {
    fs::read_link(format!("/proc/{task}/root")).is_ok_and(|root| root != Path::new("/"))
}

/// `major:minor` as st_dev has it; 0, which no file system has, where it is neither.
fn device(text: &[u8]) -> u64 {
    let numbers = std::str::from_utf8(text).ok().and_then(|text| text.split_once(':'));
    match numbers.map(|(major, minor)| (major.parse(), minor.parse())) {
        Some((Ok(major), Ok(minor))) => makedev(major, minor),
        _ => 0,
    }
}
