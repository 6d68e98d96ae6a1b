//! What an operator sets of the edge.

use std::num::NonZeroU32;
use std::time::Duration;

pub use brood_service::engine::TenantLabels;

/// Requests a second if nobody says: more than a client that waits for its answers makes, and few enough that one that
/// does not leaves others their turn.
const KEY_RATE: NonZeroU32 = NonZeroU32::new(1000).expect("not 0");
const TENANT_RATE: NonZeroU32 = NonZeroU32::new(2000).expect("not 0");

/// How many requests are taken: so many at once, and one more each time so much of it has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The most at once.
    pub burst: NonZeroU32,
    /// How long one more takes to come.
    pub each: Duration,
}

impl Bucket {
    /// So many a second on the long run, and twice as many at once.
    pub fn per_second(count: NonZeroU32) -> Self {
        Self {
            burst: count.saturating_add(count.get()),
            each: Duration::from_secs(1) / count.get(),
        }
    }
}

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
    /// How long a client may take to read on, once what it was sent fills the connection.
    pub write_time: Duration,
    /// How long a stream says nothing before it says that it lives, and looks whether its key still holds.
    pub heartbeat: Duration,
    /// How long requests may take to end when the server stops.
    pub drain_time: Duration,
    /// Requests of one key.
    pub key_rate: Bucket,
    /// Requests of all keys of one tenant.
    pub tenant_rate: Bucket,
    /// Whether metrics tell tenants apart.
    pub tenant_labels: TenantLabels,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 1024,
            body_bytes: 1 << 20,
            head_time: Duration::from_secs(30),
            body_time: Duration::from_secs(10),
            write_time: Duration::from_secs(30),
            heartbeat: Duration::from_secs(15),
            drain_time: Duration::from_secs(10),
            key_rate: Bucket::per_second(KEY_RATE),
            tenant_rate: Bucket::per_second(TENANT_RATE),
            tenant_labels: TenantLabels::default(),
        }
    }
}
