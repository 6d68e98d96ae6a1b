//! The three queues of a socket device, and their buffers.
//!
//! ```text
//! buffers: 0x0000 16 × 2 KiB to receive   0x8000 4 × 2 KiB to send   0xa000 4 × 16 bytes for events   0xb000 send buffers in use, context id
//! ```

use super::super::device::{Device, Freshness, SOCKET};
use super::super::mmio::register;
use super::super::queue::{Buffer, Queue, WRITE};
use super::packet::{Header, PAYLOAD};
use crate::mailbox::Fault;
use crate::memory::{load, store};

const RECEIVE: u16 = 0;
const SEND: u16 = 1;
const EVENT: u16 = 2;

const BUFFER_BYTES: u64 = 2048;
const RECEIVE_BUFFERS: u16 = 16;
const SEND_AREA: u64 = 0x8000;
const SEND_BUFFERS: u16 = 4;
const EVENT_AREA: u64 = 0xa000;
const EVENT_BYTES: u64 = 16;
const EVENT_BUFFERS: u16 = 4;
const IN_USE: u64 = 0xb000;
const CONTEXT_ID: u64 = 0xb008;
/// §5.10.6.7: all connections are gone, and the context id may have changed.
const TRANSPORT_RESET: u32 = 0;

/// A socket device that this vCPU holds.
pub struct Link {
    device: Device,
}

impl Link {
    /// Opens the first socket device.
    pub fn open() -> Result<Self, (Fault, u32)> {
        let (device, freshness) = Device::open(SOCKET, 3)?;
        let link = Self { device };
        if freshness == Freshness::New {
            store(link.device.buffers() + IN_USE, 0_u64);
            link.learn_context_id();
            for index in 0..RECEIVE_BUFFERS {
                link.offer_receive(index);
            }
            for index in 0..EVENT_BUFFERS {
                link.offer_event(index);
            }
            link.queue(RECEIVE).notify();
            link.queue(EVENT).notify();
        }
        Ok(link)
    }

    /// Makes the next user reset the device.
    pub fn forsake(&self) {
        self.device.forsake();
    }

    /// The next packet that has come, with the address of its payload; to be [`recycle`](Self::recycle)d after use.
    pub fn receive(&self) -> Result<Option<(Header, u64)>, (Fault, u32)> {
        let Some((index, bytes)) = self.queue(RECEIVE).take()? else {
            return Ok(None);
        };
        self.device.acknowledge();
        let buffer = self.receive_buffer(index);
        let header = Header::read(buffer);
        let whole = Header::BYTES + u64::from(header.bytes);
        if index >= RECEIVE_BUFFERS || u64::from(header.bytes) > PAYLOAD || whole > u64::from(bytes)
        {
            return Err((Fault::Protocol, 2));
        }
        Ok(Some((header, buffer + Header::BYTES)))
    }

    /// Gives the buffer of a received payload back to the device.
    pub fn recycle(&self, payload: u64) {
        self.offer_receive(((payload - self.device.buffers()) / BUFFER_BYTES) as u16);
        self.queue(RECEIVE).notify();
    }

    /// Whether the device has reset the transport since the last look. Its event buffers are given back.
    pub fn transport_was_reset(&self) -> Result<bool, (Fault, u32)> {
        let mut reset = false;
        while let Some((index, _)) = self.queue(EVENT).take()? {
            if index >= EVENT_BUFFERS {
                return Err((Fault::Protocol, 3));
            }
            self.device.acknowledge();
            reset |= load::<u32>(self.event_buffer(index)) == TRANSPORT_RESET;
            self.offer_event(index);
            self.queue(EVENT).notify();
        }
        if reset {
            self.learn_context_id();
        }
        Ok(reset)
    }

    /// A free send buffer.
    pub fn free_buffer(&self) -> Result<Option<u64>, (Fault, u32)> {
        let in_use = self.device.buffers() + IN_USE;
        while let Some((index, _)) = self.queue(SEND).take()? {
            let bit = 1_u64 << index;
            if load::<u64>(in_use) & bit == 0 {
                return Err((Fault::Protocol, 4));
            }
            store(in_use, load::<u64>(in_use) & !bit);
        }
        let free = (0..SEND_BUFFERS).find(|index| load::<u64>(in_use) & (1 << index) == 0);
        Ok(free.map(|index| self.device.buffers() + SEND_AREA + u64::from(index) * BUFFER_BYTES))
    }

    /// Sends a packet from a free buffer; its payload, if any, lies there already, behind the place of the header.
    pub fn send(&self, buffer: u64, header: &Header) {
        let index = ((buffer - self.device.buffers() - SEND_AREA) / BUFFER_BYTES) as u16;
        let in_use = self.device.buffers() + IN_USE;
        store(in_use, load::<u64>(in_use) | 1 << index);
        header.write(buffer, load(self.device.buffers() + CONTEXT_ID));
        let bytes = Header::BYTES as u32 + header.bytes;
        self.queue(SEND).describe(
            index,
            &Buffer {
                address: buffer,
                bytes,
                flags: 0,
            },
        );
        self.queue(SEND).offer(index);
        self.queue(SEND).notify();
    }

    /// Reads this guest's context id, which may differ after a transport reset.
    fn learn_context_id(&self) {
        let window = self.device.window();
        let id = u64::from(window.read(register::CONFIG))
            | u64::from(window.read(register::CONFIG + 4)) << 32;
        store(self.device.buffers() + CONTEXT_ID, id);
    }

    fn queue(&self, index: u16) -> Queue {
        self.device.queue(index)
    }

    fn receive_buffer(&self, index: u16) -> u64 {
        self.device.buffers() + u64::from(index) * BUFFER_BYTES
    }

    fn event_buffer(&self, index: u16) -> u64 {
        self.device.buffers() + EVENT_AREA + u64::from(index) * EVENT_BYTES
    }

    fn offer_receive(&self, index: u16) {
        self.queue(RECEIVE).describe(
            index,
            &Buffer {
                address: self.receive_buffer(index),
                bytes: BUFFER_BYTES as u32,
                flags: WRITE,
            },
        );
        self.queue(RECEIVE).offer(index);
    }

    fn offer_event(&self, index: u16) {
        let buffer = Buffer {
            address: self.event_buffer(index),
            bytes: EVENT_BYTES as u32,
            flags: WRITE,
        };
        self.queue(EVENT).describe(index, &buffer);
        self.queue(EVENT).offer(index);
    }
}
