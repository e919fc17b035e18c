//! Sizes as a person reads and writes them. Integers only: router cores have no floating point.

use std::fmt;

use crate::error::{Error, Result};
use crate::out::escape;
use crate::sum::Sum;

/// A number of bytes that prints as a person reads it: `0 B`, `32 KiB`, `1.4 MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// Takes a number of bytes, or of units: `512M`. The units are binary, K, M, G and T.
    pub fn parse(text: &str) -> Result<Self> {
        let (digits, shift) = match text.as_bytes() {
            [_, .., unit] if unit.is_ascii_alphabetic() => {
                let shift = match unit.to_ascii_uppercase() {
                    b'K' => Some(10),
                    b'M' => Some(20),
                    b'G' => Some(30),
                    b'T' => Some(40),
                    _ => None,
                };
                (text.get(..text.len() - 1).unwrap_or_default(), shift)
            }
            _ => (text, Some(0)),
        };
        // A sign is no digit.
        let number =
            if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse::<u64>().ok() } else { None };
        let bytes = number.zip(shift).and_then(|(number, shift)| number.product(1 << shift));
        bytes.map(Self).ok_or_else(|| {
            Error::usage(format_args!("`{}` is no size", escape(text.as_bytes())))
                .way_out("give bytes, or a number with K, M, G or T: 512M")
        })
    }

    /// The same number of bytes as a command takes it: `256M`.
    pub fn typed(self) -> String {
        let (mut number, mut unit) = (self.0, "");
        for next in ["K", "M", "G", "T"] {
            if number == 0 || number & 1023 != 0 {
                break;
            }
            (number, unit) = (number >> 10, next);
        }
        format!("{number}{unit}")
    }

    /// As a person reads it, without the way round by a formatter.
    pub fn words(self) -> String {
        const UNITS: [&str; 7] = [" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"];
        let mut unit = 0u64;
        let mut shift = 0u32;
        // One step earlier than 1024, so that rounding never shows "1024 KiB".
        while unit < 6 && rounded(self.0, shift) >= 1024 {
            unit += 1;
            shift += 10;
        }
        let name = usize::try_from(unit).ok().and_then(|u| UNITS.get(u)).unwrap_or(&"");
        let (whole, part) = if shift == 0 || self.0 >> shift >= 10 {
            (rounded(self.0, shift), 0)
        } else {
            let tenths = tenths(self.0, shift);
            (tenths / 10, tenths % 10)
        };
        let mut text = whole.to_string();
        if let Ok(tenth @ 1..) = u8::try_from(part) {
            text.push('.');
            text.push(char::from(b'0' + tenth));
        }
        text.push_str(name);
        text
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.words())
    }
}

/// `bytes / 2^shift`, rounded to the nearest.
fn rounded(bytes: u64, shift: u32) -> u64 {
    match shift {
        0 => bytes,
        _ => (bytes >> shift) + (bytes >> (shift - 1) & 1),
    }
}

/// `bytes * 10 / 2^shift`, rounded; only called where the quotient is below 100 and the shift at least 10.
fn tenths(bytes: u64, shift: u32) -> u64 {
    let parts_of_1024 = bytes >> (shift - 10);
    (parts_of_1024 * 10 + 512) >> 10
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_what_a_person_writes() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("512M", 512 << 20), ("1g", 1 << 30), ("7K", 7 << 10)]
        {
            assert_eq!(Size::parse(text).unwrap(), Size(bytes), "{text}");
            assert_eq!(Size::parse(&Size(bytes).typed()).unwrap(), Size(bytes), "{text}");
        }
        for text in
            ["", "M", "-1", "+1", "1.5G", "1 G", "1P", "512MiB", "99999999999999999999", "16777216T", "1M\n"]
        {
            assert!(Size::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prints_what_it_takes() {
        for (bytes, text) in [
            (0, "0"),
            (1000, "1000"),
            (1536, "1536"),
            (7 << 10, "7K"),
            (300 << 20, "300M"),
            (1 << 50, "1024T"),
        ] {
            assert_eq!(Size(bytes).typed(), text);
        }
    }

    #[test]
    fn prints_like_a_person_would() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (32 * 1024, "32 KiB"),
            (1024 * 1024 - 1, "1 MiB"),
            (10 * 1024 * 1024 + 600 * 1024, "11 MiB"),
            (5 << 30, "5 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
