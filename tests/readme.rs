//! The README's session, run as it stands there: on a disk of its own, in a mount namespace of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::path::Path;
use std::process::Command;

use common::require;

/// The lines of all code blocks with this tag.
fn blocks(text: &str, tag: &str) -> String {
    let mut inside = false;
    let mut lines = String::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == format!("```{tag}");
        } else if inside {
            lines += line;
            lines += "\n";
        }
    }
    lines
}

fn tools() -> Result<(), String> {
    common::root()?;
    for tool in ["mmdebstrap", "lxc-start", "unshare", "make"] {
        let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().unwrap();
        if !found.status.success() {
            return Err(format!("{tool} is not installed"));
        }
    }
    Ok(())
}

#[test]
fn the_session_runs_as_it_is_written() {
    if !require("readme", tools()) {
        return;
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(repository.join("README.md")).unwrap();
    let session = blocks(&readme, "sh session");
    assert!(session.lines().count() > 15, "the session's blocks were not found");
    let disk = std::env::temp_dir().join(format!("sliverfs-readme-{}", std::process::id()));
    std::fs::File::create(&disk).unwrap().set_len(1 << 30).unwrap();
    common::node::run(Command::new("mkfs.ext4").arg("-qF").arg(&disk));
    // /srv is the disk, /usr/local/sbin is empty, and nobody else sees it.
    let script = format!(
        "mount --make-rprivate /\nmount -o loop {} /srv\nmount -t tmpfs tmpfs /usr/local/sbin\nset -x\n{session}",
        disk.display()
    );
    let output = Command::new("unshare")
        .args(["-m", "sh", "-ec", &script])
        .current_dir(repository)
        .env_remove("SLIVERFS_LXCPATH")
        .output()
        .unwrap();
    let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    std::fs::remove_file(&disk).unwrap();
    assert!(output.status.success(), "{printed}\n{said}");
    for expected in ["overlay", "debian12", "it is mine", "running", "mount -i -t overlay"] {
        assert!(printed.contains(expected), "`{expected}` is missing in:\n{printed}\n{said}");
    }
}
