//! A disk: a read-only base shared by everyone, and this VM's own writes over it (DESIGN §3).
//!
//! Invariant: a block's entry changes only after its bytes are in the layer, so a failed write leaves the disk as it
//! was, block by block. Only positioned I/O is used: file offsets are shared with every process of the lineage.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt};

use super::layer::LayerTable;
use super::map::{BLOCK, BlockMap, Entry};

/// Bytes of a sector, the unit of virtio-blk addresses (virtio 1.3 §5.2.4).
pub const SECTOR: u64 = 512;

/// A base image or a capacity cannot make a disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenDiskError {
    /// The base cannot be examined.
    #[error("cannot examine the base image")]
    Examine(#[source] io::Error),
    /// The base is a directory, a pipe or the like.
    #[error("base image is neither a file nor a block device")]
    Kind,
    /// The size is zero or not a whole number of sectors.
    #[error("disk of {bytes} bytes is not a whole number of 512-byte sectors")]
    Size {
        /// The size in bytes.
        bytes: u64,
    },
    /// The disk has more blocks than one layer can hold (16 TiB).
    #[error("disk of {bytes} bytes is larger than 16 TiB")]
    TooLarge {
        /// The size in bytes.
        bytes: u64,
    },
}

/// An access to a disk failed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The range is not within the disk.
    #[error("{len} bytes at {offset} are outside a disk of {capacity} bytes")]
    Range {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
        /// Size of the disk.
        capacity: u64,
    },
    /// The base image ends before the disk does: it was cut after it had been opened.
    #[error("base image was truncated below {offset}")]
    BaseTruncated {
        /// Byte that is missing.
        offset: u64,
    },
    /// Reading the base failed.
    #[error("base image cannot be read at {offset}")]
    Base {
        /// First byte of the read.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
    /// Reading or writing a layer failed, for want of space for instance.
    #[error("overlay layer failed at disk offset {offset}")]
    Layer {
        /// Byte of the disk.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
    /// A write needs a layer and there is no writable one.
    #[error("no writable overlay layer")]
    NoLayer,
    /// The overlay has as many layers as it can hold.
    #[error("too many overlay layers")]
    TooManyLayers,
}

/// Base, block map and layers of one disk.
#[derive(Debug)]
pub(super) struct Overlay {
    base: Option<File>,
    capacity: u64,
    pub(super) map: BlockMap,
    pub(super) layers: LayerTable,
    /// Where the merge in progress goes on.
    pub(super) merge_cursor: Option<u64>,
}

/// Consecutive bytes of the disk that are consecutive in one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Zero,
    Base(u64),
    Layer(u16, u64),
}

/// A run of whole or own blocks to be written with one call.
#[derive(Debug, Clone, Copy)]
struct Run {
    block: u64,
    slot: u32,
    within: u64,
    start: usize,
    end: usize,
}

impl Overlay {
    /// An overlay with nothing written, over `base`.
    pub(super) fn over(base: File) -> Result<Self, OpenDiskError> {
        let metadata = base.metadata().map_err(OpenDiskError::Examine)?;
        let capacity = if metadata.is_file() {
            metadata.len()
        } else if metadata.file_type().is_block_device() {
            rustix::fs::seek(&base, rustix::fs::SeekFrom::End(0))
                .map_err(|error| OpenDiskError::Examine(error.into()))?
        } else {
            return Err(OpenDiskError::Kind);
        };
        Self::with(Some(base), capacity)
    }

    /// An overlay over nothing: `capacity` bytes of zeroes.
    pub(super) fn blank(capacity: u64) -> Result<Self, OpenDiskError> {
        Self::with(None, capacity)
    }

    fn with(base: Option<File>, capacity: u64) -> Result<Self, OpenDiskError> {
        if capacity == 0 || !capacity.is_multiple_of(SECTOR) {
            return Err(OpenDiskError::Size { bytes: capacity });
        }
        let blocks = capacity.div_ceil(BLOCK);
        if blocks > u64::from(u32::MAX) {
            return Err(OpenDiskError::TooLarge { bytes: capacity });
        }
        Ok(Self {
            base,
            capacity,
            map: BlockMap::new(blocks),
            layers: LayerTable::default(),
            merge_cursor: None,
        })
    }

    /// Size of the disk in bytes.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Whether the disk has a base image.
    pub(super) fn has_base(&self) -> bool {
        self.base.is_some()
    }

    /// The base and every layer.
    pub(super) fn fds(&self, fds: &mut Vec<RawFd>) {
        fds.extend(self.base.iter().map(AsRawFd::as_raw_fd));
        fds.extend(self.layers.iter().map(|(_, layer)| layer.file.as_raw_fd()));
    }

    /// Fails unless `len` bytes at `offset` are within the disk.
    pub(super) fn check(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.capacity => Ok(()),
            _ => Err(DiskError::Range {
                offset,
                len,
                capacity: self.capacity,
            }),
        }
    }

    /// Reads the disk as its VM sees it.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.check(offset, buf.len() as u64)?;
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let (source, len) = self.extent(at, rest.len());
            let (part, tail) = rest.split_at_mut(len.min(rest.len()));
            self.read_source(source, at, part)?;
            at += part.len() as u64;
            rest = tail;
        }
        Ok(())
    }

    /// Where the bytes at `offset` come from, and how many of the next `max` come consecutively from there.
    fn extent(&self, offset: u64, max: usize) -> (Source, usize) {
        let first = self.source(offset);
        let mut len = usize::try_from(BLOCK - offset % BLOCK).unwrap_or(max);
        while len < max {
            let next = self.source(offset + len as u64);
            let follows = match (first, next) {
                (Source::Zero, Source::Zero) => true,
                (Source::Base(a), Source::Base(b)) => a + len as u64 == b,
                (Source::Layer(l, a), Source::Layer(m, b)) => l == m && a + len as u64 == b,
                _ => false,
            };
            if !follows {
                break;
            }
            len += usize::try_from(BLOCK).unwrap_or(max);
        }
        (first, len.min(max))
    }

    fn source(&self, offset: u64) -> Source {
        let entry = self.map.entry(offset / BLOCK);
        match entry.place() {
            _ if entry.is_zero() => Source::Zero,
            Some((layer, slot)) => Source::Layer(layer, u64::from(slot) * BLOCK + offset % BLOCK),
            None if self.base.is_some() => Source::Base(offset),
            None => Source::Zero,
        }
    }

    fn read_source(&self, source: Source, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        match (source, &self.base) {
            (Source::Base(at), Some(base)) => {
                base.read_exact_at(buf, at).map_err(|source| {
                    if source.kind() == io::ErrorKind::UnexpectedEof {
                        DiskError::BaseTruncated { offset }
                    } else {
                        DiskError::Base { offset, source }
                    }
                })?;
            }
            (Source::Layer(layer, at), _) => {
                let file = self.layers.layer(layer).map(|layer| &layer.file);
                file.ok_or_else(|| io::ErrorKind::NotFound.into())
                    .and_then(|file| file.read_exact_at(buf, at))
                    .map_err(|source| DiskError::Layer { offset, source })?;
            }
            _ => buf.fill(0),
        }
        Ok(())
    }

    /// Writes `buf` at `offset`. Whole blocks and blocks already in the writable layer are written as they are, in
    /// runs; of other blocks the rest is copied up.
    pub(super) fn write(&mut self, offset: u64, buf: &[u8]) -> Result<(), DiskError> {
        self.check(offset, buf.len() as u64)?;
        let mut next_free = self.layers.next_slot().ok_or(DiskError::NoLayer)?;
        let mut run: Option<Run> = None;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let (block, within) = (at / BLOCK, at % BLOCK);
            let valid = self.valid_len(block);
            let len = (buf.len() - done).min(usize::try_from(valid - within).unwrap_or(0));
            let entry = self.map.entry(block);
            let own = self.own_slot(entry);
            let slot = own.unwrap_or(next_free);
            if own.is_none() {
                next_free = next_free.checked_add(1).ok_or(DiskError::TooManyLayers)?;
            }
            let piece = Run {
                block,
                slot,
                within,
                start: done,
                end: done + len,
            };
            let whole = len as u64 == valid;
            if whole || (own.is_some() && !entry.is_zero()) {
                run = match run.map(|run| run.joined(piece)) {
                    Some(Ok(longer)) => Some(longer),
                    Some(Err(apart)) => {
                        self.write_run(apart, buf)?;
                        Some(piece)
                    }
                    None => Some(piece),
                };
            } else {
                self.copy_up(piece, buf)?;
            }
            done += len;
        }
        run.map_or(Ok(()), |run| self.write_run(run, buf))
    }

    /// Bytes of `block` that are within the disk: the last one may be short.
    pub(super) fn valid_len(&self, block: u64) -> u64 {
        self.capacity.saturating_sub(block * BLOCK).min(BLOCK)
    }

    fn own_slot(&self, entry: Entry) -> Option<u32> {
        let (layer, slot) = entry.place()?;
        (Some(layer) == self.layers.writable()).then_some(slot)
    }

    fn write_run(&mut self, run: Run, buf: &[u8]) -> Result<(), DiskError> {
        let offset = run.block * BLOCK + run.within;
        let bytes = buf.get(run.start..run.end).unwrap_or_default();
        self.layers
            .write(run.slot, run.within, bytes)
            .map_err(|source| DiskError::Layer { offset, source })?;
        let blocks = (run.within + bytes.len() as u64).div_ceil(BLOCK);
        for (block, slot) in (run.block..run.block + blocks).zip(run.slot..) {
            self.settle(block, slot);
        }
        Ok(())
    }

    fn copy_up(&mut self, piece: Run, buf: &[u8]) -> Result<(), DiskError> {
        let offset = piece.block * BLOCK;
        let mut whole = [0; BLOCK as usize];
        let valid = usize::try_from(self.valid_len(piece.block)).unwrap_or(whole.len());
        let whole = whole.get_mut(..valid).unwrap_or_default();
        self.read(offset, whole)?;
        let new = buf.get(piece.start..piece.end).unwrap_or_default();
        let start = usize::try_from(piece.within).unwrap_or(valid);
        if let Some(place) = whole.get_mut(start..start + new.len()) {
            place.copy_from_slice(new);
        }
        self.layers
            .write(piece.slot, 0, whole)
            .map_err(|source| DiskError::Layer { offset, source })?;
        self.settle(piece.block, piece.slot);
        Ok(())
    }

    /// `block` is now in slot `slot` of the writable layer.
    pub(super) fn settle(&mut self, block: u64, slot: u32) {
        if let Some(writable) = self.layers.writable() {
            self.remap(block, Entry::slot(writable, slot));
        }
    }

    /// Changes an entry and the counts of the layers it concerns.
    pub(super) fn remap(&mut self, block: u64, new: Entry) {
        let old = self.map.replace(block, new);
        if let Some((layer, _)) = new.place() {
            self.layers.take(layer);
        }
        if let Some((layer, _)) = old.place() {
            self.layers.release(layer);
        }
    }
}

impl Run {
    /// This run with `piece` after it, or this run alone if `piece` is not next to it.
    fn joined(self, piece: Self) -> Result<Self, Self> {
        let bytes = self.within + (self.end - self.start) as u64;
        let blocks = bytes / BLOCK;
        let next_slot = u64::from(self.slot) + blocks;
        let adjacent = bytes.is_multiple_of(BLOCK)
            && piece.within == 0
            && self.end == piece.start
            && self.block + blocks == piece.block
            && next_slot == u64::from(piece.slot);
        if adjacent {
            Ok(Self {
                end: piece.end,
                ..self
            })
        } else {
            Err(self)
        }
    }
}
