//! A blocking client of `/v1`.
//!
//! Invariant: where an operation is and how it is asked is read from the API's own table, never written here a second
//! time; what a server refuses comes back as the problem it sent, word for word. Plain HTTP alone: whoever wants more
//! than the own host or a trusted network puts a proxy or a tunnel in between.

mod address;
mod ask;
mod client;
mod error;
mod event;
mod exec;
mod file;
mod frames;
mod key;
mod look;
mod machine;
mod secret;
mod snapshot;
mod template;
mod terminal;
mod usage;

pub use address::{Address, AddressError};
pub use client::Client;
pub use error::{ClientError, Refused};
pub use event::{Followed, Follower};
pub use exec::{OutputFollower, Told};
pub use key::ApiKey;
pub use terminal::{Said, Terminal};
