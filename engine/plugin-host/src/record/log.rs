//! The log of records in memory, and the sink behind it.
//!
//! Invariant: the log is bounded in bytes and in age, whatever plugins do. Refusals and failures have bounds of their
//! own, so that a flood of ordinary answers does not wash them out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brood_hooks::{HookName, Now};

use super::Record;

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

    /// Lets go of what is over the bounds, into the caller's hands.
    fn trim(&mut self, now: Now, gone: &mut Vec<Arc<Record>>) {
        let Retention { kib, age_ms } = self.bounds;
        let too_old = |record: &Record| {
            record.now.as_unix_millis().saturating_add(age_ms) < now.as_unix_millis()
        };
        while let Some(first) = self.records.front()
            && (self.bytes > kib << 10 || too_old(first))
        {
            self.bytes -= first.size();
            gone.extend(self.records.pop_front());
            self.gone += 1;
        }
    }
}

struct Rings {
    routine: Ring,
    matters: Ring,
    next: u64,
    /// Records that the sink did not take, and why not the last of them.
    missed: (u64, Option<RecordNotKept>),
}

/// A sink did not take a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RecordNotKept {
    /// Why.
    pub message: String,
}

/// Keeps records for longer than this process lives. It is bounded as the log in memory is, by [`RecordOptions`]:
/// ordinary answers, and refusals and failures ([`Record::matters`]), each in bytes ([`Record::size`]) and age.
pub trait RecordSink: Send + Sync {
    /// Takes a record. Called on policy threads, for every call, after the log in memory has the record: it must not
    /// wait. An error is counted, see [`RecordLog::missed`], and harms no call.
    fn keep(&self, record: &Arc<Record>) -> Result<(), RecordNotKept>;
}

/// The latest records, in memory. Each goes on to the sink, if there is one.
pub struct RecordLog {
    // A leaf lock. No record is made or freed under it: each is many blocks, most of them another thread's.
    rings: Mutex<Rings>,
    sink: Option<Arc<dyn RecordSink>>,
}

impl RecordLog {
    pub(crate) fn new(options: RecordOptions, sink: Option<Arc<dyn RecordSink>>) -> Self {
        let (routine, matters) = (Ring::new(options.routine), Ring::new(options.matters));
        let rings = Mutex::new(Rings {
            routine,
            matters,
            next: 0,
            missed: (0, None),
        });
        Self { rings, sink }
    }

    fn lock(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a record, under the number it is given, and lets go of what is over the bounds.
    pub(crate) fn push(&self, record: Record) -> u64 {
        let record = self.keep(record);
        if let Some(sink) = &self.sink
            && let Err(error) = sink.keep(&record)
        {
            let (count, last) = &mut self.lock().missed;
            *count += 1;
            *last = Some(error);
        }
        record.number
    }

    fn keep(&self, record: Record) -> Arc<Record> {
        let now = record.now;
        let mut record = Arc::new(record);
        let mut gone = Vec::with_capacity(4);
        let mut rings = self.lock();
        // Nobody else has it yet.
        if let Some(record) = Arc::get_mut(&mut record) {
            record.number = rings.next;
        }
        rings.next += 1;
        if record.matters() {
            rings.matters.push(Arc::clone(&record));
        } else {
            rings.routine.push(Arc::clone(&record));
        }
        rings.routine.trim(now, &mut gone);
        rings.matters.trim(now, &mut gone);
        drop(rings);
        record
    }

    /// All records that are still there at `now`, in order of their numbers.
    pub fn all(&self, now: Now) -> Vec<Arc<Record>> {
        let mut gone = Vec::new();
        let mut rings = self.lock();
        rings.routine.trim(now, &mut gone);
        rings.matters.trim(now, &mut gone);
        let both = rings.routine.records.iter().chain(&rings.matters.records);
        let mut records: Vec<_> = both.map(Arc::clone).collect();
        drop(rings);
        records.sort_by_key(|record| record.number);
        records
    }

    /// The latest answered calls of a plugin at a hook, the newest first.
    pub(crate) fn latest(&self, plugin: &str, hook: HookName, most: usize) -> Vec<Arc<Record>> {
        let rings = self.lock();
        let (routine, matters) = (&rings.routine.records, &rings.matters.records);
        let answered = |record: &&Arc<Record>| {
            record.hook == hook && record.plugin == plugin && record.failure.is_none()
        };
        let newest = |records: &VecDeque<Arc<Record>>| -> Vec<Arc<Record>> {
            let found = records.iter().rev().filter(answered);
            found.take(most).cloned().collect()
        };
        // Refusals as well as ordinary answers.
        let mut found = newest(routine);
        found.extend(newest(matters));
        found
    }

    /// How many were let go: ordinary ones, and refusals and failures.
    pub fn gone(&self) -> (u64, u64) {
        let rings = self.lock();
        (rings.routine.gone, rings.matters.gone)
    }

    /// How many records the sink did not take, and why it did not take the last of these.
    pub fn missed(&self) -> (u64, Option<RecordNotKept>) {
        self.lock().missed.clone()
    }
}

#[cfg(test)]
mod tests {
    use brood_hooks::Permits;
    use brood_policy::{Limits, LogLevel, Mode};

    use super::*;
    use crate::Digest;

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
        RecordLog::new(
            RecordOptions {
                routine: bounds,
                matters: bounds,
            },
            None,
        )
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

    struct Full;

    impl RecordSink for Full {
        fn keep(&self, record: &Arc<Record>) -> Result<(), RecordNotKept> {
            if record.refuses {
                return Ok(());
            }
            let message = format!("no room for {}", record.number);
            Err(RecordNotKept { message })
        }
    }

    #[test]
    fn record_that_the_sink_does_not_take_is_counted_and_still_in_memory() {
        let log = RecordLog::new(RecordOptions::default(), Some(Arc::new(Full)));
        for refuses in [true, false, false] {
            log.push(record(0, refuses));
        }
        assert_eq!(log.all(Now::default()).len(), 3);
        let message = "no room for 2".to_owned();
        assert_eq!(log.missed(), (2, Some(RecordNotKept { message })));
    }
}
