//! `sliverfs export`: what a sliver changed, as an OCI image layer.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use serde::Serialize;

use crate::archive::{Tar, is_stdin};
use crate::cli::Args;
use crate::cmd::Ctx;
use crate::cmd::layers::Layers;
use crate::error::{Context, Error, Result};
use crate::layer::{Changes, Format, Layer, Show, Step};
use crate::out::{self, escape};
use crate::stay::stay;
use crate::sys::tool::{self, Child};
use crate::sys::{file, sync};
use crate::tree::{Dir, again};

/// The layer as `export --json` prints it: see docs/json.md.
#[derive(Serialize)]
struct Row {
    format: &'static str,
    file: String,
    gzip: bool,
    diff_id: String,
    size: u64,
    entries: usize,
}

/// Writes the layer. While the sliver is in use it is what the walk came upon: nothing is held back meanwhile.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let mut layers = Layers::new(args)?;
    let path = args.output.path().filter(|path| !is_stdin(path));
    if path.is_none() && args.json {
        return Err(Error::usage("standard output cannot take the layer and JSON")
            .way_out("name a file for the layer: -o FILE"));
    }
    if path.is_none() && file::is_terminal(1) {
        return Err(Error::usage("a layer is nothing for a terminal").way_out("name a file: -o FILE"));
    }
    let name = path.map(|path| path.as_os_str().as_bytes()).unwrap_or_default();
    let gzip = args.gzip || name.ends_with(b".gz") || name.ends_with(b".tgz");
    layers.watch(ctx)?;
    layers.with(ctx, &mut |format, base, store, words| {
        if !words.is_empty() {
            return Err(Error::usage("one sliver at a time, and all of it"));
        }
        let (mut output, to) = Output::open(path, gzip)?;
        let mut row = Row {
            format: format.name(),
            file: escape(name),
            gzip,
            diff_id: String::new(),
            size: 0,
            entries: 0,
        };
        let tar = Tar::new(to, output.name, args.json);
        let done = write(format, base, store, tar, &mut row)
            .and_then(|()| layers.same())
            .and_then(|()| output.publish());
        if let Err(err) = done {
            output.discard();
            // Gzip ended before us, and has said why.
            return Err(match err.errno() {
                Some(Errno::EPIPE) if gzip => {
                    Error::failed(format_args!("gzip did not write {}", output.name.display()))
                        .way_out("what it says stands above")
                }
                _ => err,
            });
        }
        if args.json { out::json(&row) } else { Ok(()) }
    })
}

fn write(format: Format, base: &Dir, store: &Dir, tar: Tar, row: &mut Row) -> Result<()> {
    let mut layer = Layer::new(format, store, tar)?;
    let mut changes = Changes::new(format, again(store)?, base, Show::Flat)?.without_leaves();
    while let Some(step) = changes.step()? {
        if let Step::Entry(entry) = step {
            layer.take(&entry)?;
            changes.enter()?;
        }
    }
    (row.diff_id, row.size) = layer.finish()?;
    row.entries = layer.entries;
    Ok(())
}

/// Where the layer goes: a pipe or a device as it is, a file by way of another one beside it.
struct Output {
    /// For messages.
    name: &'static Path,
    /// The file beside it.
    temp: Option<&'static Path>,
    gzip: Option<Child>,
}

impl Output {
    /// Also gives what the tar is written to.
    fn open(path: Option<&'static Path>, gzip: bool) -> Result<(Self, File)> {
        let name = path.unwrap_or(Path::new("standard output"));
        let mut output = Self { name, temp: None, gzip: None };
        let file = match path {
            None => File::from(file::stdout().at("open", name)?),
            // A pipe or a device stays what it is.
            Some(path) if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) => {
                file::open_as(path, OFlag::O_WRONLY, 0).at("open", path)?
            }
            Some(path) => {
                let beside = [b".", path.file_name().unwrap_or_default().as_bytes(), b".new"].concat();
                let temp = stay(folder_of(path).join(OsStr::from_bytes(&beside)));
                match fs::remove_file(temp) {
                    Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                    done => done.at("remove", temp)?,
                }
                // The layer may hold what only the sliver's root may read.
                let new = file::open_as(temp, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, 0o600);
                let new = new.at("create", temp)?;
                output.temp = Some(temp);
                new
            }
        };
        if !gzip {
            return Ok((output, file));
        }
        // Without name and time in it: the same bytes for the same layer.
        match tool::start_into("gzip", &[OsStr::new("-cn")], &file) {
            Ok(mut child) => {
                let to = child.stdin.take().unwrap_or(file);
                output.gzip = Some(child);
                Ok((output, to))
            }
            Err(errno) => {
                output.discard();
                Err(not_started(errno))
            }
        }
    }

    /// After the last byte: waits for gzip, and gives the file its name when it is on the disk.
    fn publish(&mut self) -> Result<()> {
        if let Some(gzip) = &mut self.gzip {
            if let Some(how) = gzip.wait().at("wait for", Path::new("gzip"))? {
                return Err(Error::failed(format_args!("gzip did not write {}: {how}", self.name.display())));
            }
            self.gzip = None;
        }
        let Some(temp) = self.temp else { return Ok(()) };
        file::open(temp).and_then(|file| file.sync_all()).at("write to the disk", temp)?;
        fs::rename(temp, self.name).at("rename to", self.name)?;
        self.temp = None;
        sync::dir(folder_of(self.name))
    }

    /// After a failure: nothing of it stays.
    fn discard(&mut self) {
        if let Some(gzip) = &mut self.gzip {
            gzip.kill();
        }
        if let Some(temp) = self.temp {
            let _told_by_the_failure = fs::remove_file(temp);
        }
    }
}

/// The folder that a path lies in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn not_started(errno: Errno) -> Error {
    if errno == Errno::ENOENT {
        return Error::unsupported("no program gzip is installed")
            .way_out("install it, or write the layer without --gzip to a name without .gz");
    }
    Error::sys("start", Path::new("gzip"), errno)
}
