//! The README's sessions, run as they stand there: on disks of their own, in mount namespaces of their own. What they print is
//! what stands under them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::node::run;
use common::tree::installed;
use common::{node, require};

/// What stands between the outputs of two blocks: no command prints it.
const MARK: char = '\u{1e}';

/// A block of commands, and the block under it: what they print, where the README says it.
struct Block {
    commands: String,
    shown: Option<String>,
    /// What is shown is this kernel's: only the first words of its lines are everybody's.
    kernel: bool,
}

fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// The README's fenced blocks: what stands behind the fence, and the lines.
fn fenced(text: &str) -> Vec<(&str, String)> {
    let mut found: Vec<(&str, String)> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(tag) => {
                inside = !inside;
                if inside {
                    found.push((tag, String::new()));
                }
            }
            None if inside => {
                let block = &mut found.last_mut().unwrap().1;
                *block += line;
                *block += "\n";
            }
            None => {}
        }
    }
    found
}

/// The blocks with this tag.
fn session(text: &str, tag: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    for (at, lines) in fenced(text) {
        let shows = matches!(at, "text" | "text kernel");
        if let (true, true, Some(block)) = (open, shows, found.last_mut()) {
            (block.shown, block.kernel) = (Some(lines), at == "text kernel");
            open = false;
            continue;
        }
        open = at == tag;
        if open {
            found.push(Block { commands: lines, shown: None, kernel: false });
        }
    }
    found
}

/// Numbers, units and digests are another machine's or another day's.
fn word(word: &str) -> String {
    let (bare, mark) = match word.strip_suffix([',', ':', ';', '.']) {
        Some(bare) => (bare, &word[bare.len()..]),
        None => (word, ""),
    };
    let number = bare.starts_with(|c: char| c.is_ascii_digit())
        && bare.chars().all(|c| c.is_ascii_digit() || c == '.');
    match bare {
        _ if number => format!("0{mark}"),
        "B" | "KiB" | "MiB" | "GiB" => format!("B{mark}"),
        _ if bare.starts_with("sliverfs-tree-1:") => format!("sliverfs-tree-1:{mark}"),
        _ => word.to_owned(),
    }
}

fn lines(text: &str, kernel: bool) -> Vec<String> {
    let words = |line: &str| -> String {
        let words = line.split_whitespace().map(word);
        words.take(if kernel { 1 } else { usize::MAX }).collect::<Vec<_>>().join(" ")
    };
    text.lines().map(words).collect()
}

/// Is it what is shown? A line `…` stands for any.
fn same(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first == "…" => (0..=printed.len()).any(|skip| same(rest, &printed[skip..])),
        Some((first, rest)) => {
            printed.split_first().is_some_and(|(line, more)| line == first && same(rest, more))
        }
    }
}

/// A disk in a file, gone when dropped.
struct Disk(PathBuf);

impl Disk {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sliverfs-readme-{name}-{}", std::process::id()));
        std::fs::File::create(&path).unwrap().set_len(2 << 30).unwrap();
        let disk = Self(path);
        run(Command::new(format!("mkfs.{name}")).arg("-q").arg(&disk.0));
        disk
    }

    /// Runs a session where /srv is the disk, /usr/local/sbin is empty, and nobody else sees it.
    fn run(&self, before: &str, blocks: &[Block]) {
        let mut script = format!(
            "mount --make-rprivate /\nmount -o loop {} /srv\nmount -t tmpfs tmpfs /usr/local/sbin\n{before}\nset -x\n",
            self.0.display()
        );
        for block in blocks {
            script += &format!("{{ set +x; printf '{MARK}'; set -x; }} 2>/dev/null\n{}", block.commands);
        }
        let output = Command::new("unshare")
            .args(["-m", "sh", "-ec", &script])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env_remove("SLIVERFS_LXCPATH")
            .output()
            .unwrap();
        let (printed, said) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{printed}\n{said}");
        let printed: Vec<&str> = printed.split(MARK).skip(1).collect();
        assert_eq!(printed.len(), blocks.len(), "{printed:?}");
        let mut wrong = String::new();
        for (block, printed) in blocks.iter().zip(printed) {
            let Some(shown) = &block.shown else { continue };
            if !same(&lines(shown, block.kernel), &lines(printed, block.kernel)) {
                wrong += &format!("{}--- is shown with\n{shown}--- and prints\n{printed}\n", block.commands);
            }
        }
        assert!(wrong.is_empty(), "{wrong}\n{said}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

fn tools(names: &[&str]) -> Result<(), String> {
    common::root()?;
    names.iter().try_for_each(|name| installed(name))
}

#[test]
fn the_session_runs_as_it_is_written() {
    let wanted = ["mmdebstrap", "lxc-start", "unshare", "make", "mkfs.ext4", "mkfs.btrfs", "rsync", "umoci"];
    if !require("readme", tools(&wanted)) {
        return;
    }
    let blocks = session(&readme(), "sh session");
    assert!(blocks.len() > 10, "the session's blocks were not found");
    // A session that ends in its midst may leave a container, whose monitor would hold our streams open.
    let before = "trap 'lxc-stop -P /srv/slivers -n web -k >/dev/null 2>&1 || :' EXIT";
    Disk::new("ext4").run(before, &blocks);
}

/// Two slivers on Btrfs, after the same upgrade in both.
const ON_BTRFS: &str = r#"
    export SLIVERFS_LXCPATH=/srv/slivers
    mkdir "$SLIVERFS_LXCPATH"
    { sliverfs init; sliverfs base add debian12 "$TREE"; } >/dev/null
    head -c 3000000 /dev/urandom >/srv/upgrade
    for name in mail web; do
        sliverfs create $name --base debian12 --backend btrfs-snapshot 2>/dev/null
        # cat would share its extents.
        head -c 3000000 /srv/upgrade >"$SLIVERFS_LXCPATH/.store/$name/tree/bin/upgraded"
    done
    sync -f /srv"#;

#[test]
fn the_session_on_btrfs() {
    if !require("btrfs-snapshot", tools(&["unshare", "mkfs.btrfs"])) {
        return;
    }
    let tree = common::tree::Temp::new();
    node::small_tree(&tree.0.join("tree"));
    let blocks = session(&readme(), "sh session btrfs");
    assert!(!blocks.is_empty(), "the session's blocks were not found");
    let before = format!(
        "ln -s {} /usr/local/sbin/sliverfs\nPATH=/usr/local/sbin:$PATH\nTREE={}\n{ON_BTRFS}",
        env!("CARGO_BIN_EXE_sliverfs"),
        tree.0.join("tree").display()
    );
    Disk::new("btrfs").run(&before, &blocks);
}

/// What a reader would type is run, or says why not: the router's commands are run in an emulated one (tests/router).
#[test]
fn no_command_is_shown_that_is_not_run() {
    for (tag, lines) in fenced(&readme()) {
        let known = ["sh session", "sh session btrfs", "sh router", "uci", "text", "text kernel"];
        assert!(known.contains(&tag), "`{tag}` is no block that is run:\n{lines}");
    }
}
