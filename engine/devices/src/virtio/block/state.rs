//! What a snapshot holds of a disk: its map as extents over numbered layers. The files go along as descriptors.
//!
//! Invariant: a state is checked as input from outside before anything is built of it.

use std::fs::File;

use serde::{Deserialize, Serialize};

use super::Block;
use super::layer::MAX_LAYERS;
use super::map::{BLOCK, Entry, Scan};
use super::overlay::{OpenDiskError, Overlay};

/// A disk without its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockState {
    /// Size of the disk in bytes.
    pub capacity: u64,
    /// Disk id.
    pub id: [u8; super::ID_BYTES],
    /// Slots (4 KiB) used of each layer, in the order of [`Block::layer_files`].
    pub layers: Vec<u32>,
    /// Written blocks, ascending and not overlapping.
    pub extents: Vec<ExtentState>,
}

/// Consecutive blocks of a disk in consecutive slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtentState {
    /// First block (4 KiB) of the disk.
    pub block: u64,
    /// Number of blocks.
    pub count: u64,
    /// Index of the layer and first slot in it; none if the blocks are zeroes.
    pub place: Option<(u16, u32)>,
}

/// A saved disk cannot be made again.
#[derive(Debug, thiserror::Error)]
pub enum BlockStateError {
    /// The base or the capacity is no disk.
    #[error("disk cannot be opened")]
    Open(#[from] OpenDiskError),
    /// The base image given is not the one saved.
    #[error("base image has {found} bytes, the saved disk {expected}")]
    Capacity {
        /// Size of the base given.
        found: u64,
        /// Size in the state.
        expected: u64,
    },
    /// Another number of layers was given than saved, or too many.
    #[error("{found} layers given, {expected} saved")]
    Layers {
        /// Files given.
        found: usize,
        /// Layers in the state.
        expected: usize,
    },
    /// An extent is outside the disk or its layer, or overlaps the one before.
    #[error("extent at block {block} is invalid")]
    Extent {
        /// Its first block.
        block: u64,
    },
}

impl Block {
    /// Freezes the current layer and saves the disk: the state, and the files of [`Block::layer_files`], never
    /// change any more.
    pub fn freeze_state(&mut self) -> BlockState {
        self.freeze_layer();
        self.overlay.layers.close_unused();
        let numbers: Vec<u16> = self.overlay.layers.iter().map(|(index, _)| index).collect();
        let mut extents: Vec<ExtentState> = Vec::new();
        let mut block = 0;
        let mut unlimited = u32::MAX;
        while let Scan::Found(found, entry) = self.overlay.map.next_written(block, &mut unlimited) {
            // More looks than a disk has blocks.
            unlimited = u32::MAX;
            let place = entry.place().filter(|_| !entry.is_zero());
            let place = place.and_then(|(layer, slot)| {
                let number = numbers.iter().position(|index| *index == layer)?;
                Some((u16::try_from(number).ok()?, slot))
            });
            match extents.last_mut() {
                Some(last) if last.precedes(found, place) => last.count += 1,
                _ => extents.push(ExtentState {
                    block: found,
                    count: 1,
                    place,
                }),
            }
            block = found + 1;
        }
        BlockState {
            capacity: self.capacity(),
            id: self.id,
            layers: self
                .overlay
                .layers
                .iter()
                .map(|(_, layer)| layer.slots)
                .collect(),
            extents,
        }
    }

    /// The layers, in the order that [`BlockState`] numbers them.
    pub fn layer_files(&self) -> impl Iterator<Item = &File> {
        self.overlay.layers.iter().map(|(_, layer)| &layer.file)
    }

    /// The disk that was saved as `state`, with all its layers frozen.
    ///
    /// # Errors
    /// The files or the state do not make up a disk.
    pub fn from_state(
        state: &BlockState,
        base: Option<File>,
        layers: Vec<File>,
    ) -> Result<Self, BlockStateError> {
        let mut overlay = match base {
            Some(base) => Overlay::over(base)?,
            None => Overlay::blank(state.capacity)?,
        };
        if overlay.capacity() != state.capacity {
            return Err(BlockStateError::Capacity {
                found: overlay.capacity(),
                expected: state.capacity,
            });
        }
        if layers.len() != state.layers.len() || layers.len() > MAX_LAYERS {
            return Err(BlockStateError::Layers {
                found: layers.len(),
                expected: state.layers.len(),
            });
        }
        for (file, slots) in layers.into_iter().zip(&state.layers) {
            // Cannot be refused: the number was checked.
            overlay.layers.add(file, *slots);
        }
        let mut free = 0;
        for extent in &state.extents {
            let end = extent.checked_end(state, free);
            free = end.ok_or(BlockStateError::Extent {
                block: extent.block,
            })?;
            for nth in 0..extent.count {
                overlay.remap(extent.block + nth, extent.entry(nth));
            }
        }
        overlay.layers.close_unused();
        Ok(Self::with(overlay, state.id))
    }
}

impl ExtentState {
    /// Whether `block` at `place` continues this extent.
    fn precedes(&self, block: u64, place: Option<(u16, u32)>) -> bool {
        let next = self.place.map(|(layer, slot)| {
            let slot = u64::from(slot) + self.count;
            (layer, slot)
        });
        self.block + self.count == block && next == place.map(|(l, s)| (l, u64::from(s)))
    }

    /// The block after this extent, if it lies in the disk of `state` at or after `free`.
    fn checked_end(&self, state: &BlockState, free: u64) -> Option<u64> {
        let end = self.block.checked_add(self.count)?;
        let in_disk = self.block >= free && end <= state.capacity.div_ceil(BLOCK);
        let in_layer = match self.place {
            None => true,
            Some((layer, slot)) => {
                let slots = state.layers.get(usize::from(layer))?;
                u64::from(slot).checked_add(self.count)? <= u64::from(*slots)
            }
        };
        (in_disk && in_layer && self.count > 0).then_some(end)
    }

    fn entry(&self, nth: u64) -> Entry {
        match self.place {
            None => Entry::ZERO,
            // Checked: the slot is below the layer's, which is a u32.
            Some((layer, slot)) => {
                Entry::slot(layer, slot.saturating_add(u32::try_from(nth).unwrap_or(0)))
            }
        }
    }
}
