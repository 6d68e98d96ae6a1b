//! One stream between a host socket and a guest socket: phases, credit, what has to be told to the guest.
//!
//! ```text
//!  host opens:   Requested ──RESPONSE──► Open ──┐   RST, in either direction, from anywhere: gone
//!  guest opens:  Open (RESPONSE pending) ───────┴── SHUTDOWN of both directions, then RST: gone
//! ```
//!
//! Invariant: no more than `buf_alloc` bytes of the guest's are held here, and no more is sent to the guest than it
//! has room for (virtio 1.3 §5.10.6.3).

use std::collections::VecDeque;
use std::io;
use std::num::Wrapping;
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::packet::Header;

/// Both ports of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) host_port: u32,
    pub(super) guest_port: u32,
}

/// How far the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The host asked; the guest has not answered, and perhaps not been told yet.
    Requested,
    /// Data may flow.
    Open,
}

/// Whether the host's side of a connection is told that the guest accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeting {
    /// The stream carries the guest's bytes and nothing else.
    Silent,
    /// `OK <host_port>\n` comes first.
    OkLine,
}

/// Control packets that wait for a receive buffer of the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) request: bool,
    pub(super) response: bool,
    pub(super) credit_update: bool,
    pub(super) credit_request: bool,
    pub(super) shutdown: bool,
}

/// What became of an attempt to move bytes to or from the host socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// That many bytes; for a read, zero is the end of the stream.
    Bytes(usize),
    /// The socket is not ready.
    Later,
    /// The socket is broken or gone.
    Broken,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) phase: Phase,
    pub(super) greeting: Greeting,
    /// None once the host has closed both directions.
    pub(super) stream: Option<UnixStream>,
    pub(super) pending: Pending,
    /// Has a place in the queue of connections with something to send.
    pub(super) queued: bool,
    /// The host socket may have bytes for the guest.
    pub(super) readable: bool,
    /// The host socket came to its end.
    pub(super) ended: bool,
    /// poll(2) said that the peer of the host socket is gone.
    pub(super) hung_up: bool,
    /// Directions that the guest has shut down.
    pub(super) guest_shut: u32,
    /// Directions whose shutdown the guest has been or is to be told.
    pub(super) host_shut: u32,
    /// A REQUEST has reached the guest, which therefore knows the connection.
    pub(super) announced: bool,
    /// Bytes of the guest's that the host socket has not taken.
    pub(super) held: VecDeque<u8>,
    /// Room the guest says it has in all.
    peer_alloc: u32,
    /// Bytes the guest says it has consumed.
    peer_consumed: Wrapping<u32>,
    /// Bytes sent to the guest.
    sent: Wrapping<u32>,
    /// Bytes of the guest's that the host socket has taken.
    consumed: Wrapping<u32>,
    /// As last told to the guest.
    consumed_told: Wrapping<u32>,
    /// A CREDIT_REQUEST was sent and no credit has come since.
    pub(super) credit_asked: bool,
}

impl Conn {
    /// A connection over `stream`.
    pub(super) fn new(stream: UnixStream, phase: Phase, greeting: Greeting) -> Self {
        Self {
            phase,
            greeting,
            stream: Some(stream),
            pending: Pending::default(),
            queued: false,
            readable: false,
            ended: false,
            hung_up: false,
            guest_shut: 0,
            host_shut: 0,
            announced: false,
            held: VecDeque::new(),
            peer_alloc: 0,
            peer_consumed: Wrapping(0),
            sent: Wrapping(0),
            consumed: Wrapping(0),
            consumed_told: Wrapping(0),
            credit_asked: false,
        }
    }

    /// Takes the guest's credit out of a packet of this connection.
    pub(super) fn learn_credit(&mut self, header: &Header) {
        self.peer_alloc = header.buf_alloc;
        self.peer_consumed = Wrapping(header.fwd_cnt);
        // An answer that gives no credit must not cause the next question.
        self.credit_asked &= self.credit() == 0;
    }

    /// Bytes the guest has room for; nonsense in its counters leaves none.
    pub(super) fn credit(&self) -> u32 {
        let in_flight = self.sent - self.peer_consumed;
        self.peer_alloc.saturating_sub(in_flight.0)
    }

    /// That many bytes were sent to the guest.
    pub(super) fn note_sent(&mut self, len: u32) {
        self.sent += len;
    }

    /// What a packet says about the room here; from then on the guest knows.
    pub(super) fn tell_consumed(&mut self) -> u32 {
        self.consumed_told = self.consumed;
        self.pending.credit_update = false;
        self.consumed.0
    }

    /// Whether the guest should be told how much was consumed before it runs out of credit.
    pub(super) fn owes_credit_update(&self, buf_alloc: u32) -> bool {
        (self.consumed - self.consumed_told).0 >= buf_alloc / 4
    }

    /// Passes bytes of the guest's to the host socket, and holds what it does not take.
    pub(super) fn accept(&mut self, bytes: &[u8]) -> Moved {
        let mut taken = 0;
        while self.held.is_empty() && taken < bytes.len() {
            match self.send(bytes.get(taken..).unwrap_or_default()) {
                Moved::Bytes(sent) => taken += sent,
                Moved::Later => break,
                Moved::Broken => return Moved::Broken,
            }
        }
        self.consumed += u32::try_from(taken).unwrap_or(u32::MAX);
        self.held.extend(bytes.get(taken..).unwrap_or_default());
        Moved::Bytes(taken)
    }

    /// Passes held bytes on.
    pub(super) fn flush(&mut self) -> Moved {
        let Some(stream) = &self.stream else {
            return Moved::Broken;
        };
        let (moved, sent) = flush(stream, &mut self.held);
        self.consumed += u32::try_from(sent).unwrap_or(u32::MAX);
        moved
    }

    /// Reads what the host has for the guest.
    pub(super) fn receive(&self, buf: &mut [u8]) -> Moved {
        let Some(stream) = &self.stream else {
            return Moved::Broken;
        };
        match recv(stream, buf, RecvFlags::DONTWAIT) {
            Ok((_, len)) => Moved::Bytes(len),
            Err(Errno::AGAIN | Errno::INTR) => Moved::Later,
            Err(_) => Moved::Broken,
        }
    }

    /// Sends to the host socket.
    pub(super) fn send(&self, bytes: &[u8]) -> Moved {
        self.stream
            .as_ref()
            .map_or(Moved::Broken, |stream| send_some(stream, bytes))
    }

    /// Ends one direction of the host socket. A socket that is gone already is as good as ended.
    pub(super) fn shut_host(&self, how: std::net::Shutdown) -> io::Result<()> {
        match self.stream.as_ref().map(|stream| stream.shutdown(how)) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotConnected => Err(error),
            _ => Ok(()),
        }
    }
}

/// Sends as much of `held` as `stream` takes; how it ended and how much was sent.
pub(super) fn flush(stream: &UnixStream, held: &mut VecDeque<u8>) -> (Moved, usize) {
    let mut sent = 0;
    loop {
        let (front, _) = held.as_slices();
        if front.is_empty() {
            // Gives the memory back: most connections never hold anything again.
            held.shrink_to_fit();
            return (Moved::Bytes(sent), sent);
        }
        match send_some(stream, front) {
            Moved::Bytes(len) => {
                held.drain(..len.min(held.len()));
                sent += len;
            }
            other => return (other, sent),
        }
    }
}

fn send_some(stream: &UnixStream, bytes: &[u8]) -> Moved {
    match send(stream, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
        Ok(len) => Moved::Bytes(len),
        Err(Errno::AGAIN | Errno::INTR) => Moved::Later,
        Err(_) => Moved::Broken,
    }
}
