//! Why the engine does not do what it was asked.
//!
//! Invariant: each error has a code that never changes its meaning, and says what to do.

use brood_hooks::Denial;
use brood_store::StoreError;
use brood_units::{IntentId, MachineId};

use crate::ask::SpecError;
use crate::path::{Stopped, Why};
use crate::secret::OpenError;
use crate::snapshot::SnapshotError;

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is none of the caller's with this id or name.
    #[error("there is no {what} {which}")]
    NotFound {
        /// A kind of object.
        what: &'static str,
        /// Its id or name.
        which: String,
    },
    /// It was there, and has ended.
    #[error("machine {id} has ended: {how}")]
    Ended {
        /// Which.
        id: MachineId,
        /// How.
        how: String,
    },
    /// The request means nothing.
    #[error("{0}")]
    Invalid(String),
    /// The key is unknown, has ended or was revoked.
    #[error("the key is {0}: ask whoever gives out keys here for another one")]
    Unauthenticated(&'static str),
    /// The key does not allow it.
    #[error("the key has no scope '{scope}'")]
    Forbidden {
        /// The scope that would.
        scope: &'static str,
    },
    /// It cannot be done in the state that the object is in.
    #[error("{0}")]
    Conflict(String),
    /// The same request is being worked on.
    #[error("a request with this Idempotency-Key is being worked on: ask again for its answer")]
    InFlight(IntentId),
    /// Another request came with this key.
    #[error(
        "this Idempotency-Key came with another request before: use a new key for a new request"
    )]
    KeyReused,
    /// A policy says no.
    #[error("{by} denies it ({}): {}", denial.code, denial.message)]
    Denied {
        /// The binding.
        by: String,
        /// Its own words.
        denial: Denial,
    },
    /// A policy says not now.
    #[error(
        "{by} had it wait in queue '{queue}' for {waited_ms} ms, and there was no room: ask again later"
    )]
    Busy {
        /// The binding.
        by: String,
        /// Its queue.
        queue: String,
        /// How long it stood there, milliseconds.
        waited_ms: u64,
    },
    /// A snapshot cannot be written or used.
    #[error("{0}")]
    Snapshot(SnapshotError),
    /// The decision could not be made, or not carried out.
    #[error("{0}")]
    Failed(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl EngineError {
    pub(super) fn no_machine(id: MachineId) -> Self {
        Self::NotFound {
            what: "machine",
            which: id.to_string(),
        }
    }

    pub(super) fn asleep(id: MachineId) -> Self {
        Self::Conflict(format!("machine {id} is hibernated: wake it first"))
    }

    pub(super) fn failed(error: &anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
    }
}

impl From<SpecError> for EngineError {
    fn from(error: SpecError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<SnapshotError> for EngineError {
    fn from(error: SnapshotError) -> Self {
        Self::Snapshot(error)
    }
}

impl From<Box<Stopped>> for EngineError {
    fn from(stopped: Box<Stopped>) -> Self {
        match stopped.why {
            Why::Denied { by, denial } => Self::Denied { by, denial },
            Why::Queued(deferred) => Self::Busy {
                by: deferred.group.binding,
                queue: deferred.group.queue,
                waited_ms: stopped.waited.map_or(0, millis),
            },
            Why::Secret(lacking @ (OpenError::Unknown { .. } | OpenError::NoKey { .. })) => {
                Self::Conflict(lacking.to_string())
            }
            Why::Snapshot(error) => error.into(),
            lacking @ Why::NoAgent => Self::Conflict(lacking.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
