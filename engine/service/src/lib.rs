//! The engine behind every front: Linux machines with an agent, the stamped fork, and what is decided around it.
//!
//! Invariant: this crate decides through `brood-hooks` and acts through `brood-cell`; it sees neither Wasm nor HTTP.

pub mod ask;
pub mod decision;
pub mod engine;
pub mod files;
pub mod fork;
pub mod hold;
pub mod host;
pub mod identity;
mod keeper;
pub mod line;
pub mod machine;
pub mod node;
pub mod path;
pub mod process;
pub mod secret;
pub mod snapshot;
pub mod usage;
