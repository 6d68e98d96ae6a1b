//! virtio 1.3 devices behind the MMIO transport.
//!
//! A device implements [`VirtioDevice`]; [`VirtioMmio`] is the register file, the interrupt and the fork protocol
//! around it; [`MmioDevice`] is the same thing as a trait object, for an owner that keeps several in one list.

pub mod block;
mod chain;
mod device;
mod events;
mod queue;
mod registers;
pub mod rng;
mod state;
mod transport;
pub mod vsock;

pub use chain::{Chain, ChainError};
pub use device::{DeviceFault, Progress, VirtioDevice};
pub use events::Events;
pub(crate) use events::signal;
pub use queue::{QueueError, VirtQueue};
pub use state::{RingState, StateError, TransportState};
pub use transport::{MmioDevice, NewDeviceError, TransportError, VirtioMmio};
