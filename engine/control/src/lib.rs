//! Between processes of the engine: whole messages with descriptors, the ends of children, last words.
//!
//! Engine, supervisor and cells are separate processes and share only this. Invariant: nothing here knows what the
//! messages mean, starts a process or waits for one.

mod children;
mod last_words;
mod seqpacket;

pub use children::{ChildEnd, Children, cpu_ns};
pub use last_words::{LastWords, MAX_WORDS, listener, say};
pub use seqpacket::{Control, MAX_BYTES, MAX_FDS, Received, SocketError};
