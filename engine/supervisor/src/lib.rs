//! The process that outlives the engine, and the engine's end of it.
//!
//! ```text
//!  brood serve ──supervisor.sock──► supervisor ──spawns──► cell ──fork──► daughter
//!       │                             │  keeps a duplicate    ▲             ▲
//!       └── control sockets of cells ─┼──────────────────────┴─────────────┘
//!           (its own ends)            └── is the reaper of all of them
//! ```
//!
//! [`process::main`] is the supervisor, a small program of one thread that runs no guest code and no plugin. It is the
//! parent of cells that are started and the reaper of daughters, holds their control sockets open while the engine is
//! away, and records how each ended until it is told that this was noted. [`Supervisor`] is the engine's end.
//! Invariant: the death of the engine does nothing to a cell; the death of the supervisor ends every cell, so that none
//! is left that nobody could find. It refuses a second engine, users other than its own and versions it does not speak.

mod client;
mod end;
pub mod process;
pub mod protocol;

pub use client::{AskError, CellHandle, ConnectError, Kept, Said, Supervisor, SupervisorProgram};
pub use end::{End, EndOfProcess};
