//! The register window of a virtio-mmio device (virtio 1.3 §4.2.2). Unsafe here: the accesses, each one plain `mov`, since
//! KVM emulates the instruction that touches a device.

use core::arch::asm;

use crate::layout::{MAX_DEVICES, VIRTIO_WINDOW_BYTES, VIRTIO_WINDOWS};

/// "virt".
pub const MAGIC: u32 = 0x7472_6976;

/// Registers, by their offset.
pub mod register {
    pub const MAGIC_VALUE: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const DEVICE_ID: u64 = 0x008;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub const QUEUE_SEL: u64 = 0x030;
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    pub const QUEUE_NUM: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const INTERRUPT_STATUS: u64 = 0x060;
    pub const INTERRUPT_ACK: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESC: u64 = 0x080;
    pub const QUEUE_DRIVER: u64 = 0x090;
    pub const QUEUE_DEVICE: u64 = 0x0a0;
    pub const CONFIG: u64 = 0x100;
}

/// Bits of the status register (virtio 1.3 §2.1).
pub mod status {
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const NEEDS_RESET: u32 = 64;
}

/// One device's window.
#[derive(Clone, Copy)]
pub struct Window {
    slot: u64,
}

impl Window {
    /// The window with an index, if there is one.
    pub fn new(slot: u64) -> Option<Self> {
        (slot < MAX_DEVICES).then_some(Self { slot })
    }

    /// Whether a virtio-mmio version 2 device answers here.
    pub fn present(self) -> bool {
        self.read(register::MAGIC_VALUE) == MAGIC
            && self.read(register::VERSION) == 2
            && self.read(register::DEVICE_ID) != 0
    }

    /// Index of the window.
    pub fn slot(self) -> u64 {
        self.slot
    }

    /// Reads the register at an offset, which must be below the window's size.
    pub fn read(self, offset: u64) -> u32 {
        let value: u32;
        // SAFETY: the window is mapped, and no Rust object lies in it.
        unsafe {
            asm!("mov {:e}, dword ptr [{}]", out(reg) value, in(reg) self.at(offset), options(nostack, preserves_flags))
        };
        value
    }

    /// Writes the register at an offset. All stores before it are visible to the device.
    pub fn write(self, offset: u64, value: u32) {
        // SAFETY: the window is mapped, and no Rust object lies in it.
        unsafe {
            asm!("mov dword ptr [{}], {:e}", in(reg) self.at(offset), in(reg) value, options(nostack, preserves_flags))
        };
    }

    /// Writes both halves of a 64-bit register, low first.
    pub fn write_pair(self, offset: u64, value: u64) {
        self.write(offset, value as u32);
        self.write(offset + 4, (value >> 32) as u32);
    }

    /// Writes one byte, an access that a device need not support.
    pub fn write_byte(self, offset: u64, value: u8) {
        // SAFETY: the window is mapped, and no Rust object lies in it.
        unsafe {
            asm!("mov byte ptr [{}], {}", in(reg) self.at(offset), in(reg_byte) value, options(nostack, preserves_flags))
        };
    }

    /// Writes 64 bits at once, an access that a device need not support.
    pub fn write_quad(self, offset: u64, value: u64) {
        // SAFETY: the window is mapped, and no Rust object lies in it.
        unsafe {
            asm!("mov qword ptr [{}], {}", in(reg) self.at(offset), in(reg) value, options(nostack, preserves_flags))
        };
    }

    fn at(self, offset: u64) -> u64 {
        VIRTIO_WINDOWS + self.slot * VIRTIO_WINDOW_BYTES + offset % (VIRTIO_WINDOW_BYTES - 8)
    }
}
