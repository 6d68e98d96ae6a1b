//! Shorthands that turn failures of the system into what the client is told. Invariant: no error loses its number.

use std::io;

use brood_agent_proto::AgentError;
use brood_agent_proto::errno::Errno;

/// `operation` failed with `error`.
pub(crate) fn os(operation: impl Into<String>, error: &io::Error) -> AgentError {
    AgentError::Os {
        op: operation.into(),
        errno: Errno::from(error),
    }
}

/// A field of a request makes no sense.
pub(crate) fn invalid(field: impl Into<String>, detail: impl Into<String>) -> AgentError {
    AgentError::Invalid {
        field: field.into(),
        detail: detail.into(),
    }
}
