//! Bytes that come one after the other. std's `Read` carries a dozen functions more into the binary for each kind of stream.

use std::fmt;

use nix::errno::Errno;

use crate::error::meaning;

/// Where an archive or an image comes from, perhaps through a decompressor.
pub trait Stream {
    /// Puts the next bytes into `buffer`, and returns how many: none only at the end, or where the buffer has no room.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault>;
}

/// Why no more bytes come.
pub enum Fault {
    /// The stream ends where it must not.
    Torn,
    /// A system call failed.
    Sys(Errno),
    /// What comes is not what it should be.
    Wrong(String),
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::Sys(errno)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Torn => f.write_str("it ends too early"),
            Self::Sys(errno) => f.write_str(&meaning(*errno)),
            Self::Wrong(text) => f.write_str(text),
        }
    }
}

/// Fills `buffer` as far as the stream goes, and returns how far.
pub fn fill(stream: &mut dyn Stream, buffer: &mut [u8]) -> Result<usize, Fault> {
    let mut done = 0;
    loop {
        let room = buffer.get_mut(done..).unwrap_or_default();
        match stream.read(room)? {
            0 => return Ok(done),
            got => done += got,
        }
    }
}

/// What was read of a stream, and the rest of it.
pub struct Headed {
    /// What comes first.
    pub head: Vec<u8>,
    /// How much of that was read again.
    pub at: usize,
    /// What comes then.
    pub rest: Box<dyn Stream>,
}

impl Stream for Headed {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let left = self.head.get(self.at..).unwrap_or_default();
        if left.is_empty() {
            return self.rest.read(buffer);
        }
        let length = left.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(left) {
            *to = *from;
        }
        self.at += length;
        Ok(length)
    }
}
