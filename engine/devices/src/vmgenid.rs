//! VM Generation ID: 16 bytes of guest memory that change when a VM is no longer the one it was, and an interrupt.
//!
//! The guest finds the address through ACPI (`_HID` QEMUVGID or `VM_Gen_Counter`, `ADDR`), and Linux reseeds its
//! random number generator on the notification. That happens some time later, so nothing that must be true before
//! the workload runs may rely on it.

use std::io;
use std::mem;

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use crate::GuestMemory;
use crate::virtio::signal;

/// Bytes of a generation id.
pub const GENERATION_BYTES: usize = 16;

/// The generation id device.
#[derive(Debug)]
pub struct VmGenId {
    address: GuestAddress,
    event: Option<EventFd>,
}

/// A new generation could not be announced.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The event was forgotten and none attached yet. Nothing was written.
    #[error("generation id has no event descriptor")]
    Detached,
    /// The address is not in guest RAM.
    #[error("generation id at {address:#x} is not in guest memory")]
    Memory {
        /// Guest physical address.
        address: u64,
        /// The cause.
        source: vm_memory::GuestMemoryError,
    },
    /// The id was written but the interrupt failed.
    #[error("generation id event failed")]
    Event(#[source] io::Error),
}

impl VmGenId {
    /// A device whose id is at `address` (guest physical) and whose interrupt is `event`, to be registered as the
    /// irqfd of the GSI that ACPI names.
    pub fn new(address: GuestAddress, event: EventFd) -> Self {
        Self {
            address,
            event: Some(event),
        }
    }

    /// Guest physical address of the id.
    pub fn address(&self) -> GuestAddress {
        self.address
    }

    /// The interrupt, unless detached.
    pub fn event(&self) -> Option<&EventFd> {
        self.event.as_ref()
    }

    /// Writes `id` and notifies the guest.
    ///
    /// # Errors
    /// The device is detached, the address is not RAM, or the eventfd failed.
    pub fn set(
        &self,
        mem: &GuestMemory,
        id: [u8; GENERATION_BYTES],
    ) -> Result<(), GenerationError> {
        let event = self.event.as_ref().ok_or(GenerationError::Detached)?;
        mem.write_slice(&id, self.address)
            .map_err(|source| GenerationError::Memory {
                address: self.address.0,
                source,
            })?;
        signal(event).map_err(GenerationError::Event)
    }

    /// In a process made by fork(2): gives up the mother's event without closing it.
    pub fn forget_event(&mut self) {
        if let Some(event) = self.event.take() {
            mem::forget(event);
        }
    }

    /// Gives the device its own event.
    pub fn attach(&mut self, event: EventFd) {
        self.event = Some(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    fn event() -> EventFd {
        EventFd::new(EFD_NONBLOCK).unwrap()
    }

    fn memory() -> GuestMemory {
        GuestMemory::from_ranges(&[(GuestAddress(0), 0x2000)]).unwrap()
    }

    #[test]
    fn new_generation_is_written_and_then_announced() {
        let mem = memory();
        let device = VmGenId::new(GuestAddress(0x1000), event());
        device.set(&mem, [7; 16]).unwrap();
        let id: [u8; 16] = mem.read_obj(GuestAddress(0x1000)).unwrap();
        assert_eq!(id, [7; 16]);
        assert_eq!(device.event().unwrap().read().unwrap(), 1);
    }

    #[test]
    fn detached_or_misplaced_device_writes_nothing() {
        let mem = memory();
        let mut device = VmGenId::new(GuestAddress(0x1ff8), event());
        assert!(matches!(
            device.set(&mem, [1; 16]),
            Err(GenerationError::Memory { .. })
        ));
        device.forget_event();
        assert!(matches!(
            device.set(&mem, [1; 16]),
            Err(GenerationError::Detached)
        ));
        device.attach(event());
        assert!(device.event().is_some());
    }
}
