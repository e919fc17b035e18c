//! `sliverfs usage`: what slivers take, what they share, and what that saves.

use nix::errno::Errno;
use serde::Serialize;

use crate::alive::Views;
use crate::catalog::base::Base;
use crate::catalog::{Root, Sliver, sweep};
use crate::cli::Args;
use crate::cmd::Ctx;
use crate::cmd::layers::Layers;
use crate::error::{Error, Result};
use crate::kind::Kind;
use crate::layer::{Aspects, Compact, Format, Scratch};
use crate::mount::mountinfo::MountInfo;
use crate::name::Name;
use crate::out::{self, Table};
use crate::quota::{self, Limit, Means};
use crate::size::Size;
use crate::sum::Sum as _;
use crate::sys::file::is_terminal;
use crate::tree;
use crate::usage::{self, Books, Taken};

/// How many characters a bar has.
const BAR: u64 = 20;

/// A sliver, as `usage --json` prints it: see docs/json.md.
#[derive(Serialize)]
struct Row {
    name: Name,
    backend: Option<Kind>,
    base: Option<Name>,
    exclusive: Option<u64>,
    shared: Option<u64>,
    inodes: Option<u64>,
    by: Option<&'static str>,
    limit: Option<u64>,
    means: Option<Means>,
    used: Option<u64>,
    kept: Option<u64>,
    compact: Option<u64>,
    error: Option<&'static str>,
}

/// A base, as `usage --json` prints it.
#[derive(Serialize)]
struct BaseRow {
    name: Name,
    form: &'static str,
    disk: u64,
    slivers: u64,
    mounted: Option<u64>,
    cached: Option<u64>,
}

/// All of the node.
#[derive(Default, Serialize)]
struct Sum {
    separate: u64,
    taken: u64,
    saved: u64,
    percent: u64,
    page_cache_saved: Option<u64>,
}

/// What `usage --json` prints.
#[derive(Serialize)]
struct Sheet {
    deep: bool,
    slivers: Vec<Row>,
    bases: Vec<BaseRow>,
    node: Option<Sum>,
}

/// Counts the slivers that were named with their bases, or all of the node. One that fails is told, and keeps no other from its turn.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let root = ctx.root()?;
    let names = args.names()?;
    let all = names.is_empty();
    let mut bases = Vec::new();
    for name in if all { Base::names(root)? } else { Vec::new() } {
        match Base::load(root, &name) {
            Ok(base) => bases.push((base, 0, 0)),
            Err(err) => crate::warn!("{err}"),
        }
    }
    let views = if args.deep { Some(Views::everywhere(root)?) } else { None };
    let old = sweep::kept(root)?;
    // What there is one of stays.
    let books = Box::leak(Box::new(Books::default()));
    let sheet =
        Box::leak(Box::new(Sheet { deep: args.deep, slivers: Vec::new(), bases: Vec::new(), node: None }));
    let mut failed = None;
    for name in if all { Sliver::names(root)? } else { names } {
        let mut row = Row {
            name,
            backend: None,
            base: None,
            exclusive: None,
            shared: None,
            inodes: None,
            by: None,
            limit: None,
            means: None,
            used: None,
            kept: None,
            compact: None,
            error: None,
        };
        let kept = old.binary_search(&name).is_ok();
        match fill(ctx, root, &mut row, kept, &mut bases, views.as_ref(), books) {
            // It was destroyed meanwhile.
            Err(_) if all && !root.store(&name).exists() => continue,
            Err(err) => {
                log::error!("{name}: {err}");
                row.error = Some(err.to_string().leak());
                failed.get_or_insert(Error::new(err.class(), "not all slivers could be counted"));
            }
            Ok(()) => {}
        }
        sheet.slivers.push(row);
    }
    let mounts = if args.deep { Some(MountInfo::of_self()?) } else { None };
    let mut sum = Sum { page_cache_saved: mounts.as_ref().map(|_| 0), ..Sum::default() };
    for row in &sheet.slivers {
        let own = row.exclusive.unwrap_or(0);
        sum.separate = sum.separate.plus(own).plus(row.shared.unwrap_or(0));
        sum.taken = sum.taken.plus(own).plus(row.kept.unwrap_or(0));
    }
    for (base, slivers, mounted) in bases {
        sum.taken = sum.taken.plus(base.disk);
        let cached = match &mounts {
            Some(mounts) => {
                usage::cached(root, base, mounts).inspect_err(|err| crate::warn!("{err}")).unwrap_or(None)
            }
            None => None,
        };
        let saved = cached.unwrap_or(0).times(u64::saturating_sub(mounted, 1));
        sum.page_cache_saved = sum.page_cache_saved.map(|sum| sum.plus(saved));
        sheet.bases.push(BaseRow {
            form: base.form.name(),
            disk: base.disk,
            slivers,
            mounted: mounts.as_ref().map(|_| mounted),
            cached,
            name: base.name,
        });
    }
    sum.saved = sum.separate.minus(sum.taken);
    sum.percent = percent(sum.saved, sum.separate);
    sheet.node = all.then_some(sum);
    if args.json { out::json(sheet) } else { print(sheet) }?;
    failed.map_or(Ok(()), Err)
}

/// Fills the row of a sliver, as far as it comes. `kept`: there was a store that is kept of it. `bases` are those that were met, with their slivers, and with those of them whose
/// views read the base.
fn fill(
    ctx: &mut Ctx,
    root: &Root,
    row: &mut Row,
    kept: bool,
    bases: &mut Vec<(&'static Base, u64, u64)>,
    views: Option<&Views>,
    books: &mut Books,
) -> Result<()> {
    let (sliver, record) = Sliver::load_open(root, &row.name)?;
    row.backend = Some(sliver.backend);
    row.base = Some(sliver.base);
    if kept {
        row.kept = match quota::space(sweep::kept_store(root, &row.name)) {
            // It went meanwhile.
            Err(err) if err.errno() == Some(Errno::ENOENT) => None,
            space => Some(space?),
        };
    }
    let books = if views.is_some() { None } else { Some((books, &record)) };
    let Taken { exclusive, shared, through, inodes, used, by } = usage::taken(root, sliver, books)?;
    (row.exclusive, row.shared, row.inodes, row.by) = (Some(exclusive), Some(shared), inodes, Some(by));
    if let Some(&Limit { bytes, means, .. }) = quota::limit(root, sliver) {
        (row.limit, row.means) = (Some(bytes), Some(means));
        row.used = Some(match (means, used) {
            (Means::Soft, _) => exclusive,
            (_, Some(used)) => used,
            _ => quota::used(root, sliver)?,
        });
    }
    let at = match bases.iter().position(|(base, ..)| base.name == sliver.base) {
        Some(at) => at,
        None => {
            bases.push((Base::load(root, &sliver.base)?, 0, 0));
            bases.len().saturating_sub(1)
        }
    };
    let Some((base, slivers, mounted)) = bases.get_mut(at) else { return Ok(()) };
    *slivers += 1;
    if through {
        row.shared = Some(usage::copy_of(base));
    }
    let Some(views) = views else { return Ok(()) };
    if sliver.backend.reads_base() {
        *mounted += u64::from(views.of(root, &row.name).next().is_some());
        // An image that nobody has mounted is mounted to be looked into: nobody may do so, too.
        let _lock = if sliver.has_image() { Some(root.lock_sliver(&row.name)?) } else { None };
        let (compact, covered) = compare(ctx, &row.name)?;
        row.compact = Some(compact);
        // What overlay copied up may still lie where it lies in the base: a disk that can lets both share it.
        let through = usage::copy_of(base).minus(covered);
        row.shared = Some(through.plus(shared));
    }
    Ok(())
}

/// What compact would give back of a sliver's store, and what of its base is covered, in bytes.
fn compare(ctx: &mut Ctx, name: &Name) -> Result<(u64, u64)> {
    let words = [name.to_string()];
    let layers = Layers { words: &words, format: None, base: None, store: None, held: Default::default() };
    let answer = layers.ask(ctx, &mut |format: Format, base, store, _| {
        let scratch = Scratch::inside(&store)?;
        let (tell, progress) = (&mut |_: &str, _: &[u8]| Ok(()), &mut |_| {});
        let compact = Compact::new(format, &scratch, Aspects::NONE, true, tell, progress);
        let bytes = compact.run(tree::again(&store)?, &base)?.bytes;
        let covered = usage::covered(format, store, &base)?;
        Ok([bytes.to_ne_bytes(), covered.to_ne_bytes()].concat())
    })?;
    let number = |at: usize| answer.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
    match (number(0), number(8)) {
        (Some(compact), Some(covered)) => Ok((compact, covered)),
        _ => Err(Error::failed("the comparison gave no answer")),
    }
}

/// `part` of `whole` in percent, rounded down.
fn percent(part: u64, whole: u64) -> u64 {
    let (part, whole) = match part.product(100) {
        Some(part) => (part, whole),
        None => (part, whole / 100),
    };
    part.checked_div(whole).unwrap_or(0)
}

/// `part` of `whole` as a bar, never empty where there is something.
fn bar(part: u64, whole: u64) -> String {
    let percents = percent(part, whole);
    let mut bar = String::new();
    for at in 0..BAR {
        let filled = percents > at * 100 / BAR || at == 0 && part > 0;
        bar.push_str(if filled { "#" } else { "." });
    }
    bar
}

/// The bar of a sliver: of its limit, with the percents, or beside the largest of all.
fn shown(own: u64, limit: Option<u64>, largest: u64) -> String {
    let bar = bar(own, limit.unwrap_or(largest));
    match limit {
        Some(limit) => format!("{bar} {}%", percent(own, limit)),
        None => bar,
    }
}

fn print(sheet: &Sheet) -> Result<()> {
    let terminal = is_terminal(1);
    let (mut limited, mut kept, mut largest) = (false, false, 0);
    for row in &sheet.slivers {
        limited |= row.limit.is_some();
        kept |= row.kept.is_some();
        largest = largest.max(row.exclusive.unwrap_or(0));
    }
    let mut table = Table::new(&[
        "NAME", "BACKEND", "BASE", "OWN", "SHARED", "INODES", "BY", "USED", "LIMIT", "KEPT", "COMPACT", "",
    ]);
    for (column, shown) in (7..).zip([limited, limited, kept, sheet.deep, terminal]) {
        if !shown {
            table.hide(column);
        }
    }
    for row in &sheet.slivers {
        let own = row.used.or(row.exclusive).unwrap_or(0);
        let soft = if row.means.is_some_and(|means| !means.is_hard()) { " (soft)" } else { "" };
        table.row(&[
            row.name.as_str(),
            row.backend.map_or("failed", Kind::name),
            row.base.as_ref().map_or("-", Name::as_str),
            &size(row.exclusive),
            &size(row.shared),
            &row.inodes.map_or_else(|| "-".to_owned(), |inodes| inodes.to_string()),
            row.by.unwrap_or("-"),
            &size(row.used),
            &(size(row.limit) + soft),
            &size(row.kept),
            &size(row.compact),
            &if terminal { shown(own, row.limit, largest) } else { String::new() },
        ]);
    }
    if !sheet.slivers.is_empty() {
        table.print()?;
        out::line("")?;
    }
    let mut table = Table::new(&["BASE", "FORM", "DISK", "SLIVERS", "MOUNTED", "CACHED"]);
    if !sheet.deep {
        table.hide(4);
        table.hide(5);
    }
    for base in &sheet.bases {
        table.row(&[
            base.name.as_str(),
            base.form,
            &Size(base.disk).to_string(),
            &base.slivers.to_string(),
            &base.mounted.unwrap_or(0).to_string(),
            &size(base.cached),
        ]);
    }
    table.print()?;
    let Some(sum) = &sheet.node else { return Ok(()) };
    let (separate, taken) = (Size(sum.separate), Size(sum.taken));
    out::line(&match sum.saved {
        0 => format!("\nseparate copies would take {separate}, {taken} are taken: nothing is saved yet"),
        saved => format!(
            "\nseparate copies would take {separate}, {taken} are taken: {} saved, {} %",
            Size(saved),
            sum.percent
        ),
    })?;
    match sum.page_cache_saved {
        Some(0) => Ok(()),
        Some(bytes) => {
            out::line(format_args!("page cache: up to {} saved, since views share it", Size(bytes)))
        }
        None => {
            crate::info!("what slivers cover of their bases counts as shared: `--deep` takes it off");
            Ok(())
        }
    }
}

fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| Size(bytes).words())
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
        assert_eq!(bar(0, 100), "....................");
        assert_eq!(bar(1, 1 << 40), "#...................");
        assert_eq!(bar(50, 100), "##########..........");
        assert_eq!(bar(7, 3), "####################");
        assert_eq!(bar(7, 0), "#...................");
    }
}
