//! Finding a device, bringing it up once, and holding it for one command.
//!
//! ```text
//! arena: 0x0000 state   0x1000 queue 0   0x2000 queue 1   0x3000 queue 2   0x4000 buffers
//! ```
//!
//! Invariant: at most one vCPU holds a [`Device`]; another one's attempt fails with `Busy` rather than waits.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicU32, Ordering};

use super::PATIENCE;
use super::mmio::{Window, register, status};
use super::queue::Queue;
use crate::layout::{ARENA_BYTES, ARENAS, MAX_DEVICES, PAGE};
use crate::mailbox::{Fault, Outcome};
use crate::memory::{load, store};

/// Virtio device id of a block device.
pub const BLOCK: u32 = 2;
/// Virtio device id of an entropy source.
pub const ENTROPY: u32 = 4;
/// Virtio device id of a socket device.
pub const SOCKET: u32 = 19;

const UP: u64 = 0;
const BUFFERS: u64 = 0x4000;

/// One flag per window: a vCPU holds the device. Rust memory, so part of the image and of every fork.
static HELD: [AtomicU32; MAX_DEVICES as usize] =
    [const { AtomicU32::new(0) }; MAX_DEVICES as usize];

/// A device that this vCPU holds until the value is dropped.
pub struct Device {
    window: Window,
}

impl Device {
    /// Finds the first device of a kind and holds it. Returns it with whether it has just been initialised, so that its buffers are to be offered.
    pub fn open(kind: u32, queues: u16) -> Result<(Self, Freshness), (Fault, u32)> {
        let window = (0..MAX_DEVICES)
            .filter_map(Window::new)
            .find(|window| window.present() && window.read(register::DEVICE_ID) == kind)
            .ok_or((Fault::NoDevice, kind))?;
        let device = Self::hold(window)?;
        let alive = device.window.read(register::STATUS)
            & (status::DRIVER_OK | status::NEEDS_RESET)
            == status::DRIVER_OK;
        if alive && load::<u64>(device.arena() + UP) == 1 {
            return Ok((device, Freshness::InUse));
        }
        device.bring_up(queues)?;
        Ok((device, Freshness::New))
    }

    /// Holds whatever device has a window, without touching it.
    pub fn hold(window: Window) -> Result<Self, (Fault, u32)> {
        let busy = HELD
            .get(window.slot() as usize)
            .is_none_or(|held| held.swap(1, Ordering::Acquire) != 0);
        if busy {
            Err((Fault::Busy, window.slot() as u32))
        } else {
            Ok(Self { window })
        }
    }

    /// The register window.
    pub fn window(&self) -> Window {
        self.window
    }

    /// Queue `index`.
    pub fn queue(&self, index: u16) -> Queue {
        Queue::at(
            self.window,
            index,
            self.arena() + PAGE * (u64::from(index) + 1),
        )
    }

    /// Address of the buffer area, 48 KiB.
    pub fn buffers(&self) -> u64 {
        self.arena() + BUFFERS
    }

    /// Makes the next `open` reset the device: it is in no state to go on from.
    pub fn forsake(&self) {
        store(self.arena() + UP, 0_u64);
    }

    /// Waits for the device to use the one chain in flight on a queue. Returns the bytes written. A dead or false device is forsaken.
    pub fn wait(&self, queue: Queue, head: u16) -> Result<u32, (Fault, u32)> {
        for _ in 0..PATIENCE {
            match queue.take() {
                Ok(None) => spin_loop(),
                Ok(Some((used, bytes))) if used == head => {
                    self.acknowledge();
                    return Ok(bytes);
                }
                Ok(Some((used, _))) => {
                    self.forsake();
                    return Err((Fault::Protocol, used.into()));
                }
                Err(fault) => {
                    self.forsake();
                    return Err(fault);
                }
            }
        }
        self.forsake();
        Err((Fault::Timeout, 0))
    }

    /// Takes back an interrupt that the device raised although asked not to.
    pub fn acknowledge(&self) {
        let raised = self.window.read(register::INTERRUPT_STATUS);
        if raised != 0 {
            self.window.write(register::INTERRUPT_ACK, raised);
        }
    }

    /// Resets the device and waits until it says so (virtio 1.3 §4.2.3.1.1).
    pub fn reset(&self) -> Outcome {
        self.forsake();
        self.window.write(register::STATUS, 0);
        for _ in 0..1000 {
            if self.window.read(register::STATUS) == 0 {
                return Ok(0);
            }
        }
        Err((Fault::BadDevice, self.window.read(register::STATUS)))
    }

    /// Resets and initialises the device (virtio 1.3 §3.1.1) with no feature but VERSION_1.
    fn bring_up(&self, queues: u16) -> Outcome {
        self.reset()?;
        let mut state = status::ACKNOWLEDGE | status::DRIVER;
        self.window.write(register::STATUS, state);
        self.window.write(register::DEVICE_FEATURES_SEL, 1);
        let version_1 = self.window.read(register::DEVICE_FEATURES) & 1;
        self.window.write(register::DRIVER_FEATURES_SEL, 0);
        self.window.write(register::DRIVER_FEATURES, 0);
        self.window.write(register::DRIVER_FEATURES_SEL, 1);
        self.window.write(register::DRIVER_FEATURES, version_1);
        state |= status::FEATURES_OK;
        self.window.write(register::STATUS, state);
        if version_1 == 0 || self.window.read(register::STATUS) & status::FEATURES_OK == 0 {
            return Err((Fault::BadDevice, self.window.read(register::STATUS)));
        }
        for index in 0..queues {
            self.queue(index).set_up()?;
        }
        self.window
            .write(register::STATUS, state | status::DRIVER_OK);
        store(self.arena() + UP, 1_u64);
        Ok(0)
    }

    fn arena(&self) -> u64 {
        ARENAS + self.window.slot() * ARENA_BYTES
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(held) = HELD.get(self.window.slot() as usize) {
            held.store(0, Ordering::Release);
        }
    }
}

/// Whether opening a device found it in use by an earlier command, or initialised it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Initialised just now; its queues are empty.
    New,
    /// As an earlier command left it.
    InUse,
}
