//! Ids, instants and stages: the words every crate shares. No I/O, no clock, no randomness: values are passed in.

mod id;
mod instant;
mod stage;
mod timestamp;

pub use id::{IntentId, KeyId, MachineId, ParseIdError, SnapshotId};
pub use instant::Instant;
pub use stage::Stage;
pub use timestamp::Timestamp;
