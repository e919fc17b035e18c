//! Tar archives made byte by byte, honest or not.

use std::fmt::Write as _;

/// A header block, laid out as tar(5) says; every field can be overwritten before it is summed up.
#[derive(Clone)]
pub struct Header(pub [u8; 512]);

impl Header {
    /// A ustar header: root's, mode 0644, time 1,000,000,000.
    pub fn new(name: &[u8], flag: u8, size: u64) -> Self {
        let mut header = Self([0; 512]);
        header.set(0, &name[..name.len().min(100)]);
        header.set(100, b"0000644\0").set(108, b"0000000\0").set(116, b"0000000\0");
        header.set(124, format!("{size:011o}\0").as_bytes()).set(136, b"07346545000\0");
        header.0[156] = flag;
        header.set(257, b"ustar\x0000").set(329, b"0000000\0").set(337, b"0000000\0");
        header
    }

    /// Overwrites bytes.
    pub fn set(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Sets the target of a link.
    pub fn link(mut self, target: &[u8]) -> Self {
        self.set(157, target);
        self
    }

    /// Sets the numbers of a device.
    pub fn device(mut self, major: u64, minor: u64) -> Self {
        self.set(329, format!("{major:07o}\0").as_bytes()).set(337, format!("{minor:07o}\0").as_bytes());
        self
    }

    /// The block with a right checksum.
    pub fn sum(mut self) -> [u8; 512] {
        self.set(148, b"        ");
        let sum: u32 = self.0.iter().map(|b| u32::from(*b)).sum();
        self.set(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

/// An archive that grows entry by entry.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    /// Adds a header and a body with its padding.
    pub fn add(mut self, header: Header, body: &[u8]) -> Self {
        self.0.extend(header.sum());
        self.0.extend(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// Adds a regular file.
    pub fn file(self, name: &[u8], body: &[u8]) -> Self {
        self.add(Header::new(name, b'0', body.len() as u64), body)
    }

    /// Adds a directory.
    pub fn dir(self, name: &[u8]) -> Self {
        let mut header = Header::new(name, b'5', 0);
        header.set(100, b"0000755\0");
        self.add(header, b"")
    }

    /// Adds a symbolic link.
    pub fn link(self, name: &[u8], target: &[u8]) -> Self {
        self.add(Header::new(name, b'2', 0).link(target), b"")
    }

    /// Adds a hard link.
    pub fn hard(self, name: &[u8], target: &[u8]) -> Self {
        self.add(Header::new(name, b'1', 0).link(target), b"")
    }

    /// Adds an extended header with the records, for the next entry.
    pub fn pax(self, records: &[(&[u8], &[u8])]) -> Self {
        self.extended(b'x', records)
    }

    /// Adds an extended header of the given type.
    pub fn extended(self, flag: u8, records: &[(&[u8], &[u8])]) -> Self {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.add(Header::new(b"PaxHeaders/x", flag, body.len() as u64), &body)
    }

    /// The bytes with the end mark.
    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// `LENGTH KEY=VALUE\n`; the length counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (1..20).map(|digits| rest + digits).find(|n| n.to_string().len() + rest == *n).unwrap();
    let mut text = String::new();
    write!(text, "{length} ").unwrap();
    [text.as_bytes(), key, b"=", value, b"\n"].concat()
}
