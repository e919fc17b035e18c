//! Folders to unpack into, and a tree that has everything a base keeps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::node::run;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A folder that goes with the test.
pub struct Temp(pub PathBuf);

impl Temp {
    /// Makes one below `parent`.
    pub fn below(parent: &Path) -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("sliverfs-tree-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Makes one among the machine's temporary files.
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// Makes one in memory, where the machine has such a place: for tests of many small steps.
    pub fn quick() -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Self::below(memory) } else { Self::new() }
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _gone = Command::new("rm").arg("-rf").arg(&self.0).status();
    }
}

/// A tree with every kind of entry, owners, modes and times of all sorts, hard links of files, links and devices, names with any
/// bytes, holes; and `attrs` adds extended attributes, ACLs and a file capability. Times are whole seconds, which
/// every format keeps.
pub fn full_tree(tree: &Path, attrs: bool) {
    let script = r#"
        set -e
        mkdir -p "$1" && cd "$1"
        mkdir -p etc/dir usr/bin dev var/empty/deep "odd names"
        echo hello > etc/file; : > etc/nothing; ln etc/file usr/bin/same; ln etc/file zz
        ln -s file etc/relative; ln -s /etc/dir etc/absolute; ln -s ../../../.. etc/up; ln -s nowhere dangling
        ln etc/relative usr/same-link
        mknod dev/null c 1 3; mknod dev/sda b 8 0; mknod dev/big c 4095 1048575; mkfifo dev/fifo
        printf x > "odd names/$(printf '\377\376 \303\244')"; printf y > "odd names/$(printf 'new\nline\ttab')"
        printf z > 'odd names/a, b:c\d"'; printf w > "odd names/$(printf '%0250d' 7)"
        long=var; for n in 1 2 3 4; do long="$long/$(printf '%0100d' $n)"; done; mkdir -p "$long"; echo deep > "$long/file"
        head -c 70001 /dev/urandom > var/random; head -c 200000 /dev/zero > var/zeros
        truncate -s 3000000 var/holes; printf a | dd of=var/holes bs=1 seek=1500000 conv=notrunc 2>/dev/null
        truncate -s 1000001 var/all-hole
        printf begin > var/end-hole; truncate -s 900000 var/end-hole
        chown 1000:1001 etc/file; chown -h 5:6 etc/absolute; chown 4294967294:70000 etc/nothing; chown 100 var/empty
        chmod 0 etc/nothing; chmod 4755 usr/bin/same; chmod 2750 etc/dir; chmod 1777 var/empty; chmod 666 dev/null; chmod 640 dev/fifo
        if [ "$2" = attrs ]; then
            setfattr -n user.text -v "$(printf 'a\nb = c')" usr/bin/same
            setfattr -n trusted.dir -v 0xff00 etc; setfattr -n trusted.link -v 1 -h etc/absolute
            setcap cap_net_raw,cap_net_admin+ep usr/bin/same
        fi
        find . -depth -exec touch -h -d @1500000000 {} +
        touch -d @-86400 var/random; touch -h -d @4102444800 etc/absolute; touch -d @1 etc/dir; touch -d @1234567890 .
    "#;
    let attrs = if attrs { "attrs" } else { "plain" };
    run(Command::new("sh").arg("-c").arg(script).arg("sh").arg(tree).arg(attrs));
}

/// Compares two listings, and shows only the lines that differ.
#[track_caller]
pub fn assert_same(found: &str, wanted: &str, what: &str) {
    let only = |a: &str, b: &str| {
        a.lines().filter(|line| !b.lines().any(|other| other == *line)).collect::<Vec<_>>().join("\n")
    };
    assert!(found == wanted, "{what}:\nfound\n{}\nwanted\n{}", only(found, wanted), only(wanted, found));
}

/// Runs a script in a folder.
pub fn sh_in(folder: &Path, script: &str) {
    run(Command::new("sh").args(["-ec", script]).current_dir(folder));
}

/// Runs a script in a folder; returns what it says, however it ends.
pub fn said_in(folder: &Path, script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).current_dir(folder).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Copies a tree with all that it has.
pub fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-aT").arg(from).arg(to));
}

/// Is a program installed?
pub fn installed(program: &str) -> Result<(), String> {
    match Command::new("sh").arg("-c").arg(format!("command -v {program} >/dev/null")).status() {
        Ok(status) if status.success() => Ok(()),
        _ => Err(format!("{program} is not installed")),
    }
}
