//! A window of a machine: the difference of two readings.
//!
//! ```text
//!  birth ──── reading ───────── reading ──── end
//!     └ window 1 ┘└─── window 2 ───┘└ window 3 ┘      no gap, no overlap: each begins where the one before ended
//! ```
//!
//! Invariant: windows of one machine add up to her last reading, whatever the wall clock does: lengths are differences of
//! the clock that does not jump, CPU time is the kernel's own count of her process. What is not known is marked.

use std::collections::BTreeMap;

use brood_units::{Instant, MachineId, Timestamp};

/// Whose usage it is; does not change from birth to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The machine or checkpoint.
    pub machine: MachineId,
    /// Whether it is a frozen point.
    pub is_checkpoint: bool,
    /// Who pays.
    pub tenant: String,
    /// A part of the tenant.
    pub project: String,
    /// The first machine of her lineage.
    pub lineage: MachineId,
    /// The template at the root.
    pub template: MachineId,
    /// Allocated, 1/1000 vCPU.
    pub vcpu_milli: u32,
    /// Allocated RAM, MiB.
    pub memory_mib: u32,
    /// Allocated disk, MiB.
    pub disk_mib: u32,
    /// Her labels.
    pub labels: BTreeMap<String, String>,
    /// When she was born.
    pub born: Timestamp,
}

/// What a machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Motion {
    /// Her vCPUs run.
    Running,
    /// They stand still.
    Paused,
    /// It is a frozen point.
    Frozen,
}

impl Motion {
    /// All of them, each at the place of its number.
    pub const ALL: [Self; 3] = [Self::Running, Self::Paused, Self::Frozen];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Frozen => "frozen",
        }
    }
}

/// What ended a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Its time was over.
    Tick,
    /// She was forked.
    Fork,
    /// She was paused.
    Pause,
    /// She was resumed.
    Resume,
    /// She ended.
    End,
    /// It did not end: another record of it is put right.
    Correction,
    /// She was hibernated: nothing of her is counted until she wakes.
    Hibernate,
}

impl Cause {
    /// All of them, each at the place of its number.
    pub const ALL: [Self; 7] = [
        Self::Tick,
        Self::Fork,
        Self::Pause,
        Self::Resume,
        Self::End,
        Self::Correction,
        Self::Hibernate,
    ];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tick => "tick",
            Self::Fork => "fork",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::End => "end",
            Self::Correction => "correction",
            Self::Hibernate => "hibernate",
        }
    }

    /// What she does afterwards.
    pub const fn then(self, before: Motion) -> Motion {
        match self {
            Self::Pause => Motion::Paused,
            Self::Resume => Motion::Running,
            Self::Tick | Self::Fork | Self::End | Self::Correction | Self::Hibernate => before,
        }
    }

    /// Whether nothing of her is counted after it.
    pub const fn is_last(self) -> bool {
        matches!(self, Self::End | Self::Hibernate)
    }
}

/// What of a record is not the kernel's count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doubt {
    /// Nobody was there to see her end: CPU time since the reading before, and when she ended, are not known and not in it.
    pub cpu: bool,
    /// Private memory is that of the reading before.
    pub memory: bool,
}

/// What was read of a machine at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock.
    pub at: Timestamp,
    /// The clock that does not jump; none where nobody knows when it was.
    pub instant: Option<Instant>,
    /// CPU time of her process since its start, nanoseconds; none where nobody knows.
    pub cpu_ns: Option<u64>,
    /// Pages that are her own alone, KiB; none where it was not looked.
    pub private_kib: Option<u64>,
}

/// The reading before, as far as windows need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Last {
    /// When she was born, on the clock that does not jump.
    pub born: Instant,
    /// The wall clock.
    pub at: Timestamp,
    /// The clock that does not jump.
    pub instant: Instant,
    /// CPU time since the start of her process, nanoseconds.
    pub cpu_ns: u64,
    /// Pages that are her own alone, KiB.
    pub private_kib: u64,
    /// What she does since.
    pub motion: Motion,
}

/// One window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What ended it.
    pub cause: Cause,
    /// What she did in it.
    pub motion: Motion,
    /// What is not known of it.
    pub doubt: Doubt,
    /// Its end by the wall clock.
    pub end: Timestamp,
    /// How old she was at its end, microseconds.
    pub age_us: u64,
    /// Its length, microseconds.
    pub span_us: u64,
    /// CPU time in it, nanoseconds.
    pub cpu_ns: u64,
    /// CPU time since the start of her process, nanoseconds.
    pub cpu_total_ns: u64,
    /// Pages that were her own alone at its end, KiB.
    pub private_kib: u64,
    /// The number of the record that this one replaces.
    pub corrects: Option<i64>,
}

impl Last {
    /// Of one that is born: nothing was used yet. Her process began before that, and what it used until then is in her
    /// first window, as it was used to make her.
    pub fn at_birth(at: Timestamp, instant: Instant, motion: Motion) -> Self {
        Self {
            born: instant,
            at,
            instant,
            cpu_ns: 0,
            private_kib: 0,
            motion,
        }
    }

    /// Of one that wakes, in a new process: she is as old as when she was hibernated, so that windows still add up to her age.
    /// Where the host has started anew meanwhile, its clock that does not jump may be younger than she: then she is as old
    /// as that.
    pub fn woken(self, at: Timestamp, instant: Instant) -> Self {
        let age = self.instant.as_nanos().saturating_sub(self.born.as_nanos());
        Self {
            born: Instant::from_nanos(instant.as_nanos().saturating_sub(age)),
            ..Self::at_birth(at, instant, Motion::Running)
        }
    }

    /// The window from this reading to another, and the state that the next one begins with; none where the other is not
    /// later, as its time is in the window that was closed first. An end always closes one.
    pub fn window(&self, reading: &Reading, cause: Cause) -> Option<(Record, Self)> {
        let is_end = cause.is_last();
        let instant = reading.instant.unwrap_or(self.instant).max(self.instant);
        if instant == self.instant && !is_end {
            return None;
        }
        let known = reading.cpu_ns.filter(|_| reading.instant.is_some());
        // One that reads less has read another process's clock, or an old one: it is not believed.
        let cpu_total_ns = known.unwrap_or(0).max(self.cpu_ns);
        let at = match reading.instant {
            Some(_) => reading.at,
            None => self.at,
        };
        let next = Self {
            born: self.born,
            at,
            instant,
            cpu_ns: cpu_total_ns,
            private_kib: reading.private_kib.unwrap_or(self.private_kib),
            motion: cause.then(self.motion),
        };
        let record = Record {
            cause,
            motion: self.motion,
            doubt: Doubt {
                cpu: known.is_none(),
                memory: reading.private_kib.is_none(),
            },
            end: at,
            age_us: micros(self.born, instant),
            // A difference of ages, not of instants: lengths that are cut to microseconds add up to the age.
            span_us: micros(self.born, instant) - micros(self.born, self.instant),
            cpu_ns: cpu_total_ns - self.cpu_ns,
            cpu_total_ns,
            private_kib: next.private_kib,
            corrects: None,
        };
        Some((record, next))
    }
}

impl Record {
    /// Whether it is the first of her life, with which the fork that made her is counted.
    pub const fn is_first(&self) -> bool {
        self.span_us == self.age_us
    }

    /// Its begin and her birth by the wall clock as of its end, milliseconds since the epoch: a clock that jumped meanwhile
    /// moves both, so that a window never ends before it begins and nobody is older or younger by it.
    pub fn start_and_born_ms(&self) -> (u64, u64) {
        let end = u64::try_from(self.end.as_millis()).unwrap_or(0);
        let start = end.saturating_sub(self.span_us.div_ceil(1000));
        let age_then = self.age_us.saturating_sub(self.span_us);
        (start, start.saturating_sub(age_then.div_ceil(1000)))
    }
}

fn micros(from: Instant, to: Instant) -> u64 {
    to.as_nanos().saturating_sub(from.as_nanos()) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    const BORN: Instant = Instant::from_nanos(5_000_000_500);

    fn born() -> Last {
        Last::at_birth(Timestamp::from_millis(10_000_000), BORN, Motion::Running)
    }

    fn reading(millis: u64, cpu_ns: u64) -> Reading {
        Reading {
            at: Timestamp::from_millis(10_000_000 + millis.cast_signed()),
            instant: Some(Instant::from_nanos(BORN.as_nanos() + millis * 1_000_000)),
            cpu_ns: Some(cpu_ns),
            private_kib: Some(64),
        }
    }

    #[test]
    fn windows_of_a_life_add_up_to_it_and_only_the_first_is_the_first() {
        let mut last = born();
        let (mut span, mut cpu, mut firsts) = (0, 0, 0);
        for (step, cause) in [
            (7_u64, Cause::Tick),
            (8, Cause::Fork),
            (9, Cause::Pause),
            (400, Cause::End),
        ] {
            let (record, next) = last
                .window(&reading(step, step * 900), cause)
                .expect("later");
            span += record.span_us;
            cpu += record.cpu_ns;
            firsts += u32::from(record.is_first());
            assert_eq!(record.age_us, span);
            last = next;
        }
        assert_eq!((span, cpu, firsts), (400_000, 400 * 900, 1));
        assert_eq!(last.motion, Motion::Paused);
    }

    #[test]
    fn a_reading_that_comes_late_is_no_window_and_takes_nothing_away() {
        let (_, last) = born()
            .window(&reading(60, 5000), Cause::Pause)
            .expect("later");
        assert_eq!(last.window(&reading(60, 5000), Cause::Tick), None);
        assert_eq!(last.window(&reading(59, 4000), Cause::Tick), None);
        let (record, _) = last.window(&reading(61, 4000), Cause::Tick).expect("later");
        assert_eq!((record.cpu_ns, record.cpu_total_ns), (0, 5000));
    }

    #[test]
    fn a_wall_clock_that_jumps_changes_no_length_and_no_age() {
        for jump in [-3_600_000_i64, 3_600_000] {
            let mut jumped = reading(10, 100);
            jumped.at = Timestamp::from_millis(jumped.at.as_millis() + jump);
            let (record, last) = born().window(&jumped, Cause::Tick).expect("later");
            let (start, born_ms) = record.start_and_born_ms();
            let end = record.end.as_millis().unsigned_abs();
            assert_eq!((record.span_us, end - start, start), (10_000, 10, born_ms));
            let (record, _) = last.window(&reading(25, 200), Cause::End).expect("an end");
            let (start, born_ms) = record.start_and_born_ms();
            assert_eq!((record.span_us, start - born_ms), (15_000, 10));
        }
    }

    #[test]
    fn nobody_ages_while_she_is_hibernated_and_her_windows_still_add_up() {
        let (first, slept) = born()
            .window(&reading(60, 5000), Cause::Hibernate)
            .expect("a last one");
        let at = Timestamp::from_millis(10_900_000);
        let woken = slept.woken(at, Instant::from_nanos(BORN.as_nanos() + 900_000_000_000));
        let (second, _) = woken
            .window(&reading(900_007, 40), Cause::End)
            .expect("an end");
        assert_eq!((second.span_us, second.age_us), (7000, 67_000));
        assert_eq!(second.age_us, first.span_us + second.span_us);
        assert_eq!((second.cpu_ns, second.is_first()), (40, false));
        // The host has started anew: its clock is younger than she.
        let anew = slept.woken(at, Instant::from_nanos(1_000_000));
        assert_eq!(anew.born, Instant::from_nanos(0));
    }

    #[test]
    fn an_end_that_nobody_saw_charges_nothing_that_is_not_known_and_says_so() {
        let (_, last) = born()
            .window(&reading(60, 5000), Cause::Tick)
            .expect("later");
        let unseen = Reading {
            at: Timestamp::from_millis(9_000_000),
            instant: None,
            cpu_ns: None,
            private_kib: None,
        };
        let (record, _) = last.window(&unseen, Cause::End).expect("an end");
        assert_eq!((record.span_us, record.cpu_ns), (0, 0));
        let doubt = Doubt {
            cpu: true,
            memory: true,
        };
        assert_eq!(
            (record.doubt, record.end, record.private_kib),
            (doubt, last.at, 64)
        );
    }
}
