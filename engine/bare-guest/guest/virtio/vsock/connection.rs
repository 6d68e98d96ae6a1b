//! The books of one connection: who it is with, and the credit both ways (virtio 1.3 §5.10.6.3). All counters wrap.

use super::packet::{Header, Operation};
use crate::layout::VSOCK_RING_BYTES;

/// Shutdown flag: the sender will not receive any more.
const NO_RECEIVE: u32 = 1;
/// Shutdown flag: the sender will not send any more.
const NO_SEND: u32 = 2;

/// One connection that the host opened.
pub struct Connection {
    local_port: u32,
    peer_port: u32,
    peer_buffer: u32,
    peer_forwarded: u32,
    /// Bytes sent.
    pub sent: u32,
    /// Bytes received and done with.
    pub forwarded: u32,
    /// `forwarded` as the peer last heard it.
    pub announced: u32,
    /// Shutdown flags that the peer has sent.
    pub closing: u32,
    /// Whether our shutdown has been sent.
    pub said_shutdown: bool,
}

impl Connection {
    /// The connection that a request opens.
    pub fn accept(request: &Header) -> Self {
        Self {
            local_port: request.local_port,
            peer_port: request.peer_port,
            peer_buffer: request.buffer_bytes,
            peer_forwarded: request.forwarded,
            sent: 0,
            forwarded: 0,
            announced: 0,
            closing: 0,
            said_shutdown: false,
        }
    }

    /// Whether a packet belongs to it.
    pub fn is_of(&self, header: &Header) -> bool {
        (self.local_port, self.peer_port) == (header.local_port, header.peer_port)
    }

    /// Takes in the credit that every packet of the peer carries.
    pub fn learn(&mut self, header: &Header) {
        self.peer_buffer = header.buffer_bytes;
        self.peer_forwarded = header.forwarded;
    }

    /// Bytes that the peer has room for.
    pub fn credit(&self) -> u64 {
        self.peer_buffer
            .saturating_sub(self.sent.wrapping_sub(self.peer_forwarded))
            .into()
    }

    /// Whether the peer should hear of its credit although there is nothing else to say.
    pub fn owes_credit(&self) -> bool {
        u64::from(self.forwarded.wrapping_sub(self.announced)) >= VSOCK_RING_BYTES / 4
    }

    /// Whether the peer said that it does not receive any more.
    pub fn peer_takes_no_more(&self) -> bool {
        self.closing & NO_RECEIVE != 0
    }

    /// A header of ours. A shutdown closes both directions.
    pub fn header(&self, operation: u16, bytes: u32) -> Header {
        Header {
            local_port: self.local_port,
            peer_port: self.peer_port,
            bytes,
            operation,
            flags: if operation == Operation::SHUTDOWN {
                NO_RECEIVE | NO_SEND
            } else {
                0
            },
            buffer_bytes: VSOCK_RING_BYTES as u32,
            forwarded: self.forwarded,
        }
    }
}
