//! The in-guest agent: runs programs, moves files, and takes the workload through a fork.
//!
//! A thread a connection, a thread a running program, and nothing else: no async runtime, no name service, one static
//! file. Invariant: nothing a client sends ends the agent, and nothing but a message of the fork protocol thaws a
//! frozen workload (no timer, no lost connection).

mod agent;
mod cgroup;
mod connection;
mod exec;
mod fail;
mod file;
mod freezer;
mod gate;
mod helper;
pub mod init;
pub mod listener;
mod mem;
pub mod options;
mod serial;
mod server;
mod stamp;
mod stat;
pub mod system;

pub use agent::Agent;
pub use mem::keep_small;
pub use server::serve;
