//! Decision records: what was asked, told, answered and used, call by call.
//!
//! Invariant: the log of records is bounded in bytes and in age, whatever plugins do. Refusals and failures have bounds
//! of their own, so that a flood of ordinary answers does not wash them out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brood_hooks::{Failure, HookName, Now, Permits};
use brood_policy::{Limits, LogLevel, Mode};
use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::call::HostAnswer;

/// One call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its number in this process.
    pub number: u64,
    /// The instant it saw.
    pub now: Now,
    /// Which hook.
    pub hook: HookName,
    /// Which plugin.
    pub plugin: String,
    /// The binding's mode.
    pub mode: Mode,
    /// The component.
    pub component: Digest,
    /// Its settings.
    pub settings: Digest,
    /// What it may use.
    pub limits: Limits,
    /// What it may reach for.
    pub permits: Permits,
    /// Log lines it was told are kept.
    pub log_level: LogLevel,
    /// Whether the instance had been used before, so that its memory is part of what it answered.
    pub warm: bool,
    /// What was asked, in postcard.
    pub ask: Arc<[u8]>,
    /// What the host answered meanwhile.
    pub host_answers: Vec<HostAnswer>,
    /// What was answered, in postcard, right or wrong; none if there was no answer.
    pub answer: Option<Vec<u8>>,
    /// Why it does not count.
    pub failure: Option<Failure>,
    /// Whether the answer refuses something.
    pub refuses: bool,
    /// Fuel used.
    pub fuel_used: u64,
    /// Time taken, nanoseconds, instance and all.
    pub took_nanos: u64,
}

impl Record {
    /// Bytes that it is counted as.
    fn size(&self) -> u64 {
        let answers = self
            .host_answers
            .iter()
            .map(HostAnswer::size)
            .sum::<usize>();
        let answer = self.answer.as_ref().map_or(0, Vec::len);
        (size_of::<Self>() + self.ask.len() + answers + answer) as u64
    }

    /// Whether it is kept within the bounds of refusals and failures.
    const fn matters(&self) -> bool {
        self.refuses || self.failure.is_some()
    }
}

/// Bounds of one kind of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Bytes, KiB.
    pub kib: u64,
    /// Age, milliseconds.
    pub age_ms: u64,
}

/// Bounds of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordOptions {
    /// Ordinary answers.
    pub routine: Retention,
    /// Refusals and failures.
    pub matters: Retention,
}

impl Default for RecordOptions {
    fn default() -> Self {
        const DAY_MS: u64 = 86_400_000;
        Self {
            routine: Retention {
                kib: 16 * 1024,
                age_ms: DAY_MS,
            },
            matters: Retention {
                kib: 16 * 1024,
                age_ms: 30 * DAY_MS,
            },
        }
    }
}

struct Ring {
    bounds: Retention,
    records: VecDeque<Arc<Record>>,
    bytes: u64,
    /// Records that were let go.
    gone: u64,
}

impl Ring {
    fn new(bounds: Retention) -> Self {
        Self {
            bounds,
            records: VecDeque::new(),
            bytes: 0,
            gone: 0,
        }
    }

    fn push(&mut self, record: Arc<Record>) {
        self.bytes += record.size();
        self.records.push_back(record);
    }

    fn trim(&mut self, now: Now) {
        let Retention { kib, age_ms } = self.bounds;
        let too_old = |record: &Record| {
            record.now.as_unix_millis().saturating_add(age_ms) < now.as_unix_millis()
        };
        while let Some(first) = self.records.front()
            && (self.bytes > kib << 10 || too_old(first))
        {
            self.bytes -= first.size();
            self.records.pop_front();
            self.gone += 1;
        }
    }
}

struct Rings {
    routine: Ring,
    matters: Ring,
    next: u64,
}

/// The latest records.
pub struct RecordLog(Mutex<Rings>);

impl RecordLog {
    pub(crate) fn new(options: RecordOptions) -> Self {
        let (routine, matters) = (Ring::new(options.routine), Ring::new(options.matters));
        Self(Mutex::new(Rings {
            routine,
            matters,
            next: 0,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Rings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a record, under the number it is given, and lets go of what is over the bounds.
    pub(crate) fn push(&self, mut record: Record) -> u64 {
        let now = record.now;
        let mut rings = self.lock();
        let number = rings.next;
        rings.next += 1;
        record.number = number;
        let record = Arc::new(record);
        if record.matters() {
            rings.matters.push(record);
        } else {
            rings.routine.push(record);
        }
        rings.routine.trim(now);
        rings.matters.trim(now);
        number
    }

    /// All records that are still there at `now`, in order of their numbers.
    pub fn all(&self, now: Now) -> Vec<Arc<Record>> {
        let mut rings = self.lock();
        rings.routine.trim(now);
        rings.matters.trim(now);
        let both = rings.routine.records.iter().chain(&rings.matters.records);
        let mut records: Vec<_> = both.map(Arc::clone).collect();
        records.sort_by_key(|record| record.number);
        records
    }

    /// How many were let go: ordinary ones, and refusals and failures.
    pub fn gone(&self) -> (u64, u64) {
        let rings = self.lock();
        (rings.routine.gone, rings.matters.gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(ms: u64, refuses: bool) -> Record {
        Record {
            number: 0,
            now: Now::from_unix_nanos(ms * 1_000_000),
            hook: HookName::Admission,
            plugin: "quota".into(),
            mode: Mode::Enforce,
            component: Digest::of(b""),
            settings: Digest::of(b""),
            limits: Limits::of(HookName::Admission),
            permits: Permits::default(),
            log_level: LogLevel::Info,
            warm: false,
            ask: vec![0; 1024].into(),
            host_answers: Vec::new(),
            answer: None,
            failure: None,
            refuses,
            fuel_used: 0,
            took_nanos: 0,
        }
    }

    fn log() -> RecordLog {
        let bounds = Retention {
            kib: 8,
            age_ms: 1000,
        };
        RecordLog::new(RecordOptions {
            routine: bounds,
            matters: bounds,
        })
    }

    #[test]
    fn flood_of_ordinary_answers_does_not_wash_out_a_refusal() {
        let log = log();
        let denied = log.push(record(0, true));
        for _ in 0..1000 {
            log.push(record(1, false));
        }
        let left = log.all(Now::from_unix_nanos(1_000_000));
        assert_eq!(left.first().map(|record| record.number), Some(denied));
        assert!(left.len() < 10, "{}", left.len());
        assert_eq!(log.gone(), (1001 - left.len() as u64, 0));
    }

    #[test]
    fn flood_of_refusals_is_bounded_too_and_age_ends_both() {
        let log = log();
        for _ in 0..1000 {
            log.push(record(0, true));
        }
        assert!(log.all(Now::default()).len() < 10);
        assert!(log.all(Now::from_unix_nanos(1_001_000_000)).is_empty());
    }
}
