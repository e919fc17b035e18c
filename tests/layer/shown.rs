//! Walks as text: what is compared.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

use sliverfs::archive::{self, Content, Tar};
use sliverfs::hash::fnv64a;
use sliverfs::layer::{Change, Changes, Entry, Format, Layer, Show, Side, Step, Writer};
use sliverfs::sys::writeback::Writeback;
use sliverfs::tree::{self, Kind, attr};

/// Walks through all of it, into every directory.
pub fn walk(format: Format, store: &Path, base: &Path, show: Show, mut each: impl FnMut(&Entry<'_>)) {
    let base = tree::open(base).unwrap();
    let mut changes = Changes::new(format, tree::open(store).unwrap(), &base, show).unwrap();
    while let Some(step) = changes.step().unwrap() {
        if let Step::Entry(entry) = step {
            each(&entry);
            changes.enter().unwrap();
        }
    }
}

/// The view, a name a line, as the recordings show it.
pub fn view(format: Format, store: &Path, base: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut names: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    walk(format, store, base, Show::View, |entry| {
        let Some(node) = entry.node.filter(|_| entry.change != Change::Nothing) else { return };
        let stat = node.stat;
        if entry.stored {
            *names.entry(stat.id).or_default() += 1;
        }
        let mut line = format!(" {:04o} {}:{}", stat.mode, stat.uid, stat.gid);
        let links = if entry.stored { "@".to_owned() } else { stat.links.to_string() };
        if stat.kind != Kind::Dir {
            let _ = write!(line, " n{links} s{}", stat.size);
        }
        let path = match entry.path {
            b"" => ".".to_owned(),
            path => format!("./{}", escape(path)),
        };
        let _ = write!(line, " {path}");
        match stat.kind {
            Kind::Link => {
                let _ = write!(line, " -> {}", escape(&node.dir.read_link(node.name).unwrap()));
            }
            Kind::Char | Kind::Block => {
                let _ = write!(line, " [{}:{}]", stat.device.0, stat.device.1);
            }
            _ => {}
        }
        lines.push((letter(stat.kind).to_string() + &line, stat.id));
    });
    // A view counts the names that it shows; a store may have more, of the driver's own.
    let count = |(line, id): (String, _)| match names.get(&id) {
        Some(names) => line.replacen(" n@ ", &format!(" n{names} "), 1),
        None => line,
    };
    let mut lines: Vec<String> = lines.into_iter().map(count).collect();
    lines.sort();
    lines
}

/// The changes, an entry a line, with all that is kept of it; what means the same over this base is written the same.
pub fn changes(format: Format, store: &Path, base: &Path) -> Vec<String> {
    lines(format, store, base, Show::Flat, true)
}

/// The view with all that is kept of it, but for the folders' times: a copy-up touches them.
pub fn whole(format: Format, store: &Path, base: &Path) -> String {
    lines(format, store, base, Show::View, false).join("\n")
}

/// As [`whole`], with the folders' times.
pub fn exact(format: Format, store: &Path, base: &Path) -> String {
    lines(format, store, base, Show::View, true).join("\n")
}

fn lines(format: Format, store: &Path, base: &Path, show: Show, folder_times: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut first: BTreeMap<(u64, u64), String> = BTreeMap::new();
    walk(format, store, base, show, |entry| {
        let hides = show != Show::View && entry.base.is_some_and(|base| base.stat.kind == Kind::Dir);
        let change = match entry.change {
            Change::Delete if entry.base.is_none() => return,
            Change::Nothing => return,
            Change::Opaque if !hides => Change::Meta,
            change => change,
        };
        let mut line = format!("{change:?} {}", escape(entry.path));
        if let Some(node) = entry.node {
            describe(&mut line, format, entry, node, folder_times);
            if node.stat.kind != Kind::Dir {
                let name = first.entry(node.stat.id).or_insert_with(|| escape(entry.path));
                let _ = write!(line, " with {name}");
            }
        }
        lines.push(line);
    });
    lines
}

fn describe(line: &mut String, format: Format, entry: &Entry<'_>, node: Side<'_>, folder_times: bool) {
    let stat = node.stat;
    let _ = write!(line, " {} {:o} {}:{}", letter(stat.kind), stat.mode, stat.uid, stat.gid);
    if stat.kind != Kind::Dir || folder_times {
        let _ = write!(line, " t{}.{}", stat.mtime.seconds, stat.mtime.nanos);
    }
    match stat.kind {
        Kind::File => {
            let data = entry.data.unwrap_or(node);
            let mut content = Vec::new();
            data.dir.open_file(data.name, data.stat).unwrap().read_to_end(&mut content).unwrap();
            let _ = write!(line, " s{} #{:x}", content.len(), fnv64a(&content));
        }
        Kind::Link => {
            let _ = write!(line, " -> {}", escape(&node.dir.read_link(node.name).unwrap()));
        }
        Kind::Char | Kind::Block => {
            let _ = write!(line, " {:?}", stat.device);
        }
        _ => {}
    }
    let own = match format {
        Format::OverlayUser => "user.overlay.",
        _ => "trusted.overlay.",
    };
    let mut names = attr::names(node.dir, node.name).unwrap();
    let unioned = entry.stored
        && matches!(
            format,
            Format::Overlay | Format::OverlayUser | Format::Overlayfs | Format::FuseOverlayfs
        );
    let nested = format!("{own}overlay.");
    names.retain(|name| {
        let name = name.to_bytes();
        let fuse = format == Format::FuseOverlayfs && name.starts_with(b"user.fuseoverlayfs.");
        let owned = fuse || name.starts_with(own.as_bytes()) && !name.starts_with(nested.as_bytes());
        !unioned || !owned
    });
    for (name, value) in attr::read(node.dir, node.name, names).unwrap() {
        let name = name.to_string_lossy();
        let name = if unioned { name.replacen(&nested, own, 1) } else { name.into_owned() };
        let _ = write!(line, " {name}={}", value.escape_ascii());
    }
}

/// Writes the changes of a store into a new one, or its view into a tree.
pub fn convert(from: Format, store: &Path, base: &Path, to: Format, new: &Path) -> Result<(), String> {
    let show = if to.whole() { Show::View } else { Show::Flat };
    std::fs::create_dir(new).unwrap();
    write(from, store, base, show, to, new)
}

/// Writes the changes of a store as an OCI layer, and unpacks that into a new folder: a store of aufs's.
pub fn layer(format: Format, store: &Path, base: &Path, new: &Path) -> Result<(), String> {
    let file = new.with_extension("tar");
    let (root, base) = (tree::open(store).unwrap(), tree::open(base).unwrap());
    let tar =
        Tar::new(std::fs::File::create(&file).unwrap(), Box::leak(file.clone().into_boxed_path()), true);
    let mut layer = Layer::new(format, &root, tar).unwrap();
    let mut changes = Changes::new(format, root, &base, Show::Flat).unwrap();
    while let Some(step) = changes.step().map_err(|err| err.to_string())? {
        if let Step::Entry(entry) = step {
            layer.take(&entry).map_err(|err| err.to_string())?;
            changes.enter().map_err(|err| err.to_string())?;
        }
    }
    layer.finish().unwrap();
    let progress = std::rc::Rc::new(sliverfs::progress::Progress::new("unpacking", None));
    let Ok(Content::Tar(mut tar)) = archive::open(&file, &progress) else { panic!("no tar") };
    std::fs::create_dir(new).unwrap();
    archive::unpack_layer(&mut *tar, &tree::open(new).unwrap(), None).map_err(|err| err.to_string())?;
    Ok(())
}

/// Makes the changes of a store in a copy of the base.
pub fn apply(from: Format, store: &Path, base: &Path, copy: &Path) -> Result<(), String> {
    write(from, store, base, Show::Flat, Format::Tree, copy)
}

fn write(from: Format, store: &Path, base: &Path, show: Show, to: Format, new: &Path) -> Result<(), String> {
    let root = tree::open(new).unwrap();
    let mut progress = |_| ();
    let mut files = Writeback::default();
    let mut writer = Writer::new(from, to, &root, &mut files, &mut progress).unwrap();
    let base = tree::open(base).unwrap();
    let mut changes = Changes::new(from, tree::open(store).unwrap(), &base, show).unwrap();
    while let Some(step) = changes.step().map_err(|err| err.to_string())? {
        writer.take(&step).map_err(|err| err.to_string())?;
        if let Step::Entry(_) = step {
            changes.enter().map_err(|err| err.to_string())?;
        }
    }
    Ok(())
}

fn letter(kind: Kind) -> char {
    match kind {
        Kind::Dir => 'd',
        Kind::File => 'f',
        Kind::Link => 'l',
        Kind::Char => 'c',
        Kind::Block => 'b',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
    }
}

/// As the recordings escape names.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'\\' | 0..0x20 | 0x7f.. => {
                let _ = write!(text, "\\x{byte:02x}");
            }
            byte => text.push(char::from(*byte)),
        }
    }
    text
}

/// The lines of a view at a path and below it, and all others but for the folders above.
pub fn parts(lines: &str, path: &str) -> (Vec<String>, Vec<String>) {
    // Change, name, letter, mode, owner; and a name may hold blanks.
    let name = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let letter = (2..words.len() - 2).find(|at| words[*at].len() == 1 && words[at + 2].contains(':'));
        words[1..letter.unwrap()].join(" ")
    };
    let below = |line: &str| name(line) == path || name(line).starts_with(&format!("{path}/"));
    let above = |line: &str| name(line).is_empty() || format!("{path}/").starts_with(&(name(line) + "/"));
    // What a line says of other names of the same file is no part of either.
    let plain = |line: &str| line.split(" with ").next().unwrap().replacen("Opaque ", "Meta ", 1);
    let (inside, outside): (Vec<_>, Vec<_>) = lines.lines().partition(|line| below(line));
    (
        inside.into_iter().map(plain).collect(),
        outside.into_iter().filter(|line| !above(line)).map(plain).collect(),
    )
}
