//! `sliverfs usage`: what slivers take, what they share, and what that saves.

mod rows;

use std::cell::Cell;

use nix::errno::Errno;

use rows::{
    BACKEND, BAR, BASE, BY, COMPACT, ERROR, Field, Fields, INODES, KEPT, LIMIT, MEANS, NAME, NODE, OF_BASE,
    OWN, Row, SHARED, SLIVER, Sheet, USED, bar, percent, print,
};

use crate::alive::Views;
use crate::catalog::base::Base;
use crate::catalog::{Root, Sliver, sweep};
use crate::cli::Args;
use crate::cmd::layers::Layers;
use crate::cmd::{Ctx, replace};
use crate::error::{Error, Result};
use crate::layer::{Aspects, Compact, Format, Scratch};
use crate::mount::mountinfo::MountInfo;
use crate::name::Name;
use crate::out;
use crate::quota::{self, held};
use crate::stay::for_good;
use crate::sum::Sum as _;
use crate::sys::file::is_terminal;
use crate::tree;
use crate::usage::{self, Books, Taken};

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
        // What a rebase keeps stands on a base, too.
        let before = replace::kept(root, sliver).unwrap_or_default();
        if let Some(before) = before.filter(|before| before.base != sliver.base) {
            let slivers = &self.base(&before.base)?.slivers;
            slivers.set(slivers.get() + 1);
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
