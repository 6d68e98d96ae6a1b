//! The wire between guest and host: a port device that carries commands in and ticks and replies out.
//!
//! All accesses are 32 bits wide. Each vCPU has its own latches. Invariant: every command is answered by exactly one
//! reply, in the order the commands were given, except one that ends the VM ([`Command::TripleFault`], a
//! [`Command::PortOut`] that powers off).
//!
//! | port | direction | meaning |
//! |---|---|---|
//! | [`TICK`] | OUT | one unit of progress; the value is the vCPU's index |
//! | [`NEXT`] | IN | opcode of the vCPU's next command, which is thereby fetched and its arguments latched; 0 = none. The host may hold the vCPU in this IN until there is one, or answer 0 |
//! | [`REPLY_LOW`] | OUT | low half of the reply, latched |
//! | [`REPLY_HIGH`] | OUT | high half; completes the reply |
//! | [`PENDING`] | IN | 1 if a command waits to be fetched, else 0; never blocks. A command that runs "until pending" looks here |
//! | [`ARGUMENTS`]` + 8 i`, ` + 4` | IN | low, high half of argument i = 0…3 of the command last fetched |

mod command;
mod reply;

pub use command::{ARGUMENT_COUNT, Command, Width};
pub use reply::{Fault, Outcome, outcome, reply};

/// OUT: one unit of progress.
pub const TICK: u16 = 0xb000;
/// IN: the next command's opcode.
pub const NEXT: u16 = 0xb004;
/// OUT: the low half of the reply.
pub const REPLY_LOW: u16 = 0xb008;
/// OUT: the high half of the reply, which completes it.
pub const REPLY_HIGH: u16 = 0xb00c;
/// IN: the first argument's low half.
pub const ARGUMENTS: u16 = 0xb010;
/// IN: whether a command waits.
pub const PENDING: u16 = 0xb030;
