//! What goes wrong between the engine and a cell, and how a cell ended.
//!
//! Invariant: an error says which operation failed; what a cell refused carries the cell's own cause and remedy.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

use crate::protocol::{Ending, Refusal};
use brood_control::SocketError;

/// A cell could not be started, asked or heard.
#[derive(Debug, thiserror::Error)]
pub enum CellError {
    /// The program could not be started.
    #[error("cannot start the cell program {program}")]
    Start {
        /// Its path.
        program: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The control socket failed.
    #[error("cannot talk to the cell")]
    Socket(#[from] SocketError),
    /// The cell refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The cell ended before it answered.
    #[error("the cell ended before it answered: {0}")]
    Ended(EndCause),
    /// No answer in time.
    #[error("the cell did not answer within {0:?}; it is hung or the host is overloaded")]
    Hung(Duration),
    /// The answer is of another kind than the question.
    #[error("the cell answered something else: {0}")]
    Confused(String),
    /// A daughter was not born.
    #[error("daughter {index} was not born: {reason}")]
    Stillborn {
        /// Which one of the fork.
        index: u32,
        /// Why.
        reason: String,
    },
    /// A system call on the engine's side failed.
    #[error("{operation} failed")]
    Call {
        /// The call.
        operation: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// How a cell's process ended: what it said last, and what the kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndCause {
    /// The cell's own last words, if it had any.
    pub ending: Option<Ending>,
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
    /// CPU time of its process, nanoseconds, by whoever took its status; none where that is not known.
    pub cpu_ns: Option<u64>,
}

impl EndCause {
    pub(super) fn unknown() -> Self {
        Self {
            ending: None,
            code: None,
            signal: None,
            cpu_ns: None,
        }
    }
}

impl std::fmt::Display for EndCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.ending, self.signal, self.code) {
            (Some(ending), _, _) => write!(f, "{ending}"),
            (None, Some(signal), _) => write!(f, "killed by signal {signal}"),
            (None, None, Some(code)) => write!(f, "exited with {code} without a word"),
            (None, None, None) => write!(f, "it is gone and its status went to another process"),
        }
    }
}

/// Names the call of the engine that failed.
pub(super) fn call(operation: &'static str) -> impl Fn(Errno) -> CellError {
    move |errno| CellError::Call {
        operation,
        source: errno.into(),
    }
}
