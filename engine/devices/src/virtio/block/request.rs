//! virtio-blk requests (virtio 1.3 §5.2.6): parsed from a chain, without any I/O.
//!
//! ```text
//!  readable: type u32 | reserved u32 | sector u64 | data to write ...
//!  writable: data read ... | status u8
//! ```

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

use super::overlay::SECTOR;
use crate::GuestMemory;
use crate::virtio::chain::{Chain, ChainError};

/// Bytes of the request header.
pub(super) const HEADER: u64 = 16;
/// Bytes of a discard or write-zeroes segment (virtio 1.3 §5.2.6).
const SEGMENT: u64 = 16;

/// The status byte of a finished request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    IoError,
    Unsupported,
}

impl Status {
    pub(super) fn byte(self) -> u8 {
        let value = match self {
            Self::Ok => VIRTIO_BLK_S_OK,
            Self::IoError => VIRTIO_BLK_S_IOERR,
            Self::Unsupported => VIRTIO_BLK_S_UNSUPP,
        };
        value.to_le_bytes()[0]
    }
}

/// What the driver asks for, addresses in bytes of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// Read into the writable part.
    Read { offset: u64, len: u64 },
    /// Write from the readable part, after the header.
    Write { offset: u64, len: u64 },
    /// Make what was written durable.
    Flush,
    /// Copy the disk's id into `len` bytes.
    Id { len: u64 },
    /// The range is not needed any more.
    Discard { offset: u64, len: u64 },
    /// The range becomes zero.
    Zero { offset: u64, len: u64 },
    /// Nothing to do but to answer with this status.
    Refuse(Status),
}

impl Operation {
    /// Reads the request in `chain`.
    ///
    /// # Errors
    /// The chain has no room for a header and a status: no block request at all.
    pub(super) fn parse(chain: &Chain, mem: &GuestMemory) -> Result<Self, ChainError> {
        let (readable, writable) = (chain.readable_len(), chain.writable_len());
        if readable < HEADER || writable < 1 {
            return Err(ChainError::Shape {
                what: "a block request has a header and a status byte",
            });
        }
        let mut header = [0; HEADER as usize];
        chain.read(mem, 0, &mut header)?;
        let [a, b, c, d, _, _, _, _, sector @ ..] = header;
        let kind = u32::from_le_bytes([a, b, c, d]);
        let Some(offset) = u64::from_le_bytes(sector).checked_mul(SECTOR) else {
            return Ok(Self::Refuse(Status::IoError));
        };
        let (sent, room) = (readable - HEADER, writable - 1);
        Ok(match kind {
            VIRTIO_BLK_T_IN => Self::Read { offset, len: room }.whole_sectors(room),
            VIRTIO_BLK_T_OUT => Self::Write { offset, len: sent }.whole_sectors(sent),
            VIRTIO_BLK_T_FLUSH => Self::Flush,
            VIRTIO_BLK_T_GET_ID => Self::Id { len: room },
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => {
                if sent != SEGMENT {
                    // max_discard_seg and max_write_zeroes_seg are 1.
                    return Ok(Self::Refuse(Status::IoError));
                }
                let mut segment = [0; SEGMENT as usize];
                chain.read(mem, HEADER, &mut segment)?;
                Self::segment(kind, segment)
            }
            _ => Self::Refuse(Status::Unsupported),
        })
    }

    fn whole_sectors(self, len: u64) -> Self {
        if len.is_multiple_of(SECTOR) {
            self
        } else {
            Self::Refuse(Status::IoError)
        }
    }

    /// `struct virtio_blk_discard_write_zeroes { le64 sector; le32 num_sectors; le32 flags; }`
    fn segment(kind: u32, segment: [u8; SEGMENT as usize]) -> Self {
        let [s @ .., a, b, c, d, e, f, g, h] = segment;
        let sectors = u32::from_le_bytes([a, b, c, d]);
        let flags = u32::from_le_bytes([e, f, g, h]);
        let len = u64::from(sectors) * SECTOR;
        let Some(offset) = u64::from_le_bytes(s).checked_mul(SECTOR) else {
            return Self::Refuse(Status::IoError);
        };
        match kind {
            VIRTIO_BLK_T_DISCARD if flags != 0 => Self::Refuse(Status::Unsupported),
            VIRTIO_BLK_T_DISCARD => Self::Discard { offset, len },
            _ if flags & !VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 => {
                Self::Refuse(Status::Unsupported)
            }
            _ => Self::Zero { offset, len },
        }
    }
}
