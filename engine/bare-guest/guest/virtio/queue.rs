//! One split virtqueue (virtio 1.3 §2.7) in its page of an arena, with fixed descriptors and polled used ring.
//!
//! ```text
//! page: 0x000 descriptors   0x400 available ring   0x800 used ring   0xff0 next used index to look at
//! ```

use core::sync::atomic::{Ordering, fence};

use super::mmio::{Window, register};
use crate::layout::PAGE;
use crate::mailbox::Fault;
use crate::memory::{clear, load, store};

/// Descriptors of each queue.
pub const SIZE: u16 = 32;
/// Descriptor flag: another follows.
pub const NEXT: u16 = 1;
/// Descriptor flag: the device writes the buffer.
pub const WRITE: u16 = 2;

const AVAILABLE: u64 = 0x400;
const USED: u64 = 0x800;
const SEEN: u64 = 0xff0;
/// Asks the device not to interrupt (§2.7.7): this driver polls.
const NO_INTERRUPT: u16 = 1;

/// One buffer of a chain.
pub struct Buffer {
    /// Guest-physical address.
    pub address: u64,
    /// Bytes.
    pub bytes: u32,
    /// [`WRITE`] or 0, and [`NEXT`].
    pub flags: u16,
}

/// A queue: which one of which device, and where it lies.
#[derive(Clone, Copy)]
pub struct Queue {
    window: Window,
    index: u16,
    page: u64,
}

impl Queue {
    /// Queue `index` of a device, in its page.
    pub fn at(window: Window, index: u16, page: u64) -> Self {
        Self {
            window,
            index,
            page,
        }
    }

    /// Empties the queue and gives it to a device that is being initialised (§4.2.3.2).
    pub fn set_up(self) -> Result<(), (Fault, u32)> {
        clear(self.page, PAGE);
        store(self.page + AVAILABLE, NO_INTERRUPT);
        self.window.write(register::QUEUE_SEL, self.index.into());
        let most = self.window.read(register::QUEUE_NUM_MAX);
        if most < SIZE.into() {
            return Err((Fault::BadDevice, most));
        }
        self.window.write(register::QUEUE_NUM, SIZE.into());
        self.window.write_pair(register::QUEUE_DESC, self.page);
        self.window
            .write_pair(register::QUEUE_DRIVER, self.page + AVAILABLE);
        self.window
            .write_pair(register::QUEUE_DEVICE, self.page + USED);
        self.window.write(register::QUEUE_READY, 1);
        Ok(())
    }

    /// Writes descriptor `index`; a buffer with [`NEXT`] goes on in the following descriptor.
    pub fn describe(self, index: u16, buffer: &Buffer) {
        let at = self.page + u64::from(index % SIZE) * 16;
        store(at, buffer.address);
        store(at + 8, buffer.bytes);
        store(at + 12, buffer.flags);
        store(at + 14, (index + 1) % SIZE);
    }

    /// Makes the chain at descriptor `head` available, without telling the device.
    pub fn offer(self, head: u16) {
        let next: u16 = load(self.page + AVAILABLE + 2);
        store(self.page + AVAILABLE + 4 + u64::from(next % SIZE) * 2, head);
        fence(Ordering::SeqCst);
        store(self.page + AVAILABLE + 2, next.wrapping_add(1));
        fence(Ordering::SeqCst);
    }

    /// Tells the device of available chains.
    pub fn notify(self) {
        self.window.write(register::QUEUE_NOTIFY, self.index.into());
    }

    /// The next chain that the device has used: its head, and the bytes written to it.
    pub fn take(self) -> Result<Option<(u16, u32)>, (Fault, u32)> {
        let seen: u16 = load(self.page + SEEN);
        if seen == load(self.page + USED + 2) {
            return Ok(None);
        }
        fence(Ordering::SeqCst);
        let element = self.page + USED + 4 + u64::from(seen % SIZE) * 8;
        let head: u32 = load(element);
        store(self.page + SEEN, seen.wrapping_add(1));
        match u16::try_from(head) {
            Ok(head) if head < SIZE => Ok(Some((head, load(element + 4)))),
            _ => Err((Fault::Protocol, head)),
        }
    }
}
