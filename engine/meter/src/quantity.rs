//! What windows come to, in the dimensions that billing policies price (`wit/hooks.wit`, `billing.batch`).
//!
//! Invariant: sums are kept finer than any dimension is told in, so that what many short windows come to is rounded once.

use brood_hooks::billing::Sample;

use crate::{Motion, Period, Record, Subject};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// vCPU time given, while vCPUs run.
    VcpuNs,
    /// CPU time used, of the machine's whole process.
    VcpuActiveNs,
    /// RAM given.
    MemoryMibMs,
    /// RAM that nobody shares.
    MemoryPrivateMibMs,
    /// Disk given.
    DiskMibS,
    /// Machines that were made.
    Forks,
}

impl Dimension {
    /// All of them, each at the place of its number.
    pub const ALL: [Self; 6] = [
        Self::VcpuNs,
        Self::VcpuActiveNs,
        Self::MemoryMibMs,
        Self::MemoryPrivateMibMs,
        Self::DiskMibS,
        Self::Forks,
    ];

    /// Its word in `wit/hooks.wit`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VcpuNs => "vcpu-ns",
            Self::VcpuActiveNs => "vcpu-active-ns",
            Self::MemoryMibMs => "memory-mib-ms",
            Self::MemoryPrivateMibMs => "memory-private-mib-ms",
            Self::DiskMibS => "disk-mib-s",
            Self::Forks => "forks",
        }
    }
}

/// What windows come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantities {
    vcpu_ns: u128,
    active_ns: u128,
    memory_mib_us: u128,
    private_kib_us: u128,
    disk_mib_us: u128,
    forks: u128,
}

impl Quantities {
    /// How many bytes it takes to keep.
    pub const BYTES: usize = 96;

    /// One window's. A checkpoint is given no vCPU and no RAM: it is charged for what it keeps.
    pub fn of(subject: &Subject, record: &Record) -> Self {
        let span = u128::from(record.span_us);
        let given = |amount: u32| match record.motion {
            Motion::Frozen => 0,
            Motion::Running | Motion::Paused => span * u128::from(amount),
        };
        Self {
            // 1/1000 vCPU for a microsecond is a nanosecond.
            vcpu_ns: match record.motion {
                Motion::Running => span * u128::from(subject.vcpu_milli),
                Motion::Paused | Motion::Frozen => 0,
            },
            active_ns: record.cpu_ns.into(),
            memory_mib_us: given(subject.memory_mib),
            private_kib_us: span * u128::from(record.private_kib),
            disk_mib_us: given(subject.disk_mib),
            forks: u128::from(record.is_first() && !subject.is_checkpoint),
        }
    }

    /// The sum of both. Nothing comes near the end of 128 bits.
    pub fn plus(self, other: Self) -> Self {
        Self {
            vcpu_ns: self.vcpu_ns.saturating_add(other.vcpu_ns),
            active_ns: self.active_ns.saturating_add(other.active_ns),
            memory_mib_us: self.memory_mib_us.saturating_add(other.memory_mib_us),
            private_kib_us: self.private_kib_us.saturating_add(other.private_kib_us),
            disk_mib_us: self.disk_mib_us.saturating_add(other.disk_mib_us),
            forks: self.forks.saturating_add(other.forks),
        }
    }

    /// What is left without another, which is part of it.
    pub fn minus(self, other: Self) -> Self {
        Self {
            vcpu_ns: self.vcpu_ns.saturating_sub(other.vcpu_ns),
            active_ns: self.active_ns.saturating_sub(other.active_ns),
            memory_mib_us: self.memory_mib_us.saturating_sub(other.memory_mib_us),
            private_kib_us: self.private_kib_us.saturating_sub(other.private_kib_us),
            disk_mib_us: self.disk_mib_us.saturating_sub(other.disk_mib_us),
            forks: self.forks.saturating_sub(other.forks),
        }
    }

    /// As it is kept: six numbers of 16 bytes, the least significant first.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let numbers = [
            self.vcpu_ns,
            self.active_ns,
            self.memory_mib_us,
            self.private_kib_us,
            self.disk_mib_us,
            self.forks,
        ];
        let mut bytes = [0; Self::BYTES];
        let places = bytes.as_chunks_mut().0.iter_mut();
        places
            .zip(numbers)
            .for_each(|(place, number)| *place = number.to_le_bytes());
        bytes
    }

    /// What was kept so.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let numbers = bytes.as_chunks().0.iter().copied();
        let mut numbers = numbers.map(u128::from_le_bytes);
        let mut next = || numbers.next().unwrap_or(0);
        Self {
            vcpu_ns: next(),
            active_ns: next(),
            memory_mib_us: next(),
            private_kib_us: next(),
            disk_mib_us: next(),
            forks: next(),
        }
    }

    /// How much of a dimension, in its base units, rounded down.
    pub fn amount(&self, dimension: Dimension) -> u128 {
        match dimension {
            Dimension::VcpuNs => self.vcpu_ns,
            Dimension::VcpuActiveNs => self.active_ns,
            Dimension::MemoryMibMs => self.memory_mib_us / 1000,
            Dimension::MemoryPrivateMibMs => self.private_kib_us / 1_024_000,
            Dimension::DiskMibS => self.disk_mib_us / 1_000_000,
            Dimension::Forks => self.forks,
        }
    }

    /// The same as a sample carries it; none beyond 64 bits.
    pub fn sampled(&self, dimension: Dimension) -> Option<i64> {
        i64::try_from(self.amount(dimension)).ok()
    }
}

/// A window's part in a period.
pub(crate) struct Part {
    pub(crate) period: Period,
    pub(crate) record: Record,
    pub(crate) start_ms: u64,
    pub(crate) end_ms: u64,
}

/// A window cut at the ends of periods: time and CPU time in proportion, to the last microsecond and nanosecond, so that
/// the parts add up to the whole. What happens once is in the first part. Where a correction stands in the place of the
/// window it is `record`, and is cut where the window was: it belongs to the months that the window was billed in.
pub(crate) fn cut(window: &Record, record: &Record) -> Vec<Part> {
    let (start_ms, _) = window.start_and_born_ms();
    let end_ms = u64::try_from(window.end.as_millis()).unwrap_or(0);
    let whole = end_ms - start_ms;
    let share = |of: u64, until: u64| -> u64 {
        match whole {
            0 => of,
            whole => (u128::from(of) * u128::from(until) / u128::from(whole)) as u64,
        }
    };
    let mut parts = Vec::new();
    let (mut from, mut taken) = (start_ms, (0, 0));
    loop {
        let period = Period::of(from.cast_signed());
        let until = end_ms.min(period.end_ms().unsigned_abs());
        let upto = (
            share(record.span_us, until - start_ms),
            share(record.cpu_ns, until - start_ms),
        );
        parts.push(Part {
            period,
            record: Record {
                span_us: upto.0 - taken.0,
                cpu_ns: upto.1 - taken.1,
                age_us: record.age_us - (record.span_us - upto.0),
                ..*record
            },
            start_ms: from,
            end_ms: until,
        });
        if until == end_ms {
            return parts;
        }
        (from, taken) = (until, upto);
    }
}

/// What a window comes to in each period that a part of it is in, with `stands` in its place: the same periods in the same
/// order, whatever stands there.
pub fn by_period(
    subject: &Subject,
    window: &Record,
    stands: &Record,
) -> impl Iterator<Item = (Period, Quantities)> {
    let parts = cut(window, stands).into_iter();
    parts.map(move |part| (part.period, Quantities::of(subject, &part.record)))
}

/// The dimension of a sample of a batch of ours.
pub(crate) fn dimension_of(sample: &Sample) -> Option<Dimension> {
    Dimension::ALL.get(sample.dimension as usize).copied()
}

#[cfg(test)]
mod tests {
    use brood_units::Timestamp;

    use super::*;
    use crate::record::{Cause, Doubt};

    fn record(end_ms: i64, span_us: u64, cpu_ns: u64, age_us: u64) -> Record {
        Record {
            cause: Cause::Tick,
            motion: Motion::Running,
            doubt: Doubt::default(),
            end: Timestamp::from_millis(end_ms),
            age_us,
            span_us,
            cpu_ns,
            cpu_total_ns: cpu_ns,
            private_kib: 3,
            corrects: None,
        }
    }

    #[test]
    fn a_window_over_the_end_of_a_month_is_cut_there_and_nothing_is_lost_or_counted_twice() {
        let end_of: Period = "2026-11".parse().expect("a month");
        let end = end_of.end_ms();
        for (after, span, cpu) in [
            (1, 60_000_000, 7),
            (30_000, 60_000_123, 999_999_999_937),
            (59_999, 60_000_000, 0),
        ] {
            let whole = record(end + after, span, cpu, span);
            let parts = cut(&whole, &whole);
            assert_eq!(parts.len(), 2);
            assert_eq!(parts[0].period, end_of);
            assert_eq!(parts[1].period, end_of.next());
            assert_eq!(
                parts.iter().map(|part| part.record.span_us).sum::<u64>(),
                span
            );
            assert_eq!(
                parts.iter().map(|part| part.record.cpu_ns).sum::<u64>(),
                cpu
            );
            let firsts = parts.iter().filter(|part| part.record.is_first());
            assert_eq!(firsts.count(), 1, "a fork happens once");
            assert_eq!(parts[0].end_ms, parts[1].start_ms);
        }
        let parts = |record: Record| cut(&record, &record).len();
        // Of an engine that was away for a quarter.
        assert_eq!(
            parts(record(end + 1000, 80 * 86_400_000_000, 5, u64::MAX)),
            4
        );
        assert_eq!(
            parts(record(end, 1000, 5, 1000)),
            1,
            "an end is not the begin of the next"
        );
        assert_eq!(parts(record(end, 0, 5, 1000)), 1);
    }

    #[test]
    fn a_correction_is_in_the_months_of_the_window_that_it_replaces() {
        let month: Period = "2026-11".parse().expect("a month");
        let window = record(month.start_ms() + 60_000, 60_000_000, 7, 60_000_000);
        let longer = record(month.start_ms() + 60_000, 600_000_000, 9, 600_000_000);
        let parts = cut(&window, &longer);
        assert_eq!((parts.len(), parts[0].period), (1, month));
        assert_eq!(
            (parts[0].record, parts[0].start_ms),
            (longer, month.start_ms().unsigned_abs())
        );
    }

    #[test]
    fn what_a_thousand_short_windows_come_to_is_rounded_once() {
        let subject = crate::batch::tests::subject(1);
        let all = (0..1000)
            .map(|index| Quantities::of(&subject, &record(1000, 999, 1, 999 * (index + 1))));
        let sum = all.fold(Quantities::default(), Quantities::plus);
        let amounts = Dimension::ALL.map(|dimension| sum.amount(dimension));
        assert_eq!(
            amounts,
            [
                999 * 500_000,
                1000,
                999 * 256,
                999 * 3 * 1000 / 1_024_000,
                9,
                1
            ]
        );
    }

    #[test]
    fn who_stands_still_is_given_no_vcpu_and_a_frozen_point_nothing_but_what_it_keeps() {
        let amounts = |motion, is_checkpoint| {
            let subject = Subject {
                is_checkpoint,
                ..crate::batch::tests::subject(1)
            };
            let window = Record {
                motion,
                private_kib: 2048,
                ..record(5000, 4_000_000, 3, 4_000_000)
            };
            let sum = Quantities::of(&subject, &window);
            Dimension::ALL.map(|dimension| sum.amount(dimension))
        };
        let given = [256 * 4000, 8000, 40, 1];
        let [memory, private, disk, fork] = given;
        assert_eq!(
            amounts(Motion::Running, false),
            [2_000_000_000, 3, memory, private, disk, fork]
        );
        assert_eq!(
            amounts(Motion::Paused, false),
            [0, 3, memory, private, disk, fork]
        );
        assert_eq!(amounts(Motion::Frozen, true), [0, 3, 0, private, 0, 0]);
    }

    #[test]
    fn what_is_kept_is_what_comes_back_and_what_is_taken_off_is_what_was_put_on() {
        let subject = crate::batch::tests::subject(1);
        let one = Quantities::of(&subject, &record(1000, 999, 7, 999));
        let other = Quantities::of(&subject, &record(1000, 123_456, 5, u64::MAX));
        let both = one.plus(other);
        assert_eq!(Quantities::from_bytes(both.to_bytes()), both);
        assert_eq!((both.minus(other), both.minus(one)), (one, other));
        let all = [1_u8, 2, 3, 4, 5, 6].map(|number| {
            let mut bytes = [0; 16];
            bytes[0] = number;
            bytes
        });
        let kept: Vec<u8> = all.concat();
        let kept = kept.try_into().expect("96 bytes");
        let sum = Quantities::from_bytes(kept);
        assert_eq!(sum.to_bytes(), kept, "each number has a place of its own");
        assert_eq!(sum.minus(sum), Quantities::default());
    }

    #[test]
    fn a_window_is_in_the_periods_in_which_it_was_whatever_stands_in_its_place() {
        let month: Period = "2026-11".parse().expect("a month");
        let subject = crate::batch::tests::subject(1);
        let window = record(month.end_ms() + 10_000, 20_000_000, 8, 20_000_000);
        let longer = record(month.end_ms() + 10_000, 60_000_000, 100, 60_000_000);
        let found: Vec<_> = by_period(&subject, &window, &longer).collect();
        let vcpu = |at: usize| found[at].1.amount(Dimension::VcpuNs);
        let forks = |at: usize| found[at].1.amount(Dimension::Forks);
        assert_eq!((found[0].0, found[1].0), (month, month.next()));
        assert_eq!((vcpu(0), vcpu(1)), (15_000_000_000, 15_000_000_000));
        assert_eq!((forks(0), forks(1), found.len()), (1, 0, 2));
    }

    #[test]
    fn a_quantity_beyond_64_bits_is_none_and_not_a_wrong_one() {
        let subject = crate::batch::tests::subject(1);
        let endless = record(i64::MAX, u64::MAX, u64::MAX, u64::MAX);
        let sum = Quantities::of(&subject, &endless);
        assert_eq!(sum.sampled(Dimension::VcpuActiveNs), None);
        assert_eq!(sum.sampled(Dimension::Forks), Some(1));
    }
}
