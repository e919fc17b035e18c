//! Opens a source and finds out by its first bytes what it is.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use super::gzip::Gzip;
use super::header::Block;
use super::stream::{Fault, Headed, Stream, fill};
use super::tool::Filter;
use crate::error::{Context, Error, Result};
use crate::form::Form;
use crate::image::{self, HEAD};
use crate::progress::Progress;
use crate::sys::file;

/// What a source holds, behind whatever compression.
pub enum Content {
    /// A tar stream.
    Tar(Box<dyn Stream>),
    /// A file-system image.
    Image(Form, Box<dyn Stream>),
}

enum Format {
    Tar,
    Gzip,
    /// A compression that an installed program undoes.
    Tool(&'static super::tool::Tool),
    Image(Form),
}

/// Does the path mean standard input?
pub fn is_stdin(path: &Path) -> bool {
    path == Path::new("-") || path == Path::new("/dev/stdin")
}

/// Opens the archive or image at `path`; `-` is standard input. `progress` counts the bytes as they come in.
pub fn open(path: &Path, progress: &Rc<Progress>) -> Result<Content> {
    let stdin = is_stdin(path);
    let path = if stdin { Path::new("standard input") } else { path };
    let raw = if stdin { file::stdin().at("open", path)? } else { file::open(path).at("open", path)?.into() };
    let counted = Box::new(Counted { from: raw, progress: Rc::clone(progress) });
    let (format, stream) = look(counted, path)?;
    let unpacked: Box<dyn Stream> = match format {
        Format::Tar => return Ok(Content::Tar(stream)),
        Format::Image(form) => return Ok(Content::Image(form, stream)),
        Format::Gzip => Box::new(Gzip::new(stream)),
        Format::Tool(tool) => Box::new(Filter::start(tool, stream)?),
    };
    match look(unpacked, path)? {
        (Format::Tar, stream) => Ok(Content::Tar(stream)),
        (Format::Image(form), stream) => Ok(Content::Image(form, stream)),
        (Format::Gzip | Format::Tool(_), _) => {
            Err(Error::usage(format_args!("{} is compressed twice", path.display()))
                .way_out("undo one of them first"))
        }
    }
}

/// Reads the head of a stream, and gives the stream back with its head.
fn look(mut stream: Box<dyn Stream>, path: &Path) -> Result<(Format, Box<dyn Stream>)> {
    let mut head = vec![0; HEAD];
    let length = fill(&mut *stream, &mut head).map_err(|fault| match fault {
        Fault::Sys(errno) => Error::sys("read", path, errno),
        other => Error::failed(format_args!("read {}: {other}", path.display())),
    })?;
    head.truncate(length);
    let format = sniff(&head).ok_or_else(|| {
        let empty = if head.is_empty() { " (it is empty)" } else { "" };
        Error::usage(format_args!("{} is no archive or image that this program knows{empty}", path.display()))
            .way_out("it takes tar, plain or with gzip, xz, zstd, bzip2, and squashfs, erofs and Btrfs seed images")
    })?;
    Ok((format, Box::new(Headed { head, at: 0, rest: stream })))
}

fn sniff(head: &[u8]) -> Option<Format> {
    if head.starts_with(&[0x1f, 0x8b]) {
        return Some(Format::Gzip);
    }
    if let Some(tool) = super::tool::TOOLS.iter().find(|tool| head.starts_with(tool.magic)) {
        return Some(Format::Tool(tool));
    }
    let block = Block::new(head.first_chunk()?);
    // The mark of a Btrfs stands where a tar may have anything.
    if let Some(form) = image::detect(head).filter(|form| *form != Form::Btrfs || !block.checksum_fits()) {
        return Some(Format::Image(form));
    }
    (block.is_zero() || block.checksum_fits()).then_some(Format::Tar)
}

/// Counts what is read.
struct Counted {
    from: OwnedFd,
    progress: Rc<Progress>,
}

impl Stream for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let got = file::read_some(&self.from, buffer)?;
        self.progress.add(got as u64);
        Ok(got)
    }
}
