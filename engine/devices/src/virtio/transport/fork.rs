//! What fork(2) and a warm start ask of a transport.
//!
//! ```text
//!   attached ──forget_events()──► detached ──attach(events)──► attached ──redeliver(mem)──► as before the fork
//!      ▲                              state() / from_state()
//!      └── mother: nothing to do
//! ```
//!
//! Invariant: no kick and no interrupt of before is lost. Spurious ones are legal (virtio 1.3 §2.7.7, §2.7.23).

use std::os::fd::RawFd;

use super::{TransportError, VirtioMmio};
use crate::GuestMemory;
use crate::virtio::device::{Progress, VirtioDevice};
use crate::virtio::events::Events;
use crate::virtio::queue::VirtQueue;
use crate::virtio::registers::{DRIVER_OK, FEATURES_OK, INT_VRING};
use crate::virtio::state::{RingState, StateError, TransportState};

impl<D: VirtioDevice> VirtioMmio<D> {
    /// In a process made by fork(2): gives up the mother's event descriptors, and those the device has from her,
    /// without closing any (`close_range` follows). The device is detached from then on.
    pub fn forget_events(&mut self) {
        if let Some(events) = self.events.take() {
            events.forget();
        }
        self.device.forget_fds();
    }

    /// Gives a detached device its own event descriptors. Those of an attached one are closed.
    ///
    /// # Errors
    /// `events` has not one kick for each queue; the device stays as it was.
    pub fn attach(&mut self, events: Events) -> Result<(), StateError> {
        if events.kicks().len() != self.queues.len() {
            return Err(StateError::Events {
                found: events.kicks().len(),
                expected: self.queues.len(),
            });
        }
        self.events = Some(events);
        Ok(())
    }

    /// After [`VirtioMmio::attach`]: does a round of work on every queue and interrupts the driver once, since kicks
    /// and interrupts of the mother's descriptors did not come along.
    ///
    /// # Errors
    /// [`TransportError::Detached`], or a failing eventfd.
    pub fn redeliver(&mut self, mem: &GuestMemory) -> Result<Progress, TransportError> {
        let mut progress = Progress::Idle;
        for index in 0..self.queues.len() {
            match (progress, self.process(index, mem)?) {
                (_, Progress::More) | (Progress::More, _) => progress = Progress::More,
                (_, Progress::Stalled) => progress = Progress::Stalled,
                (_, Progress::Idle) => {}
            }
        }
        if self.status & DRIVER_OK != 0 {
            // An interrupt for a change of configuration stays pending in the register.
            self.interrupt(INT_VRING)?;
        }
        Ok(progress)
    }

    /// Adds the descriptors that survive a fork (disk base and layers).
    pub fn kept_fds(&self, fds: &mut Vec<RawFd>) {
        self.device.kept_fds(fds);
    }

    /// Registers and ring positions. The device's own state is saved by the device.
    pub fn state(&self) -> TransportState {
        TransportState {
            status: self.status,
            driver_features: self.driver_features,
            device_features_sel: self.device_features_sel,
            driver_features_sel: self.driver_features_sel,
            queue_sel: self.queue_sel,
            interrupt_status: self.interrupt_status,
            rings: self.queues.iter().map(RingState::of).collect(),
        }
    }

    /// A device in another process as it was when `state` was saved. [`VirtioMmio::redeliver`] follows.
    ///
    /// # Errors
    /// `state` or `events` is not one of such a device.
    pub fn from_state(
        device: D,
        state: &TransportState,
        events: Events,
    ) -> Result<Self, StateError> {
        let sizes = device.queue_max_sizes();
        let expected = sizes.len();
        if state.rings.len() != expected {
            let found = state.rings.len();
            return Err(StateError::Queues { found, expected });
        }
        let mut queues = Vec::with_capacity(expected);
        for (index, (ring, max_size)) in state.rings.iter().zip(sizes).enumerate() {
            let ring = ring
                .restore(*max_size)
                .map_err(|source| StateError::Ring { index, source })?;
            queues.push(VirtQueue::from_ring(
                ring,
                crate::virtio::chain::Indirect::Refused,
            ));
        }
        let mut this = Self {
            device,
            queues,
            status: state.status,
            driver_features: state.driver_features,
            device_features_sel: state.device_features_sel,
            driver_features_sel: state.driver_features_sel,
            queue_sel: state.queue_sel,
            interrupt_status: state.interrupt_status,
            events: None,
            fault: None,
        };
        this.attach(events)?;
        let offered = this.offered_features();
        if this.status & FEATURES_OK != 0 {
            if state.driver_features & !offered != 0 {
                let found = state.driver_features;
                return Err(StateError::Features { found, offered });
            }
            this.apply_features();
        }
        if this.active() {
            this.device.activate(this.driver_features);
        } else {
            this.device.reset();
        }
        Ok(this)
    }
}
