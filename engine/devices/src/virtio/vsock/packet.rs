//! The header of every vsock packet (virtio 1.3 §5.10.6): 44 bytes, little-endian.
//!
//! ```text
//!  0 src_cid u64 | 8 dst_cid u64 | 16 src_port u32 | 20 dst_port u32 | 24 len u32 | 28 type u16 | 30 op u16
//!  32 flags u32 | 36 buf_alloc u32 | 40 fwd_cnt u32
//! ```

use crate::GuestMemory;
use crate::virtio::chain::{Chain, ChainError};

/// Bytes of the header.
pub(super) const HEADER: usize = 44;
/// `VIRTIO_VSOCK_TYPE_STREAM`
pub(super) const STREAM: u16 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE`: the sender will receive no more.
pub(super) const SHUT_RECEIVE: u32 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_SEND`: the sender will send no more.
pub(super) const SHUT_SEND: u32 = 2;
/// Both.
pub(super) const SHUT_BOTH: u32 = SHUT_RECEIVE | SHUT_SEND;

/// `VIRTIO_VSOCK_OP_*`
pub(super) mod op {
    pub(in super::super) const REQUEST: u16 = 1;
    pub(in super::super) const RESPONSE: u16 = 2;
    pub(in super::super) const RST: u16 = 3;
    pub(in super::super) const SHUTDOWN: u16 = 4;
    pub(in super::super) const RW: u16 = 5;
    pub(in super::super) const CREDIT_UPDATE: u16 = 6;
    pub(in super::super) const CREDIT_REQUEST: u16 = 7;
}

/// A packet's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Header {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    pub(super) len: u32,
    pub(super) kind: u16,
    pub(super) op: u16,
    pub(super) flags: u32,
    pub(super) buf_alloc: u32,
    pub(super) fwd_cnt: u32,
}

impl Header {
    /// The header at the start of `chain`'s readable part.
    pub(super) fn read(chain: &Chain, mem: &GuestMemory) -> Result<Self, ChainError> {
        let mut bytes = [0; HEADER];
        chain.read(mem, 0, &mut bytes)?;
        let word = |at: usize| {
            let mut word = [0; 4];
            for (to, from) in word.iter_mut().zip(bytes.iter().skip(at)) {
                *to = *from;
            }
            u32::from_le_bytes(word)
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let [kind_low, kind_high, op_low, op_high] = word(28).to_le_bytes();
        Ok(Self {
            src_cid: long(0),
            dst_cid: long(8),
            src_port: word(16),
            dst_port: word(20),
            len: word(24),
            kind: u16::from_le_bytes([kind_low, kind_high]),
            op: u16::from_le_bytes([op_low, op_high]),
            flags: word(32),
            buf_alloc: word(36),
            fwd_cnt: word(40),
        })
    }

    /// The header as it stands in guest memory.
    pub(super) fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let fields: [&[u8]; 10] = [
            &self.src_cid.to_le_bytes(),
            &self.dst_cid.to_le_bytes(),
            &self.src_port.to_le_bytes(),
            &self.dst_port.to_le_bytes(),
            &self.len.to_le_bytes(),
            &self.kind.to_le_bytes(),
            &self.op.to_le_bytes(),
            &self.flags.to_le_bytes(),
            &self.buf_alloc.to_le_bytes(),
            &self.fwd_cnt.to_le_bytes(),
        ];
        for (to, from) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }
}
