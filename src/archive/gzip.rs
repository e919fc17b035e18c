//! gzip (RFC 1952): any number of members one behind the other, then zeros or nothing.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

/// The content of a gzip stream; a torn one or one with a wrong checksum is an error.
pub struct Gzip<R> {
    member: Option<GzDecoder<BufReader<R>>>,
}

impl<R: Read> Gzip<R> {
    /// Begins to unpack.
    pub fn new(from: R) -> Self {
        Self { member: Some(GzDecoder::new(BufReader::with_capacity(1 << 16, from))) }
    }
}

impl<R: Read> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            match member.read(buffer) {
                Ok(0) if !buffer.is_empty() => {}
                done => return done,
            }
            let Some(mut rest) = self.member.take().map(GzDecoder::into_inner) else { break };
            if more(&mut rest)? {
                self.member = Some(GzDecoder::new(rest));
            }
        }
        Ok(0)
    }
}

/// Passes over zeros, with which tapes and block devices are filled up: does another member follow?
fn more(rest: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let bytes = rest.fill_buf()?;
        match bytes.iter().position(|b| *b != 0) {
            None if bytes.is_empty() => return Ok(false),
            None => {
                let zeros = bytes.len();
                rest.consume(zeros);
            }
            Some(zeros) if bytes.get(zeros) == Some(&0x1f) => {
                rest.consume(zeros);
                return Ok(true);
            }
            Some(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "what follows the gzip data is not gzip",
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use flate2::Compression;
    use std::io::Write;

    fn gz(text: &[u8]) -> Vec<u8> {
        let mut to = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
        to.write_all(text).unwrap();
        to.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        Gzip::new(bytes).read_to_end(&mut all).map(|_| all)
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
