//! Our UCI reader against OpenWrt's own `uci`: the same verdict and the same values, byte by byte, for a corpus of odd
//! files (`tests/uci/*.conf`) and for thousands of texts made from it. `tests/uci/build-uci` builds the judge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sliverfs::config::uci::{self, Package, Value};

/// The judge, or nothing where it was not built and need not be.
fn judge() -> Option<PathBuf> {
    let uci = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/uci/uci");
    if uci.exists() {
        return Some(uci);
    }
    let reason = "the real uci is not built: run tests/uci/build-uci";
    let required = std::env::var("SLIVERFS_REQUIRE").unwrap_or_default();
    assert!(!required.split([',', ' ']).any(|word| word == "uci"), "{reason}");
    // Past the test harness, which keeps what a passing test prints to itself.
    std::io::stderr().write_all(format!("skipped: {reason}\n").as_bytes()).unwrap();
    None
}

/// A folder of packages for `uci -c`.
struct ConfDir(PathBuf);

impl ConfDir {
    fn new(of: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("sliverfs-uci-{of}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn put(&self, package: &str, text: &[u8]) {
        fs::write(self.0.join(package), text).unwrap();
    }

    fn uci(&self, uci: &Path, args: &[&str]) -> Output {
        // A folder for changes that holds none, in place of /tmp/.uci.
        let changes = self.0.join("changes");
        Command::new(uci).arg("-q").arg("-c").arg(&self.0).arg("-t").arg(changes).args(args).output().unwrap()
    }

    /// What the judge says of one package: nothing where it refuses it.
    fn ask(&self, uci: &Path, verb: &str, package: &str) -> Option<Vec<u8>> {
        let out = self.uci(uci, &[verb, package]);
        match out.status.code() {
            Some(0) => Some(out.stdout),
            Some(1) => None,
            _ => panic!("{package}: uci {verb}: {}", out.status),
        }
    }
}

impl Drop for ConfDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for &c in text {
        match c {
            b'\'' => out.extend(b"'\\''"),
            c => out.push(c),
        }
    }
}

fn quote(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'\'');
    escape(out, text);
    out.push(b'\'');
}

/// A package in the words of `uci export`.
fn export(name: &str, package: &Package) -> Vec<u8> {
    let mut out = format!("package {name}\n").into_bytes();
    for section in &package.sections {
        out.extend(b"\nconfig ");
        escape(&mut out, section.kind.as_bytes());
        if let Some(name) = &section.name {
            out.extend(format!(" '{name}'").as_bytes());
        }
        out.push(b'\n');
        for option in &section.options {
            let (command, values) = match &option.value {
                Value::One(value) => ("option", std::slice::from_ref(value)),
                Value::Many(values) => ("list", values.as_slice()),
            };
            for value in values {
                out.extend(format!("\t{command} {} ", option.name).as_bytes());
                quote(&mut out, value);
                out.push(b'\n');
            }
        }
    }
    out.push(b'\n');
    out
}

/// A package in the words of `uci show`, unnamed sections as we name them in messages.
fn show(name: &str, package: &Package) -> Vec<u8> {
    let mut out = Vec::new();
    for section in &package.sections {
        let section_name = section.name.clone().unwrap_or_else(|| section.label());
        out.extend(format!("{name}.{section_name}={}\n", section.kind).as_bytes());
        for option in &section.options {
            out.extend(format!("{name}.{section_name}.{}=", option.name).as_bytes());
            match &option.value {
                Value::One(value) => quote(&mut out, value),
                Value::Many(values) => {
                    for (index, value) in values.iter().enumerate() {
                        if index > 0 {
                            out.push(b' ');
                        }
                        quote(&mut out, value);
                    }
                }
            }
            out.push(b'\n');
        }
    }
    out
}

/// The start of a text, for messages.
fn shown(text: Option<&[u8]>) -> String {
    match text {
        None => "refused".to_owned(),
        Some(text) => text[..text.len().min(2000)].escape_ascii().to_string().replace("\\n", "\\n\n  "),
    }
}

/// Names and texts of the corpus, sorted by name.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/uci");
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            files.push((name, fs::read(&path).unwrap()));
        }
    }
    files.sort();
    assert!(files.len() >= 60, "only {} files in the corpus", files.len());
    files
}

/// Files that we refuse whatever libuci makes of them: NUL bytes, see `src/config/uci.rs`.
fn is_stricter_case(text: &[u8]) -> bool {
    text.contains(&0)
}

#[test]
fn the_corpus_reads_as_uci_reads_it() {
    let Some(uci) = judge() else { return };
    let dir = ConfDir::new("corpus");
    let (mut accepted, mut refused, mut wrong) = (0, 0, Vec::new());
    for (name, text) in corpus() {
        dir.put(&name, &text);
        let ours = uci::parse(&text, &name);
        if is_stricter_case(&text) {
            let err = ours.unwrap_err().to_string();
            assert!(err.contains("NUL"), "{name}: {err}");
            continue;
        }
        match &ours {
            Ok(_) => accepted += 1,
            Err(_) => refused += 1,
        }
        type Words = fn(&str, &Package) -> Vec<u8>;
        for (verb, words) in [("export", export as Words), ("show", show)] {
            let want = dir.ask(&uci, verb, &name);
            let have = ours.as_ref().ok().map(|package| words(&name, package));
            if have != want {
                let (want, have) = (shown(want.as_deref()), shown(have.as_deref()));
                wrong.push(format!("{name}: uci {verb}\n  {want}\nours\n  {have} {:?}", ours.as_ref().err()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(accepted >= 40 && refused >= 30, "{accepted} accepted, {refused} refused");
}

/// A stream of numbers that is the same in each run (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 16) % u64::try_from(limit).unwrap()).unwrap()
    }

    fn pick(&mut self, of: &[&'static [u8]]) -> &'static [u8] {
        of[self.below(of.len())]
    }
}

/// What texts are made of.
#[rustfmt::skip]
const PIECES: &[&[u8]] = &[
    b"config", b"option", b"list", b"package", b"c", b"o", b"l", b"p", b"config ", b"option ", b"list ", b"\nconfig t ",
    b"\nconfig t n\n", b"\noption a ", b"\nlist a ", b"\noption a b", b" ", b" ", b"\t", b"\n", b"\n", b"\r\n", b"\r", b";", b";",
    b" ; ", b"#", b" # ", b"'", b"'", b"\"", b"\"", b"\\", b"\\", b"\\\n", b"\\\r\n", b"''", b"\"\"", b"'x y'", b"\"x y\"", b"a", b"b",
    b"n", b"m", b"_", b"-", b".", b"a1", b"\x0b", b"\x0c", b"\x01", b"\x7f", b"\xff", b"\xc3\xa4", b"@t[0]", b"'\n'", b"\"\n\"",
];

/// Values, and now and then more than that.
#[rustfmt::skip]
const VALUES: &[&[u8]] = &[
    b"a", b"b", b"'a'", b"\"b\"", b"a'b'", b"'a'\"b\"c", b"''", b"\"\"", b"'x y'", b"\"x\\\"y\"", b"a\\ b", b"a\\\nb", b"'a\nb'", b"\"a\\\nb\"",
    b"'#'", b"a#b", b"\\#", b"';'", b"\\;", b"\\\\", b"'\\'", b"a-b", b"\xc3\xa4", b"\xff", b"\x01", b"", b"a;b", b"'a';", b"a b", b"it's",
];
const NAMES: &[&[u8]] = &[b"a", b"b", b"c", b"'a'", b"\"b\"", b"a'b'", b"\\c", b"''a", b"a_1"];
const BLANKS: &[&[u8]] = &[b" ", b" ", b"\t", b"  ", b" \t"];
const ENDS: &[&[u8]] =
    &[b"\n", b"\n", b"\n\t", b"\n", b"\n\n", b"\r\n", b" # it's\n", b"#\n", b" \n", b" ;", b" ; ", b";"];

/// Lines as a person writes them, most of them legal.
fn lines(random: &mut Random) -> Vec<u8> {
    let mut text = b"config t n\n".to_vec();
    for _ in 0..random.below(12) {
        let words: Vec<&[u8]> = match random.below(8) {
            0 => vec![b"config", b"t"],
            1 => vec![b"config", b"t", random.pick(NAMES)],
            2 => vec![b"c", b"'t'", random.pick(NAMES)],
            3 => vec![b"package", random.pick(NAMES)],
            4 => vec![b"o", random.pick(NAMES), random.pick(VALUES)],
            5 => vec![b"option", random.pick(NAMES), random.pick(VALUES)],
            _ => vec![b"list", random.pick(NAMES), random.pick(VALUES)],
        };
        for word in words {
            text.extend(word);
            text.extend(random.pick(BLANKS));
        }
        text.pop();
        text.extend(random.pick(ENDS));
    }
    text
}

fn pieces(random: &mut Random) -> Vec<u8> {
    let mut text = if random.below(4) > 0 { b"config t\n".to_vec() } else { Vec::new() };
    for _ in 0..random.below(30) {
        text.extend(random.pick(PIECES));
    }
    text
}

fn mutated(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut text = seeds[random.below(seeds.len())].clone();
    for _ in 0..1 + random.below(3) {
        let start = random.below(text.len() + 1);
        let end = start + random.below((text.len() - start).min(12) + 1);
        let instead = match random.below(5) {
            0 => Vec::new(),
            1 => text[start..end].repeat(2),
            2 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                other[from..other.len().min(from + 20)].to_vec()
            }
            _ => random.pick(PIECES).to_vec(),
        };
        text.splice(start..end, instead);
    }
    text
}

#[test]
fn random_texts_read_as_uci_reads_them() {
    let Some(uci) = judge() else { return };
    let seeds: Vec<_> = corpus()
        .into_iter()
        .map(|(_, text)| text)
        .filter(|text| !is_stricter_case(text) && text.len() < 1000)
        .collect();
    let mut random = Random(0x0516_75f5_0c1e_beef);
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..50 {
        // One run of the judge takes many packages, in the order of their names, and leaves out what it refuses.
        let dir = ConfDir::new(&format!("random{round}"));
        let mut texts = Vec::new();
        let mut want = Vec::new();
        for index in 0..400 {
            let name = format!("r{index:03}");
            let text = match random.below(4) {
                0 | 1 => lines(&mut random),
                2 => pieces(&mut random),
                _ => mutated(&mut random, &seeds),
            };
            dir.put(&name, &text);
            match uci::parse(&text, &name) {
                Ok(package) => {
                    accepted += 1;
                    want.extend(export(&name, &package));
                }
                Err(_) => refused += 1,
            }
            texts.push((name, text));
        }
        if dir.uci(&uci, &["export"]).stdout == want {
            continue;
        }
        for (name, text) in &texts {
            let ours = uci::parse(text, name);
            let have = ours.as_ref().ok().map(|package| export(name, package));
            let want = dir.ask(&uci, "export", name);
            assert!(
                have == want,
                "the text\n  {}\nuci\n  {}\nours\n  {} {:?}",
                shown(Some(text)),
                shown(want.as_deref()),
                shown(have.as_deref()),
                ours.err()
            );
        }
        panic!("round {round}: all packages together read differently than one by one");
    }
    assert!(accepted > 4000 && refused > 4000, "{accepted} accepted, {refused} refused");
}

#[test]
fn a_line_longer_than_any_buffer() {
    let Some(uci) = judge() else { return };
    let dir = ConfDir::new("long");
    for size in [(1 << 20) - 1, 1 << 20, (1 << 20) + 1] {
        let value = "v".repeat(size);
        for text in
            [format!("config t\noption a {value}"), format!("config t\nlist a '{value}\n{value}'\n#{value}")]
        {
            dir.put("long", text.as_bytes());
            let ours = export("long", &uci::parse(text.as_bytes(), "long").unwrap());
            assert!(dir.ask(&uci, "export", "long") == Some(ours), "{size}");
        }
    }
}
