//! What works on a node's disk, tried once and remembered for this boot and this disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use serde::Serialize;

use super::dedup;
use super::features::Features;
use super::fuse;
use super::kernel::{self, Running};
use super::seed;
use super::tree as tree_trial;
use super::trial::{self, DiskName};
use super::verdict::Verdict;
use crate::catalog::base::Base;
use crate::catalog::sweep::TRIAL;
use crate::catalog::{Root, record};
use crate::error::{Context, Error, Result};
use crate::form::Form;
use crate::hash::fnv64a;
use crate::json::{self, FromJson, Json};
use crate::kind::{Choice, Kind};
use crate::mount::disk;
use crate::mount::mountinfo::MountInfo;
use crate::mount::private;
use crate::out::joined;
use crate::proc;
use crate::quota::held::remove_store;
use crate::stay::Below;
use crate::sys::{btrfs, file, statfs};

/// What is remembered in the run folder.
#[derive(Serialize)]
struct Remembered {
    version: u64,
    /// /proc/sys/kernel/random/boot_id: a run folder that outlives a boot (no tmpfs) is not believed.
    boot: &'static str,
    /// The disk: another one can be mounted on the same folder, with the same device and inode.
    disk: u64,
    /// The hash of /proc/filesystems: a "no" is proved again when it has changed.
    filesystems: u64,
    verdicts: Vec<Verdict>,
}

const FILE: &str = "probe.json";

impl FromJson for Remembered {
    fn from_json(json: &Json) -> Result<Self> {
        Ok(Self {
            version: json.number("version")?,
            boot: json.text("boot")?,
            disk: json.number("disk")?,
            filesystems: json.number("filesystems")?,
            verdicts: json.list("verdicts")?.iter().map(Verdict::from_json).collect::<Result<_>>()?,
        })
    }
}

/// What works on the disk of the node's stores: remembered verdicts where there are, trials for the rest.
pub fn probe(root: &Root, fresh: bool) -> Result<Vec<Verdict>> {
    let _lock = root.lock_catalog()?;
    let filesystems = fnv64a(kernel::filesystems()?.as_bytes());
    let mut known = if fresh { Vec::new() } else { recall(root, Some(filesystems))? };
    let mut verdicts = Vec::new();
    for kind in Kind::ALL {
        let verdict = match known.iter().position(|verdict| verdict.kind == kind) {
            // A property of the disk can be changed at any time.
            Some(at) if kind != Kind::Copy => known.swap_remove(at),
            _ => try_kind(root, kind)?,
        };
        verdicts.push(verdict);
    }
    let keep = Remembered {
        version: record::VERSION,
        boot: proc::boot_id()?,
        disk: disk_id(root)?,
        // A module that the trials loaded is no reason to try again.
        filesystems: fnv64a(kernel::filesystems()?.as_bytes()),
        verdicts: verdicts.iter().filter(|verdict| verdict.lasting).copied().collect(),
    };
    record::write_volatile(root.run(), FILE, &keep)?;
    Ok(verdicts)
}

/// The kind to use for a sliver of the base: the named one where it works, or the first that does.
pub fn choose(root: &Root, choice: Choice, base: &Base) -> Result<Kind> {
    pick(root, &probe(root, false)?, choice, base)
}

/// As [`choose`], from what is remembered: nothing is tried, nothing is written.
pub fn remembered(root: &Root, choice: Choice, base: &Base) -> Result<Kind> {
    let known = recall(root, None)?;
    match choice {
        Choice::Named(kind) if known.iter().all(|verdict| verdict.kind != kind) => Ok(kind),
        Choice::Auto if known.is_empty() => Err(Error::failed(format_args!(
            "what works on {} was not tried in this boot",
            root.path().display()
        ))
        .way_out("run `sliverfs probe` first, or name a backend")),
        _ => pick(root, &known, choice, base),
    }
}

fn pick(root: &Root, verdicts: &[Verdict], choice: Choice, base: &Base) -> Result<Kind> {
    let mut reasons = Vec::new();
    for verdict in verdicts {
        let asked = match choice {
            Choice::Auto => verdict.kind.takes(base.form),
            Choice::Named(kind) => kind == verdict.kind,
        };
        // What is by name only for want of such a base has one here.
        let auto = verdict.auto || verdict.kind.grows_image();
        if asked && verdict.works && (auto || choice != Choice::Auto) {
            match unfit(root, verdict.kind, base) {
                None => return Ok(verdict.kind),
                Some(why) => reasons.push(why),
            }
        } else if asked && (verdict.offered || choice != Choice::Auto) {
            reasons.extend(verdict.reason.map(str::to_owned));
        }
    }
    if reasons.is_empty() {
        reasons.push("this kernel and this disk offer none".to_owned());
    }
    Err(Error::unsupported(format_args!(
        "no backend for {}: {}",
        root.path().display(),
        joined(&reasons, "; ")
    ))
    .way_out("`sliverfs probe` shows what was tried"))
}

/// Why a kind that works on the disk, and takes bases of its form, can make no sliver of this base; none where it can.
fn unfit(root: &Root, kind: Kind, base: &Base) -> Option<String> {
    let tree = base.content(root);
    let plain = kind == Kind::BtrfsSnapshot
        && base.form == Form::Directory
        && fs::metadata(tree).is_ok_and(|meta| meta.ino() != btrfs::ROOT_INODE);
    plain.then(|| {
        format!(
            "{} is no subvolume, so there is no snapshot of it: it was not added where it is now",
            tree.display()
        )
    })
}

/// The mount options that the kernel knows for a kind. Remembered, or asked without touching a disk.
pub fn features(root: &Root, kind: Kind) -> Result<Features> {
    let known = recall(root, None)?.into_iter().find(|verdict| verdict.kind == kind && verdict.works);
    match known {
        Some(verdict) => Ok(verdict.features),
        None => match kind {
            Kind::Union(union) => {
                kernel::need(union.caps().fstype)?;
                Features::ask(union, &mut |options| kernel::ask(union.caps().fstype, options))
            }
            Kind::BtrfsSeed => Ok(seed::features()),
            Kind::FuseOverlayfs => kernel::need(fuse::KERNEL).map(|()| Features::default()),
            _ => Ok(Features::default()),
        },
    }
}

/// The verdicts that still hold. With `filesystems`, a "no" holds only while that list is the same.
fn recall(root: &Root, filesystems: Option<u64>) -> Result<Vec<Verdict>> {
    let Ok(known) = record::read::<Remembered>(root.run().below(FILE)) else {
        return Ok(Vec::new()); // Missing or unreadable: what is remembered can be found out again.
    };
    if known.boot != proc::boot_id()? || known.disk != disk_id(root)? {
        return Ok(Vec::new());
    }
    let same = filesystems.is_none_or(|now| now == known.filesystems);
    Ok(known.verdicts.iter().filter(|verdict| verdict.works || same).copied().collect())
}

/// The file system's own id and its type, as one number.
fn disk_id(root: &Root) -> Result<u64> {
    let disk = statfs::of(root.stores())?;
    let id = match disk.id {
        // FUSE gives none: the source of the mount stands for it.
        0 => {
            let stores = fs::canonicalize(root.stores()).at("open", root.stores())?;
            disk::of(&MountInfo::of_self()?, &stores).map_or(0, |disk| fnv64a(disk.source.as_bytes()))
        }
        id => id,
    };
    Ok(id ^ u64::from(disk.magic))
}

/// One trial, in a child with a mount namespace of its own: whatever happens, no trial mount stays.
fn try_kind(root: &Root, kind: Kind) -> Result<Verdict> {
    // Without links in it, as mountinfo names the mount point of the trial.
    let stores = fs::canonicalize(root.stores()).at("open", root.stores())?;
    sweep(&stores)?;
    let disk = disk::of(&MountInfo::of_self()?, &stores);
    let path: &str = root.path().display().to_string().leak();
    if kind == Kind::Copy {
        // Nothing is tried, since this is asked each time: any disk takes a copy that can be written to.
        let writable =
            statfs::refuse_read_only(&stores).and_then(|()| match statfs::of(&stores)?.available {
                0 => Err(Error::sys("write to the disk of", &stores, Errno::ENOSPC)),
                _ => Ok(()),
            });
        return Ok(match writable {
            Ok(()) => dedup::verdict(path, disk.as_ref()),
            Err(err) => Verdict::untried(kind, not_made(path, &err)),
        });
    }
    let disk = DiskName { path, fstype: disk.map_or("an unknown file system", |disk| disk.fstype.leak()) };
    let dir = stores.join(format!("{TRIAL}{}", std::process::id()));
    let trial = || {
        file::create_dir(&dir)?;
        match kind {
            Kind::Union(union) => trial::run(&mut Running::lay_out(&dir, disk)?, union),
            Kind::BtrfsSnapshot | Kind::Reflink if !disk::same(root.bases(), &stores)? => {
                let (base, store) = (root.bases(), stores.display());
                let reason = format_args!(
                    "`{}` and `{store}` lie on different disks, and files share only on one: bring them onto one, or \
                     take another kind",
                    base.display()
                );
                Ok(Verdict::no(kind, true, reason, false))
            }
            Kind::BtrfsSnapshot => tree_trial::snapshot(&dir, disk),
            Kind::BtrfsSeed => seed::trial(&dir, disk),
            Kind::Reflink => tree_trial::reflink(&dir, disk),
            Kind::FuseOverlayfs => fuse::run(&dir, disk),
            Kind::Copy => Ok(Verdict::yes(kind)),
        }
    };
    let mut trial = Some(trial);
    let answer = private::run(root.path(), &mut || {
        let Some(trial) = trial.take() else { return Ok(&[]) };
        // What kept the trial from being made at all may pass.
        let verdict = trial().unwrap_or_else(|err| Verdict::untried(kind, not_made(path, &err)));
        Ok(json::write(&verdict)?.leak())
    });
    sweep(&stores)?;
    match answer {
        Ok(verdict) => Json::parse(verdict).and_then(|verdict| Verdict::from_json(&verdict)),
        // Missing rights.
        Err(err) => Ok(Verdict::untried(kind, err)),
    }
}

/// Why a trial could not be made, in words that do not speak of its files.
fn not_made(disk: &str, err: &Error) -> String {
    match err.errno() {
        Some(Errno::ENOSPC | Errno::EDQUOT) => trial::full(disk),
        Some(Errno::EROFS) => {
            format!(
                "the disk of `{disk}` is mounted read-only: remount it, or check it with fsck, and try again"
            )
        }
        _ => err.to_string(),
    }
}

/// Removes trial folders, also those that a crash left: who probes holds the catalog's lock, so none is in use.
fn sweep(stores: &Path) -> Result<()> {
    for name in file::names(stores).at("list", stores)? {
        if name.as_encoded_bytes().starts_with(TRIAL.as_bytes()) {
            remove_store(&stores.join(name))?;
        }
    }
    Ok(())
}
