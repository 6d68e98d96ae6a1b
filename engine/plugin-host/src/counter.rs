//! What a binding counts.
//!
//! Invariant: every call ends up in exactly one of answered, refused and failed.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use brood_hooks::{Failure, FailureKind};

/// Counts of one binding since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls that were answered and refused nothing.
    pub answered: u64,
    /// Calls that were answered with a refusal.
    pub refused: u64,
    /// Calls that failed, by kind.
    pub failed: BTreeMap<FailureKind, u64>,
    /// Failed calls that were passed over because the binding fails open.
    pub failed_open: u64,
    /// Failed calls that a fallback was asked for.
    pub fell_back: u64,
    /// Answers of a shadow with which the decision would have been the same. One that failed is compared with nothing.
    pub agreed: u64,
    /// Answers of a shadow with which the decision would have been another.
    pub disagreed: u64,
    /// Fuel used by all calls.
    pub fuel: u64,
    /// Calls by time taken: element `i` counts those below `2^i` µs; the last counts all others.
    pub latency: [u64; 20],
    /// Time taken by all calls, ns.
    pub nanos: u64,
    /// Log lines that were dropped.
    pub log_dropped: u64,
    /// Metric points that were dropped.
    pub metrics_dropped: u64,
}

impl Counters {
    /// All failed calls.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// All calls.
    pub fn calls(&self) -> u64 {
        self.answered + self.refused + self.failures()
    }

    pub(crate) fn fail(&mut self, failure: &Failure) {
        *self.failed.entry(failure.kind()).or_default() += 1;
    }

    pub(crate) fn time(&mut self, nanos: u64) {
        self.nanos = self.nanos.saturating_add(nanos);
        let bits = (u64::BITS - (nanos / 1000).leading_zeros()) as usize;
        let last = self.latency.len() - 1;
        if let Some(count) = self.latency.get_mut(bits.min(last)) {
            *count += 1;
        }
    }
}

/// Counts of a host since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCounters {
    /// Versions of plugins that were made ready.
    pub ready: u64,
    /// Versions that were refused: files, imports, settings.
    pub refused: u64,
    /// Versions that took the place of another.
    pub swapped: u64,
    /// Versions that were ready, failed their self test or lacked a hook, and took no other's place.
    pub swaps_refused: u64,
}

/// Counters that threads share. A leaf lock.
#[derive(Debug, Default)]
pub(crate) struct Shared(Mutex<Counters>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
