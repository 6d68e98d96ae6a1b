//! What goes wrong between the engine and the supervisor.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use brood_control::SocketError;

use crate::protocol::Refusal;

/// The supervisor did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is gone.
    #[error("the supervisor is gone: {reason}; its cells end with it: start the engine again")]
    Gone {
        /// Why, as far as is known.
        reason: String,
    },
    /// No answer in time.
    #[error("the supervisor did not answer within {0:?}; it is hung or the host is overloaded")]
    Hung(Duration),
    /// The ask cannot be sent.
    #[error("cannot talk to the supervisor")]
    Socket(#[from] SocketError),
    /// The answer is of another kind than the question.
    #[error("the supervisor answered something else: {0}")]
    Confused(String),
    /// The thread that hears it cannot be started.
    #[error("cannot start the thread that hears the supervisor")]
    Thread(#[source] io::Error),
}

/// There is no supervisor for this engine.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The state directory cannot hold its socket.
    #[error("cannot use {} for the supervisor", path.display())]
    Directory {
        /// The file in question.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The path of the socket does not fit a socket address.
    #[error("the socket path {} is too long: use a state directory of at most 90 bytes", path.display())]
    LongPath {
        /// The path.
        path: PathBuf,
    },
    /// Its program cannot be started.
    #[error("cannot start the supervisor {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It does not return the greeting.
    #[error("the supervisor does not serve this engine")]
    Greeting(#[from] AskError),
}
