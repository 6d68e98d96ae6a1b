//! What the writer counts, for who watches the engine.
//!
//! Invariant: a commit is counted once it is known how it went, and before anybody is told of it.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Seconds: a commit to memory takes tens of microseconds, one that waits for a slow disk tens of milliseconds.
const COMMIT_SECONDS: [f64; 12] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0,
];
/// Jobs: up to as many as a turn has.
const JOBS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Counts since the database was opened. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    pub(crate) commit: Histogram,
    pub(crate) jobs: Histogram,
    pub(crate) undone: Counter,
    pub(crate) failed: Counter,
}

impl StoreMetrics {
    pub(crate) fn new() -> Self {
        Self {
            commit: Histogram::new(COMMIT_SECONDS),
            jobs: Histogram::new(JOBS),
            undone: Counter::default(),
            failed: Counter::default(),
        }
    }

    /// Has them shown.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "store_commit",
            "Time of a commit that was kept, with its wait for the disk",
            Unit::Seconds,
            self.commit.clone(),
        );
        registry.register(
            "store_commit_jobs",
            "Jobs that shared a commit that was kept",
            self.jobs.clone(),
        );
        registry.register(
            "store_jobs_undone",
            "Jobs that were undone alone, because they failed by themselves",
            self.undone.clone(),
        );
        registry.register(
            "store_turns_lost",
            "Transactions that were not kept, with all their jobs: a full or failing disk",
            self.failed.clone(),
        );
    }
}
