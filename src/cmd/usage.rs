//! `sliverfs usage`: what slivers take, what they share, and what that saves.

use std::cell::Cell;

use nix::errno::Errno;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::alive::Views;
use crate::catalog::base::Base;
use crate::catalog::{Root, Sliver, sweep};
use crate::cli::Args;
use crate::cmd::Ctx;
use crate::cmd::layers::Layers;
use crate::error::{Error, Result};
use crate::layer::{Aspects, Compact, Format, Scratch};
use crate::mount::mountinfo::MountInfo;
use crate::name::Name;
use crate::out::{self, Table};
use crate::quota::{self, held};
use crate::size::Size;
use crate::stay::for_good;
use crate::sum::Sum as _;
use crate::sys::file::is_terminal;
use crate::tree;
use crate::usage::{self, Books, Taken};

/// What is known of a sliver, a base or the node, as a table shows it. JSON has the bare numbers.
#[derive(Clone, Copy)]
enum Field {
    Unknown,
    Text(&'static str),
    Count(u64),
    Bytes(u64),
    /// Bytes that nothing keeps a sliver to.
    Soft(u64),
}

impl Field {
    fn number(self) -> u64 {
        match self {
            Self::Unknown | Self::Text(_) => 0,
            Self::Count(number) | Self::Bytes(number) | Self::Soft(number) => number,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Unknown => "-",
            Self::Text(text) => text,
            Self::Count(count) => count.to_string().leak(),
            Self::Bytes(bytes) => Size(bytes).words().leak(),
            Self::Soft(bytes) => (Size(bytes).words() + " (soft)").leak(),
        }
    }
}

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Unknown => to.serialize_unit(),
            Self::Text(text) => to.serialize_str(text),
            number => to.serialize_u64(number.number()),
        }
    }
}

/// A row, with the names that its fields have in JSON, in their order: see docs/json.md. What has no name is not there.
struct Row(&'static [&'static str], &'static [Field]);

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let mut object = to.serialize_map(None)?;
        for (name, field) in self.0.iter().zip(self.1) {
            if !name.is_empty() {
                object.serialize_entry(name, field)?;
            }
        }
        object.end()
    }
}

/// A sliver's fields.
const SLIVER: [&str; 14] = [
    "name",
    "backend",
    "base",
    "exclusive",
    "shared",
    "inodes",
    "by",
    "used",
    "limit",
    "kept",
    "compact",
    "",
    "means",
    "error",
];
const SLIVER_HEADS: [&str; 12] =
    ["NAME", "BACKEND", "BASE", "OWN", "SHARED", "INODES", "BY", "USED", "LIMIT", "KEPT", "COMPACT", ""];

/// Where in its row they are.
const NAME: usize = 0;
const BACKEND: usize = 1;
const OF_BASE: usize = 2;
const OWN: usize = 3;
const SHARED: usize = 4;
const INODES: usize = 5;
const BY: usize = 6;
const USED: usize = 7;
const LIMIT: usize = 8;
const KEPT: usize = 9;
const COMPACT: usize = 10;
const BAR: usize = 11;
const MEANS: usize = 12;
const ERROR: usize = 13;

type Fields = [Field; SLIVER.len()];

/// A base's.
const BASE: [&str; 6] = ["name", "form", "disk", "slivers", "mounted", "cached"];
const BASE_HEADS: [&str; 6] = ["BASE", "FORM", "DISK", "SLIVERS", "MOUNTED", "CACHED"];

/// The node's.
const NODE: [&str; 5] = ["separate", "taken", "saved", "percent", "page_cache_saved"];

/// What `usage --json` prints.
#[derive(Serialize)]
struct Sheet {
    deep: bool,
    slivers: Vec<Row>,
    bases: Vec<Row>,
    node: Option<Row>,
}

/// A base, how many slivers stand on it, and how many views read it.
struct Users {
    base: &'static Base,
    slivers: Cell<u64>,
    mounted: Cell<u64>,
}

/// What is counted with, and the bases that were met so far.
struct Count {
    root: &'static Root,
    /// With `--deep`.
    views: Option<Views>,
    /// The slivers of which a store is kept.
    kept: Vec<Name>,
    books: Books,
    bases: Vec<&'static Users>,
}

/// Counts the slivers that were named with their bases, or all of the node. One that fails is told, and keeps no other from its turn.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let root = ctx.root()?;
    let all = args.words.is_empty();
    let names = if all { Sliver::names(root)? } else { args.names()? };
    let views = if args.deep { Some(Views::everywhere(root)?) } else { None };
    let (kept, books) = (sweep::kept(root)?, Books::default());
    // What there is one of stays.
    let count = Box::leak(Box::new(Count { root, views, kept, books, bases: Vec::new() }));
    if all {
        for name in Base::names(root)? {
            sweep::told(count.base(&name).map(drop));
        }
    }
    let (mut rows, mut failed) = (Vec::new(), None);
    let (mut separate, mut taken, mut largest) = (0u64, 0u64, 0);
    for name in names {
        let row = Box::leak(Box::new([Field::Unknown; SLIVER.len()]));
        row[NAME] = Field::Text(name.as_str());
        if !args.json {
            // Where its record is not read.
            row[BACKEND] = Field::Text("failed");
        }
        if let Err(err) = count.fill(ctx, row, &name) {
            // It was destroyed meanwhile.
            if all && !root.store(&name).exists() {
                continue;
            }
            log::error!("{name}: {err}");
            row[ERROR] = Field::Text(err.to_string().leak());
            failed.get_or_insert(Error::new(err.class(), "not all slivers could be counted"));
        }
        let own = row[OWN].number();
        separate = separate.plus(own).plus(row[SHARED].number());
        taken = taken.plus(own).plus(row[KEPT].number());
        largest = own.max(largest);
        rows.push(row);
    }
    let (deep, node) = (args.deep, None);
    let sheet = Box::leak(Box::new(Sheet { deep, slivers: Vec::new(), bases: Vec::new(), node }));
    for row in rows {
        if is_terminal(1) {
            row[BAR] = Field::Text(bar(row, largest));
        }
        sheet.slivers.push(Row(&SLIVER, row));
    }
    let mounts = if deep { Some(MountInfo::of_self()?) } else { None };
    let mut page_cache_saved = 0u64;
    for Users { base, slivers, mounted } in &count.bases {
        let (row, mounted) = (Box::leak(Box::new([Field::Unknown; BASE.len()])), mounted.get());
        taken = taken.plus(base.disk);
        row[0] = Field::Text(base.name.as_str());
        row[1] = Field::Text(base.form.name());
        row[2] = Field::Bytes(base.disk);
        row[3] = Field::Count(slivers.get());
        if let Some(mounts) = &mounts {
            row[4] = Field::Count(mounted);
            match usage::cached(root, base, mounts) {
                Ok(Some(cached)) => {
                    page_cache_saved = page_cache_saved.plus(cached.times(mounted.minus(1)));
                    row[5] = Field::Bytes(cached);
                }
                Ok(None) => {}
                Err(err) => sweep::told(Err(err)),
            }
        }
        sheet.bases.push(Row(&BASE, row));
    }
    if all {
        let saved = separate.minus(taken);
        sheet.node = Some(Row(
            &NODE,
            for_good([
                Field::Bytes(separate),
                Field::Bytes(taken),
                Field::Bytes(saved),
                Field::Count(percent(saved, separate).into()),
                if deep { Field::Bytes(page_cache_saved) } else { Field::Unknown },
            ]),
        ));
    }
    if args.json { out::json(sheet) } else { print(sheet) }?;
    failed.map_or(Ok(()), Err)
}

impl Count {
    /// A base, by its name.
    fn base(&mut self, name: &Name) -> Result<&'static Users> {
        for users in &self.bases {
            if users.base.name == *name {
                return Ok(users);
            }
        }
        let base = Base::load(self.root, name)?;
        let users = for_good(Users { base, slivers: Cell::new(0), mounted: Cell::new(0) });
        self.bases.push(users);
        Ok(users)
    }

    /// Fills the row of a sliver, as far as it comes.
    fn fill(&mut self, ctx: &mut Ctx, row: &mut Fields, name: &Name) -> Result<()> {
        let root = self.root;
        let (sliver, record) = Sliver::load_open(root, name)?;
        row[BACKEND] = Field::Text(sliver.backend.name());
        row[OF_BASE] = Field::Text(sliver.base.as_str());
        if self.kept.binary_search(name).is_ok() {
            match held::space(sweep::kept_store(root, name)) {
                // It went meanwhile.
                Err(err) if err.errno() == Some(Errno::ENOENT) => {}
                space => row[KEPT] = Field::Bytes(space?),
            }
        }
        let books = if self.views.is_some() { None } else { Some((&mut self.books, &record)) };
        let &Taken { exclusive, shared, through, inodes, used, by } = usage::taken(root, sliver, books)?;
        row[OWN] = Field::Bytes(exclusive);
        row[SHARED] = Field::Bytes(shared);
        row[INODES] = inodes.map_or(Field::Unknown, Field::Count);
        row[BY] = Field::Text(by);
        if let Some(limit) = quota::limit(root, sliver) {
            let hard = limit.means.is_hard();
            row[LIMIT] = if hard { Field::Bytes(limit.bytes) } else { Field::Soft(limit.bytes) };
            row[MEANS] = Field::Text(limit.means.name());
            row[USED] = Field::Bytes(match used {
                _ if !hard => exclusive,
                Some(used) => used,
                None => held::used(root, sliver)?,
            });
        }
        let Users { base, slivers, mounted } = self.base(&sliver.base)?;
        slivers.set(slivers.get() + 1);
        if through {
            row[SHARED] = Field::Bytes(usage::copy_of(base));
        }
        let Some(views) = self.views.as_ref().filter(|_| sliver.backend.reads_base()) else { return Ok(()) };
        mounted.set(mounted.get() + u64::from(views.of(root, name).next().is_some()));
        // An image that nobody has mounted is mounted to be looked into: nobody may do so, too.
        let _lock = if sliver.has_image() { Some(root.lock_sliver(name)?) } else { None };
        let [compact, covered] = compare(ctx, name)?;
        row[COMPACT] = Field::Bytes(compact);
        // What overlay copied up may still lie where it lies in the base: a disk that can lets both share it.
        row[SHARED] = Field::Bytes(usage::copy_of(base).minus(covered).plus(shared));
        Ok(())
    }
}

/// What compact would give back of a sliver's store, and what of its base is covered, in bytes.
fn compare(ctx: &mut Ctx, name: &Name) -> Result<[u64; 2]> {
    let words = [name.to_string()];
    let layers = Layers::of(&words);
    let answer = layers.ask(ctx, &mut |format: Format, base, store, _| {
        let scratch = Scratch::inside(store)?;
        let (tell, progress) = (&mut |_: &str, _: &[u8]| Ok(()), &mut |_| {});
        let compact = Compact::new(format, &scratch, Aspects::NONE, true, tell, progress);
        let bytes = compact.run(tree::again(store)?, base)?.bytes;
        let covered = usage::covered(format, tree::again(store)?, base)?;
        Ok([bytes.to_ne_bytes(), covered.to_ne_bytes()].concat().leak())
    })?;
    match (answer.first_chunk(), answer.last_chunk()) {
        (Some(compact), Some(covered)) => Ok([u64::from_ne_bytes(*compact), u64::from_ne_bytes(*covered)]),
        _ => Err(Error::failed("the comparison gave no answer")),
    }
}

/// `part` of `whole` in percent, rounded down.
fn percent(part: u64, whole: u64) -> u32 {
    let (part, whole) = match part.product(100) {
        Some(part) => (part, whole),
        None => (part, whole / 100),
    };
    part.checked_div(whole).map_or(0, |percent| percent.try_into().unwrap_or(u32::MAX))
}

/// A sliver's bar: of its limit, with the percents, or beside the largest of all.
fn bar(row: &Fields, largest: u64) -> &'static str {
    let own = if matches!(row[USED], Field::Unknown) { row[OWN] } else { row[USED] }.number();
    match row[LIMIT].number() {
        0 => filled(own, largest),
        limit => format!("{} {}%", filled(own, limit), percent(own, limit)).leak(),
    }
}

/// `part` of `whole` as a bar, never empty where there is something.
fn filled(part: u64, whole: u64) -> &'static str {
    const WIDTH: usize = 20;
    const BOTH: &str = "####################....................";
    let filled = if part == 0 { 0 } else { percent(part, whole).div_ceil(5).max(1) };
    let empty = WIDTH.saturating_sub(filled as usize);
    BOTH.get(empty..empty + WIDTH).unwrap_or_default()
}

/// Prints rows below these heads; of the columns from `optional` on those alone of which something is known.
fn table(heads: &[&str], rows: &[Row], optional: usize) -> Result<()> {
    let mut table = Table::new(heads);
    for column in optional..heads.len() {
        let known = |Row(_, fields): &Row| !matches!(fields.get(column), Some(Field::Unknown));
        if !rows.iter().any(known) {
            table.hide(column);
        }
    }
    for Row(_, fields) in rows {
        let mut words = Vec::new();
        for field in *fields {
            words.push(field.words());
        }
        table.row(&words);
    }
    table.print()
}

fn print(sheet: &Sheet) -> Result<()> {
    if !sheet.slivers.is_empty() {
        table(&SLIVER_HEADS, &sheet.slivers, USED)?;
        out::line("")?;
    }
    table(&BASE_HEADS, &sheet.bases, 4)?;
    let Some(Row(_, [separate, taken, saved, percent, page_cache_saved])) = &sheet.node else {
        return Ok(());
    };
    let all = format!("\nseparate copies would take {}, {} are taken", separate.words(), taken.words());
    match saved.number() {
        0 => out::line(format_args!("{all}: nothing is saved yet")),
        _ => out::line(format_args!("{all}: {} saved, {} %", saved.words(), percent.number())),
    }?;
    match page_cache_saved {
        Field::Unknown => {
            crate::info!("what slivers cover of their bases counts as shared: `--deep` takes it off");
            Ok(())
        }
        saved if saved.number() == 0 => Ok(()),
        saved => out::line(format_args!("page cache: up to {} saved, since views share it", saved.words())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_whole() {
        for (part, whole, wanted) in
            [(0, 0, 0), (1, 3, 33), (3, 3, 100), (5, 0, 0), (u64::MAX, u64::MAX, 100)]
        {
            assert_eq!(percent(part, whole), wanted, "{part} of {whole}");
        }
        // Beyond what 32 bits hold.
        assert_eq!(percent(5 << 30, 20 << 30), 25);
        assert_eq!(filled(0, 100), "....................");
        assert_eq!(filled(1, 1 << 40), "#...................");
        assert_eq!(filled(50, 100), "##########..........");
        assert_eq!(filled(7, 3), "####################");
        assert_eq!(filled(7, 0), "#...................");
    }
}
