//! Decision records: what was asked, told, answered and used, call by call.
//!
//! Invariant: a record holds everything that the call's outcome depends on but the component and the settings document,
//! which it names by digest. With those two it replays bit for bit, in this process or, read from a line, in another.

mod line;
mod log;

use std::sync::Arc;

use brood_hooks::{Failure, HookName, Now, Permits};
use brood_policy::{Limits, LogLevel, Mode};
use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::call::HostAnswer;

pub use line::{RECORD_VERSION, ReadRecordError, WriteRecordError};
pub use log::{RecordLog, RecordNotKept, RecordOptions, RecordSink, Retention};

/// One call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its number in this process.
    pub number: u64,
    /// The instant it saw.
    pub now: Now,
    /// Which hook.
    pub hook: HookName,
    /// Which plugin.
    pub plugin: String,
    /// The binding's mode.
    pub mode: Mode,
    /// The component.
    pub component: Digest,
    /// Its settings.
    pub settings: Digest,
    /// What it may use.
    pub limits: Limits,
    /// What it may reach for.
    pub permits: Permits,
    /// Log lines it was told are kept.
    pub log_level: LogLevel,
    /// Whether the instance had been used before, so that its memory is part of what it answered.
    pub warm: bool,
    /// What was asked, in postcard.
    pub ask: Arc<[u8]>,
    /// What the host answered meanwhile.
    pub host_answers: Vec<HostAnswer>,
    /// What was answered, in postcard, right or wrong; none if there was no answer.
    pub answer: Option<Vec<u8>>,
    /// Why it does not count.
    pub failure: Option<Failure>,
    /// Whether the answer refuses something.
    pub refuses: bool,
    /// Fuel used.
    pub fuel_used: u64,
    /// Time taken, nanoseconds, instance and all.
    pub took_nanos: u64,
}

impl Record {
    /// Bytes that it is counted as.
    pub fn size(&self) -> u64 {
        let answers = self
            .host_answers
            .iter()
            .map(HostAnswer::size)
            .sum::<usize>();
        let answer = self.answer.as_ref().map_or(0, Vec::len);
        (size_of::<Self>() + self.ask.len() + answers + answer) as u64
    }

    /// Whether it is kept within the bounds of refusals and failures.
    pub const fn matters(&self) -> bool {
        self.refuses || self.failure.is_some()
    }
}
