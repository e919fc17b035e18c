//! What is told of slivers, bases and the node: a row for each, as JSON and as tables.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::error::Result;
use crate::out::{self, Table};
use crate::size::Size;
use crate::sum::Sum as _;

/// What is known of a sliver, a base or the node, as a table shows it. JSON has the bare numbers.
#[derive(Clone, Copy)]
pub(super) enum Field {
    Unknown,
    Text(&'static str),
    Count(u64),
    Bytes(u64),
    /// Bytes that nothing keeps a sliver to.
    Soft(u64),
}

impl Field {
    pub(super) fn number(self) -> u64 {
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
pub(super) struct Row(pub(super) &'static [&'static str], pub(super) &'static [Field]);

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

/// The fields of a sliver, and the heads of their columns.
pub(super) const SLIVER: [&str; 14] = [
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
pub(super) const NAME: usize = 0;
pub(super) const BACKEND: usize = 1;
pub(super) const OF_BASE: usize = 2;
pub(super) const OWN: usize = 3;
pub(super) const SHARED: usize = 4;
pub(super) const INODES: usize = 5;
pub(super) const BY: usize = 6;
pub(super) const USED: usize = 7;
pub(super) const LIMIT: usize = 8;
pub(super) const KEPT: usize = 9;
pub(super) const COMPACT: usize = 10;
pub(super) const BAR: usize = 11;
pub(super) const MEANS: usize = 12;
pub(super) const ERROR: usize = 13;

/// Its row.
pub(super) type Fields = [Field; SLIVER.len()];

/// Those of a base.
pub(super) const BASE: [&str; 6] = ["name", "form", "disk", "slivers", "mounted", "cached"];
const BASE_HEADS: [&str; 6] = ["BASE", "FORM", "DISK", "SLIVERS", "MOUNTED", "CACHED"];

/// Those of the node.
pub(super) const NODE: [&str; 5] = ["separate", "taken", "saved", "percent", "page_cache_saved"];

/// What `usage --json` prints.
#[derive(Serialize)]
pub(super) struct Sheet {
    pub(super) deep: bool,
    pub(super) slivers: Vec<Row>,
    pub(super) bases: Vec<Row>,
    pub(super) node: Option<Row>,
}

/// `part` of `whole` in percent, rounded down.
pub(super) fn percent(part: u64, whole: u64) -> u32 {
    let (part, whole) = match part.product(100) {
        Some(part) => (part, whole),
        None => (part, whole / 100),
    };
    part.checked_div(whole).map_or(0, |percent| percent.try_into().unwrap_or(u32::MAX))
}

/// A sliver's bar: of its limit, with the percents, or beside the largest of all.
pub(super) fn bar(row: &Fields, largest: u64) -> &'static str {
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

/// Prints all of it for a person.
pub(super) fn print(sheet: &Sheet) -> Result<()> {
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
