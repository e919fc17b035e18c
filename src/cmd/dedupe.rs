//! `sliverfs dedupe`: lets the files of whole stores share extents again, with the base and with one another.

use std::path::Path;

use serde::Serialize;

use crate::catalog::base::Base;
use crate::catalog::{Root, Sliver};
use crate::cli::Args;
use crate::error::{Error, Result};
use crate::form::Form;
use crate::mount::disk;
use crate::name::Name;
use crate::out::{self, Table};
use crate::progress::Progress;
use crate::quota::{image, zfs};
use crate::size::Size;
use crate::stay::Below;
use crate::sum::Sum;
use crate::sys::{statfs, sync};
use crate::tree::{self, Shared};

/// A sliver, as `dedupe --json` prints it: see docs/json.md.
#[derive(Serialize)]
struct Row {
    name: Name,
    files: u64,
    bytes: u64,
    found: u64,
    gain: u64,
    error: Option<String>,
}

/// What `dedupe --json` prints.
#[derive(Serialize)]
struct Sheet {
    dry_run: bool,
    gain: u64,
    available_before: u64,
    available_after: u64,
    slivers: Vec<Row>,
}

/// Deduplicates the stores that were named, or all that are whole trees; one that fails is told and keeps no other from its turn.
///
/// No lock is taken: what is seen of a store stays the same, so it may be mounted, run, made and destroyed meanwhile.
pub fn run(root: &Root, args: &Args) -> Result<()> {
    let (all, names) = (trees(root)?, args.names()?);
    for name in &names {
        let sliver = Sliver::load(root, name)?;
        if !is_tree(sliver) {
            return Err(Error::usage(format_args!(
                "the store of `{name}` ({}) holds only what the sliver changed",
                sliver.backend
            ))
            .way_out("whole trees can be deduplicated: btrfs-snapshot, reflink, copy"));
        }
    }
    let chosen = |sliver: &Sliver| names.is_empty() || names.contains(&sliver.name);
    let available = || -> Result<u64> {
        if !args.dry_run {
            // What was deleted a moment ago is free only then.
            sync::disk(root.stores())?;
        }
        Ok(statfs::of(root.stores())?.available)
    };
    let mut sheet = Sheet {
        dry_run: args.dry_run,
        gain: 0,
        available_before: available()?,
        available_after: 0,
        slivers: Vec::new(),
    };
    let mut failed = None;
    let mut others = Vec::new();
    for sliver in all.iter().filter(|sliver| !chosen(sliver)) {
        others.push(store(root, sliver));
    }
    for sliver in all.iter().filter(|sliver| chosen(sliver)) {
        let (shared, error) = match one(root, sliver, &others, args.dry_run) {
            Ok(shared) => (shared, None),
            Err(err) => {
                log::error!("{}: {err}", sliver.name);
                let text = err.to_string();
                failed.get_or_insert(Error::new(err.class(), "not all slivers could be deduplicated"));
                (Shared::default(), Some(text))
            }
        };
        let Shared { files, bytes, found, gain } = shared;
        sheet.gain = sheet.gain.plus(gain);
        sheet.slivers.push(Row { name: sliver.name, files, bytes, found, gain, error });
        // What equals nothing that came before may equal what comes after.
        others.push(store(root, sliver));
    }
    sheet.available_after = available()?;
    if args.json { out::json(&sheet) } else { print(&sheet) }?;
    failed.map_or(Ok(()), Err)
}

/// Is the store a whole tree?
fn is_tree(sliver: &Sliver) -> bool {
    !sliver.backend.reads_base() && !sliver.backend.grows_image()
}

/// The slivers whose stores are whole trees.
fn trees(root: &Root) -> Result<Vec<&'static Sliver>> {
    let mut trees = Vec::new();
    for name in Sliver::names(root)? {
        match Sliver::load(root, &name) {
            Ok(sliver) if is_tree(sliver) => trees.push(sliver),
            Ok(_) => {}
            Err(err) => crate::warn!("{err}"),
        }
    }
    Ok(trees)
}

fn store(root: &Root, sliver: &Sliver) -> &'static Path {
    image::content(root.store(&sliver.name)).below("tree")
}

fn one(root: &Root, sliver: &Sliver, others: &[&Path], dry_run: bool) -> Result<Shared> {
    zfs::refuse_unmounted(root.store(&sliver.name))?;
    let path = store(root, sliver);
    let base = Base::load(root, &sliver.base)?;
    // An image is a disk of its own.
    let base = match base.form {
        Form::Directory if disk::same(root.bases(), root.stores())? => Some(tree::open(base.content(root))?),
        _ => None,
    };
    let progress = Progress::new(sliver.name.as_str(), None);
    tree::dedupe(
        tree::open(path)?,
        path.as_os_str().as_encoded_bytes(),
        base,
        others,
        dry_run,
        &mut |bytes| {
            progress.add(bytes);
        },
    )
}

fn print(sheet: &Sheet) -> Result<()> {
    if sheet.slivers.is_empty() {
        return out::line("no sliver here is a whole tree (btrfs-snapshot, reflink, copy): nothing to do");
    }
    let mut table = Table::new(&["NAME", "FILES", "SIZE", "FOUND", "GAIN"]);
    for row in &sheet.slivers {
        if row.error.is_some() {
            table.row(&[row.name.as_str(), "failed"]);
            continue;
        }
        table.row(&[
            row.name.as_str(),
            &row.files.to_string(),
            &Size(row.bytes).to_string(),
            &row.found.to_string(),
            &Size(row.gain).to_string(),
        ]);
    }
    table.print()?;
    let (gain, before, after) = (Size(sheet.gain), Size(sheet.available_before), Size(sheet.available_after));
    if sheet.dry_run {
        return out::line(format_args!(
            "{gain} of files could share their place on the disk; nothing was changed"
        ));
    }
    out::line(format_args!(
        "{gain} of files share their place on the disk now (FIEMAP); free before: {before}, now: {after} (statfs)"
    ))
}
