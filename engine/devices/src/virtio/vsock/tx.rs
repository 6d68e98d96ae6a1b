//! From the guest: every packet is taken, checked and answered; bytes go to the host socket or are held.
//!
//! Invariant: whatever the guest sends, one packet costs bounded work and bounded memory. Packets that no correct
//! peer sends reset their connection (virtio 1.3 §5.10.6.4, §5.10.6.6).

use std::net::Shutdown;

use super::conn::{Conn, Greeting, Key, Moved, Phase};
use super::packet::{self, HEADER, Header, op};
use super::{HOST_CID, TX, Vsock};
use crate::GuestMemory;
use crate::virtio::chain::{Chain, ChainError};
use crate::virtio::device::{DeviceFault, Progress};
use crate::virtio::queue::VirtQueue;

/// Packets taken in one round.
const PACKETS_PER_ROUND: usize = 64;
/// Bytes moved with one system call.
const PIECE: usize = 8192;

/// What a packet does to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It goes on.
    Keep,
    /// It is no more, and the guest is told.
    Reset,
    /// It is no more, which the guest knows.
    Gone,
}

impl Vsock {
    /// Takes packets of the guest, as long as there is room to note answers.
    pub(super) fn drain_tx(
        &mut self,
        queues: &mut [VirtQueue],
        mem: &GuestMemory,
    ) -> Result<Progress, DeviceFault> {
        let Some(queue) = queues.get_mut(TX) else {
            return Ok(Progress::Idle);
        };
        let mut chain = Chain::default();
        for _ in 0..PACKETS_PER_ROUND {
            if self.table.resets_full() {
                return Ok(Progress::Stalled);
            }
            if !queue.pop(mem, &mut chain)? {
                return Ok(Progress::Idle);
            }
            if chain.writable_len() > 0 || chain.readable_len() < HEADER as u64 {
                let what = "a packet is device-readable and has a header";
                return Err(ChainError::Shape { what }.into());
            }
            let header = Header::read(&chain, mem)?;
            self.take_packet(&header, &chain, mem)?;
            queue.push_used(mem, chain.head(), 0)?;
        }
        Ok(Progress::More)
    }

    fn take_packet(
        &mut self,
        header: &Header,
        chain: &Chain,
        mem: &GuestMemory,
    ) -> Result<(), ChainError> {
        let key = Key {
            host_port: header.dst_port,
            guest_port: header.src_port,
        };
        let ours = header.src_cid == self.options.guest_cid && header.dst_cid == HOST_CID;
        let whole = u64::from(header.len) <= chain.readable_len() - HEADER as u64;
        let verdict = if !ours || header.kind != packet::STREAM || !whole {
            // Only a packet that names a connection of this guest says anything about it.
            if ours { Verdict::Reset } else { Verdict::Keep }
        } else if header.op == op::REQUEST {
            self.take_request(key, header)
        } else if self.table.contains(key) {
            self.take_for_conn(key, header, (chain, mem))?
        } else {
            Verdict::Reset
        };
        let answer = header.op != op::RST;
        match verdict {
            Verdict::Keep if !ours && answer => self.table.reset(key),
            Verdict::Keep => {}
            Verdict::Gone => self.let_go(key),
            Verdict::Reset => {
                self.let_go(key);
                if answer {
                    self.table.reset(key);
                }
            }
        }
        Ok(())
    }

    /// The guest wants to connect to a port of the host.
    fn take_request(&mut self, key: Key, header: &Header) -> Verdict {
        if self.table.contains(key) || !self.room_for_guest_connect(key.host_port) {
            return Verdict::Reset;
        }
        let Some(stream) = self.queue_guest_connect(key) else {
            return Verdict::Reset;
        };
        let mut conn = Conn::new(stream, Phase::Open, Greeting::Silent);
        conn.learn_credit(header);
        conn.pending.response = true;
        conn.announced = true;
        self.table.insert(key, conn);
        Verdict::Keep
    }

    fn take_for_conn(
        &mut self,
        key: Key,
        header: &Header,
        (chain, mem): (&Chain, &GuestMemory),
    ) -> Result<Verdict, ChainError> {
        let buf_alloc = self.options.buf_alloc;
        let Some(conn) = self.table.conn_mut(key) else {
            return Ok(Verdict::Reset);
        };
        if header.op == op::RST {
            return Ok(Verdict::Gone);
        }
        if conn.phase == Phase::Requested {
            if header.op != op::RESPONSE || !conn.announced {
                return Ok(Verdict::Reset);
            }
            conn.learn_credit(header);
            conn.phase = Phase::Open;
            let greeted = conn.greeting == Greeting::Silent || {
                let line = format!("OK {}\n", key.host_port);
                // An empty socket takes a line; one that does not is no socket to go on with.
                conn.send(line.as_bytes()) == Moved::Bytes(line.len())
            };
            return Ok(if greeted {
                Verdict::Keep
            } else {
                Verdict::Reset
            });
        }
        conn.learn_credit(header);
        let verdict = match header.op {
            op::RW => conn.take_data(header, (chain, mem), buf_alloc)?,
            op::SHUTDOWN => conn.take_shutdown(header.flags),
            op::CREDIT_UPDATE => Verdict::Keep,
            op::CREDIT_REQUEST => {
                conn.pending.credit_update = true;
                Verdict::Keep
            }
            _ => Verdict::Reset,
        };
        self.table.enqueue(key);
        Ok(verdict)
    }
}

impl Conn {
    fn take_data(
        &mut self,
        header: &Header,
        (chain, mem): (&Chain, &GuestMemory),
        buf_alloc: u32,
    ) -> Result<Verdict, ChainError> {
        let held = self.held.len() as u64;
        let over_credit = held + u64::from(header.len) > u64::from(buf_alloc);
        if over_credit || self.guest_shut & packet::SHUT_SEND != 0 || self.stream.is_none() {
            return Ok(Verdict::Reset);
        }
        let mut piece = [0; PIECE];
        let len = u64::from(header.len);
        let mut done = 0;
        while done < len {
            let want = usize::try_from(len - done).unwrap_or(PIECE).min(PIECE);
            let bytes = piece.get_mut(..want).unwrap_or_default();
            chain.read(mem, HEADER as u64 + done, bytes)?;
            if self.accept(bytes) == Moved::Broken {
                return Ok(Verdict::Reset);
            }
            done += bytes.len() as u64;
        }
        Ok(Verdict::Keep)
    }

    fn take_shutdown(&mut self, flags: u32) -> Verdict {
        self.guest_shut |= flags & packet::SHUT_BOTH;
        if self.guest_shut == packet::SHUT_BOTH {
            // Clean disconnect (§5.10.6.5): the answer is a reset; held bytes still reach the host.
            return Verdict::Reset;
        }
        if self.guest_shut & packet::SHUT_RECEIVE != 0 {
            self.readable = false;
            if self.shut_host(Shutdown::Read).is_err() {
                return Verdict::Reset;
            }
        }
        self.finish_sending()
    }

    /// Ends the direction to the host once the guest has, and everything held was passed on.
    fn finish_sending(&self) -> Verdict {
        let ended = self.guest_shut & packet::SHUT_SEND != 0 && self.held.is_empty();
        if ended && self.shut_host(Shutdown::Write).is_err() {
            return Verdict::Reset;
        }
        Verdict::Keep
    }

    /// The host socket takes bytes again. False if the connection is broken.
    pub(super) fn resume_sending(&mut self) -> bool {
        self.flush() != Moved::Broken && self.finish_sending() == Verdict::Keep
    }
}
