//! gzip (RFC 1952): any number of members one behind the other, then zeros or nothing.
//!
//! miniz_oxide inflates; the frame around it is read here. flate2 would do both, and brings a checksum with a table of 16 KiB that
//! does not compress: 19 KiB more of the compressed MIPS binary.

use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

use super::stream::{Fault, Stream};

/// The content of a gzip stream; a torn one or one with a wrong checksum is an error.
pub struct Gzip {
    from: Buffered,
    state: Box<InflateState>,
    /// What the member's end will be compared with: checksum and length of what was unpacked, modulo 2^32.
    sum: u32,
    length: u32,
    inside: bool,
    ended: bool,
}

impl Gzip {
    /// Begins to unpack.
    pub fn new(from: Box<dyn Stream>) -> Self {
        Self {
            from: Buffered { from, buffer: vec![0; 1 << 16], left: 0..0 },
            // Of raw deflate: the frame is read here.
            state: Box::default(),
            sum: 0,
            length: 0,
            inside: false,
            ended: false,
        }
    }

    /// Reads a member's header and passes over what it may carry.
    fn begin(&mut self) -> Result<(), Fault> {
        let mut head = [0; 10];
        self.from.exactly(&mut head)?;
        let [0x1f, 0x8b, 8, flags, ..] = head else { return Err(wrong("it is not gzip")) };
        if flags & 0xe0 != 0 {
            return Err(wrong("its gzip header has a flag of the future"));
        }
        if flags & 4 != 0 {
            let mut length = [0; 2];
            self.from.exactly(&mut length)?;
            self.pass(u16::from_le_bytes(length).into())?;
        }
        // The name and the comment end with a NUL each.
        for flag in [8, 16] {
            if flags & flag != 0 {
                while self.from.byte()? != 0 {}
            }
        }
        if flags & 2 != 0 {
            self.pass(2)?;
        }
        self.state.reset(DataFormat::Raw);
        (self.sum, self.length, self.inside) = (0, 0, true);
        Ok(())
    }

    fn pass(&mut self, bytes: u64) -> Result<(), Fault> {
        for _ in 0..bytes {
            self.from.byte()?;
        }
        Ok(())
    }

    /// Reads a member's end, and looks whether another one follows.
    fn end(&mut self) -> Result<(), Fault> {
        let mut tail = [0; 8];
        self.from.exactly(&mut tail)?;
        if u64::from_le_bytes(tail) != u64::from(self.length) << 32 | u64::from(self.sum) {
            return Err(wrong("its gzip checksum is wrong"));
        }
        self.inside = false;
        self.ended = !more(&mut self.from)?;
        Ok(())
    }
}

/// A stream of which it can be seen what comes next.
struct Buffered {
    from: Box<dyn Stream>,
    buffer: Vec<u8>,
    left: std::ops::Range<usize>,
}

impl Buffered {
    /// What comes next: nothing only at the end.
    fn part(&mut self) -> Result<&[u8], Fault> {
        if self.left.is_empty() {
            self.left = 0..self.from.read(&mut self.buffer)?;
        }
        Ok(self.buffer.get(self.left.clone()).unwrap_or_default())
    }

    /// Passes over a part of that.
    fn take(&mut self, bytes: usize) {
        self.left.start += bytes;
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        let byte = *self.part()?.first().ok_or(Fault::Torn)?;
        self.take(1);
        Ok(byte)
    }

    fn exactly(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
        for byte in bytes {
            *byte = self.byte()?;
        }
        Ok(())
    }
}

impl Stream for Gzip {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        while !self.ended && !buffer.is_empty() {
            if !self.inside {
                self.begin()?;
            }
            let input = self.from.part()?;
            let at_end = input.is_empty();
            let done = inflate(&mut self.state, input, buffer, MZFlush::None);
            self.from.take(done.bytes_consumed);
            let unpacked = buffer.get(..done.bytes_written).unwrap_or_default();
            self.sum = crc32(self.sum, unpacked);
            self.length = self.length.wrapping_add(u32::try_from(unpacked.len()).unwrap_or(0));
            match done.status {
                Ok(MZStatus::StreamEnd) => self.end()?,
                Ok(_) => {}
                Err(MZError::Buf) if !at_end => {}
                Err(MZError::Buf) => return Err(Fault::Torn),
                Err(_) => return Err(wrong("its gzip data are damaged")),
            }
            if done.bytes_written > 0 {
                return Ok(done.bytes_written);
            }
            if at_end && self.inside {
                return Err(Fault::Torn);
            }
        }
        Ok(0)
    }
}

fn wrong(what: &str) -> Fault {
    Fault::Wrong(what.to_owned())
}

/// CRC-32 (RFC 1952, 8), carried on from `sum`: half a byte a step, for a table of 64 bytes.
fn crc32(sum: u32, bytes: &[u8]) -> u32 {
    const TABLE: [u32; 16] = [
        0x0000_0000,
        0x1db7_1064,
        0x3b6e_20c8,
        0x26d9_30ac,
        0x76dc_4190,
        0x6b6b_51f4,
        0x4db2_6158,
        0x5005_713c,
        0xedb8_8320,
        0xf00f_9344,
        0xd6d6_a3e8,
        0xcb61_b38c,
        0x9b64_c2b0,
        0x86d3_d2d4,
        0xa00a_e278,
        0xbdbd_f21c,
    ];
    let step = |sum: u32, half: u32| {
        let at = usize::try_from((sum ^ half) & 15).unwrap_or(0);
        TABLE.get(at).unwrap_or(&0) ^ sum >> 4
    };
    !bytes.iter().fold(!sum, |sum, byte| step(step(sum, (*byte).into()), u32::from(*byte) >> 4))
}

/// Passes over zeros, with which tapes and block devices are filled up: does another member follow?
fn more(rest: &mut Buffered) -> Result<bool, Fault> {
    loop {
        let bytes = rest.part()?;
        match bytes.iter().position(|b| *b != 0) {
            None if bytes.is_empty() => return Ok(false),
            None => {
                let zeros = bytes.len();
                rest.take(zeros);
            }
            Some(zeros) if bytes.get(zeros) == Some(&0x1f) => {
                rest.take(zeros);
                return Ok(true);
            }
            Some(_) => {
                return Err(wrong("what follows the gzip data is not gzip"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::stream::Headed;
    use super::*;
    use flate2::Compression;
    use std::io::Write;

    fn gz(text: &[u8]) -> Vec<u8> {
        let mut to = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
        to.write_all(text).unwrap();
        to.finish().unwrap()
    }

    struct Nothing;

    impl Stream for Nothing {
        fn read(&mut self, _: &mut [u8]) -> Result<usize, Fault> {
            Ok(0)
        }
    }

    fn read(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut stream = Gzip::new(Box::new(Headed { head: bytes.to_vec(), at: 0, rest: Box::new(Nothing) }));
        let (mut all, mut buffer) = (Vec::new(), vec![0; 5000]);
        loop {
            match stream.read(&mut buffer).map_err(|fault| fault.to_string())? {
                0 => return Ok(all),
                got => all.extend_from_slice(&buffer[..got]),
            }
        }
    }

    #[test]
    fn a_known_checksum() {
        assert_eq!(crc32(0, b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(crc32(0, b"1234"), b"56789"), 0xcbf4_3926);
    }

    #[test]
    fn headers_with_all_that_may_be_in_them() {
        let mut to = flate2::GzBuilder::new()
            .filename("name")
            .comment("comment")
            .extra(vec![1, 2, 3])
            .write(Vec::new(), Compression::best());
        let text: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
        to.write_all(&text).unwrap();
        assert_eq!(read(&to.finish().unwrap()).unwrap(), text);
        assert_eq!(read(&gz(&vec![7; 5_000_000])).unwrap().len(), 5_000_000);
    }

    #[test]
    fn members_and_what_may_follow() {
        let two = [gz(b"one,"), gz(b"two")].concat();
        assert_eq!(read(&two).unwrap(), b"one,two");
        assert_eq!(read(&[&two[..], &[0; 700]].concat()).unwrap(), b"one,two");
        assert_eq!(read(&[&gz(b"")[..], &[0; 3], &gz(b"x")].concat()).unwrap(), b"x");
        assert!(read(&[&two[..], b"junk"].concat()).is_err());
        for end in 0..two.len() {
            let whole = end == gz(b"one,").len();
            assert_eq!(read(&two[..end]).is_ok(), whole, "cut at {end}");
        }
        let mut flipped = gz(b"some text");
        let at = flipped.len() - 6;
        flipped[at] ^= 1;
        assert!(read(&flipped).is_err());
    }
}
