//! The configuration space and features of virtio-blk (virtio 1.3 §5.2.3, §5.2.4).

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};

use super::overlay::SECTOR;
use crate::virtio::registers::VIRTIO_RING_F_EVENT_IDX;

/// Size of the request queue in descriptors.
pub(super) const QUEUE_SIZE: u16 = 256;
/// Data segments of a request: header and status take one descriptor each.
const SEGMENTS_MAX: u32 = QUEUE_SIZE as u32 / 2 - 2;
/// Bytes of a segment.
const SEGMENT_BYTES_MAX: u32 = 256 << 10;
/// Bytes of data in one request; a driver that keeps to the two limits above never exceeds it.
pub(super) const REQUEST_BYTES_MAX: u64 = SEGMENTS_MAX as u64 * SEGMENT_BYTES_MAX as u64;
/// Sectors of one discard (2 GiB): it only looks at the map.
pub(super) const DISCARD_SECTORS_MAX: u32 = 4 << 20;
/// Sectors of one write-zeroes (32 MiB): it may allocate 64 KiB of map.
pub(super) const ZERO_SECTORS_MAX: u32 = 64 << 10;

/// What the device offers.
pub(super) const FEATURES: u64 = 1 << VIRTIO_BLK_F_SIZE_MAX
    | 1 << VIRTIO_BLK_F_SEG_MAX
    | 1 << VIRTIO_BLK_F_BLK_SIZE
    | 1 << VIRTIO_BLK_F_FLUSH
    | 1 << VIRTIO_BLK_F_TOPOLOGY
    | 1 << VIRTIO_BLK_F_DISCARD
    | 1 << VIRTIO_BLK_F_WRITE_ZEROES
    | 1 << VIRTIO_RING_F_EVENT_IDX;

/// `struct virtio_blk_config` up to `write_zeroes_may_unmap`, for a disk of `capacity` bytes.
pub(super) fn bytes(capacity: u64) -> [u8; 60] {
    let mut config = [0; 60];
    let fields: [(usize, &[u8]); 14] = [
        (0, &(capacity / SECTOR).to_le_bytes()),
        (8, &SEGMENT_BYTES_MAX.to_le_bytes()),
        (12, &SEGMENTS_MAX.to_le_bytes()),
        // blk_size: any sector can be addressed ...
        (20, &512u32.to_le_bytes()),
        // ... but 2^3 of them are a block, and I/O is best aligned to it.
        (24, &[3]),
        (25, &[0]),
        (26, &1u16.to_le_bytes()),
        (28, &8u32.to_le_bytes()),
        (36, &DISCARD_SECTORS_MAX.to_le_bytes()),
        (40, &1u32.to_le_bytes()),
        (44, &8u32.to_le_bytes()),
        (48, &ZERO_SECTORS_MAX.to_le_bytes()),
        (52, &1u32.to_le_bytes()),
        (56, &[1]),
    ];
    for (offset, field) in fields {
        for (to, from) in config.iter_mut().skip(offset).zip(field) {
            *to = *from;
        }
    }
    config
}
