//! A point on the host's monotonic clock that may cross processes.

use serde::{Deserialize, Serialize};

/// Nanoseconds of `CLOCK_MONOTONIC` (man 2 clock_gettime). Unlike [`std::time::Instant`] it travels in messages:
/// every process of one host reads the same clock, so a fork that starts in one and ends in another can be timed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Instant(u64);

impl Instant {
    /// The instant `nanos` nanoseconds after the clock's own zero.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's own zero.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whether this instant was ever set; zero stands for "has not happened".
    pub const fn happened(self) -> bool {
        self.0 != 0
    }

    /// Microseconds from `earlier` to `self`; zero where `earlier` is later.
    pub fn micros_since(self, earlier: Self) -> f64 {
        self.0.saturating_sub(earlier.0) as f64 / 1000.0
    }
}
