//! The import of a base: from a source to a published folder, or to nothing at all.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use sha2::{Digest, Sha256};

use super::base::{Attrs, Base};
use super::record::VERSION;
use super::root::Root;
use super::staging::{self, Staging};
use crate::archive::{self, Content, Policy, Stream};
use crate::error::{Context, Error, Result};
use crate::form::Form;
use crate::image::{self, Packer, Seen};
use crate::name::Name;
use crate::progress::Progress;
use crate::shell;
use crate::size::Size;
use crate::stay::{Below, for_good, stay};
use crate::sum::Sum;
use crate::sys::file::{self, read_some, set_size};
use crate::sys::signals::LastWords;
use crate::sys::{btrfs, clock, statfs};
use crate::tree::{self, Dir, Summary};

/// What came of an import.
pub struct Added {
    /// The base.
    pub base: &'static Base,
    /// False where it was there already, from the same source.
    pub new: bool,
}

/// Where a base comes from, opened.
enum Source {
    Folder(Dir, &'static Path),
    Stream(Content),
}

/// Adds the base `name` from `source`: a folder, an archive, an image, or `-` for standard input. With `pack` its tree is
/// packed as an image.
///
/// A base that is there already is left alone, and is no error when it came from the same source. LXCPATH gets its marker
/// only when the source could be opened. Whatever fails, nothing stays that looks like a base.
pub fn add(root: &Root, name: &Name, source: &Path, pack: Option<Form>) -> Result<Added> {
    let text = source_text(source)?;
    if let Some(base) = Base::find(root, name)? {
        return same(base, text, pack).map(|()| Added { base, new: false });
    }
    let source = open(root, source, pack)?;
    statfs::refuse_read_only(root.bases())?;
    let root = Root::init(root.path())?;
    if let Err(err) = staging::sweep(root) {
        crate::warn!("{err}");
    }
    let words = LastWords::begin(false);
    let added = import(root, name, source, text, pack);
    drop(words);
    added.map(|base| Added { base, new: true }).map_err(|err| match err.errno() {
        Some(Errno::ENOSPC | Errno::EDQUOT) => {
            let free = statfs::of(root.bases()).map_or(0, |disk| disk.available);
            err.way_out(format_args!(
                "nothing of the base was kept; {} are free on the disk of {}",
                Size(free),
                root.bases().display()
            ))
        }
        _ => err,
    })
}

/// What [`add`] would do, as steps that a person could type. Nothing is changed.
pub fn plan(root: &Root, name: &Name, source: &Path, pack: Option<Form>) -> Result<Vec<String>> {
    let text = source_text(source)?;
    if let Some(base) = Base::find(root, name)? {
        return same(base, text, pack).map(|()| Vec::new());
    }
    let form = |stream: &Source| match stream {
        Source::Stream(Content::Image(form, _)) => *form,
        _ => pack.unwrap_or(Form::Directory),
    };
    let opened = open(root, source, pack)?;
    statfs::refuse_read_only(root.bases())?;
    let folder = root.base(name);
    let (from, tree) = (shell::path(source), shell::path(&folder.join(Form::Directory.file())));
    let content = shell::path(&folder.join(form(&opened).file()));
    let unpack = match &opened {
        Source::Folder(..) if pack.is_some() => None,
        Source::Folder(..) => Some(format!("cp -a {from}/. {tree}")),
        Source::Stream(Content::Tar(_)) => Some(format!("tar -xpf {from} -C {tree}")),
        Source::Stream(Content::Image(..)) => Some(format!("cp {from} {content}")),
    };
    let packed_from = if matches!(opened, Source::Folder(..)) { &from } else { &tree };
    let packed = pack.map(|form| match form {
        Form::Erofs => format!("mkfs.erofs {content} {packed_from}"),
        Form::Btrfs => image::seed_typed(packed_from, &content),
        _ => format!("mksquashfs {packed_from} {content}"),
    });
    let clear = (pack.is_some() && unpack.is_some()).then(|| format!("rm -r {tree}"));
    let made = if unpack.is_some() && !matches!(opened, Source::Stream(Content::Image(..))) {
        &tree
    } else {
        &shell::path(folder)
    };
    let mut steps = vec![format!("mkdir -p {made}")];
    for step in [unpack, packed, clear] {
        steps.extend(step);
    }
    Ok(steps)
}

/// The source as it is recorded: it must be the same text for the same source.
fn source_text(source: &Path) -> Result<&'static str> {
    if archive::is_stdin(source) {
        return Ok("-");
    }
    let real = fs::canonicalize(source).at("open", source)?;
    Ok(crate::out::escape(real.as_os_str().as_bytes()).leak())
}

fn same(base: &Base, source: &str, pack: Option<Form>) -> Result<()> {
    let way_out = format!("take another name, or first `sliverfs base remove {}`", base.name);
    if base.source != source {
        return Err(Error::usage(format_args!(
            "the base `{}` is there already, from {}",
            base.name, base.source
        ))
        .way_out(way_out));
    }
    match pack {
        Some(form) if form != base.form => Err(Error::usage(format_args!(
            "the base `{}` is there already, as {}",
            base.name,
            base.form.name()
        ))
        .way_out(way_out)),
        _ => Ok(()),
    }
}

/// Refuses an empty folder as what something is made of: a view that is not mounted is one.
pub fn refuse_empty(source: &Path) -> Result<()> {
    if !tree::is_empty(source)? {
        return Ok(());
    }
    Err(Error::failed(format_args!("{} is empty", source.display()))
        .way_out("where it is the view of a sliver, mount that first: sliverfs mount NAME"))
}

fn open(root: &Root, source: &Path, pack: Option<Form>) -> Result<Source> {
    // A missing program must not be found out after an hour, nor after something was written.
    if let Some(form) = pack {
        image::require(form)?;
    }
    let meta = if archive::is_stdin(source) { None } else { Some(fs::metadata(source).at("open", source)?) };
    if meta.as_ref().is_some_and(fs::Metadata::is_dir) {
        let real = fs::canonicalize(source).at("open", source)?;
        if root.path().starts_with(&real) || real.starts_with(root.bases()) {
            return Err(Error::usage(format_args!(
                "{} holds the folder of the bases, or lies in it",
                source.display()
            ))
            .way_out("take a source outside of LXCPATH"));
        }
        refuse_empty(&real)?;
        return Ok(Source::Folder(tree::open(&real)?, stay(real)));
    }
    // A device has no end, and a FIFO perhaps none.
    if meta.as_ref().is_some_and(|meta| !meta.is_file()) {
        return Err(Error::usage(format_args!("{} is neither a folder nor a file", source.display()))
            .way_out("give a stream as `-`"));
    }
    let total = meta.map(|meta| meta.len());
    let progress = Rc::new(Progress::new("importing", total));
    let content = archive::open(source, &progress)?;
    match (&content, pack) {
        (Content::Image(form, _), Some(_)) => {
            Err(Error::usage(format_args!("{} is an image already ({})", source.display(), form.name()))
                .way_out("add it without --pack"))
        }
        _ => Ok(Source::Stream(content)),
    }
}

fn import(
    root: &Root,
    name: &Name,
    source: Source,
    text: &'static str,
    pack: Option<Form>,
) -> Result<&'static Base> {
    let staging = Staging::new(root, name)?;
    let packer = pack.map(|form| image::packer(form, staging.path())).transpose()?.zip(pack);
    let tree = staging.path().join(Form::Directory.file());
    let found = match (source, packer) {
        (Source::Folder(_, path), Some((packer, form))) => packed(path, &staging, &packer, form)?,
        (Source::Folder(from, path), None) => {
            copy(from, path, &make_root(&staging)?, root)?;
            plain(&tree)?
        }
        (Source::Stream(Content::Image(form, stream)), _) => received(stream, &staging, form)?,
        (Source::Stream(Content::Tar(mut stream)), packer) => {
            archive::unpack(&mut *stream, &make_root(&staging)?, Policy::NewTree)?;
            match packer {
                None => plain(&tree)?,
                Some((packer, form)) => {
                    let found = packed(&tree, &staging, &packer, form)?;
                    tree::remove_path(&tree)?;
                    found
                }
            }
        }
    };
    let base = found.record(name, text);
    base.write(staging.path())?;
    tree::sync_tree(staging.path())?;
    let _lock = root.lock_catalog()?;
    staging.publish(root, name)?;
    Ok(base)
}

/// What is in the staging folder.
struct Found {
    form: Form,
    summary: Summary,
    hidden: bool,
    disk: u64,
    image_sha256: Option<&'static str>,
}

impl Found {
    fn record(self, name: &Name, source: &'static str) -> &'static Base {
        let xattrs = match (self.hidden, self.summary.attrs) {
            (true, _) => Attrs::Hidden,
            (false, 0) => Attrs::None,
            (false, _) => Attrs::Kept,
        };
        for_good(Base {
            version: VERSION,
            name: *name,
            form: self.form,
            digest: self.summary.digest,
            entries: self.summary.entries,
            bytes: self.summary.bytes,
            disk: self.disk,
            source,
            created: clock::now(),
            image_sha256: self.image_sha256,
            xattrs,
        })
    }
}

/// The root of a new tree; its own mode comes with the content.
///
/// On Btrfs it is a subvolume: then a sliver can be a snapshot of it.
fn make_root(staging: &Staging) -> Result<Dir> {
    let tree = staging.path().join(Form::Directory.file());
    let parent = tree::open(staging.path())?;
    let made = if statfs::of(staging.path())?.magic == btrfs::MAGIC {
        btrfs::create(&parent, c"tree")
    } else {
        parent.make_dir(c"tree")
    };
    made.at("create", &tree)?;
    tree::open(&tree)
}

fn copy(from: Dir, path: &Path, to: &Dir, root: &Root) -> Result<()> {
    let avoid = file::look_at(root.bases())?;
    let progress = Progress::new("importing", None);
    tree::copy(
        from,
        path.as_os_str().as_bytes(),
        to,
        (avoid.dev(), avoid.ino()),
        tree::Content::Written,
        &mut |bytes| progress.add(bytes),
    )
    .map(drop)
}

/// A tree as it lies on the disk.
fn plain(tree: &Path) -> Result<Found> {
    let summary = digest(tree, true)?;
    let disk = summary.disk;
    Ok(Found { form: Form::Directory, summary, hidden: false, disk, image_sha256: None })
}

fn digest(tree: &Path, attrs: bool) -> Result<Summary> {
    let progress = Progress::new("computing the digest", None);
    tree::digest(&tree::open(tree)?, tree.as_os_str().as_bytes(), attrs, &mut |bytes| progress.add(bytes))
}

/// Packs a tree, and reads the image back: it must hold the same tree.
fn packed(tree: &Path, staging: &Staging, packer: &Packer, form: Form) -> Result<Found> {
    let mut wanted = digest(tree, true)?;
    let file = staging.path().below(form.file());
    packer.pack(tree, file, &wanted)?;
    let found = look(file, staging, form, Some(wanted.bytes))?;
    if found.hidden {
        wanted = digest(tree, false)?;
    }
    if wanted.digest != found.summary.digest {
        return Err(Error::failed(format_args!(
            "the {} image does not hold what {} holds: the digests are {} and {}",
            form.name(),
            tree.display(),
            found.summary.digest,
            wanted.digest
        ))
        .way_out("either the source changed meanwhile, or the format cannot keep it (squashfs keeps no ACLs): try the other format, or no --pack"));
    }
    Ok(found)
}

/// Writes an image from a stream down and looks into it.
fn received(mut stream: Box<dyn Stream>, staging: &Staging, form: Form) -> Result<Found> {
    let file = staging.path().below(form.file());
    let mut to =
        file::open_as(file, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, 0o600).at("create", file)?;
    let mut buffer = vec![0; 1 << 16];
    let zeros = vec![0; 1 << 16];
    let mut length = 0u64;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => {
                let chunk = buffer.get(..got).unwrap_or_default();
                length = length.plus(got as u64);
                // The holes of a seed are most of it.
                if zeros.starts_with(chunk) {
                    to.seek(SeekFrom::Start(length)).at("write", file)?;
                } else {
                    to.write_all(chunk).at("write", file)?;
                }
            }
            Err(fault) => return Err(Error::failed(format_args!("the image cannot be read: {fault}"))),
        }
    }
    set_size(&to, length).at("write to the disk", file)?;
    to.sync_all().at("write to the disk", file)?;
    look(file, staging, form, None)
}

fn look(file: &Path, staging: &Staging, form: Form, total: Option<u64>) -> Result<Found> {
    let Seen { summary, hidden } = image::look(file, form, staging.path(), true, total)?;
    if hidden {
        crate::warn!(
            "this kernel does not show the extended attributes of a {} image: file capabilities in it have no effect here, and the digest does not count them",
            form.name()
        );
    }
    let disk = file::look_at(file)?.blocks().times(512);
    Ok(Found { form, summary, hidden, disk, image_sha256: Some(sha256(file)?) })
}

/// SHA-256 of a file, in hexadecimal digits.
pub fn sha256(file: &Path) -> Result<&'static str> {
    let from = file::open(file).at("open", file)?;
    let progress = Progress::new("reading the image", from.metadata().ok().map(|meta| meta.len()));
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match read_some(&from, &mut buffer).at("read", file)? {
            0 => break,
            got => {
                hash.update(buffer.get(..got).unwrap_or_default());
                progress.add(got as u64);
            }
        }
    }
    Ok(tree::hex(&hash.finalize()).leak())
}
