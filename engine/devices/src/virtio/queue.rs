//! A split virtqueue as a device uses it: pop a validated chain, push it used, know whether to interrupt.
//!
//! Invariant: a ring that reaches outside guest RAM, or an index that runs ahead by more than the ring's size, is an
//! error and never an endless walk. A queue that is not ready is simply empty.

use std::sync::atomic::Ordering;

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::GuestMemory;
use crate::virtio::chain::{Chain, ChainError, Indirect, Table};

/// Why a virtqueue cannot be used any further.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// A ring is not entirely in guest RAM.
    #[error("virtqueue rings are not in guest memory")]
    Rings,
    /// The rings could not be read or written, or the available index is nonsense.
    #[error("virtqueue access failed")]
    Ring(#[source] virtio_queue::Error),
    /// A descriptor chain is malformed.
    #[error("descriptor chain is malformed")]
    Chain(#[from] ChainError),
    /// The device's queue size is not one virtio allows: a defect of the device model.
    #[error("queue of {max_size} descriptors cannot exist")]
    Size {
        /// The size asked for.
        max_size: u16,
    },
}

/// One virtqueue.
#[derive(Debug)]
pub struct VirtQueue {
    ring: Queue,
    indirect: Indirect,
    /// The rings were found to be inside guest RAM since the queue was last made ready.
    checked: bool,
    /// Something was added to the used ring since the last interrupt decision.
    used_added: bool,
}

impl VirtQueue {
    pub(crate) fn new(max_size: u16) -> Result<Self, QueueError> {
        let ring = Queue::new(max_size).map_err(|_| QueueError::Size { max_size })?;
        Ok(Self::from_ring(ring, Indirect::Refused))
    }

    pub(crate) fn from_ring(ring: Queue, indirect: Indirect) -> Self {
        Self {
            ring,
            indirect,
            checked: false,
            used_added: false,
        }
    }

    /// The ring's registers and indices.
    pub(crate) fn ring(&self) -> &Queue {
        &self.ring
    }

    /// The same, to be changed by the driver's register writes.
    pub(crate) fn ring_mut(&mut self) -> &mut Queue {
        self.checked = false;
        &mut self.ring
    }

    pub(crate) fn set_indirect(&mut self, indirect: Indirect) {
        self.indirect = indirect;
    }

    pub(crate) fn reset(&mut self) {
        self.ring.reset();
        self.indirect = Indirect::Refused;
        self.checked = false;
        self.used_added = false;
    }

    /// Whether the driver has set the queue up.
    pub fn ready(&self) -> bool {
        self.ring.ready()
    }

    /// Takes the next available chain into `chain`; false if there is none. On false, with
    /// `VIRTIO_F_EVENT_IDX`, the driver's next buffer is sure to come with a notification.
    ///
    /// # Errors
    /// Any nonsense in the rings or the chain.
    pub fn pop(&mut self, mem: &GuestMemory, chain: &mut Chain) -> Result<bool, QueueError> {
        if !self.ready() {
            return Ok(false);
        }
        self.check(mem)?;
        let mut head = self.next_head(mem)?;
        if head.is_none() && self.ring.event_idx_enabled() {
            // virtio 1.3 §2.7.10: publish avail_event, then look again for what came in between.
            let more = self
                .ring
                .enable_notification(mem)
                .map_err(QueueError::Ring)?;
            if more {
                head = self.next_head(mem)?;
            }
        }
        let Some(head) = head else {
            return Ok(false);
        };
        let table = Table {
            address: GuestAddress(self.ring.desc_table()),
            size: self.ring.size(),
            indirect: self.indirect,
        };
        chain.load(mem, table, head)?;
        Ok(true)
    }

    /// Puts the chain that was popped last back: it will be popped again.
    pub fn unpop(&mut self) {
        self.ring.go_to_previous_position();
    }

    /// Returns the chain that starts at `head` to the driver, with `len` bytes written to it.
    ///
    /// # Errors
    /// If the used ring cannot be written.
    pub fn push_used(&mut self, mem: &GuestMemory, head: u16, len: u32) -> Result<(), QueueError> {
        self.ring
            .add_used(mem, head, len)
            .map_err(QueueError::Ring)?;
        self.used_added = true;
        Ok(())
    }

    /// The driver's available index: it moves whenever the driver gives a buffer.
    ///
    /// # Errors
    /// If the ring cannot be read.
    pub fn avail_index(&mut self, mem: &GuestMemory) -> Result<u16, QueueError> {
        self.check(mem)?;
        let index = self.ring.avail_idx(mem, Ordering::Acquire);
        index.map(|index| index.0).map_err(QueueError::Ring)
    }

    /// Whether the driver wants an interrupt for what was used since the last call.
    ///
    /// # Errors
    /// If the rings cannot be read.
    pub(crate) fn take_signal(&mut self, mem: &GuestMemory) -> Result<bool, QueueError> {
        if !std::mem::take(&mut self.used_added) {
            return Ok(false);
        }
        // Also the full barrier between writing the used ring and reading what the driver asks for (§2.7.7.2).
        let wanted = self
            .ring
            .needs_notification(mem)
            .map_err(QueueError::Ring)?;
        if self.ring.event_idx_enabled() {
            return Ok(wanted);
        }
        let flags: u16 = mem
            .load(GuestAddress(self.ring.avail_ring()), Ordering::Relaxed)
            .map_err(|source| QueueError::Ring(virtio_queue::Error::GuestMemory(source)))?;
        Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    fn next_head(&mut self, mem: &GuestMemory) -> Result<Option<u16>, QueueError> {
        let mut available = self.ring.iter(mem).map_err(QueueError::Ring)?;
        Ok(available.next().map(|chain| chain.head_index()))
    }

    fn check(&mut self, mem: &GuestMemory) -> Result<(), QueueError> {
        if !self.checked {
            if !self.ring.is_valid(mem) {
                return Err(QueueError::Rings);
            }
            self.checked = true;
        }
        Ok(())
    }
}
