//! What a snapshot holds of a transport: registers and ring positions, no device state and no descriptors.

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueState, QueueT};

use crate::virtio::queue::VirtQueue;

/// Registers and rings of one virtio-mmio device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportState {
    /// Device status (virtio 1.3 §2.1).
    pub status: u32,
    /// Feature bits the driver wrote; they are in force if `status` has `FEATURES_OK`.
    pub driver_features: u64,
    /// Which half of the offered features is read.
    pub device_features_sel: u32,
    /// Which half of the accepted features is written.
    pub driver_features_sel: u32,
    /// The queue that the queue registers mean.
    pub queue_sel: u32,
    /// Unacknowledged interrupt causes.
    pub interrupt_status: u32,
    /// One for each queue, in order.
    pub rings: Vec<RingState>,
}

/// Position and addresses of one split ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingState {
    /// Descriptors, as chosen by the driver.
    pub size: u16,
    /// Whether the driver enabled the queue.
    pub ready: bool,
    /// Free-running index of the next chain to take.
    pub next_avail: u16,
    /// Free-running index of the next used entry.
    pub next_used: u16,
    /// Guest physical address of the descriptor table.
    pub desc_table: u64,
    /// Guest physical address of the available ring.
    pub avail_ring: u64,
    /// Guest physical address of the used ring.
    pub used_ring: u64,
}

/// Why a saved state does not fit a device.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The state has another number of queues.
    #[error("state has {found} queues, the device {expected}")]
    Queues {
        /// Queues in the state.
        found: usize,
        /// Queues of the device.
        expected: usize,
    },
    /// The state's driver accepted features that this device does not offer.
    #[error("state has features {found:#x}, the device offers {offered:#x}")]
    Features {
        /// Features in the state.
        found: u64,
        /// Features offered.
        offered: u64,
    },
    /// A ring has a size or an alignment that no ring can have.
    #[error("ring {index} is invalid")]
    Ring {
        /// Queue index.
        index: usize,
        /// What is wrong with it.
        source: virtio_queue::Error,
    },
    /// The given events have another number of kicks.
    #[error("{found} kick events for {expected} queues")]
    Events {
        /// Kicks given.
        found: usize,
        /// Queues of the device.
        expected: usize,
    },
}

impl RingState {
    pub(crate) fn of(queue: &VirtQueue) -> Self {
        let state = queue.ring().state();
        Self {
            size: state.size,
            ready: state.ready,
            next_avail: state.next_avail,
            next_used: state.next_used,
            desc_table: state.desc_table,
            avail_ring: state.avail_ring,
            used_ring: state.used_ring,
        }
    }

    /// The ring this describes, with the device's own limit on its size.
    pub(crate) fn restore(&self, max_size: u16) -> Result<Queue, virtio_queue::Error> {
        let mut ring = Queue::try_from(QueueState {
            max_size,
            next_avail: self.next_avail,
            next_used: self.next_used,
            event_idx_enabled: false,
            size: self.size,
            ready: self.ready,
            desc_table: self.desc_table,
            avail_ring: self.avail_ring,
            used_ring: self.used_ring,
        })?;
        ring.set_event_idx(false);
        Ok(ring)
    }
}
