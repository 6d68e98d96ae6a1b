//! Towards the guest: control packets and the host's bytes, one packet for each receive buffer.
//!
//! Invariant: a receive buffer is only kept when there is a packet to put in it; connections take turns packet by
//! packet.

use super::conn::{Conn, Key, Moved};
use super::packet::{self, HEADER, Header, op};
use super::{HOST_CID, RX, Vsock};
use crate::GuestMemory;
use crate::virtio::chain::{Chain, ChainError};
use crate::virtio::device::{DeviceFault, Progress};
use crate::virtio::queue::VirtQueue;

/// Packets sent in one round.
const PACKETS_PER_ROUND: usize = 64;
/// Bytes of one packet: Linux offers receive buffers of 4 KiB.
const DATA_PER_PACKET: usize = 4096;

/// A packet for a connection, or why there is none.
enum Next {
    Packet(Header, usize),
    Nothing,
}

impl Vsock {
    /// Sends what there is to send, as long as the guest has buffers.
    pub(super) fn fill_rx(
        &mut self,
        queues: &mut [VirtQueue],
        mem: &GuestMemory,
    ) -> Result<Progress, DeviceFault> {
        let Some(queue) = queues.get_mut(RX) else {
            return Ok(Progress::Idle);
        };
        let mut chain = Chain::default();
        let mut data = [0; DATA_PER_PACKET];
        for _ in 0..PACKETS_PER_ROUND {
            if let Some(key) = self.table.next_reset() {
                if !pop(queue, mem, &mut chain)? {
                    self.table.retry_reset(key);
                    return Ok(Progress::Stalled);
                }
                let header = self.header(key, op::RST);
                put(queue, mem, &chain, (&header, &[]))?;
                continue;
            }
            let Some(key) = self.table.dequeue() else {
                return Ok(Progress::Idle);
            };
            if !pop(queue, mem, &mut chain)? {
                self.table.enqueue(key);
                return Ok(Progress::Stalled);
            }
            let room = usize::try_from(chain.writable_len()).unwrap_or(usize::MAX) - HEADER;
            let limit = room.min(DATA_PER_PACKET);
            let buf = data.get_mut(..limit).unwrap_or_default();
            match self.next_packet(key, buf) {
                Next::Packet(header, len) => {
                    let payload = buf.get(..len).unwrap_or_default();
                    put(queue, mem, &chain, (&header, payload))?;
                    self.table.enqueue(key);
                }
                Next::Nothing => queue.unpop(),
            }
        }
        Ok(Progress::More)
    }

    /// The connection's next packet, the most urgent first; data is read into `buf`.
    fn next_packet(&mut self, key: Key, buf: &mut [u8]) -> Next {
        let holding = self.hold.is_some();
        let buf_alloc = self.options.buf_alloc;
        let mut header = self.header(key, op::RST);
        let Some(conn) = self.table.conn_mut(key) else {
            return Next::Nothing;
        };
        if conn.pending.request || conn.pending.response {
            if holding {
                return Next::Nothing;
            }
            header.op = if conn.pending.request {
                op::REQUEST
            } else {
                op::RESPONSE
            };
            conn.pending.request = false;
            conn.pending.response = false;
            conn.announced = true;
            return finish(conn, header, 0);
        }
        let mut broken = false;
        if conn.may_send() {
            let credit = usize::try_from(conn.credit()).unwrap_or(usize::MAX);
            let limit = credit.min(buf.len());
            if limit == 0 {
                conn.pending.credit_request |= !conn.credit_asked;
            } else {
                match conn.receive(buf.get_mut(..limit).unwrap_or_default()) {
                    Moved::Bytes(0) => conn.note_end(),
                    Moved::Bytes(len) => {
                        header.op = op::RW;
                        return finish(conn, header, len);
                    }
                    Moved::Later => conn.readable = false,
                    Moved::Broken => broken = true,
                }
            }
        }
        if broken {
            self.break_off(key);
            return Next::Nothing;
        }
        if std::mem::take(&mut conn.pending.shutdown) {
            header.op = op::SHUTDOWN;
            header.flags = conn.host_shut;
        } else if conn.pending.credit_update || conn.owes_credit_update(buf_alloc) {
            header.op = op::CREDIT_UPDATE;
        } else if std::mem::take(&mut conn.pending.credit_request) {
            conn.credit_asked = true;
            header.op = op::CREDIT_REQUEST;
        } else {
            return Next::Nothing;
        }
        finish(conn, header, 0)
    }

    /// A header from the host's side of `key`, without credit.
    fn header(&self, key: Key, op: u16) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: self.options.guest_cid,
            src_port: key.host_port,
            dst_port: key.guest_port,
            kind: packet::STREAM,
            op,
            buf_alloc: self.options.buf_alloc,
            ..Header::default()
        }
    }
}

impl Conn {
    /// Whether bytes of the host may go to the guest now, apart from credit.
    fn may_send(&self) -> bool {
        let open = self.phase == super::conn::Phase::Open;
        open && self.readable && !self.ended && self.guest_shut & packet::SHUT_RECEIVE == 0
    }
}

fn finish(conn: &mut Conn, mut header: Header, len: usize) -> Next {
    // At most 4 KiB.
    header.len = u32::try_from(len).unwrap_or(0);
    header.fwd_cnt = conn.tell_consumed();
    conn.note_sent(header.len);
    Next::Packet(header, len)
}

fn pop(queue: &mut VirtQueue, mem: &GuestMemory, chain: &mut Chain) -> Result<bool, DeviceFault> {
    if !queue.pop(mem, chain)? {
        return Ok(false);
    }
    if chain.readable_len() > 0 || chain.writable_len() <= HEADER as u64 {
        let what = "a receive buffer is device-writable and holds more than a header";
        return Err(ChainError::Shape { what }.into());
    }
    Ok(true)
}

fn put(
    queue: &mut VirtQueue,
    mem: &GuestMemory,
    chain: &Chain,
    (header, payload): (&Header, &[u8]),
) -> Result<(), DeviceFault> {
    chain.write(mem, 0, &header.bytes())?;
    chain.write(mem, HEADER as u64, payload)?;
    let len = u32::try_from(HEADER + payload.len()).unwrap_or(u32::MAX);
    queue.push_used(mem, chain.head(), len)?;
    Ok(())
}
