//! Bare layers: bases and stores that a test makes by hand, and what the binary is told to do with them.

use std::path::Path;
use std::process::{Command, Output};

use sliverfs::layer::Format;

use super::node::run;

/// The formats of the kernel's unions.
pub const UNIONS: [Format; 4] = [Format::Overlay, Format::Overlayfs, Format::MiniFo, Format::Aufs];

/// The name of mini_fo's records.
pub const META: &str = "META_dAfFgHE39ktF3HD2sr";

/// Runs a script, which finds the paths as `$1` and so on.
pub fn sh(script: &str, args: &[&Path]) {
    run(Command::new("sh").arg("-ec").arg(script).arg("sh").args(args));
}

/// The words of a command that works on bare layers.
pub fn words(command: &str, format: Format, base: &Path, store: &Path) -> Vec<String> {
    let [base, store] = [base, store].map(|path| path.to_str().unwrap());
    [command, "--format", format.name(), "--base", base, "--store", store].map(str::to_owned).to_vec()
}

/// Runs a command on bare layers.
pub fn bare(command: &str, format: Format, base: &Path, store: &Path, more: &[&str]) -> Output {
    let mut sliverfs = Command::new(env!("CARGO_BIN_EXE_sliverfs"));
    sliverfs.args(words(command, format, base, store)).args(more).output().unwrap()
}

/// All that a command said.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A store over [`super::scripts::base`] with what is deleted, replaced, below a deleted folder and below an opaque one, in each
/// format's own words.
pub fn cases(format: Format, store: &Path) {
    let script = match format {
        Format::Aufs => ": > .wh.f; : > .wh.d; : > a/.wh..wh..opq; echo mine > a/b; echo new > a/new",
        Format::Overlayfs => {
            "for f in f d; do ln -s '(overlay-whiteout)' $f; setfattr -h -n trusted.overlay.whiteout -v y $f; done; \
             setfattr -n trusted.overlay.opaque -v y a; echo mine > a/b; echo new > a/new"
        }
        Format::MiniFo => {
            "printf 'D f\\nD d\\nD a\\nD other\\n' > META_dAfFgHE39ktF3HD2sr; echo mine > a/b; echo new > a/new"
        }
        _ => {
            "mknod f c 0 0; mknod d c 0 0; setfattr -n trusted.overlay.opaque -v y a; echo mine > a/b; echo new > a/new"
        }
    };
    sh(&format!("mkdir -p $1/a; cd $1; {script}"), &[store]);
}
