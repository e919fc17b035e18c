//! Slivers for OCI image layers: with changes of every kind, or filled by a layer.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::listing;
use super::node::{Node, run};
use super::tree::full_tree;

/// A node whose base has everything.
pub fn node(fstype: &str, mib: u64) -> Node {
    let node = Node::new(fstype, mib);
    let tree = node.dir().join("tree");
    full_tree(&tree, true);
    node.ok(&["base", "add", "b", tree.to_str().unwrap()]);
    node
}

/// Makes a folder of the base anew: a union says that it is opaque, a whole tree what is gone from it.
pub const ANEW: &str = "rm -r dev; mkdir dev; mknod dev/other c 5 7; mkfifo dev/pipe";

/// Changes of every kind, with times that no clock gave.
pub fn edit(view: &Path) {
    edit_with(view, ANEW);
}

pub fn edit_with(view: &Path, anew: &str) {
    run(Command::new("sh").arg("-ec").arg(
        r#"cd "$1"
        eval "$2"; echo new > etc/new; rm etc/relative dangling
        rm -r usr/bin; echo file > usr/bin; rm etc/file; mkdir etc/file; echo in > etc/file/in; rm -r etc/file; mkdir etc/file
        echo in > etc/file/inside; mkdir -p var/empty/deep/new; chmod 4711 var/random; chown 70000:3000000 var/zeros
        ln etc/new hard; ln etc/new "odd names/hard too"; ln -s "$(printf '%0150d' 3)" long-link; mkdir -p "$(printf '%0120d' 9)/x"
        echo n > "$(printf '%0120d' 9)/x/$(printf '%0200d' 8)"; printf z > "$(printf 'n\n\377')"; truncate -s 2000000 holes
        printf x | dd of=holes bs=1 seek=1000000 conv=notrunc 2>/dev/null
        setfattr -n user.x -v "$(printf 'a\nb=')" etc/new; setfattr -n trusted.t -v 0xff00 etc/file
        cp /bin/true cap; setcap cap_net_raw+ep cap; echo more >> var/random; rm -r var/empty/deep
        find . -depth -newermt 2025-01-01 -exec touch -h -d @1600000000.123456789 {} +; touch -d @-5.25 etc/new"#,
    ).arg("sh").arg(view).arg(anew));
}

/// A tree's listing, but for the numbers of names.
pub fn listed(view: &Path) -> String {
    listing::uncounted(&listing::of(view, true))
}

/// The view's listing, with the sliver mounted for it.
pub fn view(node: &Node, name: &str) -> String {
    node.ok(&["mount", name]);
    let text = listed(&node.view(name));
    node.ok(&["umount", name]);
    text
}

/// A sliver that was edited; its listing.
pub fn edited(node: &Node, name: &str, backend: &str) -> String {
    node.ok(&["create", name, "--base", "b", "--backend", backend]);
    node.ok(&["mount", name]);
    edit(&node.view(name));
    node.ok(&["umount", name]);
    view(node, name)
}

/// A node with a sliver `a` on a small base.
pub fn small() -> Node {
    let node = Node::with_base("ext4", 32);
    node.ok(&["create", "a", "--base", "b", "--backend", "overlay"]);
    node
}

/// Has the sliver `a` filled by a layer.
pub fn import(node: &Node, tar: Vec<u8>, options: &[&str]) -> Output {
    let file = node.dir().join("given.tar");
    fs::write(&file, tar).unwrap();
    node.run(&[&["import", "a", file.to_str().unwrap()], options].concat())
}
