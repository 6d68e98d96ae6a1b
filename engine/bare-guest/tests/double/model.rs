//! Four device models: a dead one, entropy that gives two bytes at a time, a disk in a `Vec`, and a host at the other end of a socket.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{Chain, Model, Queue, word};

/// A device that comes up and then does nothing, with the id of an entropy source.
pub(crate) struct Inert;

impl Model for Inert {
    fn id(&self) -> u32 {
        4
    }

    fn work(&mut self, _: &GuestMemoryMmap, _: &mut [Queue; 3]) {}
}

/// Entropy 1, 2, 3, … since the last reset.
#[derive(Default)]
pub(crate) struct Entropy {
    last: u8,
}

impl Model for Entropy {
    fn id(&self) -> u32 {
        4
    }

    fn reset(&mut self) {
        self.last = 0;
    }

    fn work(&mut self, memory: &GuestMemoryMmap, queues: &mut [Queue; 3]) {
        while let Some((head, buffers)) = queues[0].pop(memory) {
            let (address, bytes, writable) = buffers[0];
            assert!(writable);
            for offset in 0..u64::from(bytes.min(2)) {
                self.last += 1;
                memory
                    .write_obj(self.last, GuestAddress(address + offset))
                    .expect("buffer in RAM");
            }
            queues[0].push(memory, head, bytes.min(2));
        }
    }
}

/// A disk whose bytes the test can reach.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) bytes: Arc<Mutex<Vec<u8>>>,
}

impl Model for Disk {
    fn id(&self) -> u32 {
        2
    }

    fn work(&mut self, memory: &GuestMemoryMmap, queues: &mut [Queue; 3]) {
        while let Some((head, buffers)) = queues[0].pop(memory) {
            let mut disk = self.bytes.lock().expect("no panic elsewhere");
            let (header, _, _) = buffers[0];
            let (status, _, _) = buffers[buffers.len() - 1];
            let start = word::<u64>(memory, header + 8) as usize * 512;
            let mut good = true;
            for (address, bytes, writable) in &buffers[1..buffers.len() - 1] {
                let Some(sectors) = disk.get_mut(start..start + *bytes as usize) else {
                    good = false;
                    continue;
                };
                match (word::<u32>(memory, header), writable) {
                    (0, true) => memory
                        .write_slice(sectors, GuestAddress(*address))
                        .expect("buffer in RAM"),
                    (1, false) => memory
                        .read_slice(sectors, GuestAddress(*address))
                        .expect("buffer in RAM"),
                    other => assert_eq!(other, (0, &true), "no such request"),
                }
            }
            memory
                .write_obj(u8::from(!good), GuestAddress(status))
                .expect("status in RAM");
            queues[0].push(memory, head, 1);
        }
    }
}

/// A vsock packet without addresses: operation, flags, credit given (buffer, forwarded), payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) operation: u16,
    pub(crate) flags: u32,
    pub(crate) credit: (u32, u32),
    pub(crate) payload: Vec<u8>,
}

/// What the host does next.
pub(crate) enum Step {
    /// Sends a packet.
    Send(Packet),
    /// Resets the transport.
    Reset,
}

/// What the host is to do, and what the guest has said.
#[derive(Default)]
pub(crate) struct Wire {
    /// Steps, each taken as soon as the guest has said so many packets.
    pub(crate) script: VecDeque<(usize, Step)>,
    /// From the guest.
    pub(crate) from_guest: Vec<Packet>,
}

/// Context id 77's socket device. The host's port is 1000, the guest's 5.
#[derive(Clone, Default)]
pub(crate) struct Socket {
    pub(crate) wire: Arc<Mutex<Wire>>,
    receive: VecDeque<(u16, u64)>,
    events: VecDeque<(u16, u64)>,
}

impl Socket {
    fn take(chain: Chain) -> (u16, u64) {
        (chain.0, chain.1[0].0)
    }
}

impl Model for Socket {
    fn id(&self) -> u32 {
        19
    }

    fn config(&self, offset: u64) -> u32 {
        if offset == 0 { 77 } else { 0 }
    }

    fn reset(&mut self) {
        (self.receive, self.events) = Default::default();
    }

    fn work(&mut self, memory: &GuestMemoryMmap, queues: &mut [Queue; 3]) {
        self.receive
            .extend(std::iter::from_fn(|| queues[0].pop(memory)).map(Self::take));
        self.events
            .extend(std::iter::from_fn(|| queues[2].pop(memory)).map(Self::take));
        let mut wire = self.wire.lock().expect("no panic elsewhere");
        while let Some((head, buffers)) = queues[1].pop(memory) {
            let at = buffers[0].0;
            assert_eq!(
                (word::<u64>(memory, at), word::<u64>(memory, at + 8)),
                (77, 2)
            );
            assert_eq!(
                (word::<u32>(memory, at + 16), word::<u32>(memory, at + 20)),
                (5, 1000)
            );
            let mut payload = vec![0; word::<u32>(memory, at + 24) as usize];
            assert_eq!(payload.len() + 44, buffers[0].1 as usize);
            memory
                .read_slice(&mut payload, GuestAddress(at + 44))
                .expect("buffer in RAM");
            let credit = (word(memory, at + 36), word(memory, at + 40));
            wire.from_guest.push(Packet {
                operation: word(memory, at + 30),
                flags: word(memory, at + 32),
                credit,
                payload,
            });
            queues[1].push(memory, head, 0);
        }
        while wire
            .script
            .front()
            .is_some_and(|(after, _)| wire.from_guest.len() >= *after)
        {
            let Some((_, Step::Send(packet))) = wire.script.pop_front() else {
                let (head, address) = self.events.pop_front().expect("an event buffer");
                memory
                    .write_obj(0_u32, GuestAddress(address))
                    .expect("buffer in RAM");
                queues[2].push(memory, head, 4);
                continue;
            };
            let (head, address) = self.receive.pop_front().expect("a receive buffer");
            let mut bytes = Vec::new();
            bytes.extend([2_u64, 77].map(u64::to_le_bytes).concat());
            bytes.extend(
                [1000, 5, packet.payload.len() as u32]
                    .map(u32::to_le_bytes)
                    .concat(),
            );
            bytes.extend([1, packet.operation].map(u16::to_le_bytes).concat());
            bytes.extend(
                [packet.flags, packet.credit.0, packet.credit.1]
                    .map(u32::to_le_bytes)
                    .concat(),
            );
            bytes.extend(&packet.payload);
            memory
                .write_slice(&bytes, GuestAddress(address))
                .expect("buffer in RAM");
            queues[0].push(memory, head, bytes.len() as u32);
        }
    }
}
