//! The virtio-mmio transport: one device, its queues, its registers, its interrupt.
//!
//! ```text
//!  driver                    VirtioMmio<D>                      owner (main loop)
//!  register write ─exit──►   write()          kick ──ioeventfd──► notified()/process()
//!  QueueNotify ──────────────────────────────────────────────────►   │ D::process
//!  interrupt  ◄──irqfd──     InterruptStatus ◄───────────────────────┘
//! ```
//!
//! Invariant: after a fault of the guest the device touches guest memory no more until its driver writes 0 to
//! `Status`. Detached (between `forget_events` and `attach`) it answers with an error and loses nothing.

mod fork;
mod register_file;

use std::io;
use std::os::fd::RawFd;

use crate::GuestMemory;
use crate::virtio::device::{DeviceFault, Progress, VirtioDevice};
use crate::virtio::events::{self, Events};
use crate::virtio::queue::{QueueError, VirtQueue};
use crate::virtio::registers::{DRIVER_OK, INT_CONFIG, INT_VRING, NEEDS_RESET};
use crate::virtio::state::{StateError, TransportState};

/// An operation that needs the device's event descriptors could not be done.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The events were forgotten and none attached yet.
    #[error("device is detached: it has no event descriptors")]
    Detached,
    /// An eventfd could not be read or written.
    #[error("event descriptor failed")]
    Event(#[source] io::Error),
}

/// A virtio device on a virtio-mmio version 2 register file of 0x1000 bytes (virtio 1.3 §4.2.2).
#[derive(Debug)]
pub struct VirtioMmio<D> {
    device: D,
    queues: Vec<VirtQueue>,
    status: u32,
    driver_features: u64,
    device_features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u32,
    interrupt_status: u32,
    events: Option<Events>,
    fault: Option<DeviceFault>,
}

impl<D: VirtioDevice> VirtioMmio<D> {
    /// A device in its reset state.
    ///
    /// # Errors
    /// `events` has not one kick for each queue, or the device names an impossible queue size.
    pub fn new(device: D, events: Events) -> Result<Self, NewDeviceError> {
        let sizes = device.queue_max_sizes();
        if events.kicks().len() != sizes.len() {
            return Err(NewDeviceError::Events {
                found: events.kicks().len(),
                expected: sizes.len(),
            });
        }
        let queues = sizes.iter().map(|size| VirtQueue::new(*size));
        Ok(Self {
            queues: queues.collect::<Result<_, _>>()?,
            device,
            status: 0,
            driver_features: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
            interrupt_status: 0,
            events: Some(events),
            fault: None,
        })
    }

    /// The device model.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The device model, for what its owner does besides virtio (give a disk layer, listen on a port).
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// The event descriptors, unless detached.
    pub fn events(&self) -> Option<&Events> {
        self.events.as_ref()
    }

    /// Whether a driver is using the device: `DRIVER_OK` and no fault.
    pub fn active(&self) -> bool {
        self.status & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK
    }

    /// Why the device is `DEVICE_NEEDS_RESET`, until the driver resets it.
    pub fn fault(&self) -> Option<&DeviceFault> {
        self.fault.as_ref()
    }

    /// The kick of queue `index` became readable: resets it and processes the queue.
    ///
    /// # Errors
    /// As for [`VirtioMmio::process`].
    pub fn notified(
        &mut self,
        index: usize,
        mem: &GuestMemory,
    ) -> Result<Progress, TransportError> {
        let events = self.events.as_ref().ok_or(TransportError::Detached)?;
        if let Some(kick) = events.kicks().get(index) {
            events::drain(kick).map_err(TransportError::Event)?;
        }
        self.process(index, mem)
    }

    /// Does a bounded round of work on queue `index` and interrupts the driver if it asked for that. A queue that
    /// does not exist, or a device that is not active, has no work. A fault of the guest is not an error here: see
    /// [`VirtioMmio::fault`].
    ///
    /// # Errors
    /// [`TransportError::Detached`], with nothing processed, or a failing eventfd.
    pub fn process(&mut self, index: usize, mem: &GuestMemory) -> Result<Progress, TransportError> {
        if self.events.is_none() {
            return Err(TransportError::Detached);
        }
        if !self.active() || index >= self.queues.len() {
            return Ok(Progress::Idle);
        }
        let outcome = self.device.process(index, &mut self.queues, mem);
        let signals = self.take_signals(mem);
        if matches!(signals, Ok(true)) {
            self.interrupt(INT_VRING)?;
        }
        match (outcome, signals) {
            (Ok(progress), Ok(_)) => {
                if progress == Progress::More {
                    self.kick(index)?;
                }
                Ok(progress)
            }
            (Err(fault), _) => self.stop(fault).map(|()| Progress::Idle),
            (_, Err(error)) => self.stop(error.into()).map(|()| Progress::Idle),
        }
    }

    fn take_signals(&mut self, mem: &GuestMemory) -> Result<bool, QueueError> {
        let mut wanted = false;
        for queue in &mut self.queues {
            wanted |= queue.take_signal(mem)?;
        }
        Ok(wanted)
    }

    /// Sets `DEVICE_NEEDS_RESET` and tells the driver (virtio 1.3 §2.1.2).
    fn stop(&mut self, fault: DeviceFault) -> Result<(), TransportError> {
        let was_active = self.active();
        self.status |= NEEDS_RESET;
        self.fault = Some(fault);
        self.device.reset();
        if was_active {
            self.interrupt(INT_CONFIG)?;
        }
        Ok(())
    }

    /// Makes the kick of queue `index` readable; a queue that does not exist has none.
    fn kick(&self, index: usize) -> Result<(), TransportError> {
        let events = self.events.as_ref().ok_or(TransportError::Detached)?;
        events.kicks().get(index).map_or(Ok(()), |kick| {
            events::signal(kick).map_err(TransportError::Event)
        })
    }

    fn interrupt(&mut self, cause: u32) -> Result<(), TransportError> {
        self.interrupt_status |= cause;
        let events = self.events.as_ref().ok_or(TransportError::Detached)?;
        events::signal(events.interrupt()).map_err(TransportError::Event)
    }
}

/// A device could not be put on the transport.
#[derive(Debug, thiserror::Error)]
pub enum NewDeviceError {
    /// The given events have another number of kicks.
    #[error("{found} kick events for {expected} queues")]
    Events {
        /// Kicks given.
        found: usize,
        /// Queues of the device.
        expected: usize,
    },
    /// The device model names a queue size that virtio does not allow.
    #[error("device model has an impossible queue")]
    Queue(#[from] QueueError),
}

/// A [`VirtioMmio`] whatever its device, for an owner that keeps several in one list.
pub trait MmioDevice {
    /// [`VirtioMmio::read`]
    fn read(&self, offset: u64, data: &mut [u8]);
    /// [`VirtioMmio::write`]
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), TransportError>;
    /// [`VirtioMmio::notified`]
    fn notified(&mut self, index: usize, mem: &GuestMemory) -> Result<Progress, TransportError>;
    /// [`VirtioMmio::process`]
    fn process(&mut self, index: usize, mem: &GuestMemory) -> Result<Progress, TransportError>;
    /// [`VirtioMmio::fault`]
    fn fault(&self) -> Option<&DeviceFault>;
    /// [`VirtioMmio::events`]
    fn events(&self) -> Option<&Events>;
    /// [`VirtioMmio::forget_events`]
    fn forget_events(&mut self);
    /// [`VirtioMmio::attach`]
    fn attach(&mut self, events: Events) -> Result<(), StateError>;
    /// [`VirtioMmio::redeliver`]
    fn redeliver(&mut self, mem: &GuestMemory) -> Result<Progress, TransportError>;
    /// [`VirtioMmio::kept_fds`]
    fn kept_fds(&self, fds: &mut Vec<RawFd>);
    /// [`VirtioMmio::state`]
    fn state(&self) -> TransportState;
}

impl<D: VirtioDevice> MmioDevice for VirtioMmio<D> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.read(offset, data);
    }
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), TransportError> {
        self.write(offset, data)
    }
    fn notified(&mut self, index: usize, mem: &GuestMemory) -> Result<Progress, TransportError> {
        self.notified(index, mem)
    }
    fn process(&mut self, index: usize, mem: &GuestMemory) -> Result<Progress, TransportError> {
        self.process(index, mem)
    }
    fn fault(&self) -> Option<&DeviceFault> {
        self.fault()
    }
    fn events(&self) -> Option<&Events> {
        self.events()
    }
    fn forget_events(&mut self) {
        self.forget_events();
    }
    fn attach(&mut self, events: Events) -> Result<(), StateError> {
        self.attach(events)
    }
    fn redeliver(&mut self, mem: &GuestMemory) -> Result<Progress, TransportError> {
        self.redeliver(mem)
    }
    fn kept_fds(&self, fds: &mut Vec<RawFd>) {
        self.kept_fds(fds);
    }
    fn state(&self) -> TransportState {
        self.state()
    }
}
