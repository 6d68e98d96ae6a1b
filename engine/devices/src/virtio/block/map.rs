//! The block map: which layer holds a 4 KiB block of the disk, and where in it.
//!
//! ```text
//!  block number   [ leaf index | 9 bits ]
//!                       │          └──► entry in the leaf: layer + slot, zeroes, or "see the base"
//!                       └──► leaf, allocated by the first write into its 2 MiB of disk
//! ```
//!
//! Invariant: a lookup is two loads whatever the depth of the lineage. An untouched disk has no table at all, and a
//! write dirties one page of it, so that fork's copy-on-write copies little.

/// Bytes of a block.
pub(super) const BLOCK: u64 = 4096;
/// Entries of a leaf: one page, 2 MiB of disk.
const LEAF: usize = 512;

/// Where a block's bytes are.
///
/// ```text
///  63     62..48   47..32      31..0
///  zero   unused   layer + 1   slot          all zero: the base (or zeroes, if there is none)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Entry(u64);

const ZERO_BIT: u64 = 1 << 63;

impl Entry {
    /// The block was never written.
    pub(super) const BASE: Self = Self(0);
    /// The block reads as zeroes and no layer has a place for it.
    pub(super) const ZERO: Self = Self(ZERO_BIT);

    /// The block is slot `slot` of layer `layer`.
    pub(super) fn slot(layer: u16, slot: u32) -> Self {
        let [a, b, c, d] = slot.to_le_bytes();
        let [e, f, g, h] = (u32::from(layer) + 1).to_le_bytes();
        Self(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }

    /// The same place, but the block reads as zeroes until it is written there again.
    pub(super) fn zeroed(self) -> Self {
        Self(self.0 | ZERO_BIT)
    }

    /// Whether the block reads as zeroes.
    pub(super) fn is_zero(self) -> bool {
        self.0 & ZERO_BIT != 0
    }

    /// The layer and slot that are the block's, whether or not its bytes are there.
    pub(super) fn place(self) -> Option<(u16, u32)> {
        let [a, b, c, d, e, f, _, _] = self.0.to_le_bytes();
        let layer = u16::from_le_bytes([e, f]).checked_sub(1)?;
        Some((layer, u32::from_le_bytes([a, b, c, d])))
    }
}

type Leaf = [Entry; LEAF];

/// Entries for every block of one disk.
#[derive(Debug, Clone)]
pub(super) struct BlockMap {
    blocks: u64,
    leaves: Vec<Option<Box<Leaf>>>,
}

impl BlockMap {
    /// A map of `blocks` blocks, all of them at the base.
    pub(super) fn new(blocks: u64) -> Self {
        Self {
            blocks,
            leaves: Vec::new(),
        }
    }

    /// The entry of `block`; a block past the end is at the base.
    pub(super) fn entry(&self, block: u64) -> Entry {
        let (leaf, entry) = split(block);
        self.leaves
            .get(leaf)
            .and_then(Option::as_deref)
            .and_then(|leaf| leaf.get(entry))
            .copied()
            .unwrap_or_default()
    }

    /// Replaces the entry of `block` and returns the one before. A block past the end has none to replace.
    pub(super) fn replace(&mut self, block: u64, new: Entry) -> Entry {
        if block >= self.blocks {
            return Entry::BASE;
        }
        if self.leaves.is_empty() {
            let (last, _) = split(self.blocks - 1);
            self.leaves = vec![None; last + 1];
        }
        let (leaf, entry) = split(block);
        let Some(leaf) = self.leaves.get_mut(leaf) else {
            return Entry::BASE;
        };
        let leaf = leaf.get_or_insert_with(|| Box::new([Entry::BASE; LEAF]));
        leaf.get_mut(entry)
            .map_or(Entry::BASE, |old| std::mem::replace(old, new))
    }

    /// The first block at or after `block` that is not at the base, found by skipping untouched leaves; looks at no
    /// more than `budget` leaves and entries, which it takes from `budget`.
    pub(super) fn next_written(&self, block: u64, budget: &mut u32) -> Scan {
        let mut block = block;
        while block < self.blocks {
            if *budget == 0 {
                return Scan::Paused(block);
            }
            *budget -= 1;
            let (leaf, entry) = split(block);
            let Some(leaf) = self.leaves.get(leaf) else {
                return Scan::End;
            };
            match leaf {
                None => block = (block | (LEAF as u64 - 1)) + 1,
                Some(leaf) => match leaf.get(entry) {
                    Some(found) if *found != Entry::BASE => return Scan::Found(block, *found),
                    _ => block += 1,
                },
            }
        }
        Scan::End
    }
}

/// What [`BlockMap::next_written`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scan {
    /// This block has this entry.
    Found(u64, Entry),
    /// The budget ran out; go on here.
    Paused(u64),
    /// No block at or after the start is written.
    End,
}

fn split(block: u64) -> (usize, usize) {
    let leaf = usize::try_from(block / LEAF as u64).unwrap_or(usize::MAX);
    // Below 512.
    let entry = (block % LEAF as u64) as usize;
    (leaf, entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_keeps_layer_and_slot_apart_from_the_zero_mark() {
        let entry = Entry::slot(u16::MAX - 1, u32::MAX);
        assert_eq!(entry.place(), Some((u16::MAX - 1, u32::MAX)));
        assert!(!entry.is_zero());
        assert_eq!(entry.zeroed().place(), entry.place());
        assert!(entry.zeroed().is_zero());
        assert_eq!(entry.zeroed().zeroed(), entry.zeroed());
        assert_eq!(Entry::slot(2, 9).place(), Some((2, 9)));
        assert_eq!(Entry::ZERO.place(), None);
        assert_ne!(Entry::slot(0, 0), Entry::BASE);
    }

    #[test]
    fn untouched_map_allocates_nothing_and_reads_do_not_allocate() {
        let map = BlockMap::new(1 << 24);
        assert_eq!(map.entry(12345), Entry::BASE);
        assert_eq!(map.leaves.capacity(), 0);
    }

    #[test]
    fn scan_skips_holes_and_stops_at_its_budget() {
        let mut map = BlockMap::new(1 << 20);
        map.replace(700_000, Entry::slot(1, 7));
        let mut budget = 4000;
        assert_eq!(
            map.next_written(0, &mut budget),
            Scan::Found(700_000, Entry::slot(1, 7))
        );
        assert_eq!(map.next_written(700_001, &mut budget), Scan::End);
        let mut small = 2;
        assert_eq!(map.next_written(0, &mut small), Scan::Paused(1024));
        // From the middle of an untouched leaf to its end is one step.
        assert_eq!(map.next_written(5, &mut 1), Scan::Paused(512));
        assert_eq!(map.next_written(1 << 20, &mut 0), Scan::End);
    }

    #[test]
    fn last_partial_leaf_is_usable_and_past_it_nothing_is() {
        let mut map = BlockMap::new(513);
        map.replace(512, Entry::ZERO);
        assert_eq!(map.entry(512), Entry::ZERO);
        assert_eq!(map.replace(513, Entry::ZERO), Entry::BASE);
        assert_eq!(map.entry(513), Entry::BASE);
        assert_eq!(map.leaves.len(), 2);
        let mut whole = BlockMap::new(1024);
        whole.replace(0, Entry::ZERO);
        assert_eq!(whole.leaves.len(), 2);
    }
}
