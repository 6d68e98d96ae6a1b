//! How a process ended: what it said, what the kernel said, when.

use std::fmt;

use brood_units::{Instant, MachineId, Timestamp};
use serde::{Deserialize, Serialize};

/// How a cell's process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Its own last words, if it had any.
    pub words: Option<String>,
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
    /// CPU time of its process, nanoseconds, by whoever took its status; none where nobody could say.
    pub cpu_ns: Option<u64>,
    /// When the supervisor learned of it.
    pub at: Timestamp,
    /// The same, on the clock that does not jump.
    pub heard: Instant,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.words, self.signal, self.code) {
            (Some(words), _, _) => f.write_str(words),
            (None, Some(signal), _) => write!(f, "killed by signal {signal}"),
            (None, None, Some(code)) => write!(f, "exited with {code} without a word"),
            (None, None, None) => f.write_str("it is gone and nobody could say how"),
        }
    }
}

/// The end of one process below the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndOfProcess {
    /// The machine it was, if that was known to the supervisor.
    pub id: Option<MachineId>,
    /// Its process id.
    pub pid: u32,
    /// How it ended.
    pub end: End,
}
