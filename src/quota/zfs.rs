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
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::poll::PollTimeout;

use super::image::{self, LEAST, NEW};
use super::{Limit, Means, does_not_fit};
use crate::catalog::{Root, Sliver, record, sliver, sweep};
use crate::error::{Class, Context, Error, Result};
use crate::mount::mountinfo::{MountInfo, contains};
use crate::out::escape;
use crate::stay::{Below, for_good};
use crate::sum::Sum;
use crate::sys::zfs::run;
use crate::sys::{clock, file, pause, statfs, sync, zfs};
use crate::tree;

/// The file with the dataset's name, in the store's folder.
const FILE: &str = "quota.zfs";

/// How often a dataset is destroyed again that another mount namespace still has, a [`pause`] apart: that of a command that just ended.
const PATIENCE: u32 = 50;

/// Bytes by which what ZFS counts of a dataset at rest may differ from one moment to the next: its own tables, as they are written.
const SETTLES: u64 = 64 << 10;

/// A store's dataset.
struct Dataset {
    name: String,
    /// Where it is mounted; where it is not, what is not there, so that nothing is taken for it.
    place: &'static Path,
    mounted: bool,
}

/// What `zfs` says of a dataset.
fn ask(words: &str, dataset: &str) -> Result<&'static str> {
    zfs::ask(words, dataset, PollTimeout::NONE)
}

/// The dataset of a folder, below which one can be made for it. Refuses one that lies on none, or on one whose name holds more than our own
/// rules allow.
pub fn need(folder: &Path) -> Result<&'static str> {
    above(&MountInfo::of_self()?, folder)
}

fn above(info: &MountInfo, folder: &Path) -> Result<&'static str> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte);
    match info.dataset(folder)?.map(String::leak) {
        Some(name) if name.bytes().all(known) && !name.starts_with('-') => Ok(name),
        _ => Err(Error::unsupported(format_args!("{} lies on no dataset of ZFS", folder.display()))),
    }
}

/// The dataset of a store; none where it has none.
fn find(store: &Path) -> Result<Option<&'static Dataset>> {
    let path = store.below(FILE);
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(None) };
    let text = file::text(path).at("read", path)?.leak();
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
    // A view shows a folder of it.
    let own = info
        .mounts()
        .find(|mount| *mount.source() == *name.as_bytes() && *mount.root() == *b"/" && mount.is_zfs());
    let (mounted, place) = match own {
        Some(mount) => (true, mount.target().stays()),
        None => (false, store.below(image::POINT)),
    };
    Ok(Some(for_good(Dataset { name, place, mounted })))
}

/// The name of a store's dataset.
pub fn name(store: &Path) -> Option<&'static str> {
    find(store).ok().flatten().map(|dataset| &*dataset.name)
}

/// The folder in which the tree of a store on a dataset lies; none where it has none.
pub fn content(store: &Path) -> Option<&'static Path> {
    find(store).ok().flatten().map(|dataset| dataset.place)
}

/// Refuses a store whose dataset is mounted nowhere, where somebody unmounted it by hand.
pub fn refuse_unmounted(store: &Path) -> Result<()> {
    match find(store)? {
        Some(Dataset { name, mounted: false, .. }) => {
            Err(Error::failed(format_args!("the dataset {name} of {} is not mounted", store.display()))
                .way_out(format_args!("`sliverfs mount` does that, or zfs mount {name}")))
        }
        _ => Ok(()),
    }
}

/// Has ZFS mount the dataset of a store, where that is not done.
pub fn mount(store: &Path) -> Result<()> {
    match find(store)? {
        Some(Dataset { name, mounted: false, .. }) => run("mount", name),
        _ => Ok(()),
    }
}

/// The dataset of a store that must have one.
fn own(store: &Path) -> Result<&'static Dataset> {
    find(store)?.ok_or_else(|| super::not_limited(store, format_args!("has no dataset")))
}

/// Is that in what a failure says?
#[inline(never)]
fn says(err: &Error, words: &str) -> bool {
    contains(err.to_string().as_bytes(), words.as_bytes())
}

/// Makes a dataset for a new store. One that was made for it already is left as it is.
pub fn make(store: &Path) -> Result<()> {
    let path = store.below(FILE);
    if fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    let above = need(store)?;
    let mut file = file::open_as(path, NEW, 0o600).at("create", path)?;
    let inode = file::look_at(path)?.ino();
    let now = clock::now();
    file.write_all(format!("sliverfs-{inode:x}-{now:x}\n").as_bytes())
        .and_then(|()| file.sync_all())
        .at("write", path)?;
    sync::dir(store)?;
    let name = &own(store)?.name;
    if let Err(err) = run("create", name) {
        // Where no ZFS answers, it made nothing; and nobody could take the file away, which waits for one that does.
        if run("list", above).is_err_and(|err| !says(&err, "(killed")) {
            let _goes_with_the_store = fs::remove_file(path);
        }
        return Err(err);
    }
    let Dataset { place, mounted, .. } = own(store)?;
    if *mounted {
        // Tenants make set-id programs in it.
        return fs::set_permissions(place, Permissions::from_mode(0o700)).at("change the mode of", place);
    }
    Err(Error::unsupported(format_args!("ZFS mounts the new dataset {name} nowhere"))
        .way_out("its parent wants a `mountpoint` that is neither none nor legacy"))
}

/// Makes a dataset as a limited store has one, and destroys it.
pub fn trial(root: &Root) -> Result<()> {
    image::in_trial(root, &mut |dir| make(dir).and_then(|()| limit(dir, &Limit::plain(LEAST, Means::Zfs))))
}

fn tell(dataset: &str, most: u64) -> Result<()> {
    run(&format!("set refquota={most}"), dataset)
}

/// What a dataset may have, and has. Of one that is mounted statfs(2) tells both, without another program: beyond its limit, or on a full
/// pool, it may have what it has.
fn counted(Dataset { name, place, mounted }: &Dataset) -> Result<[u64; 2]> {
    if *mounted {
        return statfs::of(place).map(|disk| [disk.total, disk.total.minus(disk.free)]);
    }
    let mut numbers = [0; 2];
    for (number, line) in numbers.iter_mut().zip(ask("get -Hp -o value refquota,referenced", name)?.lines()) {
        *number = line.parse().unwrap_or(0);
    }
    Ok(numbers)
}

/// Limits a store, where it is not limited so already.
pub fn limit(store: &Path, limit: &Limit) -> Result<()> {
    let dataset = own(store)?;
    let [total, used] = counted(dataset)?;
    let (least, name) = (limit.bytes.plus(limit.base), &dataset.name);
    if total == least {
        return Ok(());
    }
    // A pool with less room than that tells another one, and zfs-fuse whole blocks.
    let told = ask("get -Hp -o value refquota", name)?.parse().unwrap_or(0);
    // Less than is used is refused, and a full one is some blocks beyond its limit: it gets these once, and not at each mount.
    let most = least.max(used);
    if (least..=most).contains(&told) { Ok(()) } else { tell(name, most) }
}

/// Bytes that ZFS counts of a store on a dataset: `referenced`.
pub fn taken(store: &Path) -> Result<u64> {
    counted(own(store)?).map(|[_, used]| used)
}

/// What lies in a store's dataset, where it has one. That what ZFS does not say is missing is told.
pub fn space(store: &Path) -> u64 {
    match find(store) {
        Ok(None) => 0,
        _ => taken(store).unwrap_or_else(|err| {
            sweep::told(Err(err));
            0
        }),
    }
}

/// Bytes of its limit that a store uses.
pub fn used(store: &Path, limit: &Limit) -> Result<u64> {
    taken(store).map(|taken| taken.minus(limit.base))
}

/// The same, where that is not more than a limit that is to be; else when the pool has written, and counted, all that came before.
pub fn used_at_last(store: &Path, limit: &Limit) -> Result<u64> {
    let used = used(store, limit)?;
    if used <= limit.bytes {
        return Ok(used);
    }
    zfs::settle(&own(store)?.name)?;
    self::used(store, limit)
}

/// Limits a new store that is filled, and records what the base takes of it: all but the bytes that its files have more than those of the
/// base, which `limit` has. The store that it takes the place of used `most`: files that are sparse or compressed look larger.
pub fn settle(store: &'static Path, limit: &Limit, most: u64) -> Result<()> {
    refuse_unmounted(store)?;
    let Dataset { name, place, .. } = own(store)?;
    let files = tree::count_at(place.below("tree"), &mut |entry| Ok(entry.stat.size))?;
    let path = store.below(sliver::FILE);
    let record: &Sliver = record::read(path)?;
    let mut again = true;
    // What the pool has not written is not counted. What is first written to a new dataset's log waits for that (zil_create() in ZFS's
    // zil.c), in a quarter of the time that a changed property takes; unless ZFS was told to let nobody wait for its log.
    sync::dir(place)?;
    loop {
        let taken = taken(store)?;
        let added = files.shared.minus(limit.base).min(taken).min(most);
        let limit = Limit { base: taken.minus(added), ..*limit };
        if added > limit.bytes {
            return Err(does_not_fit(&record.name, &limit, added));
        }
        // This waits, too. Where something was not counted before, the limit was too small, or is refused.
        match tell(name, limit.bytes.plus(limit.base)) {
            Err(err) if !again => return Err(err),
            Err(_) => tell(name, i64::MAX.unsigned_abs())?,
            Ok(()) if again && self::taken(store)?.minus(taken) > SETTLES => {}
            Ok(()) => return record.limited(Some(for_good(limit))).write(store),
        }
        again = false;
    }
}

/// Is a dataset there? Refuses one that has something below it which is not ours: ZFS would destroy neither.
fn alone(name: &str) -> Result<bool> {
    let Ok(list) = ask("list -Hr -o name -t filesystem,volume,snapshot", name) else {
        // It was never made, or is gone, where ZFS tells of what is above without it; and else was not asked to the end.
        let above = Path::new(name).parent().and_then(Path::to_str).unwrap_or_default();
        let list = ask("list -H -d 1 -o name", above)?;
        return Ok(list.lines().any(|line| line == name));
    };
    match list.lines().find(|line| *line != name) {
        None => Ok(true),
        Some(other) => {
            let other = escape(other.as_bytes());
            Err(Error::in_use(format_args!("the dataset {name} is not destroyed while there is {other}"))
                .way_out(format_args!("if nobody wants that any more: zfs destroy {other}")))
        }
    }
}

/// Refuses a store whose dataset could not be destroyed.
pub fn refuse_kept(store: &Path) -> Result<()> {
    name(store).map_or(Ok(()), |name| alone(name).map(drop))
}

/// Destroys the dataset of a store that is being removed. What it does not find by the store's word alone stays.
pub fn destroy(store: &Path) -> Result<()> {
    let dataset = match find(store) {
        // Where no dataset can be, none was made.
        Err(err) if err.class() == Class::Unsupported => None,
        Err(err) if err.class() == Class::Damaged => {
            sweep::told(Err(err));
            None
        }
        found => found?,
    };
    let Some(Dataset { name, .. }) = dataset else { return Ok(()) };
    if !alone(name)? {
        return Ok(());
    }
    let mut turn = 0;
    loop {
        match run("destroy", name) {
            // With a blank, which is in no name of a dataset's.
            Err(err) if turn < PATIENCE && says(&err, " busy") => pause(),
            done => return done,
        }
        turn += 1;
    }
}
