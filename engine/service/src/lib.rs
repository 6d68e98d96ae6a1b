//! The engine behind every front: Linux machines with an agent, the stamped fork, and what is decided around it.
//!
//! Invariant: this crate decides through `brood-hooks` and acts through `brood-cell`; it sees neither Wasm nor HTTP.

pub mod files;
pub mod fork;
pub mod host;
pub mod identity;
pub mod machine;
pub mod process;
