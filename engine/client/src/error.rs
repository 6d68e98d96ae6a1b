//! What goes wrong between a client and a server.

use brood_api::Problem;

use crate::Address;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server said no.
    #[error("{}: {}", .0.problem.title, .0.problem.detail)]
    Refused(Box<Refused>),
    /// Nobody answers there, or the connection broke before the answer was whole.
    #[error("the server at {address} cannot be reached, or broke off")]
    Unreachable {
        /// Where.
        address: Address,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Whoever answers does not speak this API, or another version of it.
    #[error("the answer of {address} (status {status}) is none of this API: {why}")]
    NotUnderstood {
        /// Where.
        address: Address,
        /// The status of the response.
        status: u16,
        /// What is odd about it.
        why: String,
    },
    /// The request cannot be written down.
    #[error("the request cannot be sent: {why}")]
    NotSent {
        /// Why.
        why: String,
    },
}

/// A problem that a server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// It, read: code, cause, remediation, whether to ask again.
    pub problem: Problem,
    /// It as the server sent it.
    pub json: String,
}

impl ClientError {
    /// The problem, if the server sent one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(refused) => Some(&refused.problem),
            _ => None,
        }
    }
}
