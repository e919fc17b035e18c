//! What works on a node's disk, tried once and remembered for this boot and this disk.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::features::Features;
use super::kernel::{self, Running};
use super::tree as tree_trial;
use super::trial::{self, DiskName};
use super::verdict::Verdict;
use crate::catalog::root::create_dir;
use crate::catalog::{Root, record};
use crate::error::{Context, Error, Result};
use crate::hash::fnv64a;
use crate::json::{FromJson, Json};
use crate::kind::{Choice, Kind};
use crate::mount::disk;
use crate::mount::mountinfo::MountInfo;
use crate::mount::private;
use crate::sys::file;
use crate::sys::statfs;
use crate::tree;

/// What is remembered in the run folder.
#[derive(Serialize)]
struct Remembered {
    version: u64,
    /// /proc/sys/kernel/random/boot_id: a run folder that outlives a boot (no tmpfs) is not believed.
    boot: String,
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
            boot: json.text("boot")?.to_owned(),
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
            Some(at) => known.swap_remove(at),
            None => try_kind(root, kind)?,
        };
        verdicts.push(verdict);
    }
    let keep = Remembered {
        version: record::VERSION,
        boot: boot_id()?,
        disk: disk_id(root)?,
        // A module that the trials loaded is no reason to try again.
        filesystems: fnv64a(kernel::filesystems()?.as_bytes()),
        verdicts: verdicts.iter().filter(|verdict| verdict.lasting).cloned().collect(),
    };
    record::write_volatile(root.run(), FILE, &keep)?;
    Ok(verdicts)
}

/// The kind to use: the named one where it works, or the first that does.
pub fn choose(root: &Root, choice: Choice) -> Result<Kind> {
    pick(root, &probe(root, false)?, choice)
}

/// As [`choose`], from what is remembered: nothing is tried, nothing is written.
pub fn remembered(root: &Root, choice: Choice) -> Result<Kind> {
    let known = recall(root, None)?;
    match choice {
        Choice::Named(kind) if known.iter().all(|verdict| verdict.kind != kind) => Ok(kind),
        Choice::Auto if known.is_empty() => {
            Err(Error::failed(format!("what works on {} was not tried in this boot", root.path().display()))
                .way_out("run `sliverfs probe` first, or name a backend"))
        }
        _ => pick(root, &known, choice),
    }
}

fn pick(root: &Root, verdicts: &[Verdict], choice: Choice) -> Result<Kind> {
    let mut reasons = Vec::new();
    for verdict in verdicts {
        let asked = match choice {
            Choice::Auto => true,
            Choice::Named(kind) => kind == verdict.kind,
        };
        if asked && verdict.works && (verdict.auto || choice != Choice::Auto) {
            return Ok(verdict.kind);
        }
        if asked && (verdict.offered || choice != Choice::Auto) {
            reasons.extend(verdict.reason.as_deref());
        }
    }
    if reasons.is_empty() {
        reasons.push("this kernel and this disk offer none");
    }
    Err(Error::unsupported(format!("no backend for {}: {}", root.path().display(), reasons.join("; ")))
        .way_out("`sliverfs probe` shows what was tried"))
}

/// The mount options that the kernel knows for a kind. Remembered, or asked without touching a disk.
pub fn features(root: &Root, kind: Kind) -> Result<Features> {
    let known = recall(root, None)?.into_iter().find(|verdict| verdict.kind == kind && verdict.works);
    match known {
        Some(verdict) => Ok(verdict.features),
        None => match kind {
            Kind::Union(union) => {
                kernel::need(union)?;
                Features::ask(union, &mut |options| kernel::ask(union.caps().fstype, options))
            }
            _ => Ok(Features::default()),
        },
    }
}

/// The verdicts that still hold. With `filesystems`, a "no" holds only while that list is the same.
fn recall(root: &Root, filesystems: Option<u64>) -> Result<Vec<Verdict>> {
    let Ok(known) = record::read::<Remembered>(&root.run().join(FILE)) else {
        return Ok(Vec::new()); // Missing or unreadable: what is remembered can be found out again.
    };
    if known.boot != boot_id()? || known.disk != disk_id(root)? {
        return Ok(Vec::new());
    }
    let same = filesystems.is_none_or(|now| now == known.filesystems);
    Ok(known.verdicts.into_iter().filter(|verdict| verdict.works || same).collect())
}

fn boot_id() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    Ok(file::text(path).at("read", path)?.trim().to_owned())
}

/// The file system's own id and its type, as one number.
fn disk_id(root: &Root) -> Result<u64> {
    let disk = statfs::of(&root.stores())?;
    Ok(disk.id ^ u64::from(disk.magic))
}

/// One trial, in a child with a mount namespace of its own: whatever happens, no trial mount stays.
fn try_kind(root: &Root, kind: Kind) -> Result<Verdict> {
    // Without links in it, as mountinfo names the mount point of the trial.
    let stores = fs::canonicalize(root.stores()).at("open", &root.stores())?;
    sweep(&stores)?;
    let disk = disk::of(&MountInfo::of_self()?, &stores);
    let disk = DiskName {
        path: root.path().display().to_string(),
        fstype: disk.map_or_else(|| "an unknown file system".to_owned(), |disk| disk.fstype),
    };
    let dir = stores.join(format!("{TRIAL}{}", std::process::id()));
    let answer = private::run(root.path(), || {
        create_dir(&dir)?;
        let verdict = match kind {
            Kind::Union(union) => trial::run(&mut Running::lay_out(&dir, disk)?, union)?,
            Kind::BtrfsSnapshot => tree_trial::snapshot(&dir, &disk)?,
            Kind::Reflink => tree_trial::reflink(&dir, &disk)?,
            Kind::Copy => Verdict::by_name(
                kind,
                format!("a full copy shares nothing on {}: only when asked for by name", disk.fstype),
            ),
        };
        serde_json::to_vec(&verdict).map_err(|err| Error::failed(format!("write the verdict as JSON: {err}")))
    });
    sweep(&stores)?;
    match answer {
        Ok(verdict) => Json::parse(&verdict).and_then(|verdict| Verdict::from_json(&verdict)),
        // What kept the trial from being made at all (a full or read-only disk, missing rights) may pass.
        Err(err) => Ok(Verdict::untried(kind, err.to_string())),
    }
}

/// The start of a trial folder's name. No sliver's name starts with a dot.
const TRIAL: &str = ".probe.";

/// Removes trial folders, also those that a crash left: who probes holds the catalog's lock, so none is in use.
fn sweep(stores: &Path) -> Result<()> {
    for entry in fs::read_dir(stores).at("list", stores)? {
        let entry = entry.at("list", stores)?;
        if entry.file_name().as_encoded_bytes().starts_with(TRIAL.as_bytes()) {
            tree::remove_path(&entry.path())?;
        }
    }
    Ok(())
}
