//! The layers of an overlay: unlinked append-only files, at most one of them writable.
//!
//! ```text
//!  give ──► writable ──freeze (fork)──► frozen ──no block refers to it──► closed
//! ```
//!
//! Invariant: a frozen layer is never written, since other processes read the same file; a layer is closed exactly
//! when no entry of the block map names it, so an index is only given again when nothing can mean the old one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::map::BLOCK;

/// Layers one overlay can hold. Merging keeps the number near 32; this bound is for an owner that never merges.
pub(super) const MAX_LAYERS: usize = 4096;

/// One file of 4 KiB slots.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) file: File,
    /// Slots in use, also the index of the next one.
    pub(super) slots: u32,
    /// Blocks of the disk that are in this layer.
    pub(super) blocks: u32,
    /// To be emptied by the merge in progress.
    pub(super) victim: bool,
}

/// All layers, by index.
#[derive(Debug, Default)]
pub(super) struct LayerTable {
    layers: Vec<Option<Layer>>,
    writable: Option<u16>,
}

impl LayerTable {
    /// Layers that exist.
    pub(super) fn count(&self) -> usize {
        self.iter().count()
    }

    /// Every layer with its index.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, &Layer)> {
        (0u16..)
            .zip(&self.layers)
            .filter_map(|(index, layer)| Some((index, layer.as_ref()?)))
    }

    /// Every layer, to be marked.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u16, &mut Layer)> {
        (0u16..)
            .zip(&mut self.layers)
            .filter_map(|(index, layer)| Some((index, layer.as_mut()?)))
    }

    /// Layer `index`, if it exists.
    pub(super) fn layer(&self, index: u16) -> Option<&Layer> {
        self.layers.get(usize::from(index))?.as_ref()
    }

    /// The index of the writable layer, if there is one.
    pub(super) fn writable(&self) -> Option<u16> {
        self.writable
    }

    /// The next free slot of the writable layer.
    pub(super) fn next_slot(&self) -> Option<u32> {
        Some(self.layer(self.writable?)?.slots)
    }

    /// Adds a frozen layer with `slots` slots in use; `None` if there are too many.
    pub(super) fn add(&mut self, file: File, slots: u32) -> Option<u16> {
        let layer = Layer {
            file,
            slots,
            blocks: 0,
            victim: false,
        };
        if let Some((index, free)) = (0u16..)
            .zip(&mut self.layers)
            .find(|(_, layer)| layer.is_none())
        {
            *free = Some(layer);
            return Some(index);
        }
        let index = u16::try_from(self.layers.len()).ok()?;
        if self.layers.len() >= MAX_LAYERS {
            return None;
        }
        self.layers.push(Some(layer));
        Some(index)
    }

    /// Makes an empty layer the writable one; `None` if there are too many layers.
    pub(super) fn add_writable(&mut self, file: File) -> Option<u16> {
        self.freeze();
        self.writable = self.add(file, 0);
        self.writable
    }

    /// The writable layer, if any, is written no more.
    pub(super) fn freeze(&mut self) {
        if let Some(index) = self.writable.take() {
            self.close_if_unused(index);
        }
    }

    /// Writes `bytes` to the writable layer at slot `slot`, `within` bytes into it.
    pub(super) fn write(&mut self, slot: u32, within: u64, bytes: &[u8]) -> io::Result<()> {
        let layer = self
            .writable
            .and_then(|index| self.layers.get_mut(usize::from(index)))
            .and_then(Option::as_mut)
            .ok_or(io::ErrorKind::ReadOnlyFilesystem)?;
        let used = (within + bytes.len() as u64).div_ceil(BLOCK);
        let end = u32::try_from(u64::from(slot) + used).map_err(|_| io::ErrorKind::StorageFull)?;
        layer
            .file
            .write_all_at(bytes, u64::from(slot) * BLOCK + within)?;
        layer.slots = layer.slots.max(end);
        Ok(())
    }

    /// One more block is in layer `index`.
    pub(super) fn take(&mut self, index: u16) {
        if let Some(Some(layer)) = self.layers.get_mut(usize::from(index)) {
            layer.blocks = layer.blocks.saturating_add(1);
        }
    }

    /// One block fewer is in layer `index`, which closes it if it was the last one.
    pub(super) fn release(&mut self, index: u16) {
        if let Some(Some(layer)) = self.layers.get_mut(usize::from(index)) {
            layer.blocks = layer.blocks.saturating_sub(1);
            self.close_if_unused(index);
        }
    }

    /// Closes every frozen layer that no block is in.
    pub(super) fn close_unused(&mut self) {
        for index in 0..u16::try_from(self.layers.len()).unwrap_or(u16::MAX) {
            self.close_if_unused(index);
        }
    }

    fn close_if_unused(&mut self, index: u16) {
        if self.writable == Some(index) {
            return;
        }
        if let Some(place) = self.layers.get_mut(usize::from(index))
            && place.as_ref().is_some_and(|layer| layer.blocks == 0)
        {
            *place = None;
        }
    }
}
