//! Merging layers in the background, so that a lineage of any depth holds a bounded number of files.
//!
//! The map is flat, so layers have no order and any of them can be emptied. Those with the fewest live blocks are
//! copied into the writable layer: that costs least, and a large old layer is not copied again and again.
//!
//! Invariant: at every moment in between the disk reads the same, and a fork in between forks the merge as well.

use super::map::{BLOCK, Entry, Scan};
use super::overlay::{DiskError, Overlay};

/// Layers beyond which merging starts (an overlay holds a descriptor for each).
pub const MERGE_ABOVE: usize = 32;
/// Layers that a merge leaves.
const MERGE_TO: usize = 16;
/// Map entries looked at for each block that may be copied.
const LOOKS_PER_BLOCK: u32 = 64;

/// What a step of the merge came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeStep {
    /// There are few enough layers.
    NotNeeded,
    /// A writable layer has to be given first.
    NeedsLayer,
    /// Some blocks were copied and more remain.
    Copied {
        /// Blocks copied in this step.
        blocks: u32,
    },
    /// The merged layers are closed.
    Finished {
        /// Layers that are left.
        layers: usize,
    },
}

impl Overlay {
    /// Copies up to `budget` blocks out of the layers being merged.
    pub(super) fn merge_step(&mut self, budget: u32) -> Result<MergeStep, DiskError> {
        let mut cursor = match self.merge_cursor {
            Some(cursor) => cursor,
            None if self.layers.count() > MERGE_ABOVE => {
                self.choose_victims();
                0
            }
            None => return Ok(MergeStep::NotNeeded),
        };
        // A failure leaves the cursor here, where the step begins: what was copied is no victim's any more.
        self.merge_cursor = Some(cursor);
        if self.layers.writable().is_none() {
            return Ok(MergeStep::NeedsLayer);
        }
        let mut looks = budget.max(1).saturating_mul(LOOKS_PER_BLOCK);
        let mut blocks = 0;
        while self.layers.iter().any(|(_, layer)| layer.victim) {
            match self.map.next_written(cursor, &mut looks) {
                Scan::End => break,
                Scan::Paused(block) => {
                    self.merge_cursor = Some(block);
                    return Ok(MergeStep::Copied { blocks });
                }
                Scan::Found(block, entry) => {
                    if self.in_victim(entry) {
                        if blocks >= budget.max(1) {
                            self.merge_cursor = Some(block);
                            return Ok(MergeStep::Copied { blocks });
                        }
                        self.move_block(block, entry)?;
                        blocks += 1;
                    }
                    cursor = block + 1;
                }
            }
        }
        self.merge_cursor = None;
        Ok(MergeStep::Finished {
            layers: self.layers.count(),
        })
    }

    /// The frozen layers with the fewest live blocks, as many as have to go.
    fn choose_victims(&mut self) {
        let writable = self.layers.writable();
        let mut by_blocks: Vec<(u32, u16)> = self
            .layers
            .iter()
            .filter(|(index, _)| Some(*index) != writable)
            .map(|(index, layer)| (layer.blocks, index))
            .collect();
        by_blocks.sort_unstable();
        let excess = self.layers.count().saturating_sub(MERGE_TO);
        by_blocks.truncate(excess);
        for (index, layer) in self.layers.iter_mut() {
            layer.victim = by_blocks.iter().any(|(_, victim)| *victim == index);
        }
    }

    fn in_victim(&self, entry: Entry) -> bool {
        entry
            .place()
            .and_then(|(layer, _)| self.layers.layer(layer))
            .is_some_and(|layer| layer.victim)
    }

    fn move_block(&mut self, block: u64, entry: Entry) -> Result<(), DiskError> {
        if entry.is_zero() {
            self.remap(block, Entry::ZERO);
            return Ok(());
        }
        let offset = block * BLOCK;
        let mut bytes = [0; BLOCK as usize];
        let valid = usize::try_from(self.valid_len(block)).unwrap_or(bytes.len());
        let bytes = bytes.get_mut(..valid).unwrap_or_default();
        self.read(offset, bytes)?;
        self.write(offset, bytes)
    }
}
