//! One microVM's process: event loop, control socket, jail, fork.
//!
//! Two halves share the protocol. [`Cell`] is the engine's end of a control socket: it starts a cell, asks it for
//! things and learns how it ended. [`process::main`] is the cell itself, which knows nothing of who steers it.

mod client;
pub mod pages;
pub mod process;
pub mod protocol;

/// CPU time of a cell until now, for as long as its status was not taken.
pub use brood_control::cpu_ns;
/// The clock that a cell's events are stamped with, for who measures from before one to after it.
pub use brood_vmm::now;
pub use client::{
    Births, Cell, CellError, CellProgram, Collapsed, EndCause, Ends, Fork, Handle, LayerSource,
    RestoreParts, Saved, WarmParts, become_reaper,
};
