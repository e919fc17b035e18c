//! A copy's limit by a ZFS dataset of its own, whose property `refquota` holds whoever writes to it.
//!
//! The store's folder stays a folder that can be renamed. In it the file `quota.zfs` names a dataset below that of the folder, which is
//! there before the dataset is made and goes after it: so what a crash left leads to it. The tree lies in the dataset, which ZFS mounts
//! where its properties say, at boot too, and not in the folder: a mount point cannot be renamed. The name holds the file's inode: a
//! store that was copied by hand has no dataset, and destroys none.
//!
//! `refquota`, and not `quota`: a snapshot that the operator takes is not the tenant's, who can neither take one nor make a dataset below his
//! own without /dev/zfs. What came from the base is counted, too: it is measured when the store is made, and comes on top.
//!
//! zfs-fuse mounts in the mount namespace of its daemon, so a dataset is made outside of our private ones.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;

use super::image::{LEAST, NEW};
use super::{BLOCK, Limit, does_not_fit, remove_store};
use crate::backend::probe::TRIAL;
use crate::catalog::root::create_dir;
use crate::catalog::{Root, Sliver, record, sliver};
use crate::error::{Class, Context, Error, Result};
use crate::mount::disk;
use crate::mount::mountinfo::MountInfo;
use crate::out::escape;
use crate::stay::{Below, stay};
use crate::sys::tool::{self, Stream};
use crate::sys::{file, pause, statfs, sync};
use crate::tree;

/// The file with the dataset's name, in the store's folder.
const FILE: &str = "quota.zfs";

/// How often a dataset is destroyed again that another mount namespace still has, a [`pause`] apart: that of a command that just ended.
const PATIENCE: u32 = 50;

/// A store's dataset.
struct Dataset {
    name: String,
    /// Where it is mounted.
    place: Option<&'static Path>,
}

/// Runs `zfs`.
fn run(args: &[&str]) -> Result<()> {
    ask(args).map(drop)
}

/// The same, and gives what it prints, which is short.
fn ask(args: &[&str]) -> Result<Vec<u8>> {
    let words: Vec<_> = args.iter().map(AsRef::as_ref).collect();
    let (mut printed, mut said) = (Vec::new(), Vec::new());
    let ended = tool::start("zfs", &words, [Stream::Null, Stream::Pipe, Stream::Pipe])
        .and_then(|mut zfs| {
            if let (Some(words), Some(errors)) = (&zfs.stdout, &zfs.stderr) {
                printed = file::read_all(words, usize::MAX)?;
                said = file::read_all(errors, usize::MAX)?;
            }
            zfs.wait()
        })
        .map_err(|errno| match errno {
            Errno::ENOENT => Error::unsupported("the program `zfs` is not installed"),
            _ => Error::sys("start", "zfs".as_ref(), errno),
        })?;
    match ended {
        None => Ok(printed),
        Some(how) => {
            let (args, said) = (args.join(" "), escape(said.trim_ascii()));
            Err(Error::failed(format_args!("`zfs {args}` failed ({how}): {said}")))
        }
    }
}

/// The dataset of a folder that lies on ZFS. One whose name holds more than our own rules allow is none.
fn above(info: &MountInfo, folder: &Path) -> Result<String> {
    let real = fs::canonicalize(folder).at("open", folder)?;
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte);
    match disk::of(info, &real) {
        Some(disk)
            if matches!(&*disk.fstype, "zfs" | "fuse.zfs")
                && disk.source.bytes().all(known)
                && disk.source.starts_with(|first: char| first.is_ascii_alphabetic()) =>
        {
            Ok(disk.source)
        }
        _ => Err(Error::unsupported(format_args!("{} lies on no dataset of ZFS", folder.display()))),
    }
}

/// Refuses a folder that no dataset can be made for.
pub fn need(folder: &Path) -> Result<()> {
    above(&MountInfo::of_self()?, folder).map(drop)
}

/// The dataset of a store; none where it has none.
fn find(store: &Path) -> Result<Option<Dataset>> {
    let path = store.below(FILE);
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(None) };
    let text = file::text(path).at("read", path)?;
    // Half a line was cut before anything was made.
    let Some(leaf) = text.strip_suffix('\n') else { return Ok(None) };
    let rest = leaf.strip_prefix(&*format!("sliverfs-{:x}-", meta.ino()));
    if !rest.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        return Err(Error::damaged(format_args!(
            "{} names a dataset that was made for another store, or for none",
            path.display()
        ))
        .way_out("a store on a dataset is copied by `sliverfs export`, or with its disk by `zfs send`"));
    }
    let info = MountInfo::of_self()?;
    let name = format!("{}/{leaf}", above(&info, store)?);
    let place = place(&info, &name);
    Ok(Some(Dataset { name, place }))
}

fn place(info: &MountInfo, dataset: &str) -> Option<&'static Path> {
    // A view shows a folder of it.
    let mut mounts = info.mounts();
    let own = mounts
        .find(|mount| *mount.source() == *dataset.as_bytes() && *mount.root() == *b"/" && mount.is_zfs());
    own.map(|mount| stay(mount.target().into_owned()))
}

/// The name of a store's dataset.
pub fn name(store: &Path) -> Option<String> {
    find(store).ok().flatten().map(|dataset| dataset.name)
}

/// The folder in which the tree of a store on a dataset lies; none where it has none. ZFS is asked to mount it where that is not done.
pub fn content(store: &Path) -> Option<&'static Path> {
    let look = || find(store).ok().flatten();
    let mut dataset = look()?;
    if dataset.place.is_none() && run(&["mount", &dataset.name]).is_ok() {
        dataset = look()?;
    }
    // What is not there, so that nothing is taken for it.
    Some(dataset.place.unwrap_or_else(|| store.below(super::image::POINT)))
}

/// A store's dataset, and where it is mounted.
fn mounted(store: &Path) -> Result<(String, &'static Path)> {
    match find(store)? {
        Some(Dataset { name, place: Some(place) }) => Ok((name, place)),
        Some(Dataset { name, .. }) => {
            Err(Error::failed(format_args!("the dataset {name} of {} is not mounted", store.display()))
                .way_out(format_args!("zfs mount {name}")))
        }
        None => Err(Error::damaged(format_args!("the store {} has no dataset", store.display()))
            .way_out("take its limit off, and give it again: sliverfs quota SLIVER none")),
    }
}

/// Makes a dataset for a new store. One that was made for it already is left as it is.
pub fn make(store: &Path) -> Result<()> {
    // Before anything is there that only ZFS can take away.
    run(&["list", &above(&MountInfo::of_self()?, store)?])?;
    let path = store.below(FILE);
    let mut file = match file::open_as(path, NEW, 0o600) {
        Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        made => made.at("create", path)?,
    };
    let inode = file.metadata().at("look at", path)?.ino();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    file.write_all(format!("sliverfs-{inode:x}-{now:x}\n").as_bytes())
        .and_then(|()| file.sync_all())
        .at("write", path)?;
    sync::dir(store)?;
    let Some(Dataset { name, .. }) = find(store)? else { return Ok(()) };
    run(&["create", &name])?;
    match place(&MountInfo::of_self()?, &name) {
        // Tenants make set-id programs in it.
        Some(top) => fs::set_permissions(top, Permissions::from_mode(0o700)).at("change the mode of", top),
        None => Err(Error::unsupported(format_args!("ZFS mounts the new dataset {name} nowhere"))
            .way_out("its parent wants a `mountpoint` that is neither none nor legacy")),
    }
}

/// Makes a dataset as a limited store has one, and destroys it.
pub fn trial(root: &Root) -> Result<()> {
    let _lock = root.lock_catalog()?;
    // A crash leaves it to the next trial of a backend.
    let dir = root.stores().join(format!("{TRIAL}{}", std::process::id()));
    create_dir(&dir)?;
    let tried = make(&dir).and_then(|()| limit(&dir, Limit::plain(LEAST, super::Means::Zfs)));
    remove_store(&dir)?;
    tried
}

fn tell(dataset: &str, most: u64) -> Result<()> {
    run(&["set", &format!("refquota={most}"), dataset])
}

/// The limit that a dataset has; 0 is none.
fn told(dataset: &str) -> Result<u64> {
    let value = ask(&["get", "-Hp", "-o", "value", "refquota", dataset])?;
    Ok(std::str::from_utf8(value.trim_ascii()).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0))
}

/// Limits a store, where it is not limited so already.
pub fn limit(store: &Path, limit: Limit) -> Result<()> {
    let (name, place) = mounted(store)?;
    let disk = statfs::of(place)?;
    let (most, used) = (limit.bytes.saturating_add(limit.base), disk.total.saturating_sub(disk.free));
    if disk.total == most {
        return Ok(());
    }
    // Less than is used is refused, and a full one is some blocks beyond its limit: it gets these once, and not at each mount.
    if (most..=used.max(most)).contains(&told(&name)?) { Ok(()) } else { tell(&name, most.max(used)) }
}

/// Bytes that ZFS counts of a store on a dataset: `referenced`.
pub fn taken(store: &Path) -> Result<u64> {
    let disk = statfs::of(mounted(store)?.1)?;
    Ok(disk.total.saturating_sub(disk.free))
}

/// Bytes of its limit that a store uses.
pub fn used(store: &Path, limit: Limit) -> Result<u64> {
    taken(store).map(|taken| taken.saturating_sub(limit.base))
}

/// The same, where that is not more than a limit that is to be; else when the pool has written, and counted, all that came before.
pub fn used_at_last(store: &Path, limit: Limit) -> Result<u64> {
    let used = used(store, limit)?;
    if used <= limit.bytes {
        return Ok(used);
    }
    let name = mounted(store)?.0;
    let most = told(&name)?;
    tell(&name, most.saturating_add(BLOCK))?;
    tell(&name, most)?;
    self::used(store, limit)
}

/// Limits a new store that is filled, and records what the base takes of it: all but the bytes that its files have more than those of the
/// base, which `limit` has. The store that it takes the place of used `most`: files that are sparse or compressed look larger.
pub fn settle(store: &'static Path, limit: Limit, most: u64) -> Result<()> {
    let (name, place) = mounted(store)?;
    // What the pool has not written is not counted; a new value waits for that.
    tell(&name, i64::MAX.unsigned_abs())?;
    let path = place.below("tree");
    let files =
        tree::count(tree::open(path)?, path.as_os_str().as_bytes(), &mut |entry| Ok(entry.stat.size))?;
    let taken = taken(store)?;
    let added = files.shared.saturating_sub(limit.base).min(taken).min(most);
    let limit = Limit { base: taken.saturating_sub(added), ..limit };
    let path = store.below(sliver::FILE);
    let record: Sliver = record::read(path)?;
    if added > limit.bytes {
        return Err(does_not_fit(&record.name, limit, added));
    }
    tell(&name, limit.bytes.saturating_add(limit.base))?;
    Sliver { quota: Some(limit), ..record }.write(store)
}

/// Destroys the dataset of a store that is being removed. What it does not find by the store's word alone stays.
pub fn destroy(store: &Path) -> Result<()> {
    let dataset = match find(store) {
        // Where no dataset can be, none was made.
        Err(err) if err.class() == Class::Unsupported => None,
        Err(err) if err.class() == Class::Damaged => {
            crate::warn!("{err}");
            None
        }
        found => found?,
    };
    let Some(Dataset { name, .. }) = dataset else { return Ok(()) };
    if run(&["list", &name]).is_err() {
        // It was never made, or is gone, if ZFS answers at all.
        return run(&["list", name.rsplit_once('/').map_or("", |(above, _)| above)]);
    }
    let mut turn = 0;
    loop {
        match run(&["destroy", &name]) {
            Err(err) if turn < PATIENCE && err.to_string().contains("busy") => pause(),
            done => return done,
        }
        turn += 1;
    }
}
