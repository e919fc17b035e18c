//! Packs a tree as an image, with the program that is installed and a compression that this kernel can read.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use super::{NOT_PACKED, seed};
use crate::error::{Context, Error, Result};
use crate::form::Form;
use crate::mount::{exec, image, private};
use crate::progress::Progress;
use crate::stay::Below;
use crate::sum::Sum;
use crate::sys::file;
use crate::sys::pause;
use crate::sys::tool::{self, Stream};
use crate::tree::Summary;

/// A way to pack: the program and the options that it and this kernel know.
pub struct Packer {
    form: Form,
    program: &'static str,
    options: Vec<&'static str>,
}

/// What can be asked of a program, the best first.
struct Choices {
    program: &'static str,
    package: &'static str,
    /// Options that make the same image of the same tree, from new to old programs.
    fixed: &'static [&'static [&'static str]],
    /// Compressions, from small to whatever works.
    compressions: &'static [&'static [&'static str]],
    /// Options that every version knows.
    always: &'static [&'static str],
}

const SQUASHFS: Choices = Choices {
    program: "mksquashfs",
    package: "squashfs-tools, on OpenWrt squashfs-tools-mksquashfs",
    // Since 4.4 only the time of packing differs.
    fixed: &[&["-mkfs-time", "0"], &[]],
    compressions: &[
        &["-comp", "zstd"],
        &["-comp", "xz"],
        &["-comp", "gzip"],
        &["-comp", "lzo"],
        &["-comp", "lz4"],
    ],
    // The kernel keeps the pages of a whole block for each smaller file in it that is read (seen on 6.18): blocks of 256 KiB,
    // which OpenWrt takes, make an image 3 % smaller and take twice the page cache.
    always: &["-b", "131072"],
};

const EROFS: Choices = Choices {
    program: "mkfs.erofs",
    package: "erofs-utils",
    // -T alone would give every file the same time.
    fixed: &[&["-U", NO_UUID, "-T", "0", "--mkfs-time"], &["-U", NO_UUID], &[]],
    // Clusters of 64 KiB want Linux 5.13.
    compressions: &[&["-zzstd", "-C65536"], &["-zlz4hc", "-C65536"], &["-zlz4hc"], &["-zlz4"], &[]],
    always: &[],
};

const NO_UUID: &str = "00000000-0000-0000-0000-000000000000";

fn choices(form: Form) -> Result<Choices> {
    match form {
        Form::Squashfs => Ok(SQUASHFS),
        Form::Erofs => Ok(EROFS),
        Form::Directory | Form::Btrfs => Err(Error::usage("a directory is not packed")),
    }
}

/// Refuses when the program that packs images of the given form is not installed.
pub fn require(form: Form) -> Result<()> {
    if form == Form::Btrfs {
        return seed::PROGRAMS.into_iter().try_for_each(|program| installed(program, seed::PACKAGE));
    }
    let choices = choices(form)?;
    installed(choices.program, choices.package)
}

fn installed(program: &str, package: &str) -> Result<()> {
    let asked = tool::start(program, &["--help".as_ref()], [Stream::Null; 3]);
    asked
        .and_then(|mut asked| asked.wait())
        .map(drop)
        .map_err(|errno| tool::absent(program, package, NOT_PACKED, errno))
}

/// Finds a way to pack a tree as an image of the given form: tried on an empty folder in `scratch`, which this kernel must then
/// mount. Nothing of the trial stays.
pub fn packer(form: Form, scratch: &Path) -> Result<Packer> {
    // There is nothing to choose: the kernel that packs reads it, too.
    if form == Form::Btrfs {
        return Ok(Packer { form, program: "", options: Vec::new() });
    }
    let choices = choices(form)?;
    let empty = scratch.below("empty");
    let trial = scratch.below("trial");
    file::make_dir(empty, 0o777).at("create", empty)?;
    let found = choose(form, &choices, empty, trial);
    fs::remove_dir(empty).at("remove", empty)?;
    found
}

fn choose(form: Form, choices: &Choices, empty: &Path, trial: &Path) -> Result<Packer> {
    let mut last = None;
    for fixed in choices.fixed {
        for compression in choices.compressions {
            let options = [*compression, *fixed, choices.always].concat();
            let packer = Packer { form, program: choices.program, options };
            let made = packer.run(empty, trial, true, None);
            let made =
                made.map_err(|errno| tool::absent(choices.program, choices.package, NOT_PACKED, errno))?;
            let mounted = if made.is_none() { Some(mounts(form, trial, empty)) } else { None };
            let _perhaps_not_made = fs::remove_file(trial);
            match mounted {
                Some(Ok(())) => return Ok(packer),
                Some(Err(err)) => last = Some(err),
                None => {}
            }
        }
    }
    Err(match last {
        Some(err) => {
            Error::unsupported(format_args!("this kernel cannot read what {} makes: {err}", choices.program))
                .way_out("add the base without --pack")
        }
        None => Error::unsupported(format_args!("{} cannot pack even an empty folder", choices.program))
            .way_out(format_args!("look at what it says: {} on an empty folder", choices.program)),
    })
}

fn mounts(form: Form, image: &Path, over: &Path) -> Result<()> {
    private::run(over, &mut || {
        image::mount_read_only(form.name(), image, over)?;
        exec::unmount(over)?;
        Ok(&[])
    })
    .map(drop)
}

impl Packer {
    /// Packs the folder `tree`, in which `what` was found, into the new file `to`.
    pub fn pack(&self, tree: &Path, to: &Path, what: &Summary) -> Result<()> {
        if self.form == Form::Btrfs {
            return seed::pack(tree, to, what);
        }
        let progress = Progress::new("packing", None);
        let status = self.run(tree, to, false, Some(&progress)).at("run", self.program.as_ref())?;
        let Some(status) = status else {
            return file::open(to).and_then(|image| image.sync_all()).at("write to the disk", to);
        };
        let free = crate::sys::statfs::of(to.parent().unwrap_or(to)).map_or(0, |disk| disk.available);
        Err(Error::failed(format_args!(
            "{} could not pack {} into {} ({status})",
            self.program,
            tree.display(),
            to.display()
        ))
        .way_out(format_args!("what it wrote above says why; {} are free there", crate::size::Size(free))))
    }

    /// None where the program ended well, or else how it ended.
    fn run(
        &self,
        tree: &Path,
        to: &Path,
        quiet: bool,
        progress: Option<&Progress>,
    ) -> nix::Result<Option<String>> {
        let mut args: Vec<&OsStr> = match self.form {
            Form::Erofs => Vec::new(),
            _ => vec![tree.as_ref(), to.as_ref(), "-noappend".as_ref(), "-no-progress".as_ref()],
        };
        args.extend(self.options.iter().map(OsStr::new));
        if self.form == Form::Erofs {
            args.extend([to.as_os_str(), tree.as_os_str()]);
        }
        let said = if quiet { Stream::Null } else { Stream::Ours };
        let mut child = tool::start(self.program, &args, [Stream::Null, Stream::Null, said])?;
        let Some(progress) = progress.filter(|progress| progress.visible()) else { return child.wait() };
        let mut shown = 0;
        loop {
            if let Some(ended) = child.try_wait()? {
                return Ok(ended);
            }
            let written = fs::metadata(to).map_or(0, |image| image.len());
            progress.add(written.minus(shown));
            shown = written.max(shown);
            pause();
        }
    }
}
