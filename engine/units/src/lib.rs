//! Ids, instants and stages: the words every crate shares. No I/O, no clock, no randomness: values are passed in.

mod id;
mod instant;
mod stage;

pub use id::{MachineId, ParseMachineIdError};
pub use instant::Instant;
pub use stage::Stage;
