//! One header block of a tar: POSIX ustar, GNU and the old V7 form.

/// The size of every block of a tar.
pub const BLOCK: usize = 512;

/// A header as it lies in the archive. Offsets are those of tar(5).
pub struct Block<'a>(&'a [u8; BLOCK]);

impl<'a> Block<'a> {
    /// Looks at a block as a header.
    pub fn new(bytes: &'a [u8; BLOCK]) -> Self {
        Self(bytes)
    }

    /// Is it one of the two blocks of zeros that end an archive?
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|b| *b == 0)
    }

    /// Is the checksum right? Old programs summed signed bytes.
    pub fn checksum_fits(&self) -> bool {
        let Some(wanted) = number(self.field(148, 8)) else { return false };
        let mut unsigned = 0;
        let mut signed = 0;
        for (at, byte) in self.0.iter().enumerate() {
            // The checksum's own field counts as blanks.
            let byte = if (148..156).contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(i8::from_ne_bytes([byte]));
        }
        wanted == unsigned || wanted == signed
    }

    /// The type flag.
    pub fn flag(&self) -> u8 {
        self.field(156, 1).first().copied().unwrap_or(0)
    }

    /// The path: with ustar's prefix before the name.
    pub fn path(&self) -> Vec<u8> {
        let name = text(self.field(0, 100));
        let prefix = if self.field(257, 6) == b"ustar\0" { text(self.field(345, 155)) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// The target of a link.
    pub fn link(&self) -> Vec<u8> {
        text(self.field(157, 100)).to_vec()
    }

    /// The mode field.
    pub fn mode(&self) -> Option<i64> {
        number(self.field(100, 8))
    }

    /// The owner.
    pub fn uid(&self) -> Option<i64> {
        number(self.field(108, 8))
    }

    /// The group.
    pub fn gid(&self) -> Option<i64> {
        number(self.field(116, 8))
    }

    /// Bytes of the body.
    pub fn size(&self) -> Option<i64> {
        number(self.field(124, 12))
    }

    /// Seconds since 1970.
    pub fn mtime(&self) -> Option<i64> {
        number(self.field(136, 12))
    }

    /// Major and minor number of a device.
    pub fn device(&self) -> Option<(i64, i64)> {
        Some((number(self.field(329, 8))?, number(self.field(337, 8))?))
    }

    /// GNU's old sparse header: the size of the file with its holes.
    pub fn real_size(&self) -> Option<i64> {
        number(self.field(483, 12))
    }

    /// GNU's old sparse header: the first four stretches of data, and whether a block with more follows.
    pub fn sparse(&self) -> (&'a [u8], bool) {
        (self.field(386, 96), self.field(482, 1) != [0])
    }

    fn field(&self, at: usize, len: usize) -> &'a [u8] {
        self.0.get(at..at + len).unwrap_or_default()
    }
}

/// A text field: up to the first NUL, or all of it.
pub fn text(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

/// A number field: octal digits with blanks before and a blank or NUL behind, or GNU's base-256, which has a sign. An empty
/// field is 0; anything else, and what does not fit, is none.
pub fn number(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Two's complement below the mark; bit 6 is the sign.
        let start = i64::from(first & 0x3f) - i64::from(first & 0x40);
        return rest.iter().try_fold(start, |sum, byte| sum.checked_mul(256)?.checked_add(i64::from(*byte)));
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|b| matches!(b, 0 | b' ')).unwrap_or(digits.len());
    let (digits, padding) = digits.split_at_checked(end)?;
    if !padding.iter().all(|b| matches!(b, 0 | b' ')) && !digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0i64, |sum, byte| {
        let digit = char::from(*byte).to_digit(8)?;
        sum.checked_mul(8)?.checked_add(i64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_all_their_forms() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"77777777", Some(0o7777_7777)),
            (b"        ", Some(0)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"\0garbage", Some(0)),
            (b"\x80\0\0\0\0\0\x01\x02", Some(258)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"000064x\0", None),
            (b"00 0644\0", None),
            (b"-0000001", None),
            (b"0000009\0", None),
            (b"", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }
}
