//! FNV-1a, 64 bits: not a digest, only a short name for a text (draft-eastlake-fnv).

/// The hash of some bytes.
pub fn fnv64a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    #[test]
    fn known_values() {
        assert_eq!(super::fnv64a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(super::fnv64a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
