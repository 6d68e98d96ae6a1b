//! What machines use: counted in windows, rated in batches, shown to who pays and who operates.
//!
//! ```text
//!  birth, fork, pause, resume, end ─┐ in the same commit as the change itself
//!  every window ────────────────────┴─► records ─ seal ─► batches ─ billing policy ─► lines, totals, verdicts
//! ```
//!
//! Invariant: no change of a machine is committed without the window that it ends. Counting and rating never wait for each
//! other, and neither holds up a fork.

mod batch;
mod ledger;
mod look;
mod rate;
pub(super) mod reading;
mod replay;
mod sample;
mod walk;

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use brood_units::{MachineId, Timestamp};

pub use brood_meter::{
    Break, Cause, Dimension, Hash, ParsePeriodError, Period, Quantities, Record, Subject,
};
pub use brood_store::{BatchRow, BudgetRow, Correction, CreditRow, LineRow, UsageRow};

use super::{Engine, EngineError, now};
pub(super) use ledger::Begin;
pub use ledger::{BalanceAnswer, PostCredit};
pub use look::{
    Charge, GroupBy, LineAnswer, LinesAnswer, RecordsAnswer, SummaryAnswer, SummaryGroup,
    UsageFilter, Whose,
};
pub use rate::RateAnswer;
use reading::Metered;
pub use replay::ReplayAnswer;
pub use walk::VerifyAnswer;

/// How usage is counted and rated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageOptions {
    /// The longest window.
    pub window: Duration,
    /// How often what was counted is rated.
    pub rating: Duration,
    /// How long a batch that was tried in vain waits the first time; then twice as long each time.
    pub backoff: Duration,
    /// How often a batch is tried in vain before it waits for an operator.
    pub attempts: u32,
    /// How long records are kept once they are rated; none is for ever.
    pub keep: Option<Duration>,
}

impl UsageOptions {
    /// What is usual.
    pub const DEFAULT: Self = Self {
        window: Duration::from_secs(60),
        // Five windows of a machine become one sample, so that lines cost the disk less than records.
        rating: Duration::from_secs(300),
        backoff: Duration::from_secs(1),
        attempts: 10,
        keep: None,
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

    /// Counts and rates from now on, for as long as somebody has this engine. What was counted under settings of before is
    /// sealed first, so that no batch is of two.
    pub(super) async fn begin_usage(&self) -> Result<(), EngineError> {
        self.seal().await?;
        let UsageOptions { window, rating, .. } = self.inner.usage;
        self.repeat(
            move || Self::until_tick(window),
            |engine: Self| async move {
                if let Err(error) = engine.count_all().await {
                    tracing::error!(%error, "usage was not counted; it is with the next windows");
                }
            },
        );
        self.repeat(move || rating, |engine: Self| async move {
            if let Err(error) = engine.rate_due().await {
                tracing::error!(%error, "usage was not rated; it is tried again");
            }
            if let Some(keep) = engine.inner.usage.keep {
                let millis = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
                let before = Timestamp::from_millis(now().as_millis().saturating_sub(millis));
                if let Err(error) = engine.trim_usage(before).await {
                    tracing::warn!(%error, "usage records that need not be kept are still there");
                }
            }
        });
        Ok(())
    }

    fn repeat<W>(
        &self,
        pause: impl Fn() -> Duration + Send + 'static,
        work: impl Fn(Self) -> W + Send + 'static,
    ) where
        W: Future<Output = ()> + Send,
    {
        let inner = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause()).await;
                let Some(inner) = inner.upgrade() else {
                    return;
                };
                work(Self { inner }).await;
            }
        });
    }
}

/// The processes of all machines and checkpoints that are alive. A leaf lock, held for lines.
pub(super) type Meters = std::sync::Mutex<HashMap<MachineId, Metered>>;
