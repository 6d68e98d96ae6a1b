//! Sets a daughter's wall clock by what is measured.
//!
//! Invariant: an error is never a guess. Each reading of her clock says between which bounds her error lies, what is
//! known is where all bounds overlap, and what is reported is one reading with its own round trip. Exchanges are made until
//! the bounds are as narrow as is promised, and no longer: on a busy host each takes its turn behind the workload of
//! others.
//!
//! ```text
//!  host   before ├───────── round trip ─────────┤ after
//!  guest               reads ●                            reads - after ≤ error ≤ reads - before
//! ```
//!
//! The stamp is a reading, and so is each step: what they set was read there, and how long the stamp's other steps took is
//! no part of the round trip.

use brood_agent_proto::fork::{StampReport, StampStep};
use brood_agent_proto::stat::Clocks;
use brood_agent_proto::{Client, ClientError};

/// Between which bounds a wall clock is right, nanoseconds. A confirmed daughter's is promised to be right within 5 ms, and
/// until she is confirmed her clock runs on at the rate that her kernel has measured.
const RIGHT_NS: i64 = 4_000_000;
/// A wall clock of which no more is known is left alone if it seems to be wrong by no more than this, nanoseconds.
const CLOSE_NS: i64 = 500_000;
/// A wall clock that is wrong by more than this for certain, after it was set, does not obey, nanoseconds.
const DISOBEDIENT_NS: i64 = 100_000_000;
/// Readings before a step. Long round trips make wide bounds, and their overlap is narrower than any of them.
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
    fn take(daughter: &mut Client) -> Result<Self, ClientError> {
        Self::around(|| daughter.clocks())
    }

    /// Moves the clock by `by_ns`, and reads what it shows then.
    fn step(daughter: &mut Client, by_ns: i64) -> Result<Self, ClientError> {
        Self::around(|| daughter.step_realtime(by_ns))
    }

    fn around(exchange: impl FnOnce() -> Result<Clocks, ClientError>) -> Result<Self, ClientError> {
        let before = wall_clock_ns();
        let reads = exchange()?.realtime_ns;
        let after = wall_clock_ns();
        Ok(Self {
            before,
            reads,
            after,
        })
    }

    /// What the stamp tells that was sent at `sent`, with that time in it, and answered now.
    pub(super) fn of_stamp(sent: u64, report: &StampReport) -> Self {
        let (mut earlier, mut later) = (0_u64, 0_u64);
        let mut is_set = false;
        for step in &report.steps {
            let took = if is_set { &mut later } else { &mut earlier };
            match step.step {
                StampStep::Clock => is_set = true,
                _ => *took = took.saturating_add(step.took_ns),
            }
        }
        let now = wall_clock_ns();
        // A guest that says it took longer than it did says nothing by that.
        let whole = now.saturating_sub(sent);
        let (earlier, later) = match earlier.checked_add(later) {
            Some(sum) if sum <= whole => (earlier, later),
            _ => (0, 0),
        };
        // A kernel measures the rate of its clock to within a thousandth.
        let drift = later / 1000;
        Self {
            before: sent.saturating_add(earlier).saturating_sub(drift),
            reads: report.clock_after_ns,
            after: now.saturating_sub(later).saturating_add(drift),
        }
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

    /// Whatever her error is, it is none to speak of.
    fn are_right(self) -> bool {
        self.least >= -RIGHT_NS && self.most <= RIGHT_NS
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

/// What is to be done next about a clock.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Nothing,
    Read,
    /// By so many nanoseconds.
    Move(i64),
}

/// Decides by what is known, and how many readings that is since the clock was set.
fn next(known: Bounds, readings: u32) -> Next {
    let middle = known.middle();
    if known.half_width() > RIGHT_NS {
        return match readings {
            0..READINGS => Next::Read,
            // No narrower bounds are to be had, and the best guess is what it shows.
            _ if middle.saturating_abs() <= CLOSE_NS => Next::Nothing,
            _ => Next::Move(middle.saturating_neg()),
        };
    }
    match known.are_right() {
        // The stamp's hooks ran after it had set the clock.
        true if readings == 0 => Next::Read,
        true => Next::Nothing,
        false => Next::Move(middle.saturating_neg()),
    }
}

/// The stamp's time was late by as long as it was under way, on a busy host tens of milliseconds: moves the daughter's
/// wall clock by the error that is left, unless that is none to speak of. `stamp` is what the stamp tells.
pub(super) fn set_right(daughter: &mut Client, stamp: &Reading) -> anyhow::Result<()> {
    let mut known = Bounds::of(stamp);
    let (mut readings, mut steps) = (0, 0);
    loop {
        match next(known, readings) {
            Next::Nothing => return Ok(()),
            Next::Read => {
                known = known.and(Bounds::of(&Reading::take(daughter)?));
                readings += 1;
            }
            Next::Move(by_ns) if steps < STEPS => {
                let stepped = Reading::step(daughter, by_ns)?;
                known = known.moved(by_ns).and(Bounds::of(&stepped));
                (readings, steps) = (1, steps + 1);
            }
            Next::Move(_) => break,
        }
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
    use brood_agent_proto::fork::StepReport;

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
    fn exchanges_are_made_until_the_clock_is_known_to_be_right_and_no_longer() {
        let known = |least: i64, most: i64| Bounds {
            least: least * 1_000_000,
            most: most * 1_000_000,
        };
        let by = |millis: i64| Next::Move(millis * 1_000_000);
        // What the stamp tells was before its hooks: somebody looks at least once.
        assert_eq!(next(known(-3, 0), 0), Next::Read);
        assert_eq!(next(known(-3, 0), 1), Next::Nothing);
        assert_eq!(next(known(-4, 4), 1), Next::Nothing);
        // Narrow enough to be moved at once, and right then.
        assert_eq!(next(known(-8, 0), 0), by(4));
        assert_eq!(next(known(5, 9), 1), by(-7));
        let moved = known(-8, 0).moved(4_000_000);
        assert_eq!(next(moved, 1), Next::Nothing);
        // Too wide to say: read again, but not for ever.
        assert_eq!(next(known(-20, 0), 0), Next::Read);
        assert_eq!(next(known(-20, 0), READINGS - 1), Next::Read);
        assert_eq!(next(known(-20, 0), READINGS), by(10));
        assert_eq!(next(known(-10, 10), READINGS), Next::Nothing);
    }

    #[test]
    fn a_stamp_tells_of_the_moment_that_it_set_the_clock_however_long_its_steps_took() {
        let step = |step, took_ns| StepReport {
            step,
            took_ns,
            applied: String::new(),
        };
        let sent = wall_clock_ns() - 2_000_000_000;
        let stamp = |entropy, hooks| StampReport {
            steps: vec![
                step(StampStep::Entropy, entropy),
                step(StampStep::Clock, 1),
                step(StampStep::Hooks, hooks),
            ],
            clock_before_ns: 0,
            clock_after_ns: sent,
            host_monotonic_ns: 0,
        };
        let (entropy, hooks) = (500_000_000, 1_400_000_000);
        let told = Reading::of_stamp(sent, &stamp(entropy, hooks));
        assert_eq!(told.before, sent + entropy - hooks / 1000);
        let whole = Reading::of_stamp(sent, &stamp(0, 0));
        assert_eq!((whole.before, whole.reads), (sent, sent));
        let shorter = whole.round_trip() - told.round_trip();
        let both = entropy + hooks - 2 * (hooks / 1000);
        // The later of the two looks at the host's clock was the later one.
        assert!(shorter >= both, "{shorter} of {both}");
        // Longer than it was under way, or than can be said.
        for hooks in [3_000_000_000, u64::MAX] {
            let liar = Reading::of_stamp(sent, &stamp(entropy, hooks));
            assert_eq!(liar.before, sent);
        }
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
