//! Compressions that are left to an installed program.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

use super::stream::{Fault, Stream};
use crate::error::{Context, Error, Result};
use crate::sys::file::read_some;
use crate::sys::tool::{self, Child, Stream as To};

/// A compression and the programs that undo it.
pub struct Tool {
    /// The compression's name.
    name: &'static str,
    /// The first bytes of its files.
    pub magic: &'static [u8],
    /// Program and arguments, the first that is installed is taken.
    commands: &'static [(&'static str, &'static [&'static str])],
    /// What to install.
    package: &'static str,
}

/// All of them.
pub const TOOLS: &[Tool] = &[
    Tool {
        name: "xz",
        magic: b"\xfd7zXZ\0",
        commands: &[("xz", &["-dc"]), ("unxz", &["-c"]), ("xzcat", &[])],
        package: "xz-utils, on OpenWrt xz",
    },
    Tool {
        name: "zstd",
        magic: b"\x28\xb5\x2f\xfd",
        commands: &[("zstd", &["-dcq"]), ("unzstd", &["-cq"]), ("zstdcat", &[])],
        package: "zstd",
    },
    Tool {
        name: "bzip2",
        magic: b"BZh",
        commands: &[("bzip2", &["-dc"]), ("bunzip2", &["-c"]), ("bzcat", &[])],
        package: "bzip2",
    },
];

/// A program that unpacks what it is fed. Read to its end, it tells whether the program was content.
pub struct Filter {
    tool: &'static Tool,
    child: Child,
    to: Option<File>,
    from: File,
    source: Box<dyn Stream>,
    buffer: Vec<u8>,
    /// The part of the buffer that is not written yet.
    pending: std::ops::Range<usize>,
    ended: bool,
}

impl Filter {
    /// Starts the first program of the tool that is installed.
    pub fn start(tool: &'static Tool, source: Box<dyn Stream>) -> Result<Self> {
        for (program, arguments) in tool.commands {
            let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
            match tool::start(program, &arguments, [To::Pipe, To::Pipe, To::Ours]) {
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(errno).at("start", program.as_ref()),
                Ok(mut child) => {
                    let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else { continue };
                    // One thread feeds and reads: a full pipe must not stop it.
                    fcntl(&to, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
                        .at("set up the pipe to", program.as_ref())?;
                    let buffer = vec![0; 1 << 16];
                    return Ok(Self {
                        tool,
                        child,
                        to: Some(to),
                        from,
                        source,
                        buffer,
                        pending: 0..0,
                        ended: false,
                    });
                }
            }
        }
        Err(Error::unsupported(format_args!("no program that undoes {} is installed", tool.name)).way_out(
            format_args!(
                "install it (package {}), or compress the archive with gzip, which needs nothing",
                tool.package
            ),
        ))
    }

    /// Hands on what the program takes now; reads the source when all of the last part was handed on.
    fn feed(&mut self) -> Result<(), Fault> {
        let Some(to) = &mut self.to else { return Ok(()) };
        let part = self.buffer.get(self.pending.clone()).unwrap_or_default();
        match write(to, part) {
            Ok(written) => self.pending.start += written,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // It wants no more; whether that was right, its exit status says.
            Err(Errno::EPIPE) => self.to = None,
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<usize, Fault> {
        self.to = None;
        let status = self.child.wait()?;
        self.ended = true;
        let Some(status) = status else { return Ok(0) };
        Err(Fault::Wrong(format!("{} did not unpack it: {status}", self.tool.name)))
    }
}

impl Stream for Filter {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.to.is_some() && self.pending.is_empty() {
                self.pending = 0..self.source.read(&mut self.buffer)?;
                if self.pending.is_empty() {
                    self.to = None;
                }
            }
            let (readable, writable) = wait(&self.from, self.to.as_ref())?;
            if writable {
                self.feed()?;
            }
            if readable {
                match read_some(&self.from, buffer)? {
                    0 => return self.finish(),
                    got => return Ok(got),
                }
            }
        }
    }
}

/// Waits until the program has something for us, or takes something from us.
fn wait(from: &File, to: Option<&File>) -> nix::Result<(bool, bool)> {
    let mut fds = vec![PollFd::new(from.as_fd(), PollFlags::POLLIN)];
    fds.extend(to.map(|to| PollFd::new(to.as_fd(), PollFlags::POLLOUT)));
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    let ready = |n: usize| fds.get(n).and_then(PollFd::any).unwrap_or(false);
    Ok((ready(0), ready(1)))
}

impl Drop for Filter {
    fn drop(&mut self) {
        if !self.ended {
            // The import was refused half way: what the program still has to say is of no use.
            self.child.kill();
        }
    }
}
