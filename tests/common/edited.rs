//! Slivers that were edited in every way that a store must keep.

use std::path::Path;
use std::process::Command;

use super::node::{Node, run};
use super::require;
use super::slivers::view;
use super::tree::installed;

/// A bit of everything that a sliver does.
const EDITS: &str = r#"
    echo new > new; mkdir -p d/e; echo x > d/f; ln d/f d/e/f2; ln -s a.txt etc/sym; mkfifo p; mknod dev b 7 200
    rm etc/b.txt; rm -r var/deep; mkdir var/deep; echo only > var/deep/only; rm var/fifo; mkdir var/fifo
    chmod 700 etc/dir; chown 5:6 etc/dir/c.txt; setfattr -n trusted.t -v one var/big; setcap cap_net_raw+ep new
    setfattr -n user.d -v two d; mv 'odd names' moved; truncate -s 3000000 hole; echo end >> hole; chmod 711 .; chown 3:4 .
    find . -newermt @1600000000 -exec touch -h -d @1700000000.5 {} +"#;

/// Can the edits be made here?
pub fn ready() -> bool {
    require("root", super::root()) && ["setfattr", "setcap"].iter().all(|tool| require(tool, installed(tool)))
}

/// Makes them.
fn edit(folder: &Path) {
    run(Command::new("sh").args(["-ec", EDITS]).current_dir(folder));
}

/// A sliver with all the edits, unmounted, and the listing of its view.
pub fn sliver(node: &Node, name: &str, kind: &str) -> String {
    node.ok(&["create", name, "--base", "b", "--backend", kind]);
    node.ok(&["mount", name]);
    edit(&node.view(name));
    node.ok(&["umount", name]);
    view(node, name)
}
