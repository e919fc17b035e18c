//! `sliverfs export`: what a sliver changed, as an OCI image layer.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

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
use crate::sys::tool::{self, Child};
use crate::sys::{file, sync};
use crate::tree::Dir;

/// The layer as `export --json` prints it: see docs/json.md.
#[derive(Serialize)]
struct Row {
    format: &'static str,
    file: String,
    gzip: bool,
    diff_id: String,
    size: u64,
    entries: u64,
}

/// Writes the layer. While the sliver is in use it is what the walk came upon: nothing is held back meanwhile.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let layers = Layers::new(args)?;
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
    let watch = layers.watch(ctx)?;
    layers.with(ctx, &mut |format, base, store, words| {
        if !words.is_empty() {
            return Err(Error::usage("one sliver at a time, and all of it"));
        }
        let mut output = Output::open(path, gzip)?;
        let done = output.tar(args.json).and_then(|tar| write(format, &base, store, tar));
        let done = done.and_then(|done| watch.same().map(|()| done));
        let (diff_id, size, entries) = match done.and_then(|done| output.publish().map(|()| done)) {
            Ok(done) => done,
            Err(err) => {
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
        };
        let Some(file) = path.filter(|_| args.json) else { return Ok(()) };
        let file = escape(file.as_os_str().as_encoded_bytes());
        out::json(&Row { format: format.name(), file, gzip, diff_id, size, entries })
    })
}

fn write(format: Format, base: &Dir, store: Dir, tar: Tar) -> Result<(String, u64, u64)> {
    let mut layer = Layer::new(format, &store, tar)?;
    let mut changes = Changes::new(format, store, base, Show::Flat)?.without_leaves();
    while let Some(step) = changes.step()? {
        if let Step::Entry(entry) = step {
            layer.take(&entry)?;
            changes.enter()?;
        }
    }
    layer.finish()
}

/// Where the layer goes: a pipe or a device as it is, a file by way of another one beside it.
struct Output {
    file: File,
    /// For messages.
    name: PathBuf,
    /// The file beside it.
    temp: Option<PathBuf>,
    gzip: Option<Child>,
}

impl Output {
    fn open(path: Option<&Path>, gzip: bool) -> Result<Self> {
        let name = path.unwrap_or(Path::new("standard output")).to_owned();
        let mut temp = None;
        let file = match path {
            None => File::from(file::stdout().at("open", &name)?),
            // A pipe or a device stays what it is.
            Some(path) if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) => {
                file::open_as(path, OFlag::O_WRONLY, 0).at("open", path)?
            }
            Some(path) => {
                let mut beside = OsStr::new(".").to_owned();
                beside.push(path.file_name().unwrap_or_default());
                beside.push(".new");
                let beside = path.with_file_name(beside);
                match fs::remove_file(&beside) {
                    Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                    done => done.at("remove", &beside)?,
                }
                // The layer may hold what only the sliver's root may read.
                let new = file::open_as(&beside, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, 0o600);
                let new = new.at("create", &beside)?;
                temp = Some(beside);
                new
            }
        };
        let mut output = Self { file, name, temp, gzip: None };
        if gzip {
            // Without name and time in it: the same bytes for the same layer.
            match tool::start_into("gzip", &[OsStr::new("-cn")], &output.file) {
                Ok(child) => output.gzip = Some(child),
                Err(errno) => {
                    output.discard();
                    return Err(not_started(errno));
                }
            }
        }
        Ok(output)
    }

    fn tar(&mut self, digest: bool) -> Result<Tar> {
        let pipe = self.gzip.as_mut().and_then(|gzip| gzip.stdin.take());
        let to = match pipe {
            Some(pipe) => pipe,
            None => self.file.try_clone().at("open", &self.name)?,
        };
        Ok(Tar::new(to, &self.name, digest))
    }

    /// After the last byte: waits for gzip, and gives the file its name when it is on the disk.
    fn publish(&mut self) -> Result<()> {
        if let Some(gzip) = &mut self.gzip {
            if let Some(how) = gzip.wait().at("wait for", Path::new("gzip"))? {
                return Err(Error::failed(format_args!("gzip did not write {}: {how}", self.name.display())));
            }
            self.gzip = None;
        }
        let Some(temp) = &self.temp else { return Ok(()) };
        self.file.sync_all().at("write to the disk", temp)?;
        fs::rename(temp, &self.name).at("rename to", &self.name)?;
        self.temp = None;
        let folder = self.name.parent().filter(|folder| !folder.as_os_str().is_empty());
        sync::dir(folder.unwrap_or(Path::new(".")))
    }

    /// After a failure: nothing of it stays.
    fn discard(&mut self) {
        if let Some(gzip) = &mut self.gzip {
            gzip.kill();
        }
        if let Some(temp) = &self.temp {
            let _told_by_the_failure = fs::remove_file(temp);
        }
    }
}

fn not_started(errno: Errno) -> Error {
    if errno == Errno::ENOENT {
        return Error::unsupported("no program gzip is installed")
            .way_out("install it, or write the layer without --gzip to a name without .gz");
    }
    Error::sys("start", Path::new("gzip"), errno)
}
