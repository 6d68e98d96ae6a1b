//! A well-behaved split-queue driver for virtio-mmio: initialisation, buffers, notifications, interrupts.
//!
//! It notifies only when the device asked for it, so a device that forgets to ask hangs here as it would in a guest.

use std::collections::HashMap;

use brood_devices::GuestMemory;
use brood_devices::virtio::{Events, Progress, TransportState, VirtioDevice, VirtioMmio};
use vm_memory::{Bytes, GuestAddress};

/// Size of guest memory.
pub(crate) const RAM: usize = 16 << 20;
/// Where buffers are allocated from; rings are below.
pub(crate) const HEAP: u64 = 1 << 20;

pub(crate) const EVENT_IDX: u64 = 1 << 29;
pub(crate) const INDIRECT: u64 = 1 << 28;
pub(crate) const VERSION_1: u64 = 1 << 32;

/// One buffer of a chain.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Buf {
    /// Device-readable.
    Out(u64, u32),
    /// Device-writable.
    In(u64, u32),
}

pub(crate) struct Ring {
    pub(crate) size: u16,
    pub(crate) desc: u64,
    pub(crate) avail: u64,
    pub(crate) used: u64,
    avail_index: u16,
    kicked_index: u16,
    used_index: u16,
    free: Vec<u16>,
    chains: HashMap<u16, Vec<u16>>,
}

pub(crate) struct Driver<D> {
    pub(crate) mem: GuestMemory,
    pub(crate) dev: VirtioMmio<D>,
    pub(crate) rings: Vec<Ring>,
    pub(crate) features: u64,
    heap: u64,
    /// Rounds of queue work done.
    pub(crate) rounds: usize,
}

impl<D: VirtioDevice> Driver<D> {
    /// A driver that has set everything up, with every feature the device offers.
    pub(crate) fn start(device: D) -> Self {
        Self::start_with(device, u64::MAX)
    }

    /// A driver that accepts the offered features within `mask`.
    pub(crate) fn start_with(device: D, mask: u64) -> Self {
        let queues = device.queue_max_sizes().len();
        let dev = VirtioMmio::new(device, Events::new(queues).unwrap()).unwrap();
        let mut driver = Self::around(dev);
        driver.initialise(mask);
        driver
    }

    /// A driver that has done nothing yet.
    pub(crate) fn around(dev: VirtioMmio<D>) -> Self {
        let mem = GuestMemory::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
        Self {
            mem,
            dev,
            rings: Vec::new(),
            features: 0,
            heap: HEAP,
            rounds: 0,
        }
    }

    pub(crate) fn read(&self, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.dev.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    pub(crate) fn write(&mut self, offset: u64, value: u32) {
        self.dev.write(offset, &value.to_le_bytes()).unwrap();
    }

    /// virtio 1.3 §3.1.1
    pub(crate) fn initialise(&mut self, mask: u64) {
        assert_eq!(self.read(0x00), 0x7472_6976);
        assert_eq!(self.read(0x04), 2);
        self.write(0x70, 0);
        assert_eq!(self.read(0x70), 0);
        self.write(0x70, 1);
        self.write(0x70, 3);
        self.write(0x14, 0);
        let low = u64::from(self.read(0x10));
        self.write(0x14, 1);
        let high = u64::from(self.read(0x10));
        self.features = (low | high << 32) & (mask | VERSION_1);
        self.write(0x24, 0);
        self.write(0x20, self.features as u32);
        self.write(0x24, 1);
        self.write(0x20, (self.features >> 32) as u32);
        self.write(0x70, 0xb);
        assert_eq!(self.read(0x70) & 8, 8, "features refused");
        self.rings.clear();
        for index in 0.. {
            self.write(0x30, index);
            let size = self.read(0x34) as u16;
            if size == 0 {
                break;
            }
            self.set_up_ring(index, size);
        }
        self.write(0x70, 0xf);
        assert_eq!(self.read(0x70), 0xf);
        self.pump();
        self.take_interrupt();
    }

    fn set_up_ring(&mut self, index: u32, size: u16) {
        let base = 0x1_0000 + u64::from(index) * 0x1_0000;
        let (desc, avail, used) = (base, base + 0x4000, base + 0x8000);
        self.mem
            .write_slice(&[0; 0xc000], GuestAddress(base))
            .unwrap();
        self.write(0x38, u32::from(size));
        for (register, address) in [(0x80, desc), (0x90, avail), (0xa0, used)] {
            self.write(register, address as u32);
            self.write(register + 4, (address >> 32) as u32);
        }
        self.write(0x44, 1);
        assert_eq!(self.read(0x44), 1);
        self.rings.push(Ring {
            size,
            desc,
            avail,
            used,
            avail_index: 0,
            kicked_index: 0,
            used_index: 0,
            free: (0..size).rev().collect(),
            chains: HashMap::new(),
        });
    }

    /// Guest memory for a buffer, zeroed at first.
    pub(crate) fn alloc(&mut self, len: u64) -> u64 {
        let address = self.heap;
        self.heap += len.next_multiple_of(16);
        assert!(self.heap <= RAM as u64, "test uses too much guest memory");
        address
    }

    pub(crate) fn put(&self, address: u64, bytes: &[u8]) {
        self.mem.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub(crate) fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.mem
            .read_slice(&mut bytes, GuestAddress(address))
            .unwrap();
        bytes
    }

    /// Makes a chain of `bufs` available, without a notification. Returns its head.
    pub(crate) fn add(&mut self, queue: usize, bufs: &[Buf]) -> u16 {
        let ring = &mut self.rings[queue];
        let indices: Vec<u16> = bufs
            .iter()
            .map(|_| ring.free.pop().expect("ring is full"))
            .collect();
        for (nth, (buf, index)) in bufs.iter().zip(&indices).enumerate() {
            let next = indices.get(nth + 1).copied();
            let at = GuestAddress(ring.desc + u64::from(*index) * 16);
            self.mem.write_slice(&descriptor(*buf, next), at).unwrap();
        }
        let head = indices[0];
        ring.chains.insert(head, indices);
        let slot = u64::from(ring.avail_index % ring.size);
        let entry = GuestAddress(ring.avail + 4 + 2 * slot);
        self.mem.write_obj(head, entry).unwrap();
        ring.avail_index = ring.avail_index.wrapping_add(1);
        self.mem
            .write_obj(ring.avail_index, GuestAddress(ring.avail + 2))
            .unwrap();
        head
    }

    /// Notifies if the device wants it (virtio 1.3 §2.7.10), and lets the device's main loop run.
    pub(crate) fn kick(&mut self, queue: usize) {
        if self.should_notify(queue) {
            self.write(0x50, queue as u32);
        }
        self.pump();
    }

    fn should_notify(&mut self, queue: usize) -> bool {
        let ring = &mut self.rings[queue];
        let old = std::mem::replace(&mut ring.kicked_index, ring.avail_index);
        if self.features & EVENT_IDX == 0 {
            let flags: u16 = self.mem.read_obj(GuestAddress(ring.used)).unwrap();
            return flags & 1 == 0;
        }
        let at = GuestAddress(ring.used + 4 + 8 * u64::from(ring.size));
        let event: u16 = self.mem.read_obj(at).unwrap();
        ring.avail_index.wrapping_sub(event).wrapping_sub(1) < ring.avail_index.wrapping_sub(old)
    }

    /// The main loop of the device's owner: takes every pending kick, until the device has no more work.
    pub(crate) fn pump(&mut self) {
        for queue in 0..self.rings.len() {
            if self.dev.events().unwrap().kicks()[queue].read().is_ok() {
                self.process(queue);
            }
        }
    }

    /// Processes a queue until the device says that there is no more work.
    pub(crate) fn process(&mut self, queue: usize) {
        loop {
            self.rounds += 1;
            assert!(self.rounds < 1_000_000, "device never finishes");
            if self.dev.process(queue, &self.mem).unwrap() != Progress::More {
                break;
            }
        }
    }

    /// The next used chain: head and length.
    pub(crate) fn used(&mut self, queue: usize) -> Option<(u16, u32)> {
        let ring = &mut self.rings[queue];
        let index: u16 = self.mem.read_obj(GuestAddress(ring.used + 2)).unwrap();
        if index == ring.used_index {
            return None;
        }
        let slot = u64::from(ring.used_index % ring.size);
        let entry: [u32; 2] = self
            .mem
            .read_obj(GuestAddress(ring.used + 4 + 8 * slot))
            .unwrap();
        ring.used_index = ring.used_index.wrapping_add(1);
        // used_event: interrupt at the next entry.
        let at = GuestAddress(ring.avail + 4 + 2 * u64::from(ring.size));
        self.mem.write_obj(ring.used_index, at).unwrap();
        let head = entry[0] as u16;
        let indices = ring
            .chains
            .remove(&head)
            .expect("device returned a chain it was not given");
        ring.free.extend(indices);
        Some((head, entry[1]))
    }

    /// Whether the interrupt was raised since the last call, and its causes, which are acknowledged.
    pub(crate) fn take_interrupt(&mut self) -> Option<u32> {
        let raised = self.dev.events().unwrap().interrupt().read().is_ok();
        let causes = self.read(0x60);
        self.write(0x64, causes);
        raised.then_some(causes)
    }

    /// The same guest with another device model: what a daughter has, made from the saved state.
    pub(crate) fn daughter(&self, device: D, state: &TransportState) -> Self {
        let queues = device.queue_max_sizes().len();
        let events = Events::new(queues).unwrap();
        let mem = GuestMemory::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
        mem.write_slice(&self.bytes(0, RAM), GuestAddress(0))
            .unwrap();
        let rings = self.rings.iter().map(Ring::copy).collect();
        Self {
            mem,
            dev: VirtioMmio::from_state(device, state, events).unwrap(),
            rings,
            features: self.features,
            heap: self.heap,
            rounds: 0,
        }
    }
}

impl Ring {
    fn copy(&self) -> Self {
        Self {
            free: self.free.clone(),
            chains: self.chains.clone(),
            ..*self
        }
    }
}

/// The 16 bytes of a descriptor.
pub(crate) fn descriptor(buf: Buf, next: Option<u16>) -> [u8; 16] {
    let (address, len, write) = match buf {
        Buf::Out(address, len) => (address, len, 0),
        Buf::In(address, len) => (address, len, 2),
    };
    let flags: u16 = write | u16::from(next.is_some());
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.unwrap_or(0).to_le_bytes());
    bytes
}
