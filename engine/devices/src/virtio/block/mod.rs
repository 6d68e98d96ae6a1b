//! virtio block device (virtio 1.3 §5.2) on a copy-on-write overlay (DESIGN §3).
//!
//! ```text
//!             request ──► Block ──► Overlay ──► map: block ──► layer k (unlinked file, own or frozen)
//!                                                      └─────► base image (read-only, everybody's page cache)
//! ```
//!
//! Layers are given from outside as descriptors, since the process has no file system: the first write without a
//! layer parks the queue, [`Block::wants_layer`] says so, and [`Block::give_layer`] plus another round go on with it.
//! At a fork [`Block::freeze_layer`] comes first; both sides then ask for a layer of their own when they write.
//!
//! Invariant: an error of the host's storage is an error status of that one request, never the end of the VM. A flush
//! does nothing, because an overlay lives no longer than its VM.

mod config;
mod layer;
mod map;
mod merge;
mod overlay;
mod request;
mod state;
mod zero;

use std::fs::File;
use std::os::fd::RawFd;

use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use self::overlay::Overlay;
use self::request::{HEADER, Operation, Status};
use crate::GuestMemory;
use crate::virtio::chain::{Chain, ChainError};
use crate::virtio::device::{DeviceFault, Progress, VirtioDevice, copy_config};
use crate::virtio::queue::VirtQueue;

pub use self::merge::{MERGE_ABOVE, MergeStep};
pub use self::overlay::{DiskError, OpenDiskError, SECTOR};
pub use self::state::{BlockState, BlockStateError, ExtentState};

/// Bytes of a disk id (virtio 1.3 §5.2.6); a shorter one is followed by zeroes.
pub const ID_BYTES: usize = 20;
/// Requests served in one round.
const REQUESTS_PER_ROUND: usize = 64;
/// Bytes after which a round ends.
const BYTES_PER_ROUND: u64 = 4 << 20;
/// Bytes moved with one system call. The buffer is as large as the largest request so far, at most this.
const BUFFER: usize = 64 << 10;

/// The block device.
#[derive(Debug)]
pub struct Block {
    overlay: Overlay,
    id: [u8; ID_BYTES],
    /// A write waits for a layer.
    parked: bool,
    /// Number of requests that ended with an I/O error, and the last such error.
    io_errors: u64,
    last_error: Option<DiskError>,
    buffer: Vec<u8>,
}

/// What became of a request.
enum Outcome {
    /// Answer it: status, and bytes written to the guest before the status byte.
    Done(Status, u64),
    /// It needs a writable layer first.
    Parked,
}

impl Block {
    /// A disk that shows `base`, a file or block device, read-only and shared with everyone.
    ///
    /// # Errors
    /// `base` is neither, cannot be examined, or is not a whole number of sectors.
    pub fn over(base: File, id: [u8; ID_BYTES]) -> Result<Self, OpenDiskError> {
        Overlay::over(base).map(|overlay| Self::with(overlay, id))
    }

    /// A disk of `capacity` bytes of zeroes.
    ///
    /// # Errors
    /// `capacity` is zero, not a whole number of sectors, or above 16 TiB.
    pub fn blank(capacity: u64, id: [u8; ID_BYTES]) -> Result<Self, OpenDiskError> {
        Overlay::blank(capacity).map(|overlay| Self::with(overlay, id))
    }

    fn with(overlay: Overlay, id: [u8; ID_BYTES]) -> Self {
        Self {
            overlay,
            id,
            parked: false,
            io_errors: 0,
            last_error: None,
            buffer: Vec::new(),
        }
    }

    /// Size of the disk in bytes.
    pub fn capacity(&self) -> u64 {
        self.overlay.capacity()
    }

    /// Reads the disk as the guest sees it, from byte `offset`, for export and checks.
    ///
    /// # Errors
    /// The range is outside the disk, or a file cannot be read.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.overlay.read(offset, buf)
    }

    /// Whether a write is parked until [`Block::give_layer`].
    pub fn wants_layer(&self) -> bool {
        self.parked && self.overlay.layers.writable().is_none()
    }

    /// Gives the disk an empty file, opened for reading and writing, that no other VM writes to. The layer before,
    /// if any, is frozen. The queue has to be processed afterwards if [`Block::wants_layer`] was true.
    ///
    /// # Errors
    /// [`DiskError::TooManyLayers`]: thousands of layers were never merged.
    pub fn give_layer(&mut self, layer: File) -> Result<(), DiskError> {
        let given = self.overlay.layers.add_writable(layer);
        given.map(|_| ()).ok_or(DiskError::TooManyLayers)
    }

    /// Before a fork: the current layer is written no more, by nobody. The next write asks for a fresh one.
    pub fn freeze_layer(&mut self) {
        self.overlay.layers.freeze();
    }

    /// Layers that the disk consists of now, each an open descriptor.
    pub fn layer_count(&self) -> usize {
        self.overlay.layers.count()
    }

    /// Does up to `budget` blocks (4 KiB) of background merging. Worth calling, when idle, while it answers
    /// [`MergeStep::Copied`].
    ///
    /// # Errors
    /// A block could not be copied; the disk is as before and the step can be tried again.
    pub fn merge_step(&mut self, budget: u32) -> Result<MergeStep, DiskError> {
        self.overlay.merge_step(budget)
    }

    /// How many requests ended with an I/O error, and the last error.
    pub fn io_errors(&self) -> (u64, Option<&DiskError>) {
        (self.io_errors, self.last_error.as_ref())
    }

    fn serve(&mut self, chain: &Chain, mem: &GuestMemory) -> Result<(Outcome, u64), ChainError> {
        let operation = Operation::parse(chain, mem)?;
        let (result, moved) = match operation {
            Operation::Read { len, .. } | Operation::Write { len, .. }
                if len > config::REQUEST_BYTES_MAX =>
            {
                return Ok((Outcome::Done(Status::IoError, 0), 0));
            }
            Operation::Read { offset, len } => (self.read(chain, mem, offset, len)?, len),
            Operation::Write { offset, len } => {
                if self.must_park(len > 0) {
                    return Ok((Outcome::Parked, 0));
                }
                (self.write(chain, mem, offset, len)?, len)
            }
            Operation::Zero { offset, len } => {
                if len > u64::from(config::ZERO_SECTORS_MAX) * SECTOR {
                    return Ok((Outcome::Done(Status::IoError, 0), 0));
                }
                let inside = self.overlay.check(offset, len);
                if inside.is_ok() && self.must_park(self.overlay.zero_needs_layer(offset, len)) {
                    return Ok((Outcome::Parked, 0));
                }
                (inside.and_then(|()| self.overlay.zero(offset, len)), len)
            }
            Operation::Discard { offset, len } => {
                if len > u64::from(config::DISCARD_SECTORS_MAX) * SECTOR {
                    return Ok((Outcome::Done(Status::IoError, 0), 0));
                }
                (self.overlay.discard(offset, len), BYTES_PER_ROUND / 16)
            }
            Operation::Flush => (Ok(()), 0),
            Operation::Id { len } => {
                let len = len.min(ID_BYTES as u64);
                let id = usize::try_from(len).ok().and_then(|len| self.id.get(..len));
                chain.write(mem, 0, id.unwrap_or_default())?;
                return Ok((Outcome::Done(Status::Ok, len), 0));
            }
            Operation::Refuse(status) => return Ok((Outcome::Done(status, 0), 0)),
        };
        let written = match operation {
            Operation::Read { len, .. } => len,
            _ => 0,
        };
        Ok(match result {
            Ok(()) => (Outcome::Done(Status::Ok, written), moved),
            Err(error) => {
                self.io_errors += 1;
                self.last_error = Some(error);
                (Outcome::Done(Status::IoError, 0), moved)
            }
        })
    }

    fn must_park(&self, needs_layer: bool) -> bool {
        needs_layer && self.overlay.layers.writable().is_none()
    }

    fn read(
        &mut self,
        chain: &Chain,
        mem: &GuestMemory,
        offset: u64,
        len: u64,
    ) -> Result<Result<(), DiskError>, ChainError> {
        if let Err(error) = self.overlay.check(offset, len) {
            return Ok(Err(error));
        }
        let mut done = 0;
        while done < len {
            let part = Self::part(&mut self.buffer, len - done);
            if let Err(error) = self.overlay.read(offset + done, part) {
                return Ok(Err(error));
            }
            chain.write(mem, done, part)?;
            done += part.len() as u64;
        }
        Ok(Ok(()))
    }

    fn write(
        &mut self,
        chain: &Chain,
        mem: &GuestMemory,
        offset: u64,
        len: u64,
    ) -> Result<Result<(), DiskError>, ChainError> {
        if let Err(error) = self.overlay.check(offset, len) {
            return Ok(Err(error));
        }
        let mut done = 0;
        while done < len {
            // Parts end at a multiple of their size, so that no block is split between two of them.
            let boundary = BUFFER as u64 - (offset + done) % BUFFER as u64;
            let part = Self::part(&mut self.buffer, (len - done).min(boundary));
            chain.read(mem, HEADER + done, part)?;
            if let Err(error) = self.overlay.write(offset + done, part) {
                return Ok(Err(error));
            }
            done += part.len() as u64;
        }
        Ok(Ok(()))
    }

    /// The first `want` bytes of the buffer, or all it may be.
    fn part(buffer: &mut Vec<u8>, want: u64) -> &mut [u8] {
        let len = usize::try_from(want).unwrap_or(BUFFER).min(BUFFER);
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        buffer.get_mut(..len).unwrap_or_default()
    }
}

impl VirtioDevice for Block {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn queue_max_sizes(&self) -> &'static [u16] {
        &[config::QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        config::FEATURES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(&config::bytes(self.capacity()), offset, data);
    }

    fn activate(&mut self, _features: u64) {}

    fn process(
        &mut self,
        index: usize,
        queues: &mut [VirtQueue],
        mem: &GuestMemory,
    ) -> Result<Progress, DeviceFault> {
        let Some(queue) = queues.get_mut(index) else {
            return Ok(Progress::Idle);
        };
        let mut chain = Chain::default();
        let mut bytes = 0;
        for _ in 0..REQUESTS_PER_ROUND {
            if !queue.pop(mem, &mut chain)? {
                self.parked = false;
                return Ok(Progress::Idle);
            }
            match self.serve(&chain, mem)? {
                (Outcome::Parked, _) => {
                    queue.unpop();
                    self.parked = true;
                    return Ok(Progress::Stalled);
                }
                (Outcome::Done(status, written), moved) => {
                    // The status is the last byte of the writable part (virtio 1.3 §5.2.6).
                    chain.write(mem, chain.writable_len() - 1, &[status.byte()])?;
                    let len = u32::try_from(written + 1).unwrap_or(u32::MAX);
                    queue.push_used(mem, chain.head(), len)?;
                    bytes += moved;
                }
            }
            if bytes >= BYTES_PER_ROUND {
                break;
            }
        }
        self.parked = false;
        Ok(Progress::More)
    }

    fn reset(&mut self) {
        self.parked = false;
    }

    fn kept_fds(&self, fds: &mut Vec<RawFd>) {
        self.overlay.fds(fds);
    }
}
