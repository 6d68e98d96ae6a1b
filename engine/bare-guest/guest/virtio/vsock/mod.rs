//! Stream sockets to the host (virtio 1.3 §5.10): this guest listens, the host connects, one connection at a time.
//!
//! Invariant: received bytes are counted as forwarded only when they have left the ring, and no more is sent than the peer
//! has room for, so a byte that is lost, doubled or sent without credit anywhere in the host shows as one.

mod connection;
mod link;
mod packet;

use core::hint::spin_loop;

use self::connection::Connection;
use self::link::Link;
use self::packet::{Header, Operation, Outbox, PAYLOAD};
use super::PATIENCE;
use crate::layout::{VSOCK_RING, VSOCK_RING_BYTES};
use crate::mailbox::{Fault, Outcome};
use crate::memory::{load, store};
use crate::{Machine, port};

/// Polls of the queues between two looks at the mailbox.
const LOOK: u32 = 1024;

/// Echoes one connection.
pub fn echo(listen: u32) -> Outcome {
    let link = Link::open()?;
    let mut echo = Echo {
        received: 0,
        echoed: 0,
    };
    match serve(&link, listen, &mut echo) {
        Ok(()) => Ok(echo.echoed),
        Err(fault) => {
            link.forsake();
            Err(fault)
        }
    }
}

/// Counts to every connection.
pub fn count(machine: Machine, listen: u32) -> Outcome {
    let link = Link::open()?;
    let mut count = Count { machine, sent: 0 };
    match serve(&link, listen, &mut count) {
        Ok(()) => Ok(count.sent),
        Err(fault) => {
            link.forsake();
            Err(fault)
        }
    }
}

/// What happens on a connection.
trait Service {
    /// A connection begins.
    fn begin(&mut self);
    /// Takes `bytes` bytes at `address` that the peer sent.
    fn receive(
        &mut self,
        connection: &mut Connection,
        address: u64,
        bytes: u64,
    ) -> Result<(), (Fault, u32)>;
    /// Writes at most `room` bytes to send at `address`. Returns how many; 0 = nothing to send.
    fn produce(&mut self, connection: &mut Connection, address: u64, room: u64) -> u64;
    /// Whether the service is over when a connection ends in a close.
    fn ends_with_connection(&self) -> bool;
}

/// The conversation with the host: at most one connection, and what is still to be said.
struct Host<'a> {
    link: &'a Link,
    listen: u32,
    connection: Option<Connection>,
    outbox: Outbox,
}

/// Serves until pending, or until the service is over.
fn serve(link: &Link, listen: u32, service: &mut dyn Service) -> Result<(), (Fault, u32)> {
    let mut host = Host {
        link,
        listen,
        connection: None,
        outbox: Outbox::EMPTY,
    };
    let mut polls = 0_u32;
    loop {
        polls = polls.wrapping_add(1);
        if polls.is_multiple_of(LOOK) && port::pending() {
            return host.leave();
        }
        // A packet taken before the look at the events cannot be from after a reset that the look does not see.
        let packet = link.receive()?;
        if link.transport_was_reset()? {
            (host.connection, host.outbox) = (None, Outbox::EMPTY);
        }
        let mut idle = true;
        if let Some((header, payload)) = packet {
            let turn = host.take(&header, payload, service)?;
            link.recycle(payload);
            if turn == Turn::Closed && service.ends_with_connection() {
                return Ok(());
            }
            idle = false;
        }
        if let Some(buffer) = link.free_buffer()? {
            idle &= !host.send(buffer, service);
        }
        if idle {
            spin_loop();
        }
    }
}

/// What became of the connection with a packet.
#[derive(PartialEq, Eq)]
enum Turn {
    GoOn,
    Closed,
}

impl Host<'_> {
    /// Handles one packet.
    fn take(
        &mut self,
        header: &Header,
        payload: u64,
        service: &mut dyn Service,
    ) -> Result<Turn, (Fault, u32)> {
        let Some(connection) = self
            .connection
            .as_mut()
            .filter(|connection| connection.is_of(header))
        else {
            if header.operation == Operation::REQUEST
                && header.local_port == self.listen
                && self.connection.is_none()
            {
                let connection = Connection::accept(header);
                service.begin();
                self.outbox.push(connection.header(Operation::RESPONSE, 0));
                self.connection = Some(connection);
            } else if header.operation != Operation::RESET {
                self.outbox.push(header.refusal());
            }
            return Ok(Turn::GoOn);
        };
        connection.learn(header);
        match header.operation {
            Operation::DATA => service.receive(connection, payload, header.bytes.into())?,
            Operation::CREDIT_REQUEST => self
                .outbox
                .push(connection.header(Operation::CREDIT_UPDATE, 0)),
            Operation::SHUTDOWN => connection.closing |= header.flags,
            Operation::RESET => {
                self.connection = None;
                return Ok(Turn::Closed);
            }
            _ => {}
        }
        Ok(Turn::GoOn)
    }

    /// Says the next thing there is to say, in a free buffer. Returns whether there was one.
    fn send(&mut self, buffer: u64, service: &mut dyn Service) -> bool {
        if let Some(header) = self.outbox.pop() {
            self.link.send(buffer, &header);
            return true;
        }
        let Some(connection) = &mut self.connection else {
            return false;
        };
        let room = if connection.peer_takes_no_more() {
            0
        } else {
            connection.credit().min(PAYLOAD)
        };
        let bytes = if room == 0 {
            0
        } else {
            service.produce(connection, buffer + Header::BYTES, room)
        };
        let operation = if bytes > 0 {
            connection.sent = connection.sent.wrapping_add(bytes as u32);
            Operation::DATA
        } else if connection.owes_credit() {
            Operation::CREDIT_UPDATE
        } else if connection.closing != 0
            && !connection.said_shutdown
            && (room > 0 || connection.peer_takes_no_more())
        {
            // Everything that may be answered is: close this side as well; the peer resets (§5.10.6.5).
            connection.said_shutdown = true;
            Operation::SHUTDOWN
        } else {
            return false;
        };
        connection.announced = connection.forwarded;
        self.link
            .send(buffer, &connection.header(operation, bytes as u32));
        true
    }

    /// Resets the connection that the service leaves.
    fn leave(&self) -> Result<(), (Fault, u32)> {
        let Some(connection) = &self.connection else {
            return Ok(());
        };
        for _ in 0..PATIENCE {
            if let Some(buffer) = self.link.free_buffer()? {
                self.link
                    .send(buffer, &connection.header(Operation::RESET, 0));
                return Ok(());
            }
            spin_loop();
        }
        Err((Fault::Timeout, 0))
    }
}

/// Sends back what it gets, through the ring.
struct Echo {
    received: u64,
    echoed: u64,
}

impl Service for Echo {
    fn begin(&mut self) {
        (self.received, self.echoed) = (0, 0);
    }

    fn receive(
        &mut self,
        _: &mut Connection,
        address: u64,
        bytes: u64,
    ) -> Result<(), (Fault, u32)> {
        if self.received - self.echoed + bytes > VSOCK_RING_BYTES {
            return Err((Fault::Protocol, 1));
        }
        for offset in 0..bytes {
            store(
                VSOCK_RING + (self.received + offset) % VSOCK_RING_BYTES,
                load::<u8>(address + offset),
            );
        }
        self.received += bytes;
        Ok(())
    }

    fn produce(&mut self, connection: &mut Connection, address: u64, room: u64) -> u64 {
        let bytes = room.min(self.received - self.echoed);
        for offset in 0..bytes {
            store(
                address + offset,
                load::<u8>(VSOCK_RING + (self.echoed + offset) % VSOCK_RING_BYTES),
            );
        }
        self.echoed += bytes;
        connection.forwarded = connection.forwarded.wrapping_add(bytes as u32);
        bytes
    }

    fn ends_with_connection(&self) -> bool {
        true
    }
}

/// Sends 0, 1, 2, …; throws away what it gets.
struct Count {
    machine: Machine,
    sent: u64,
}

impl Service for Count {
    fn begin(&mut self) {
        self.sent = 0;
    }

    fn receive(
        &mut self,
        connection: &mut Connection,
        _: u64,
        bytes: u64,
    ) -> Result<(), (Fault, u32)> {
        connection.forwarded = connection.forwarded.wrapping_add(bytes as u32);
        Ok(())
    }

    fn produce(&mut self, connection: &mut Connection, address: u64, room: u64) -> u64 {
        if connection.closing != 0 {
            return 0;
        }
        let numbers = room / 8;
        for index in 0..numbers {
            let at = address + index * 8;
            // The payload begins 44 bytes into the buffer, so its words are halves apart.
            store(at, (self.sent + index) as u32);
            store(at + 4, ((self.sent + index) >> 32) as u32);
        }
        if numbers > 0 {
            self.sent += numbers;
            port::tick(self.machine.vcpu);
        }
        numbers * 8
    }

    fn ends_with_connection(&self) -> bool {
        false
    }
}
