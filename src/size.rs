//! Sizes as a person reads and writes them. Integers only: router cores have no floating point.

use std::fmt;

/// A number of bytes that prints as a person reads it: `0 B`, `32 KiB`, `1.4 MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let mut unit = 0u64;
        let mut shift = 0u32;
        // One step earlier than 1024, so that rounding never shows "1024 KiB".
        while unit < 6 && rounded(self.0, shift) >= 1024 {
            unit += 1;
            shift += 10;
        }
        let name = usize::try_from(unit).ok().and_then(|u| UNITS.get(u)).unwrap_or(&"B");
        let whole = self.0 >> shift;
        let text = if shift == 0 || whole >= 10 {
            format!("{} {name}", rounded(self.0, shift))
        } else {
            let tenths = tenths(self.0, shift);
            match tenths % 10 {
                0 => format!("{} {name}", tenths / 10),
                part => format!("{}.{part} {name}", tenths / 10),
            }
        };
        f.pad(&text)
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
    use super::*;

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
