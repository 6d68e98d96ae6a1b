//! The event descriptors between a device and KVM: one interrupt (irqfd), one kick per queue (ioeventfd).
//!
//! They belong to one process and one VM. A daughter forgets the mother's and gets her own.

use std::io;
use std::mem;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// A device's interrupt and kicks.
#[derive(Debug)]
pub struct Events {
    interrupt: EventFd,
    kicks: Vec<EventFd>,
}

impl Events {
    /// Makes nonblocking, close-on-exec eventfds for a device with `queues` queues.
    ///
    /// # Errors
    /// eventfd(2) failed: descriptors or memory are exhausted.
    pub fn new(queues: usize) -> io::Result<Self> {
        Ok(Self {
            interrupt: event()?,
            kicks: (0..queues).map(|_| event()).collect::<io::Result<_>>()?,
        })
    }

    /// Written by the device, edge-triggered: register it as the irqfd of the device's GSI.
    pub fn interrupt(&self) -> &EventFd {
        &self.interrupt
    }

    /// One for each queue, in order: register kick `n` as the ioeventfd at `QueueNotify` (offset 0x50) with datamatch
    /// `n`, and poll it.
    pub fn kicks(&self) -> &[EventFd] {
        &self.kicks
    }

    /// Drops the values without closing the descriptors.
    pub(crate) fn forget(self) {
        mem::forget(self.interrupt);
        self.kicks.into_iter().for_each(mem::forget);
    }
}

/// A nonblocking, close-on-exec eventfd.
fn event() -> io::Result<EventFd> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
}

/// Adds one to `event`. A full counter is a signal that was not taken yet, so nothing is lost.
pub(crate) fn signal(event: &EventFd) -> io::Result<()> {
    match event.write(1) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

/// Sets the counter of `event` back to zero.
pub(crate) fn drain(event: &EventFd) -> io::Result<()> {
    match event.read() {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}
