//! `sliverfs diff`: what a sliver changed against its base.

use std::fmt::Write;

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use crate::cli::Args;
use crate::cmd::Ctx;
use crate::cmd::layers::Layers;
use crate::error::{Error, Result};
use crate::json::write as to_json;
use crate::layer::{Aspects, Change, Changes, Doubt, Entry, Format, Show, Step, beside, differences};
use crate::out::{self, escape};
use crate::size::Size;
use crate::tree::{Dir, Kind, Stat, again};

/// As many bytes are printed at once.
const PRINTED: usize = 16 << 10;

/// A path of the view, as `diff --json` prints it: see docs/json.md.
#[derive(Serialize)]
struct Row {
    path: String,
    change: &'static str,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    was: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Names::is_empty")]
    what: Names,
    #[serde(skip_serializing_if = "Names::is_empty")]
    driver: Names,
    #[serde(skip_serializing_if = "Option::is_none")]
    doubt: Option<&'static str>,
}

/// Aspects by their names.
struct Names(Aspects);

impl Names {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut list = to.serialize_seq(None)?;
        for (aspect, name) in &Aspects::NAMES {
            if self.0.has(*aspect) {
                list.serialize_element(name)?;
            }
        }
        list.end()
    }
}

/// Prints a line for each path that differs, or the JSON document. What no format explains makes the command fail at its end.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let mut layers = Layers::new(args)?;
    layers.watch(ctx)?;
    layers.with(ctx, &mut |format, base, store, words| {
        let path = match words {
            [] => Vec::new(),
            [path] => inside(path)?,
            _ => return Err(Error::usage("one path at a time")),
        };
        diff(format, base, store, &path, args.json).and(layers.same())
    })
}

/// A path of the view as the walk writes it.
pub fn inside(path: &str) -> Result<Vec<u8>> {
    let mut inside = Vec::new();
    for part in path.as_bytes().split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => {
                return Err(Error::usage(format_args!(
                    "`{}` leads out of the sliver",
                    escape(path.as_bytes())
                )));
            }
            _ if inside.is_empty() => {}
            _ => inside.push(b'/'),
        }
        inside.extend_from_slice(part);
    }
    Ok(inside)
}

/// Does `path` lie in the folder `top`, or is it the folder?
fn lies_in(path: &[u8], top: &[u8]) -> bool {
    match path.strip_prefix(top) {
        Some(rest) => rest.is_empty() || top.is_empty() || rest.starts_with(b"/"),
        None => false,
    }
}

fn diff(format: Format, base: &Dir, store: &Dir, top: &[u8], json: bool) -> Result<()> {
    let nowhere = !top.is_empty() && lacks(base, top) && lacks(store, top);
    let mut changes = Changes::new(format, again(store)?, base, Show::Changes)?.without_leaves();
    let (mut unclear, mut text, mut comma) = (0_usize, String::new(), "");
    if json {
        text = format!("{{\"format\":\"{}\",\"changes\":[", format.name());
    }
    while let Some(step) = changes.step()? {
        let Step::Entry(mut entry) = step else { continue };
        let wanted = lies_in(entry.path, top);
        let row = if wanted { row(&mut entry, format)? } else { None };
        if let Some(row) = row {
            if entry.doubt.is_some() {
                unclear += 1;
            }
            if json {
                text.push_str(comma);
                text.push_str(&String::from_utf8_lossy(&to_json(&row)?));
                comma = ",";
            } else {
                line(&mut text, &row, entry.doubt);
            }
            if text.len() >= PRINTED {
                out::print(&text)?;
                text.clear();
            }
        }
        if wanted || lies_in(top, entry.path) {
            match changes.enter() {
                Err(err) if beside(&err) => crate::warn!("{err}: it changed while it was looked at"),
                entered => entered?,
            }
        }
    }
    if json {
        text.push_str("]}\n");
    }
    out::print(&text)?;
    if nowhere {
        crate::warn!("neither the sliver nor its base has {}", escape(top));
    }
    if unclear > 0 {
        return Err(Error::damaged(format_args!(
            "{unclear} entries of the store are not what {} writes",
            format.name()
        ))
        .way_out("they are told above: look at them before the store is changed"));
    }
    Ok(())
}

/// Is there nothing by this path? No link is followed.
fn lacks(tree: &Dir, path: &[u8]) -> bool {
    tree.reach(path).and_then(|(above, name)| above.stat_at(&name)).is_err()
}

/// What is told of an entry; none where the view shows what the base has.
fn row(entry: &mut Entry<'_>, format: Format) -> Result<Option<Row>> {
    // A file whose content was moved here is compared with where it lies.
    let moved = entry.from.is_some_and(|from| !is_at(from, entry));
    if moved && entry.data.is_some() {
        entry.base = entry.data;
    }
    let (node, old) = (entry.node.map(|node| node.stat), entry.base.map(|base| base.stat));
    let mut what = differences(format, entry)?;
    // A folder's time changes with every name in it: that is no news.
    if node.is_some_and(|stat| stat.kind == Kind::Dir) {
        what = what.without(Aspects::TIME);
    }
    let replaces = entry.change == Change::Opaque && entry.from.is_none() || what.has(Aspects::TYPE);
    let change = match entry.change {
        Change::Nothing => "nothing",
        Change::Delete if old.is_none() && entry.doubt.is_none() => return Ok(None),
        Change::Delete => "deleted",
        _ if moved => "moved",
        _ if old.is_none() => "added",
        _ if replaces => "replaced",
        _ => {
            if what.is_empty() && entry.doubt.is_none() {
                return Ok(None);
            }
            "modified"
        }
    };
    let size = |stat: &&Stat| (stat.kind == Kind::File).then_some(stat.size);
    let kind = node.or(old).map(|stat| word(stat.kind));
    let was = old.map(|stat| word(stat.kind)).filter(|was| Some(*was) != kind);
    Ok(Some(Row {
        path: escape(if entry.path.is_empty() { b"." } else { entry.path }),
        change,
        kind,
        was,
        size: node.as_ref().and_then(size),
        old_size: old.as_ref().and_then(size),
        from: entry.from.filter(|_| moved).map(|from| origin(from, entry)),
        what: Names(what),
        driver: Names(what.without(what.without(format.loses()))),
        doubt: entry.doubt.map(Doubt::name),
    }))
}

/// Does what the store says of the origin name the entry itself?
pub fn is_at(from: &[u8], entry: &Entry<'_>) -> bool {
    from == entry.name.to_bytes() || from.strip_prefix(b"/") == Some(entry.path)
}

/// The old path: the store has it from the root on, or no more than the name in the same folder.
fn origin(from: &[u8], entry: &Entry<'_>) -> String {
    let above = entry.path.strip_suffix(entry.name.to_bytes()).unwrap_or_default();
    match from.strip_prefix(b"/") {
        Some(path) => escape(path),
        None => escape(above) + &escape(from),
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Dir => "directory",
        Kind::File => "file",
        Kind::Link => "link",
        Kind::Char => "char",
        Kind::Block => "block",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
    }
}

/// `modified  etc/passwd  content, mode  31 B -> 44 B`.
fn line(text: &mut String, row: &Row, doubt: Option<Doubt>) {
    let _into_string = write!(text, "{:<9} {}", row.change, row.path);
    if let Some(from) = &row.from {
        let _into_string = write!(text, "  from {from}");
    }
    match (row.was, row.kind) {
        (Some(was), Some(kind)) => {
            let _into_string = write!(text, "  {was} -> {kind}");
        }
        _ => {
            let mut before = "  ";
            for (aspect, name) in &Aspects::NAMES {
                if row.what.0.has(*aspect) {
                    // In brackets what the driver may have done by itself.
                    let (open, close) = if row.driver.0.has(*aspect) { ("(", ")") } else { ("", "") };
                    let _into_string = write!(text, "{before}{open}{name}{close}");
                    before = ", ";
                }
            }
        }
    }
    let _into_string = match (row.old_size, row.size) {
        (Some(old), Some(new)) if old != new => write!(text, "  {} -> {}", Size(old), Size(new)),
        (_, Some(size)) | (Some(size), None) => write!(text, "  {}", Size(size)),
        (None, None) => Ok(()),
    };
    if let Some(doubt) = doubt {
        let _into_string = write!(text, "  [{}]", doubt.words());
    }
    text.push('\n');
}
