//! What a tenant's tree is counted by: this program's documents, and du(1).

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::node::run;

/// What a tenant writes: blocks, holes, names of one inode, and what nobody may open; then it deletes and changes something.
const EDITS: &str = r#"
    cd "$1"; mkdir -p home/me; head -c 5000000 /dev/urandom > home/me/big; ln home/me/big home/me/same; ln home/me/big etc/same
    truncate -s 1T home/me/hole; printf x | dd of=home/me/hole bs=1 seek=5000000 conv=notrunc 2>/dev/null
    for n in $(seq 1 60); do echo $n > home/me/$n; done; mkfifo home/me/pipe; mknod home/me/disk b 7 0; ln -s / home/me/root
    rm -f etc/a.txt; echo more >> etc/b.txt; head -c 100000 /dev/urandom >> var/big; sync -f .
"#;

/// Writes it.
pub fn edit(tree: &Path) {
    run(Command::new("sh").args(["-ec", EDITS, "sh"]).arg(tree));
}

/// What a script says, which finds the path as `$1`.
pub fn shell(script: &str, path: &Path) -> String {
    run(Command::new("sh").args(["-ec", script, "sh"]).arg(path))
}

/// The number in a field of a document.
pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// What du(1) counts, in bytes.
pub fn du(path: &Path) -> u64 {
    shell("du -s -B1 \"$1\" | cut -f 1", path).trim().parse().unwrap()
}
