//! One descriptor chain, read once from guest memory and validated before a device sees it.
//!
//! Invariant: every segment of a [`Chain`] lies inside guest RAM, readable segments precede writable ones, and there
//! are at most as many as the ring has descriptors. The guest may scribble over its descriptors afterwards: the copy
//! here is what counts.

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend};

use crate::GuestMemory;

/// Size of one descriptor in bytes (virtio 1.3 §2.7.5).
const DESCRIPTOR_BYTES: u32 = 16;

/// What is wrong with a descriptor chain.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum ChainError {
    /// A head, `next` field or indirect entry names a descriptor outside its table.
    #[error("descriptor index {index} is outside a table of {size}")]
    Index {
        /// The index the guest gave.
        index: u16,
        /// Entries in the table.
        size: u16,
    },
    /// The descriptor table entry cannot be read.
    #[error("descriptor at {address:#x} is not in guest memory")]
    Table {
        /// Guest physical address of the descriptor.
        address: u64,
    },
    /// A buffer is not entirely in guest RAM.
    #[error("buffer of {len} bytes at {address:#x} is not in guest memory")]
    Buffer {
        /// Guest physical address of the buffer.
        address: u64,
        /// Its length in bytes.
        len: u32,
    },
    /// The chain has more descriptors than the ring (virtio 1.3 §2.7.5.3.1), which is how a loop shows.
    #[error("chain is longer than {size} descriptors")]
    Length {
        /// Descriptors of the ring.
        size: u16,
    },
    /// A device-readable buffer follows a device-writable one (virtio 1.3 §2.7.4.2).
    #[error("readable buffer after a writable one")]
    Order,
    /// An indirect descriptor that was not negotiated, is nested, chained on, or of a wrong size (§2.7.5.3).
    #[error("invalid indirect descriptor")]
    Indirect,
    /// The buffers do not have the direction or the size that this device's requests have.
    #[error("chain does not fit the device: {what}")]
    Shape {
        /// Which expectation was broken.
        what: &'static str,
    },
    /// A validated buffer could not be accessed.
    #[error("guest memory at {address:#x} could not be accessed")]
    Access {
        /// Guest physical address of the access.
        address: u64,
    },
}

/// Whether the driver may use indirect descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Indirect {
    /// `VIRTIO_F_INDIRECT_DESC` was not negotiated.
    Refused,
    /// It was.
    Allowed,
}

/// The descriptor table that a chain is read from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    /// Guest physical address of the first descriptor.
    pub(crate) address: GuestAddress,
    /// Number of descriptors.
    pub(crate) size: u16,
    /// Whether indirect tables are in use.
    pub(crate) indirect: Indirect,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    address: GuestAddress,
    len: u32,
}

/// A validated descriptor chain. Reused between requests, so that a burst costs one allocation.
#[derive(Debug, Default)]
pub struct Chain {
    head: u16,
    readable: Vec<Segment>,
    writable: Vec<Segment>,
}

impl Chain {
    /// Index of the first descriptor: what the used ring names.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Bytes the device may read.
    pub fn readable_len(&self) -> u64 {
        self.readable.iter().map(|s| u64::from(s.len)).sum()
    }

    /// Bytes the device may write.
    pub fn writable_len(&self) -> u64 {
        self.writable.iter().map(|s| u64::from(s.len)).sum()
    }

    /// Copies `buf.len()` bytes of the device-readable part, from byte `offset` of it.
    ///
    /// # Errors
    /// [`ChainError::Shape`] if the chain is shorter than that, [`ChainError::Access`] if memory vanished.
    pub fn read(&self, mem: &GuestMemory, offset: u64, buf: &mut [u8]) -> Result<(), ChainError> {
        let mut done = 0;
        for (address, len) in pieces(&self.readable, offset, buf.len()) {
            let piece = buf.get_mut(done..done + len).ok_or(SHORT)?;
            mem.read_slice(piece, address)
                .map_err(|_| ChainError::Access {
                    address: address.raw_value(),
                })?;
            done += len;
        }
        if done == buf.len() {
            Ok(())
        } else {
            Err(SHORT)
        }
    }

    /// Copies `buf` to the device-writable part, at byte `offset` of it.
    ///
    /// # Errors
    /// As for [`Chain::read`].
    pub fn write(&self, mem: &GuestMemory, offset: u64, buf: &[u8]) -> Result<(), ChainError> {
        let mut done = 0;
        for (address, len) in pieces(&self.writable, offset, buf.len()) {
            let piece = buf.get(done..done + len).ok_or(SHORT)?;
            mem.write_slice(piece, address)
                .map_err(|_| ChainError::Access {
                    address: address.raw_value(),
                })?;
            done += len;
        }
        if done == buf.len() {
            Ok(())
        } else {
            Err(SHORT)
        }
    }

    /// Reads the chain that starts at `head` of `table` into `self`, dropping what was there.
    pub(crate) fn load(
        &mut self,
        mem: &GuestMemory,
        table: Table,
        head: u16,
    ) -> Result<(), ChainError> {
        self.head = head;
        self.readable.clear();
        self.writable.clear();
        let ring_size = table.size;
        let (mut table, mut index) = (table, head);
        // One extra round for the descriptor that only points at the indirect table.
        for _ in 0..=ring_size {
            let descriptor = table.descriptor(mem, index)?;
            if descriptor.refers_to_indirect_table() {
                table = table.indirect(&descriptor, ring_size)?;
                index = 0;
                continue;
            }
            self.push(mem, &descriptor, ring_size)?;
            if !descriptor.has_next() {
                return Ok(());
            }
            index = descriptor.next();
        }
        Err(ChainError::Length { size: ring_size })
    }

    fn push(
        &mut self,
        mem: &GuestMemory,
        descriptor: &Descriptor,
        ring_size: u16,
    ) -> Result<(), ChainError> {
        let segment = Segment {
            address: descriptor.addr(),
            len: descriptor.len(),
        };
        if self.readable.len() + self.writable.len() >= usize::from(ring_size) {
            return Err(ChainError::Length { size: ring_size });
        }
        if !GuestMemoryBackend::check_range(mem, segment.address, segment.len as usize) {
            return Err(ChainError::Buffer {
                address: segment.address.raw_value(),
                len: segment.len,
            });
        }
        if descriptor.is_write_only() {
            self.writable.push(segment);
        } else if self.writable.is_empty() {
            self.readable.push(segment);
        } else {
            return Err(ChainError::Order);
        }
        Ok(())
    }
}

const SHORT: ChainError = ChainError::Shape {
    what: "too few bytes",
};

impl Table {
    fn descriptor(self, mem: &GuestMemory, index: u16) -> Result<Descriptor, ChainError> {
        if index >= self.size {
            return Err(ChainError::Index {
                index,
                size: self.size,
            });
        }
        let offset = u64::from(index) * u64::from(DESCRIPTOR_BYTES);
        let unreadable = ChainError::Table {
            address: self.address.raw_value(),
        };
        let address = self.address.checked_add(offset).ok_or(unreadable)?;
        mem.read_obj(address).map_err(|_| unreadable)
    }

    /// The table that `descriptor` points at. The result refuses a second level (§2.7.5.3.1).
    fn indirect(self, descriptor: &Descriptor, ring_size: u16) -> Result<Self, ChainError> {
        let entries = descriptor.len() / DESCRIPTOR_BYTES;
        let whole = descriptor.len().is_multiple_of(DESCRIPTOR_BYTES);
        let size = u16::try_from(entries).map_err(|_| ChainError::Indirect)?;
        let allowed = self.indirect == Indirect::Allowed;
        if !allowed || !whole || descriptor.has_next() || size == 0 || size > ring_size {
            return Err(ChainError::Indirect);
        }
        Ok(Self {
            address: descriptor.addr(),
            size,
            indirect: Indirect::Refused,
        })
    }
}

/// The contiguous guest ranges that hold bytes `offset..offset + len` of `segments`.
fn pieces(
    segments: &[Segment],
    offset: u64,
    len: usize,
) -> impl Iterator<Item = (GuestAddress, usize)> {
    let (mut skip, mut left) = (offset, len);
    segments.iter().map_while(move |segment| {
        if left == 0 {
            return None;
        }
        let segment_len = u64::from(segment.len);
        if skip >= segment_len {
            skip -= segment_len;
            return Some((segment.address, 0));
        }
        // Validated when the chain was loaded: the whole segment is below 2^64.
        let address = segment.address.unchecked_add(skip);
        let available = usize::try_from(segment_len - skip).unwrap_or(usize::MAX);
        let piece = available.min(left);
        skip = 0;
        left -= piece;
        Some((address, piece))
    })
}
