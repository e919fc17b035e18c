//! What time it is (clock_gettime(2)). std's types bring more code along than what is asked of them.

use nix::time::{ClockId, clock_gettime};

use crate::sum::Sum;

/// Seconds since 1970; 0 where the clock stands before that.
pub fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |time| u64::try_from(time.tv_sec()).unwrap_or(0))
}

/// Milliseconds since some moment: those between two answers passed, whatever was done to the clock.
pub fn millis() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec()).unwrap_or(0);
        seconds.times(1000).plus(u64::from(nanos / 1_000_000))
    })
}
