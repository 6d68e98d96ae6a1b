//! A virtio-mmio transport as small as can be, to try the guest's drivers against: one device, queues worked off in the write to
//! QueueNotify. It believes what the driver says and panics where that makes no sense, since here the driver is under test.

use brood_bare_guest::layout::VIRTIO_WINDOWS;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::harness::Bus;

pub(crate) mod model;

/// A driver's chain: its head, and the (address, bytes, device may write) of each buffer.
pub(crate) type Chain = (u16, Vec<(u64, u32, bool)>);

/// One virtqueue as the driver set it up.
#[derive(Default)]
pub(crate) struct Queue {
    size: u32,
    addresses: [u64; 3],
    ready: bool,
    seen: u16,
    used: u16,
}

impl Queue {
    /// The next chain that the driver has made available.
    pub(crate) fn pop(&mut self, memory: &GuestMemoryMmap) -> Option<Chain> {
        let [table, available, _] = self.addresses;
        if !self.ready || self.seen == word::<u16>(memory, available + 2) {
            return None;
        }
        let head: u16 = word(
            memory,
            available + 4 + u64::from(self.seen) % u64::from(self.size) * 2,
        );
        self.seen = self.seen.wrapping_add(1);
        let (mut buffers, mut index) = (Vec::new(), head);
        loop {
            let at = table + u64::from(index) * 16;
            let flags: u16 = word(memory, at + 12);
            buffers.push((word(memory, at), word(memory, at + 8), flags & 2 != 0));
            if flags & 1 == 0 {
                return Some((head, buffers));
            }
            index = word(memory, at + 14);
        }
    }

    /// Gives a chain back, with the number of bytes written to it.
    pub(crate) fn push(&mut self, memory: &GuestMemoryMmap, head: u16, bytes: u32) {
        let ring = self.addresses[2];
        let at = ring + 4 + u64::from(self.used) % u64::from(self.size) * 8;
        memory
            .write_obj(u32::from(head), GuestAddress(at))
            .expect("used ring in RAM");
        memory
            .write_obj(bytes, GuestAddress(at + 4))
            .expect("used ring in RAM");
        self.used = self.used.wrapping_add(1);
        memory
            .write_obj(self.used, GuestAddress(ring + 2))
            .expect("used ring in RAM");
    }
}

/// Reads a little-endian integer of guest memory.
pub(crate) fn word<T: vm_memory::ByteValued>(memory: &GuestMemoryMmap, address: u64) -> T {
    memory
        .read_obj(GuestAddress(address))
        .expect("driver's memory in RAM")
}

/// What a device does with its queues.
pub(crate) trait Model: Send {
    /// Virtio device id.
    fn id(&self) -> u32;
    /// Works off the queues, after a notification.
    fn work(&mut self, memory: &GuestMemoryMmap, queues: &mut [Queue; 3]);
    /// A word of the configuration space.
    fn config(&self, _offset: u64) -> u32 {
        0
    }
    /// The driver has reset the device.
    fn reset(&mut self) {}
}

/// A device in window 0 with three queues.
pub(crate) struct Double<M> {
    memory: GuestMemoryMmap,
    model: M,
    queues: [Queue; 3],
    selected: usize,
    feature_page: u32,
    status: u32,
}

impl<M: Model> Double<M> {
    pub(crate) fn new(memory: &GuestMemoryMmap, model: M) -> Self {
        let (memory, queues) = (memory.clone(), Default::default());
        Self {
            memory,
            model,
            queues,
            selected: 0,
            feature_page: 0,
            status: 0,
        }
    }
}

impl<M: Model> Bus for Double<M> {
    fn turn(&mut self) {
        const DRIVER_OK: u32 = 4;
        if self.status & DRIVER_OK != 0 {
            self.model.work(&self.memory, &mut self.queues);
        }
    }

    fn read(&mut self, address: u64, data: &mut [u8]) {
        let value = match address.wrapping_sub(VIRTIO_WINDOWS) {
            0x000 => u32::from_le_bytes(*b"virt"),
            0x004 => 2,
            0x008 => self.model.id(),
            0x010 => u32::from(self.feature_page == 1),
            0x034 => 256,
            0x070 => self.status,
            offset @ 0x100..0x200 => self.model.config(offset - 0x100),
            offset if offset < 0x1000 => 0,
            _ => u32::MAX,
        };
        let bytes = u64::from(value).to_le_bytes();
        data.copy_from_slice(&bytes[..data.len()]);
    }

    fn write(&mut self, address: u64, data: &[u8]) {
        let Ok(bytes) = data.try_into() else { return };
        let value = u32::from_le_bytes(bytes);
        let queue = self.queues.get_mut(self.selected);
        match address.wrapping_sub(VIRTIO_WINDOWS) {
            0x014 => self.feature_page = value,
            0x030 => self.selected = value as usize,
            0x038 => queue.into_iter().for_each(|queue| queue.size = value),
            0x044 => queue.into_iter().for_each(|queue| queue.ready = value == 1),
            0x050 => self.turn(),
            0x070 => {
                self.status = value;
                if value == 0 {
                    self.queues = Default::default();
                    self.model.reset();
                }
            }
            offset @ (0x080 | 0x084 | 0x090 | 0x094 | 0x0a0 | 0x0a4) => {
                let shift = offset % 8 * 8;
                let Some(queue) = queue else { return };
                let place = &mut queue.addresses[(offset as usize - 0x080) / 0x10];
                *place = *place & !(u64::from(u32::MAX) << shift) | u64::from(value) << shift;
            }
            _ => {}
        }
    }
}
