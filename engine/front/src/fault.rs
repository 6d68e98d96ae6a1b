//! The engine's errors as problems.
//!
//! Invariant: what a policy said reaches the caller as it said it, and every error of the engine has one code.

use brood_api::{Code, Denied, Problem};
use brood_service::engine::{EngineError, StoreError};
use brood_service::snapshot::SnapshotError;

/// When to ask again for the answer of a request that is being worked on, milliseconds.
const IN_FLIGHT_MS: u64 = 500;

/// A problem on its way to the caller.
pub(crate) type Refusal = Box<Problem>;

/// A problem of a kind, with what happened this time.
pub(crate) fn refusal(code: Code, detail: impl Into<String>) -> Refusal {
    Box::new(Problem::new(code, detail))
}

/// The problem that an error of the engine is.
pub(crate) fn problem(error: EngineError) -> Refusal {
    let detail = error.to_string();
    let code = match error {
        EngineError::Denied { by, denial } => {
            let words = Denied {
                binding: by,
                code: denial.code,
                message: denial.message,
            };
            let after = denial.retry_after_ms.map(u64::from);
            return Box::new(Problem::denied(words, after));
        }
        EngineError::InFlight(_) => {
            let problem = Problem::new(Code::RequestInFlight, detail);
            return Box::new(problem.retry_after(IN_FLIGHT_MS));
        }
        EngineError::NotFound { .. } => Code::NotFound,
        EngineError::Ended { .. } => Code::Ended,
        EngineError::Invalid(_) => Code::InvalidRequest,
        EngineError::Unauthenticated(_) => Code::BadKey,
        EngineError::Forbidden { .. } => Code::MissingScope,
        EngineError::Conflict(_) => Code::Conflict,
        EngineError::KeyReused => Code::IdempotencyKeyReused,
        EngineError::Busy { .. } => Code::Busy,
        EngineError::Snapshot(SnapshotError::Damaged(_)) => Code::SnapshotDamaged,
        EngineError::Snapshot(SnapshotError::Unfit(_)) => Code::SnapshotUnfit,
        EngineError::Snapshot(SnapshotError::NoRoom(_)) => Code::SnapshotDiskFull,
        EngineError::Snapshot(SnapshotError::Failed(_)) | EngineError::Failed(_) => Code::Failed,
        EngineError::Store(StoreError::Full) => Code::StoreFull,
        EngineError::Store(_) => Code::StoreFailed,
    };
    refusal(code, detail)
}
