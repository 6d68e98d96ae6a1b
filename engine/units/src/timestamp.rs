//! A point on the wall clock, for what people and databases keep.

use serde::{Deserialize, Serialize};

/// Milliseconds since the epoch. It may jump with the host's clock: what is measured uses [`crate::Instant`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The instant `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The instant that much later, or the last one there is.
    pub fn after(self, millis: u64) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(millis).unwrap_or(i64::MAX)),
        )
    }

    /// Milliseconds from `self` to `later`; zero where that is earlier.
    pub fn millis_until(self, later: Self) -> u64 {
        u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumped_back_leaves_nothing_to_wait_for() {
        let (early, late) = (Timestamp::from_millis(5), Timestamp::from_millis(9));
        assert_eq!(early.millis_until(late), 4);
        assert_eq!(late.millis_until(early), 0);
        assert_eq!(late.after(u64::MAX).as_millis(), i64::MAX);
    }
}
