//! Sets a daughter's wall clock by what is measured.
//!
//! Invariant: an error is never a guess. Each reading of her clock says between which bounds her error lies, what is
//! known is where all bounds overlap, and what is reported is one reading with its own round trip.
//!
//! ```text
//!  host   before ├───────── round trip ─────────┤ after
//!  guest               reads ●                            reads - after ≤ error ≤ reads - before
//! ```

use brood_agent_proto::Client;

/// Half the width of the bounds with which a wall clock is known well enough, nanoseconds.
const ENOUGH_NS: i64 = 1_000_000;
/// A wall clock that seems to be wrong by no more than this is left alone, nanoseconds.
const CLOSE_NS: i64 = 500_000;
/// A wall clock that is wrong by more than this for certain, after it was set, does not obey, nanoseconds.
const DISOBEDIENT_NS: i64 = 100_000_000;
/// Readings before a setting. Long round trips make wide bounds, and their overlap is narrower than any of them.
const READINGS: u32 = 24;
/// How often a wall clock is moved and looked at again.
const STEPS: u32 = 4;

/// What one exchange tells about a guest's wall clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// The host's clock before the question, nanoseconds since the epoch.
    pub(super) before: u64,
    /// The guest's.
    pub(super) reads: u64,
    /// The host's clock after the answer.
    pub(super) after: u64,
}

impl Reading {
    fn take(daughter: &mut Client) -> anyhow::Result<Self> {
        let before = wall_clock_ns();
        let reads = daughter.clocks()?.realtime_ns;
        let after = wall_clock_ns();
        Ok(Self {
            before,
            reads,
            after,
        })
    }

    /// How far the guest is ahead if it read half-way, nanoseconds: within ± half the round trip.
    pub(super) fn error(&self) -> i64 {
        difference(self.reads, self.before / 2 + self.after / 2)
    }

    /// Nanoseconds.
    pub(super) fn round_trip(&self) -> u64 {
        self.after.saturating_sub(self.before)
    }
}

/// Between which bounds a guest's clock is ahead of the host's, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    least: i64,
    most: i64,
}

impl Bounds {
    fn of(reading: &Reading) -> Self {
        let (one, other) = (
            difference(reading.reads, reading.after),
            difference(reading.reads, reading.before),
        );
        Self {
            least: one.min(other),
            most: one.max(other),
        }
    }

    /// What both say; the newer alone if they contradict each other, since one of the clocks was set between them.
    fn and(self, newer: Self) -> Self {
        let both = Self {
            least: self.least.max(newer.least),
            most: self.most.min(newer.most),
        };
        if both.least <= both.most { both } else { newer }
    }

    fn middle(self) -> i64 {
        self.least.midpoint(self.most)
    }

    fn half_width(self) -> i64 {
        self.most.saturating_sub(self.least) / 2
    }

    fn moved(self, by: i64) -> Self {
        Self {
            least: self.least.saturating_add(by),
            most: self.most.saturating_add(by),
        }
    }

    /// The least that the clock is wrong by for certain.
    fn certain(self) -> i64 {
        self.least.max(self.most.saturating_neg()).max(0)
    }
}

/// The stamp's time was late by as long as it was under way, on a busy host tens of milliseconds: moves the daughter's
/// wall clock by the error that is left, and looks again.
pub(super) fn set_right(daughter: &mut Client) -> anyhow::Result<()> {
    let mut known = Bounds::of(&Reading::take(daughter)?);
    for _ in 0..STEPS {
        for _ in 1..READINGS {
            if known.half_width() <= ENOUGH_NS {
                break;
            }
            known = known.and(Bounds::of(&Reading::take(daughter)?));
        }
        let error = known.middle();
        if error.saturating_abs() <= CLOSE_NS {
            return Ok(());
        }
        daughter.step_realtime(error.saturating_neg())?;
        known = known
            .moved(error.saturating_neg())
            .and(Bounds::of(&Reading::take(daughter)?));
    }
    anyhow::ensure!(
        known.certain() <= DISOBEDIENT_NS,
        "her wall clock is wrong by at least {} ms and does not let itself be set",
        known.certain() / 1_000_000
    );
    Ok(())
}

/// The host's wall clock, nanoseconds since the epoch.
pub fn wall_clock_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// `one - other`, as far as an `i64` goes: a guest may say any number.
fn difference(one: u64, other: u64) -> i64 {
    0_i64
        .saturating_add_unsigned(one.saturating_sub(other))
        .saturating_sub_unsigned(other.saturating_sub(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(before: u64, reads: u64, after: u64) -> Reading {
        Reading {
            before,
            reads,
            after,
        }
    }

    #[test]
    fn a_clock_that_is_right_is_never_said_to_be_wrong_by_more_than_half_the_round_trip() {
        for reads in [1000, 1001, 1500, 2000] {
            let reading = reading(1000, reads, 2000);
            assert!(reading.error().unsigned_abs() <= reading.round_trip() / 2);
            assert_eq!(Bounds::of(&reading).certain(), 0);
        }
    }

    #[test]
    fn the_hosts_wall_clock_is_that_of_everybody_else_to_the_nanosecond() {
        let others = || {
            let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
            u64::try_from(since.expect("after 1970").as_nanos()).expect("before 2554")
        };
        let (before, ours, after) = (others(), wall_clock_ns(), others());
        assert!(before <= ours && ours <= after, "{before} {ours} {after}");
    }

    #[test]
    fn slow_exchanges_overlap_to_less_than_the_fastest_of_them() {
        // The guest is 100 ahead; one answer was slow on its way there, one on its way back.
        let there = Bounds::of(&reading(1000, 1990 + 100, 2000));
        let back = Bounds::of(&reading(3000, 3010 + 100, 4000));
        let known = there.and(back);
        assert_eq!((known.least, known.most), (90, 110));
        assert_eq!((known.middle(), known.half_width()), (100, 10));
    }

    #[test]
    fn contradicting_readings_leave_the_newer_one() {
        let old = Bounds { least: 0, most: 10 };
        let new = Bounds {
            least: 500,
            most: 520,
        };
        assert_eq!(old.and(new), new);
        assert_eq!(new.certain(), 500);
        assert_eq!(new.moved(-1000).certain(), 480);
    }

    #[test]
    fn nonsense_of_a_guest_is_an_error_as_large_as_can_be_said() {
        let mad = reading(1 << 60, u64::MAX, (1 << 60) + 10);
        assert_eq!(mad.error(), i64::MAX);
        assert_eq!(Bounds::of(&mad).certain(), i64::MAX);
        assert_eq!(Bounds::of(&mad).moved(i64::MAX).most, i64::MAX);
        let past = reading(1 << 60, 0, (1 << 60) + 10);
        assert_eq!(past.error(), -(1 << 60) - 5);
        assert_eq!(difference(0, u64::MAX), i64::MIN);
        assert_eq!((difference(7, 5), difference(5, 7)), (2, -2));
    }
}
