//! Drivers for virtio-mmio version 2 devices, polled, one request or connection at a time.
//!
//! What a driver must remember from one command to the next lies in the device's arena, so a fork copies it like all
//! memory and the daughter goes on with the queues as they are.

pub mod blk;
pub mod device;
pub mod mmio;
pub mod nonsense;
pub mod queue;
pub mod rng;
pub mod vsock;

/// Polls before a device counts as dead: seconds, at 40 to 140 cycles for a `pause`.
pub const PATIENCE: u32 = 100_000_000;
