//! Register reads and writes (virtio 1.3 §4.2.2, §4.2.3; status: §2.1 and §3.1.1).
//!
//! Registers are 32 bits wide and aligned; any other access reads zero and writes nothing. A write that no step of
//! initialisation allows is ignored, a value that no queue can have is a fault.

use virtio_queue::QueueT;
use vm_memory::GuestAddress;

use super::{TransportError, VirtioMmio};
use crate::virtio::chain::Indirect;
use crate::virtio::device::{DeviceFault, VirtioDevice};
use crate::virtio::queue::VirtQueue;
use crate::virtio::registers as reg;

impl<D: VirtioDevice> VirtioMmio<D> {
    /// A load of `data.len()` bytes at `offset` of the register file.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(offset) = offset.checked_sub(reg::CONFIG) {
            self.device.read_config(offset, data);
        } else if let (Ok(word), 0) = (<&mut [u8; 4]>::try_from(data), offset % 4) {
            *word = self.register(offset).to_le_bytes();
        }
    }

    /// A store of `data` at `offset` of the register file.
    ///
    /// # Errors
    /// The store called for an interrupt or a kick, and the device is detached or the eventfd failed. The registers
    /// have changed all the same.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), TransportError> {
        if let Some(offset) = offset.checked_sub(reg::CONFIG) {
            if self.active() {
                self.device.write_config(offset, data);
            }
        } else if let (Ok(word), 0) = (<[u8; 4]>::try_from(data), offset % 4) {
            return self.set_register(offset, u32::from_le_bytes(word));
        }
        Ok(())
    }

    /// All features this device has, with those of the transport itself.
    pub(super) fn offered_features(&self) -> u64 {
        self.device.features()
            | (1 << reg::VIRTIO_F_VERSION_1)
            | (1 << reg::VIRTIO_RING_F_INDIRECT_DESC)
    }

    /// Puts the features in force into the queues.
    pub(super) fn apply_features(&mut self) {
        let event_idx = self.driver_features & (1 << reg::VIRTIO_RING_F_EVENT_IDX) != 0;
        let indirect = if self.driver_features & (1 << reg::VIRTIO_RING_F_INDIRECT_DESC) == 0 {
            Indirect::Refused
        } else {
            Indirect::Allowed
        };
        for queue in &mut self.queues {
            queue.ring_mut().set_event_idx(event_idx);
            queue.set_indirect(indirect);
        }
    }

    fn register(&self, offset: u64) -> u32 {
        let queue = self.selected().map(VirtQueue::ring);
        match offset {
            reg::MAGIC_VALUE => reg::MAGIC,
            reg::VERSION_REGISTER => reg::VERSION,
            reg::DEVICE_ID => self.device.device_type(),
            reg::VENDOR_ID => reg::VENDOR,
            reg::DEVICE_FEATURES => half(self.offered_features(), self.device_features_sel),
            reg::QUEUE_SIZE_MAX => queue.map_or(0, |queue| u32::from(queue.max_size())),
            reg::QUEUE_READY => queue.map_or(0, |queue| u32::from(queue.ready())),
            reg::INTERRUPT_STATUS => self.interrupt_status,
            reg::STATUS => self.status,
            reg::SHM_FIRST..=reg::SHM_LAST => u32::MAX,
            // ConfigGeneration: no device here changes its configuration space.
            _ => 0,
        }
    }

    fn set_register(&mut self, offset: u64, value: u32) -> Result<(), TransportError> {
        match offset {
            reg::DEVICE_FEATURES_SEL => self.device_features_sel = value,
            reg::DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            reg::DRIVER_FEATURES => self.accept_features(value),
            reg::QUEUE_SEL => self.queue_sel = value,
            // A notification that no ioeventfd took: handed to the main thread the same way.
            reg::QUEUE_NOTIFY => return self.kick(usize::try_from(value).unwrap_or(usize::MAX)),
            reg::INTERRUPT_ACK => self.interrupt_status &= !value,
            reg::STATUS => return self.set_status(value),
            reg::QUEUE_READY => self.set_queue_ready(value),
            reg::QUEUE_SIZE
            | reg::QUEUE_DESC_LOW
            | reg::QUEUE_DESC_HIGH
            | reg::QUEUE_DRIVER_LOW
            | reg::QUEUE_DRIVER_HIGH
            | reg::QUEUE_DEVICE_LOW
            | reg::QUEUE_DEVICE_HIGH => return self.configure_queue(offset, value),
            _ => {}
        }
        Ok(())
    }

    fn accept_features(&mut self, value: u32) {
        if self.status & reg::FEATURES_OK != 0 {
            return;
        }
        let (keep, set) = match self.driver_features_sel {
            0 => (0xffff_ffff_0000_0000, u64::from(value)),
            1 => (0x0000_0000_ffff_ffff, u64::from(value) << 32),
            _ => return,
        };
        self.driver_features = (self.driver_features & keep) | set;
    }

    /// The driver only adds bits, in order, or resets with 0. Anything else leaves the status as it is.
    fn set_status(&mut self, value: u32) -> Result<(), TransportError> {
        if value == 0 {
            self.reset();
            return Ok(());
        }
        let driver_bits = value & !reg::NEEDS_RESET;
        let kept = self.status & !reg::NEEDS_RESET;
        if driver_bits & kept != kept {
            return Ok(());
        }
        let mut added = driver_bits & !kept;
        if added & reg::FEATURES_OK != 0 && !self.features_acceptable() {
            added &= !reg::FEATURES_OK;
        }
        let features_ok = (self.status | added) & reg::FEATURES_OK != 0;
        if added & reg::DRIVER_OK != 0 && (!features_ok || self.status & reg::NEEDS_RESET != 0) {
            added &= !reg::DRIVER_OK;
        }
        self.status |= added;
        if added & reg::FEATURES_OK != 0 {
            self.apply_features();
        }
        if added & reg::DRIVER_OK != 0 {
            self.device.activate(self.driver_features);
            // Buffers made available while the queues were being set up are looked at without a notification.
            for index in 0..self.queues.len() {
                self.kick(index)?;
            }
        }
        Ok(())
    }

    fn features_acceptable(&self) -> bool {
        let unknown = self.driver_features & !self.offered_features();
        unknown == 0 && self.driver_features & (1 << reg::VIRTIO_F_VERSION_1) != 0
    }

    fn reset(&mut self) {
        self.device.reset();
        self.queues.iter_mut().for_each(VirtQueue::reset);
        self.status = 0;
        self.driver_features = 0;
        self.device_features_sel = 0;
        self.driver_features_sel = 0;
        self.queue_sel = 0;
        self.interrupt_status = 0;
        self.fault = None;
    }

    fn set_queue_ready(&mut self, value: u32) {
        let may_enable = self.configurable();
        if let Some(queue) = self.selected_mut() {
            let ring = queue.ring_mut();
            if value == 0 {
                ring.set_ready(false);
            } else if may_enable && !ring.ready() {
                ring.set_next_avail(0);
                ring.set_next_used(0);
                ring.set_ready(true);
            }
        }
    }

    fn configure_queue(&mut self, offset: u64, value: u32) -> Result<(), TransportError> {
        if !self.configurable() {
            return Ok(());
        }
        let Some(queue) = self.selected_mut() else {
            return Ok(());
        };
        let ring = queue.ring_mut();
        if ring.ready() {
            return Ok(());
        }
        let (desc, driver, device) = (ring.desc_table(), ring.avail_ring(), ring.used_ring());
        let accepted = match offset {
            reg::QUEUE_SIZE => match u16::try_from(value) {
                Ok(size) => ring.try_set_size(size),
                Err(_) => Err(virtio_queue::Error::InvalidSize),
            },
            reg::QUEUE_DESC_LOW => ring.try_set_desc_table_address(low(desc, value)),
            reg::QUEUE_DESC_HIGH => ring.try_set_desc_table_address(high(desc, value)),
            reg::QUEUE_DRIVER_LOW => ring.try_set_avail_ring_address(low(driver, value)),
            reg::QUEUE_DRIVER_HIGH => ring.try_set_avail_ring_address(high(driver, value)),
            reg::QUEUE_DEVICE_LOW => ring.try_set_used_ring_address(low(device, value)),
            _ => ring.try_set_used_ring_address(high(device, value)),
        };
        match accepted {
            Ok(()) => Ok(()),
            Err(_) => self.stop(DeviceFault::Register { offset, value }),
        }
    }

    /// Between `FEATURES_OK` and `DRIVER_OK` the driver sets up queues (virtio 1.3 §3.1.1).
    fn configurable(&self) -> bool {
        self.status & (reg::FEATURES_OK | reg::DRIVER_OK | reg::NEEDS_RESET) == reg::FEATURES_OK
    }

    fn selected(&self) -> Option<&VirtQueue> {
        self.queues.get(usize::try_from(self.queue_sel).ok()?)
    }

    fn selected_mut(&mut self) -> Option<&mut VirtQueue> {
        self.queues.get_mut(usize::try_from(self.queue_sel).ok()?)
    }
}

fn half(value: u64, select: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    match select {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

fn low(address: u64, value: u32) -> GuestAddress {
    GuestAddress((address & 0xffff_ffff_0000_0000) | u64::from(value))
}

fn high(address: u64, value: u32) -> GuestAddress {
    GuestAddress((address & 0x0000_0000_ffff_ffff) | (u64::from(value) << 32))
}
