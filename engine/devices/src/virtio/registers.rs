//! Offsets of the virtio-mmio version 2 register file (virtio 1.3 §4.2.2, table 4.1).

pub(crate) use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK as DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK as FEATURES_OK,
    VIRTIO_CONFIG_S_NEEDS_RESET as NEEDS_RESET, VIRTIO_F_VERSION_1,
};
pub(crate) use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_INT_CONFIG as INT_CONFIG, VIRTIO_MMIO_INT_VRING as INT_VRING,
};
pub(crate) use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};

/// "virt", little-endian.
pub(crate) const MAGIC: u32 = 0x7472_6976;
/// The version that is not legacy.
pub(crate) const VERSION: u32 = 2;
/// "brod", little-endian.
pub(crate) const VENDOR: u32 = 0x646f_7262;

pub(crate) const MAGIC_VALUE: u64 = 0x000;
pub(crate) const VERSION_REGISTER: u64 = 0x004;
pub(crate) const DEVICE_ID: u64 = 0x008;
pub(crate) const VENDOR_ID: u64 = 0x00c;
pub(crate) const DEVICE_FEATURES: u64 = 0x010;
pub(crate) const DEVICE_FEATURES_SEL: u64 = 0x014;
pub(crate) const DRIVER_FEATURES: u64 = 0x020;
pub(crate) const DRIVER_FEATURES_SEL: u64 = 0x024;
pub(crate) const QUEUE_SEL: u64 = 0x030;
pub(crate) const QUEUE_SIZE_MAX: u64 = 0x034;
pub(crate) const QUEUE_SIZE: u64 = 0x038;
pub(crate) const QUEUE_READY: u64 = 0x044;
pub(crate) const QUEUE_NOTIFY: u64 = 0x050;
pub(crate) const INTERRUPT_STATUS: u64 = 0x060;
pub(crate) const INTERRUPT_ACK: u64 = 0x064;
pub(crate) const STATUS: u64 = 0x070;
pub(crate) const QUEUE_DESC_LOW: u64 = 0x080;
pub(crate) const QUEUE_DESC_HIGH: u64 = 0x084;
pub(crate) const QUEUE_DRIVER_LOW: u64 = 0x090;
pub(crate) const QUEUE_DRIVER_HIGH: u64 = 0x094;
pub(crate) const QUEUE_DEVICE_LOW: u64 = 0x0a0;
pub(crate) const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
/// Length and base of a shared memory region read as all ones where there is none.
pub(crate) const SHM_FIRST: u64 = 0x0b0;
pub(crate) const SHM_LAST: u64 = 0x0bc;
pub(crate) const CONFIG: u64 = 0x100;
