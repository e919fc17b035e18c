//! pax records (POSIX pax, "extended header"): `LENGTH KEY=VALUE\n`, the value any bytes, newlines too.

use crate::sum::Sum;
use crate::tree::{Time, attr};

/// Why a record cannot be taken.
pub type Refusal = String;

/// What the records say of the next entry; what they do not say stays none.
#[derive(Clone, Default)]
pub struct Pax {
    /// The path, in place of the header's.
    pub path: Option<Vec<u8>>,
    /// The link's target, in place of the header's.
    pub link: Option<Vec<u8>>,
    /// Bytes of the body, in place of the header's.
    pub size: Option<u64>,
    /// The owner.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
    /// The time.
    pub mtime: Option<Time>,
    /// The attributes that a base keeps, and those that a union file system would obey.
    pub attrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// There is an ACL in words, whose names mean nothing here.
    pub acl_in_words: bool,
    /// GNU's sparse forms.
    pub sparse: Option<Sparse>,
}

/// What GNU tar says of a sparse file in pax records (its manual, "PAX Format, Versions 0.0, 0.1, 1.0").
#[derive(Clone, Default)]
pub struct Sparse {
    /// The real path (0.1 and 1.0).
    pub path: Option<Vec<u8>>,
    /// The size with holes.
    pub real_size: Option<u64>,
    /// Version 1.0: the map is at the start of the body.
    pub map_in_body: bool,
    /// 0.0 and 0.1: offsets and lengths in turn.
    pub map: Vec<u64>,
}

/// The most numbers that a map may hold: a bound on memory, far above what a root file system has.
pub const MAX_MAP: usize = 1 << 19;

impl Pax {
    /// Takes the records of one extended header; later records win.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or("has a pax header that is damaged")?;
            self.take(key, value)?;
            bytes = rest;
        }
        Ok(())
    }

    /// Do these records, as an archive's global ones, hold for every entry what can only be true of one?
    pub fn names_an_entry(&self) -> bool {
        self.path.is_some()
            || self.link.is_some()
            || self.size.is_some()
            || self.sparse.is_some()
            || self.acl_in_words
            || !self.attrs.is_empty()
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Refusal> {
        let wrong = || format!("has a pax record {} that is no such value", crate::out::escape(key));
        let bytes = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = bytes(),
            b"linkpath" => self.link = bytes(),
            b"size" => self.size = unless_empty(value, decimal).ok_or_else(wrong)?,
            b"uid" => self.uid = unless_empty(value, id).ok_or_else(wrong)?,
            b"gid" => self.gid = unless_empty(value, id).ok_or_else(wrong)?,
            b"mtime" => self.mtime = unless_empty(value, time).ok_or_else(wrong)?,
            b"SCHILY.acl.access" | b"SCHILY.acl.default" => self.acl_in_words |= !trivial(value),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.attribute(name, value);
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.get_or_insert_default().take(name, value).ok_or_else(wrong)?;
                }
            }
        }
        Ok(())
    }

    fn attribute(&mut self, name: &[u8], value: &[u8]) {
        // What a union would obey is refused by who takes the entry.
        if attr::kept(name) || attr::forged(name) {
            self.attrs.retain(|(known, _)| known != name);
            self.attrs.push((name.to_vec(), value.to_vec()));
        }
    }
}

impl Sparse {
    fn take(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        match name {
            b"name" => self.path = Some(value.to_vec()),
            b"size" | b"realsize" => self.real_size = Some(decimal(value)?),
            b"major" => self.map_in_body = decimal(value)? == 1,
            b"offset" | b"numbytes" => self.map.push(decimal(value)?),
            b"map" => {
                self.map.clear();
                for number in value.split(|b| *b == b',').take(MAX_MAP + 1) {
                    self.map.push(decimal(number)?);
                }
            }
            // The number of stretches says nothing that the map does not.
            _ => {}
        }
        (self.map.len() <= MAX_MAP).then_some(())
    }
}

/// Splits the first record off: key, value, and what follows.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().take(20).position(|b| *b == b' ')?;
    let length = usize::try_from(decimal(bytes.get(..blank)?)?).ok()?;
    let body = bytes.get(blank + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    let (key, value) = body.split_at_checked(equals)?;
    Some((key, value.get(1..)?, bytes.get(length..)?))
}

/// An empty value takes back what an earlier or a global record said.
fn unless_empty<T>(value: &[u8], parse: impl FnOnce(&[u8]) -> Option<T>) -> Option<Option<T>> {
    if value.is_empty() { Some(None) } else { parse(value).map(Some) }
}

/// A number without sign.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |sum, byte| {
        let digit = char::from(*byte).to_digit(10)?;
        sum.product(10)?.checked_add(u64::from(digit))
    })
}

/// An owner or group. The last number is none: chown(2) takes it for "leave as it is".
pub fn id(text: &[u8]) -> Option<u32> {
    u32::try_from(decimal(text)?).ok().filter(|id| *id != u32::MAX)
}

/// `SECONDS[.FRACTION]`, perhaps negative; the nanoseconds count upwards from the seconds.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let point = text.iter().position(|b| *b == b'.').unwrap_or(text.len());
    let (whole, fraction) = text.split_at_checked(point)?;
    let whole = i64::try_from(decimal(whole)?).ok()?;
    let mut nanos = 0;
    let fraction = fraction.get(1..).unwrap_or_default();
    fraction.iter().all(u8::is_ascii_digit).then_some(())?;
    for digit in fraction.iter().chain(b"000000000").take(9) {
        nanos = nanos * 10 + u32::from(digit - b'0');
    }
    Some(match (negative, nanos) {
        (false, nanos) => Time { seconds: whole, nanos },
        (true, 0) => Time { seconds: -whole, nanos: 0 },
        (true, nanos) => Time { seconds: -whole - 1, nanos: 1_000_000_000 - nanos },
    })
}

/// Does an ACL in words say no more than the mode does?
fn trivial(words: &[u8]) -> bool {
    words.split(|b| matches!(b, b'\n' | b',')).all(|entry| {
        entry.is_empty()
            || [&b"user::"[..], b"group::", b"other::"].iter().any(|base| entry.starts_with(base))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn records_with_any_bytes() {
        let mut pax = Pax::default();
        pax.read(b"12 path=a\nb\n27 SCHILY.xattr.user.x=\n=\xff\n18 GNU.sparse.x=1\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(pax.attrs, [(b"user.x".to_vec(), b"\n=\xff".to_vec())]);
        for bad in [
            &b"12 path=a\nb"[..],
            b"13 path=a\nb\n",
            b"11 path=a\nb\n",
            b"0 path=a\n",
            b"99999999999999999999 path=a\n",
            b"path=a\n",
            b"7 path\n",
            b" 9 path=a\n",
            b"-9 path=a\n",
            b"3 \n",
            b"2\n",
        ] {
            assert!(Pax::default().read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn values_that_are_none() {
        for bad in [
            &b"11 size=-1\n"[..],
            b"29 size=18446744073709551616\n",
            b"18 uid=4294967295\n",
            b"18 gid=4294967296\n",
            b"12 mtime=x\n",
            b"14 mtime=1.x\n",
            b"12 mtime=-\n",
        ] {
            assert!(Pax::default().read(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        let mut pax = Pax { uid: Some(5), ..Pax::default() };
        pax.read(b"7 uid=\n").unwrap();
        assert_eq!(pax.uid, None);
    }

    #[test]
    fn times_before_and_after_1970() {
        for (text, seconds, nanos) in [
            (&b"0"[..], 0, 0),
            (b"12.5", 12, 500_000_000),
            (b"12.123456789999", 12, 123_456_789),
            (b"-1", -1, 0),
            (b"-1.25", -2, 750_000_000),
            (b"9223372036854775807", i64::MAX, 0),
        ] {
            assert_eq!(time(text), Some(Time { seconds, nanos }));
        }
    }

    #[test]
    fn what_is_refused_by_its_record() {
        let acl = |text: &[u8]| {
            let mut pax = Pax::default();
            pax.take(b"SCHILY.acl.access", text).unwrap();
            pax.acl_in_words
        };
        assert!(!acl(b"user::rw-\ngroup::r--\nother::---\n"));
        assert!(acl(b"user::rw-,user:bob:rw-,group::r--,mask::rw-,other::---"));
        let mut pax = Pax::default();
        pax.take(b"SCHILY.xattr.security.selinux", b"x").unwrap();
        assert!(pax.attrs.is_empty());
    }
}
