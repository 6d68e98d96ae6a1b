//! What a virtio device is to its transport.

use std::os::fd::RawFd;

use crate::GuestMemory;
use crate::virtio::chain::ChainError;
use crate::virtio::queue::{QueueError, VirtQueue};

/// How far a bounded round of queue work came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Everything available was processed; the driver will notify about more.
    Idle,
    /// The round's budget ran out. The transport has signalled the queue's kick, so that a loop that polls it comes
    /// back after other work had its turn.
    More,
    /// Buffers are available but the device waits for its owner (a disk layer) or for another queue.
    Stalled,
}

/// What the guest did that stopped the device. It is `DEVICE_NEEDS_RESET` from then on.
#[derive(Debug, thiserror::Error)]
pub enum DeviceFault {
    /// A virtqueue is unusable.
    #[error("virtqueue failed")]
    Queue(#[from] QueueError),
    /// A register was given a value that no driver may write.
    #[error("register {offset:#x} was given {value:#x}")]
    Register {
        /// Offset in the register file.
        offset: u64,
        /// What the driver wrote.
        value: u32,
    },
}

impl From<ChainError> for DeviceFault {
    fn from(source: ChainError) -> Self {
        Self::Queue(QueueError::Chain(source))
    }
}

/// A device model, without registers or interrupts.
pub trait VirtioDevice {
    /// Device id (virtio 1.3 §5).
    fn device_type(&self) -> u32;

    /// Largest size of each queue; as many entries as the device has queues. Powers of two up to 32768.
    fn queue_max_sizes(&self) -> &'static [u16];

    /// Feature bits offered besides `VIRTIO_F_VERSION_1` and `VIRTIO_F_INDIRECT_DESC`, which the transport offers.
    fn features(&self) -> u64;

    /// Fills `data` from the configuration space at `offset`; bytes past its end read as zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// A driver's write to the configuration space. No device here has a writable field, so it is ignored.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver set `DRIVER_OK` with these features.
    fn activate(&mut self, features: u64);

    /// Does a bounded amount of work after queue `index` was notified.
    ///
    /// # Errors
    /// A fault of the guest, which stops the device until its driver resets it.
    fn process(
        &mut self,
        index: usize,
        queues: &mut [VirtQueue],
        mem: &GuestMemory,
    ) -> Result<Progress, DeviceFault>;

    /// Back to the state before [`VirtioDevice::activate`]: the driver reset the device, or it faulted.
    fn reset(&mut self);

    /// In a process made by fork(2): gives up every inherited descriptor that belongs to the mother, without
    /// closing it (`close_range` follows).
    fn forget_fds(&mut self) {}

    /// Adds the descriptors that a daughter goes on using, which `close_range` must spare.
    fn kept_fds(&self, _fds: &mut Vec<RawFd>) {}
}

/// Copies the part of `config` at `offset` to `data` and zeroes the rest.
pub(crate) fn copy_config(config: &[u8], offset: u64, data: &mut [u8]) {
    data.fill(0);
    let tail = usize::try_from(offset)
        .ok()
        .and_then(|offset| config.get(offset..))
        .unwrap_or_default();
    for (to, from) in data.iter_mut().zip(tail) {
        *to = *from;
    }
}
