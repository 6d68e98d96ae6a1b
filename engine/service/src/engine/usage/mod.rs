//! What machines use: counted in windows, rated in batches, shown to who pays and who operates.
//!
//! ```text
//!  birth, fork, pause, resume, end ─┐ in the same commit as the change itself
//!  every window ────────────────────┴─► records ─ seal ─► batches ─ billing policy ─► lines, totals, verdicts
//! ```
//!
//! Invariant: no change of a machine is committed without the window that it ends. Counting and rating never wait for each
//! other, and neither holds up a fork.

mod look;
pub(super) mod reading;
mod sample;

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use brood_units::MachineId;

pub use brood_meter::{
    Break, Cause, Dimension, Hash, ParsePeriodError, Period, Quantities, Record, Subject,
};
pub use brood_store::{LineRow, UsageRow};

use super::Engine;
pub use look::{
    Charge, GroupBy, LineAnswer, LinesAnswer, RecordsAnswer, SummaryAnswer, SummaryGroup,
    UsageFilter, VerifyAnswer, Whose, measured, quantities,
};
use reading::Metered;

/// How usage is counted and rated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageOptions {
    /// The longest window.
    pub window: Duration,
}

impl UsageOptions {
    /// What is usual.
    pub const DEFAULT: Self = Self {
        window: Duration::from_secs(60),
    };
}

impl Default for UsageOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Engine {
    pub(super) fn metered(&self) -> MutexGuard<'_, HashMap<MachineId, Metered>> {
        let metered = self.inner.metered.lock();
        metered.unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts from now on, for as long as somebody has this engine.
    pub(super) fn begin_usage(&self, options: UsageOptions) {
        let inner = std::sync::Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Self::until_tick(options.window)).await;
                let Some(inner) = inner.upgrade() else {
                    return;
                };
                let engine = Self { inner };
                if let Err(error) = engine.count_all().await {
                    tracing::error!(%error, "usage was not counted; it is with the next windows");
                }
            }
        });
    }
}

/// What is read of, by machine.
pub(super) type Meters = std::sync::Mutex<HashMap<MachineId, Metered>>;
