//! The engine as fronts see it: everything that can be asked, each in one call.
//!
//! ```text
//!  call ─► look (store) ─► decide (hooks, holds) ─► intent (commit) ─► owner: work ─► rows, events, answer (commit) ─► answer
//! ```
//!
//! Invariant: what is asked is written down before it is done and answered after what came of it is committed. A caller
//! who goes away changes nothing: from the decision on, a request is a task of its own. Objects of another tenant are not
//! there.

mod answer;
mod caller;
mod carried;
mod create;
mod deadline;
mod decide;
mod error;
pub mod exec;
mod file;
mod fork;
mod guest;
mod intent;
mod life;
mod look;
mod metric;
mod once;
mod owner;
mod rotate;
mod secret;
mod snapshot;
mod source;
mod stats;
mod take_up;
mod template;
pub mod usage;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use brood_store::{NewEvent, Store, Write};
use brood_units::{MachineId, Timestamp};

use crate::fork::wall_clock_ns;
use crate::hold::{Held, Holds};
use crate::host::Host;
use crate::line::Line;
use crate::node::Gauge;
use crate::path::Panels;
use crate::secret::SecretKey;

pub use brood_store::{
    DecisionEntry, DecisionQuery, EventRow, MachineKind, MachineQuery, Page, StoreError,
    TemplateRow, Visibility,
};

pub use answer::{
    CheckpointAnswer, DaughterAnswer, EventsAnswer, ForkAnswer, MachineAnswer, PageAnswer,
    SnapshotAnswer,
};
pub use caller::{Caller, KEY_PREFIX, KeyAnswer, NewKey, Scope, Token};
pub use create::{CreateMachine, CreateTemplate};
pub use error::EngineError;
pub use file::{DirEntry, FileChunks, FileKind, FileSink, FileStat, RemoveDepth};
pub use fork::{ForkMachine, OnError};
pub use guest::GuestKind;
pub use intent::Idempotency;
pub use life::Change;
pub use metric::TenantLabels;
pub use secret::SecretAnswer;
pub use snapshot::{SnapshotBytes, SnapshotSink, TakeSnapshot};
pub use stats::StatsAnswer;
pub use usage::UsageOptions;

pub(crate) use create::check_name;

use deadline::Deadlines;
use metric::{Costs, Metrics};
use owner::Owners;
use template::Templates;

/// The engine. Clones are the same one.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    host: Host,
    panels: Panels,
    owners: Owners,
    templates: Templates,
    holds: Mutex<Holds>,
    gauge: Gauge,
    line: Arc<Line>,
    secret_key: OnceLock<SecretKey>,
    deadlines: Deadlines,
    /// Whose usage and costs are read.
    metered: usage::Meters,
    usage: UsageOptions,
    /// Whoever rates does it alone.
    rating: tokio::sync::Mutex<()>,
    /// Under which ids a supervisor keeps the cells of machines.
    kept: Mutex<HashSet<MachineId>>,
    metrics: Metrics,
    costs: Costs,
}

impl Engine {
    /// Over a store and a host, with whoever is bound to the hooks. Machines that an engine before this one left with a
    /// supervisor are taken over; others are gone with it, and are written down as ended.
    ///
    /// # Errors
    /// The store cannot be read or written, or the supervisor does not answer.
    pub async fn open(store: Store, host: Host, panels: Panels) -> Result<Self, EngineError> {
        Self::open_with(store, host, panels, UsageOptions::default()).await
    }

    /// The same, with usage counted as an operator sets it.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub async fn open_with(
        store: Store,
        host: Host,
        panels: Panels,
        usage: UsageOptions,
    ) -> Result<Self, EngineError> {
        let engine = Self {
            inner: Arc::new(Inner {
                store,
                host,
                panels,
                owners: Owners::default(),
                templates: Templates::default(),
                holds: Mutex::default(),
                gauge: Gauge::default(),
                line: Arc::default(),
                secret_key: OnceLock::new(),
                deadlines: Deadlines::default(),
                metered: Mutex::default(),
                usage,
                rating: tokio::sync::Mutex::default(),
                kept: Mutex::default(),
                metrics: Metrics::default(),
                costs: Costs::default(),
            }),
        };
        engine.take_up().await?;
        engine.sweep_snapshots()?;
        engine.begin_usage().await?;
        Ok(engine)
    }

    fn store(&self) -> &Store {
        &self.inner.store
    }

    fn holds(&self) -> MutexGuard<'_, Holds> {
        self.inner
            .holds
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, HashSet<MachineId>> {
        self.inner
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back what a request that went no further holds.
    fn give_back(&self, held: Option<Held>) {
        if let Some(held) = held {
            let all = held.daughters();
            // Nothing is left of a claim that ends whole.
            drop(self.holds().end(held, all));
            self.call_next();
        }
    }

    /// Runs to its end though nobody may wait for it any more.
    async fn see_through<T: Send + 'static>(
        work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        let done = tokio::spawn(work).await;
        done.unwrap_or_else(|error| {
            Err(EngineError::Failed(format!(
                "the request broke off: {error}"
            )))
        })
    }
}

/// The wall clock, for rows.
pub fn now() -> Timestamp {
    Timestamp::from_millis(i64::try_from(wall_clock_ns() / 1_000_000).unwrap_or(i64::MAX))
}

fn report(
    write: &mut Write<'_>,
    tenant: &str,
    kind: &str,
    subject: MachineId,
    data: &serde_json::Value,
) -> Result<(), EngineError> {
    write.report(&NewEvent {
        tenant: tenant.to_owned(),
        kind: kind.to_owned(),
        subject,
        at: now(),
        data: data.to_string(),
    })?;
    Ok(())
}
