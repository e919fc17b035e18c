//! Sums of 64 bits that stop at what a number can hold.
//!
//! Each is one call: on a processor of 32 bits it takes ten instructions where it stands, and a product thirty.

/// What `saturating_add` and its kin do, by themselves.
pub trait Sum {
    /// The sum, or the most that there is.
    #[must_use]
    fn plus(self, other: u64) -> u64;

    /// The difference, or 0.
    #[must_use]
    fn minus(self, other: u64) -> u64;

    /// The product, or the most that there is.
    #[must_use]
    fn times(self, other: u64) -> u64;

    /// The product; none where it is more than there is.
    fn product(self, other: u64) -> Option<u64>;
}

impl Sum for u64 {
    #[inline(never)]
    fn plus(self, other: u64) -> u64 {
        self.saturating_add(other)
    }

    #[inline(never)]
    fn minus(self, other: u64) -> u64 {
        self.saturating_sub(other)
    }

    #[inline(never)]
    fn times(self, other: u64) -> u64 {
        self.product(other).unwrap_or(u64::MAX)
    }

    #[inline(never)]
    fn product(self, other: u64) -> Option<u64> {
        self.checked_mul(other)
    }
}
