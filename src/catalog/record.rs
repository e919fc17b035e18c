//! Records: small JSON documents with a version, replaced as a whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use nix::fcntl::OFlag;

use serde::Serialize;

use crate::error::{Context, Error, Result};
use crate::json::{self, FromJson, Json};
use crate::stay::for_good;
use crate::sys::file;
use crate::sys::sync;

/// The version that this program writes, and the newest that it reads.
pub const VERSION: u64 = 1;

/// More than a record has: what comes short of it is a whole one, and read at once.
const AT_ONCE: usize = 1 << 11;

/// Reads the record at `path`. It stays until the program ends, as its texts do.
///
/// A record of a newer version is [`crate::error::Class::Unsupported`], one that does not parse is
/// [`crate::error::Class::Damaged`]. A missing one is the open's ENOENT.
pub fn read<T: FromJson>(path: &Path) -> Result<&'static T> {
    read_open(path).map(|(record, _)| record)
}

/// The same, and the file that it was read of.
pub fn read_open<T: FromJson>(path: &Path) -> Result<(&'static T, File)> {
    let (json, file) = load(path)?;
    let record = T::from_json(&json).map_err(|err| damaged(path, &err))?;
    Ok((for_good(record), file))
}

fn load(path: &Path) -> Result<(Json, File)> {
    let file = file::open(path).at("read", path)?;
    let mut first = [0; AT_ONCE];
    let got = file::read_some(&file, &mut first).at("read", path)?;
    let mut text = first.get(..got).unwrap_or_default();
    let all;
    if got == AT_ONCE {
        all = [text, &file::read_all(&file, usize::MAX).at("read", path)?].concat();
        text = &all;
    }
    let json = Json::parse(text).map_err(|err| damaged(path, &err))?;
    let version = json.number("version").map_err(|err| damaged(path, &err))?;
    if version > VERSION {
        return Err(Error::unsupported(format_args!(
            "the record {} has version {version}, this program knows up to {VERSION}",
            path.display()
        ))
        .way_out("use the newer sliverfs that wrote it"));
    }
    Ok((json, file))
}

#[cold]
fn damaged(path: &Path, err: &Error) -> Error {
    Error::damaged(format_args!("the record {} is damaged: {err}", path.display()))
        .way_out("nothing was changed; put back a copy of the file, or repair it by hand")
}

/// Writes the record `file` into the folder `dir`: a temporary file, fsync, rename, fsync of the folder.
pub fn write<T: Serialize>(dir: &Path, file: &str, record: &T) -> Result<()> {
    let temporary = dir.join(format!(".{file}.new"));
    let path = dir.join(file);
    write_synced(&temporary, record)?;
    fs::rename(&temporary, &path).at("rename the new record to", &path)?;
    sync::dir(dir)
}

/// Writes a record that need not outlive the boot: replaced as a whole, but not forced to the disk.
pub fn write_volatile<T: Serialize>(dir: &Path, file: &str, record: &T) -> Result<()> {
    let temporary = dir.join(format!(".{file}.new"));
    let path = dir.join(file);
    file::write(&temporary, &to_text(&path, record)?).at("write", &temporary)?;
    fs::rename(&temporary, &path).at("rename the new record to", &path)
}

fn write_synced<T: Serialize>(path: &Path, record: &T) -> Result<()> {
    let text = to_text(path, record)?;
    let how = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
    let mut file = file::open_as(path, how, 0o600).at("create the record", path)?;
    file.write_all(&text).and_then(|()| file.sync_all()).at("write the record", path).inspect_err(|_| {
        let _gone = fs::remove_file(path);
    })
}

/// A record's text; `path` names it in errors.
pub fn to_text<T: Serialize>(path: &Path, record: &T) -> Result<Vec<u8>> {
    let mut text =
        json::write(record).map_err(|err| Error::failed(format_args!("{}: {err}", path.display())))?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Source(&'static str);

    impl FromJson for Source {
        fn from_json(json: &Json) -> Result<Self> {
            json.text("source").map(Self)
        }
    }

    #[test]
    fn a_record_of_any_length_is_read() {
        let path = std::env::temp_dir().join(format!("sliverfs-record-{}", std::process::id()));
        let frame = r#"{"version":1,"source":""}"#.len();
        for length in [0, AT_ONCE - frame - 1, AT_ONCE - frame, AT_ONCE - frame + 1, 5 * AT_ONCE] {
            let source = "s".repeat(length);
            file::write(&path, format!(r#"{{"version":1,"source":"{source}"}}"#).as_bytes()).unwrap();
            assert_eq!(read::<Source>(&path).map(|record| record.0).ok(), Some(&*source), "{length}");
        }
        fs::remove_file(path).unwrap();
    }
}
