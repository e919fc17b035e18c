//! A tree as text: everything that must be equal in two trees that are said to be equal.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sliverfs::sys::xattr;

/// Lists a tree, an entry a line: type and mode, owner, time, device, size, link group, target, contents, xattrs.
///
/// Times of folders are left out where `folder_times` is false: a copy-up touches the folder on some kernels.
pub fn of(tree: &Path, folder_times: bool) -> String {
    let mut lines = Vec::new();
    let mut groups = BTreeMap::new();
    add(tree, tree, folder_times, &mut groups, &mut lines);
    lines.join("\n")
}

/// A listing without the numbers of names: an overlay counts those of the base, deleted or not, and fuse-overlayfs some of them. Which
/// of the names are one file is told.
pub fn uncounted(listing: &str) -> String {
    let count = |word: &&str| word.strip_prefix('n').is_none_or(|n| n.parse::<u32>().is_err());
    let line = |line: &str| line.split(' ').filter(count).collect::<Vec<_>>().join(" ");
    listing.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn add(
    top: &Path,
    path: &Path,
    folder_times: bool,
    groups: &mut BTreeMap<(u64, u64), String>,
    lines: &mut Vec<String>,
) {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    let name = path.strip_prefix(top).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
    let kind = meta.file_type();
    let mut line = format!("{name} {:o} {}:{}", meta.mode(), meta.uid(), meta.gid());
    if !kind.is_dir() || folder_times {
        line += &format!(" t{}.{}", meta.mtime(), meta.mtime_nsec());
    }
    if !kind.is_dir() {
        let first = groups.entry((meta.dev(), meta.ino())).or_insert_with(|| name.clone());
        line += &format!(" n{} with {first}", meta.nlink());
    }
    if kind.is_symlink() {
        line += &format!(" -> {}", fs::read_link(path).unwrap().as_os_str().as_bytes().escape_ascii());
    } else if kind.is_file() {
        let contents = fs::read(path).unwrap();
        line += &format!(" s{} #{:x}", contents.len(), sliverfs::hash::fnv64a(&contents));
    } else if !kind.is_dir() {
        line += &format!(" dev {:x}", meta.rdev());
    }
    let mut names = xattr::list(path).unwrap_or_default();
    names.retain(|name| !name.to_bytes().starts_with(b"trusted.overlay."));
    names.sort();
    for name in names {
        let value = xattr::get(path, &name).unwrap();
        line += &format!(" {}={}", name.to_string_lossy(), value.escape_ascii());
    }
    lines.push(line);
    if kind.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for entry in entries {
            add(top, &entry, folder_times, groups, lines);
        }
    }
}
