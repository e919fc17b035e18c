//! LXC's own idea of where containers live: `lxc.lxcpath` in `lxc.conf`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::error::{Context, Error, Result};
use crate::sys::file;

/// LXC's system-wide settings.
pub const LXC_CONF: &str = "/etc/lxc/lxc.conf";

/// Present on OpenWrt, where LXC is built with another lxcpath.
const OPENWRT_RELEASE: &str = "/etc/openwrt_release";

/// The folder that `lxc-start NAME` looks into on this node.
///
/// # Errors
/// `lxc.conf` cannot be read, or names no absolute path.
pub fn default_lxcpath() -> Result<PathBuf> {
    from_files(Path::new(LXC_CONF), Path::new(OPENWRT_RELEASE))
}

fn from_files(lxc_conf: &Path, openwrt_release: &Path) -> Result<PathBuf> {
    let text = match file::read(lxc_conf).at("read", lxc_conf) {
        Err(err) if err.errno() == Some(Errno::ENOENT) => Vec::new(),
        text => text?,
    };
    match lxcpath(&text).map(|path| Path::new(OsStr::from_bytes(path))) {
        Some(path) if path.is_absolute() => Ok(path.to_path_buf()),
        Some(path) => Err(Error::usage(format_args!(
            "lxc.lxcpath in {} is `{}`, which is not an absolute path",
            lxc_conf.display(),
            path.display()
        ))
        .way_out("correct it there, or set lxcpath for sliverfs")),
        None if openwrt_release.exists() => Ok(PathBuf::from("/srv/lxc")),
        None => Ok(PathBuf::from("/var/lib/lxc")),
    }
}

/// The value of `lxc.lxcpath`, as LXC's `lxc_global_config_value` finds it in `lxc.conf`: the first one counts, a
/// comment starts with `#` in the first column, and all up to the end of the line is value but for the slashes there.
pub fn lxcpath(text: &[u8]) -> Option<&[u8]> {
    let is_blank = |c: &u8| matches!(c, b' ' | b'\t');
    let skip = |text: &'_ [u8]| text.iter().take_while(|c| is_blank(c)).count();
    for line in text.split(|&c| c == b'\n') {
        let Some(rest) = line.get(skip(line)..).and_then(|line| line.strip_prefix(b"lxc.lxcpath")) else {
            continue;
        };
        let Some(value) = rest.get(skip(rest)..).and_then(|rest| rest.strip_prefix(b"=")) else {
            continue;
        };
        let mut value = value.get(skip(value)..).unwrap_or_default();
        while let Some(shorter) = value.strip_suffix(b"/") {
            value = shorter;
        }
        return Some(value);
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_lxc_would_take() {
        let table: &[(&str, Option<&str>)] = &[
            ("", None),
            ("lxc.lxcpath = /srv/lxc\n", Some("/srv/lxc")),
            ("lxc.lxcpath=/srv/lxc", Some("/srv/lxc")),
            (" \tlxc.lxcpath\t = \t/srv/lxc//\n", Some("/srv/lxc")),
            ("# lxc.lxcpath = /no\nlxc.bdev.zfs.root = /no\nlxc.lxcpath = /a\nlxc.lxcpath = /b", Some("/a")),
            (" # lxc.lxcpath = /no\n#\n", None),
            ("x lxc.lxcpath = /no\nlxc.lxcpath2 = /no\nlxc.lxcpath /no\nlxc.lxcpath : = /no", None),
            ("lxc.lxcpath = /my disk # really", Some("/my disk # really")),
            ("lxc.lxcpath = /a \r\n", Some("/a \r")),
            ("lxc.lxcpath = \"/srv\"", Some("\"/srv\"")),
            ("lxc.lxcpath =\n", Some("")),
            ("lxc.lxcpath = /\n", Some("")),
        ];
        for (text, want) in table {
            assert_eq!(lxcpath(text.as_bytes()), want.map(str::as_bytes), "{text:?}");
        }
    }

    #[test]
    fn defaults_and_what_is_no_path() {
        let dir = std::env::temp_dir().join(format!("sliverfs-lxcconf-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (conf, release) = (dir.join("lxc.conf"), dir.join("openwrt_release"));

        assert_eq!(from_files(&conf, &release).unwrap(), Path::new("/var/lib/lxc"));
        fs::write(&release, "").unwrap();
        assert_eq!(from_files(&conf, &release).unwrap(), Path::new("/srv/lxc"));
        fs::write(&conf, "lxc.lxcpath = /mnt/usb/lxc\n").unwrap();
        assert_eq!(from_files(&conf, &release).unwrap(), Path::new("/mnt/usb/lxc"));
        for wrong in ["lxc", "", "/"] {
            fs::write(&conf, format!("lxc.lxcpath = {wrong}\n")).unwrap();
            assert!(from_files(&conf, &release).is_err(), "{wrong}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
