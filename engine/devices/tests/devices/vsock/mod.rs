//! The vsock device between a guest driver and host sockets.

mod client;
mod daughter;
pub(crate) mod guest;
mod stream;
