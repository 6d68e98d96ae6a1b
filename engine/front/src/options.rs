//! What an operator sets of the edge.

use std::time::Duration;

/// Limits of the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The most connections at once; more wait to be accepted.
    pub connections: usize,
    /// The most bytes of a body.
    pub body_bytes: usize,
    /// How long a client may take to send the head of a request, or to begin the next one.
    pub head_time: Duration,
    /// How long a client may take to send a body.
    pub body_time: Duration,
    /// How long a stream says nothing before it says that it lives, and looks whether its key still holds.
    pub heartbeat: Duration,
    /// How long requests may take to end when the server stops.
    pub drain_time: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 1024,
            body_bytes: 1 << 20,
            head_time: Duration::from_secs(30),
            body_time: Duration::from_secs(10),
            heartbeat: Duration::from_secs(15),
            drain_time: Duration::from_secs(10),
        }
    }
}
