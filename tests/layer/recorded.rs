//! The stores that real kernels wrote (tests/fixtures/README.md), taken out of their dumps.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sliverfs::layer::Format;
use sliverfs::sys::xattr;
use sliverfs::tree::{Dir, Kind, SELF, Time};

use super::common::node::run;

/// A file of dumps.
pub struct Recording {
    pub format: Format,
    text: String,
}

impl Recording {
    pub fn of(format: Format) -> Self {
        let file = match format {
            Format::Overlay => "overlay-6.1-mipsbe-ext2.txt",
            Format::Overlayfs => "overlayfs_v21-3.14.40-mipsbe-ext2.txt",
            Format::MiniFo => "mini_fo-2.6.32-mipsbe-ext2.txt",
            Format::Aufs => "aufs-6.1-mipsbe-ext2.txt",
            other => panic!("nothing is recorded of {}", other.name()),
        };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(file);
        Self { format, text: fs::read_to_string(path).unwrap() }
    }

    /// The names of all scenarios.
    pub fn scenarios(&self) -> Vec<&str> {
        self.text.lines().filter_map(|line| line.strip_prefix("=== SCENARIO ")).collect()
    }

    fn section(&self, scenario: &str, head: &str) -> Vec<&str> {
        let mut lines =
            self.text.lines().skip_while(|line| line.strip_prefix("=== SCENARIO ") != Some(scenario));
        lines.next().unwrap();
        lines
            .take_while(|line| !line.starts_with("=== "))
            .skip_while(|line| !line.starts_with(head))
            .skip(1)
            .take_while(|line| !line.starts_with("--- "))
            .collect()
    }

    /// The lines of the view that was recorded after a remount: the untouched ones with the recorded differences.
    pub fn view(&self, scenario: &str, untouched: &[String]) -> Vec<String> {
        let mut lines = untouched.to_vec();
        for line in self.section(scenario, "--- MERGED vs LOWER") {
            if let Some(line) = line.strip_prefix('-') {
                let at = lines.iter().position(|other| other == line).unwrap_or_else(|| panic!("{line}"));
                lines.remove(at);
            }
        }
        for line in self.section(scenario, "--- MERGED vs LOWER") {
            lines.extend(line.strip_prefix('+').map(str::to_owned));
        }
        lines.sort();
        lines
    }

    /// What the driver showed before the unmount, where that was something else than `remounted`.
    pub fn live(&self, scenario: &str, remounted: &[String]) -> Vec<String> {
        let untimed = |line: &str| {
            let mut words: Vec<&str> = line.splitn(7, ' ').collect();
            words.retain(|word| !word.starts_with("t1"));
            words.join(" ")
        };
        let mut lines = remounted.to_vec();
        let section = self.section(scenario, "--- DIFFERENCE live vs remount");
        for line in section.iter().filter_map(|line| line.strip_prefix('+')) {
            lines.retain(|other| *other != untimed(line));
        }
        lines.extend(section.iter().filter_map(|line| line.strip_prefix('-')).map(untimed));
        lines.sort();
        lines
    }

    /// Builds the store of a scenario in the empty folder `to`.
    pub fn build(&self, scenario: &str, to: &Path) {
        let dump = self.section(scenario, "--- STORE");
        let mut first: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut times: Vec<(PathBuf, i64)> = Vec::new();
        let mut current: Option<PathBuf> = None;
        for line in dump {
            if let Some(attr) = line.strip_prefix("    xattr ") {
                if let Some(path) = &current {
                    let (name, rest) = attr.split_once(" len=").unwrap();
                    let (_, value) = rest.split_once(" = ").unwrap();
                    xattr::set(path, &CString::new(name).unwrap(), &unescape(value)).unwrap();
                }
            } else if let Some(content) = line.strip_prefix("    content[") {
                let bytes = unescape(content.split_once("]: ").unwrap().1);
                if let Some(path) = &current {
                    fs::write(path, bytes).unwrap();
                }
            } else {
                current = self.entry(line, to, &mut first, &mut times);
            }
        }
        for (path, time) in times.iter().rev() {
            let dir = Dir::open(path.parent().unwrap()).unwrap();
            let name = CString::new(path.file_name().unwrap().as_bytes()).unwrap();
            dir.set_mtime(&name, Time { seconds: *time, nanos: 0 }).unwrap();
        }
    }

    fn entry(
        &self,
        line: &str,
        to: &Path,
        first: &mut BTreeMap<String, PathBuf>,
        times: &mut Vec<(PathBuf, i64)>,
    ) -> Option<PathBuf> {
        let mut rest = line;
        let mut word = || {
            let (word, left) = rest.split_once(' ').unwrap();
            rest = left;
            word
        };
        let (letter, mode, _nlink, uid, gid, _size) = (word(), word(), word(), word(), word(), word());
        let mut device = (0, 0);
        let mut time = word();
        if let Some(numbers) = time.strip_prefix("rdev=") {
            let (major, minor) = numbers.split_once(':').unwrap();
            device = (major.parse().unwrap(), minor.parse().unwrap());
            time = word();
        }
        let inode = word().to_owned();
        let (path, target) = match letter {
            "l" => rest.split_once(" -> ").map(|(path, target)| (path, Some(target))).unwrap(),
            _ => (rest, None),
        };
        let path = match self.format {
            // Above this lies the folder that holds upper and work.
            Format::Overlay => path.strip_prefix("./upper")?.trim_start_matches('/'),
            _ => path.strip_prefix('.').unwrap().trim_start_matches('/'),
        };
        let path = to.join(std::ffi::OsStr::from_bytes(&unescape(path)));
        let number = |text: &str| text.split_once('=').unwrap().1.parse::<u32>().unwrap();
        let mode = u32::from_str_radix(mode, 8).unwrap() & 0o7777;
        times.push((path.clone(), time.split_once('=').unwrap().1.parse().unwrap()));
        if path == to.join("") {
            let dir = Dir::open(to).unwrap();
            dir.chown(SELF, number(uid), number(gid)).unwrap();
            dir.chmod(SELF, mode).unwrap();
            return Some(path);
        }
        if letter != "d" {
            if let Some(other) = first.get(&inode) {
                fs::hard_link(other, &path).unwrap();
                return Some(path);
            }
            first.insert(inode, path.clone());
        }
        let dir = Dir::open(path.parent().unwrap()).unwrap();
        let name = CString::new(path.file_name().unwrap().as_bytes()).unwrap();
        match letter {
            "d" => dir.make_dir(&name).unwrap(),
            "f" => drop(dir.create_file(&name).unwrap()),
            "l" => dir.make_link(&name, &unescape(target.unwrap())).unwrap(),
            "c" => dir.make_node(&name, Kind::Char, device).unwrap(),
            "p" => dir.make_node(&name, Kind::Fifo, device).unwrap(),
            other => panic!("{other}: {line}"),
        }
        dir.chown(&name, number(uid), number(gid)).unwrap();
        if letter != "l" {
            dir.chmod(&name, mode).unwrap();
        }
        Some(path)
    }
}

/// Unpacks the lower tree that all of them were recorded on.
pub fn base(to: &Path) {
    fs::create_dir(to).unwrap();
    let tar = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/base.tar");
    run(Command::new("tar").arg("-xpf").arg(tar).arg("-C").arg(to));
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, left)) = rest.split_first() {
        rest = left;
        if *first == b'\\' && rest.first() == Some(&b'x') {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&rest[1..3]).unwrap(), 16).unwrap());
            rest = &rest[3..];
        } else {
            bytes.push(*first);
        }
    }
    bytes
}
