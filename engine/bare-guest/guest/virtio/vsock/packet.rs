//! The packet header (virtio 1.3 §5.10.6), 44 little-endian bytes before the payload.

use crate::memory::{load, store};

/// Most payload bytes of one packet, either way: header and payload fill at most one buffer.
pub const PAYLOAD: u64 = 2048 - Header::BYTES;

const STREAM: u16 = 1;
/// The host's context id.
const HOST: u64 = 2;

/// What a packet is for.
pub struct Operation;

impl Operation {
    pub const REQUEST: u16 = 1;
    pub const RESPONSE: u16 = 2;
    pub const RESET: u16 = 3;
    pub const SHUTDOWN: u16 = 4;
    pub const DATA: u16 = 5;
    pub const CREDIT_UPDATE: u16 = 6;
    pub const CREDIT_REQUEST: u16 = 7;
}

/// A header, seen from this side: `local` is the guest's end, `peer` the host's.
#[derive(Clone, Copy)]
pub struct Header {
    pub local_port: u32,
    pub peer_port: u32,
    pub bytes: u32,
    pub operation: u16,
    pub flags: u32,
    pub buffer_bytes: u32,
    pub forwarded: u32,
}

impl Header {
    /// Bytes of a header.
    pub const BYTES: u64 = 44;

    /// Reads a header that the device wrote.
    pub fn read(at: u64) -> Self {
        Self {
            peer_port: load(at + 16),
            local_port: load(at + 20),
            bytes: load(at + 24),
            operation: load(at + 30),
            flags: load(at + 32),
            buffer_bytes: load(at + 36),
            forwarded: load(at + 40),
        }
    }

    /// Writes a header for the device, from this guest's context id.
    pub fn write(&self, at: u64, guest: u64) {
        store(at, guest);
        store(at + 8, HOST);
        store(at + 16, self.local_port);
        store(at + 20, self.peer_port);
        store(at + 24, self.bytes);
        store(at + 28, STREAM);
        store(at + 30, self.operation);
        store(at + 32, self.flags);
        store(at + 36, self.buffer_bytes);
        store(at + 40, self.forwarded);
    }

    /// The reset that refuses this packet.
    pub fn refusal(&self) -> Self {
        Self {
            bytes: 0,
            operation: Operation::RESET,
            flags: 0,
            buffer_bytes: 0,
            forwarded: 0,
            ..*self
        }
    }
}

/// Packets without payload that wait for a free buffer. Receiving never waits for sending, so the two cannot wait for each
/// other; if the host makes the guest say more than fits, the excess is not said.
pub struct Outbox {
    headers: [Option<Header>; 16],
}

impl Outbox {
    /// No packets.
    pub const EMPTY: Self = Self {
        headers: [None; 16],
    };

    /// Adds a packet behind the others.
    pub fn push(&mut self, header: Header) {
        if let Some(place) = self.headers.iter_mut().find(|place| place.is_none()) {
            *place = Some(header);
        }
    }

    /// Takes the first packet.
    pub fn pop(&mut self) -> Option<Header> {
        let first = self.headers[0].take();
        self.headers.rotate_left(1);
        first
    }
}
