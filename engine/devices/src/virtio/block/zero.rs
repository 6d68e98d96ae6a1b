//! Discarded and zeroed ranges of an overlay. Whole blocks change only the map and need no layer.
//!
//! Invariant: a block of the writable layer keeps its slot, so that no sequence of writes and discards makes a layer
//! larger than the disk.

use super::map::{BLOCK, Entry, Scan};
use super::overlay::{DiskError, Overlay};

/// Zeroes written at once for a part of a block.
static ZEROES: [u8; BLOCK as usize] = [0; BLOCK as usize];

/// The whole blocks within a range, and the parts of blocks before and after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Split {
    head: (u64, u64),
    blocks: (u64, u64),
    tail: (u64, u64),
}

impl Overlay {
    /// Whether zeroing the range writes parts of blocks, for which a layer is needed.
    pub(super) fn zero_needs_layer(&self, offset: u64, len: u64) -> bool {
        let split = self.split(offset, len);
        split.head.1 > 0 || split.tail.1 > 0
    }

    /// Makes the range read as zeroes.
    pub(super) fn zero(&mut self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.check(offset, len)?;
        let split = self.split(offset, len);
        for (offset, len) in [split.head, split.tail] {
            let zeroes = usize::try_from(len).ok().and_then(|len| ZEROES.get(..len));
            if len > 0 {
                self.write(offset, zeroes.unwrap_or_default())?;
            }
        }
        let (first, end) = split.blocks;
        for block in first..end {
            let entry = self.map.entry(block);
            // A block that was never written is zero already where there is no base.
            if entry != Entry::BASE || self.has_base() {
                self.zero_block(block, entry);
            }
        }
        Ok(())
    }

    /// The guest needs the range no more: what was written of its whole blocks reads as zeroes from now on, blocks
    /// at the base stay (virtio 1.3 §5.2.6.2 leaves the content open).
    pub(super) fn discard(&mut self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.check(offset, len)?;
        let (mut block, end) = self.split(offset, len).blocks;
        // Every round looks at a leaf or an entry of the range: as many as it has blocks are enough.
        let mut budget = u32::try_from(end.saturating_sub(block)).unwrap_or(u32::MAX);
        while let Scan::Found(found, entry) = self.map.next_written(block, &mut budget) {
            if found >= end {
                break;
            }
            self.zero_block(found, entry);
            block = found + 1;
        }
        Ok(())
    }

    fn zero_block(&mut self, block: u64, entry: Entry) {
        let own = entry
            .place()
            .filter(|(layer, _)| Some(*layer) == self.layers.writable());
        let zero = own.map_or(Entry::ZERO, |_| entry.zeroed());
        self.remap(block, zero);
    }

    fn split(&self, offset: u64, len: u64) -> Split {
        let end = offset + len;
        let first = offset.div_ceil(BLOCK);
        // The short block at the end of the disk is whole if the range reaches the end.
        let last = if end == self.capacity() {
            end.div_ceil(BLOCK)
        } else {
            end / BLOCK
        };
        if first >= last {
            // Within one block, or across the boundary of two.
            let middle = (first * BLOCK).clamp(offset, end);
            return Split {
                head: (offset, middle - offset),
                blocks: (0, 0),
                tail: (middle, end - middle),
            };
        }
        let tail = (last * BLOCK).min(end);
        Split {
            head: (offset, first * BLOCK - offset),
            blocks: (first, last),
            tail: (tail, end - tail),
        }
    }
}
