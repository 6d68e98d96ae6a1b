//! The guest's half of vsock: packets, a driver with its buffers in place, and the owner's poll loop.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

use brood_devices::virtio::vsock::EVENT;
use brood_devices::virtio::vsock::Greeting;
use brood_devices::virtio::vsock::RX;
use brood_devices::virtio::vsock::TX;
use brood_devices::virtio::vsock::Vsock;
use brood_devices::virtio::vsock::VsockOptions;
use rustix::event::PollFd;
use rustix::event::Timespec;
use rustix::event::poll;

use crate::driver::Buf;
use crate::driver::Driver;

pub(crate) const REQUEST: u16 = 1;
pub(crate) const RESPONSE: u16 = 2;
pub(crate) const RST: u16 = 3;
pub(crate) const SHUTDOWN: u16 = 4;
pub(crate) const RW: u16 = 5;
pub(crate) const CREDIT_UPDATE: u16 = 6;
pub(crate) const CREDIT_REQUEST: u16 = 7;

/// The guest's room for each connection.
pub(crate) const GUEST_ALLOC: u32 = 32 << 10;

/// A packet's fields that matter to a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) op: u16,
    pub(crate) host_port: u32,
    pub(crate) guest_port: u32,
    pub(crate) flags: u32,
    pub(crate) buf_alloc: u32,
    pub(crate) fwd_cnt: u32,
    pub(crate) data: Vec<u8>,
}

impl Packet {
    pub(crate) fn new(op: u16, host_port: u32, guest_port: u32) -> Self {
        let (flags, buf_alloc, fwd_cnt, data) = (0, GUEST_ALLOC, 0, Vec::new());
        Self {
            op,
            host_port,
            guest_port,
            flags,
            buf_alloc,
            fwd_cnt,
            data,
        }
    }

    pub(crate) fn with(self, data: &[u8]) -> Self {
        Self {
            data: data.to_vec(),
            ..self
        }
    }

    pub(crate) fn bytes(&self, src_cid: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(src_cid.to_le_bytes());
        bytes.extend(2u64.to_le_bytes());
        bytes.extend(self.guest_port.to_le_bytes());
        bytes.extend(self.host_port.to_le_bytes());
        bytes.extend((self.data.len() as u32).to_le_bytes());
        bytes.extend(1u16.to_le_bytes());
        bytes.extend(self.op.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.buf_alloc.to_le_bytes());
        bytes.extend(self.fwd_cnt.to_le_bytes());
        bytes.extend(&self.data);
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(
            bytes[..16],
            [2u64.to_le_bytes(), 3u64.to_le_bytes()].concat()
        );
        assert_eq!(bytes[28..30], [1, 0]);
        assert_eq!(word(24) as usize, bytes.len() - 44);
        Self {
            op: u16::from_le_bytes([bytes[30], bytes[31]]),
            host_port: word(16),
            guest_port: word(20),
            flags: word(32),
            buf_alloc: word(36),
            fwd_cnt: word(40),
            data: bytes[44..].to_vec(),
        }
    }
}

/// A guest driver with its receive and event buffers in place.
pub(crate) struct Guest {
    pub(crate) driver: Driver<Vsock>,
    pub(crate) rx: VecDeque<u64>,
    pub(crate) tx: Vec<u64>,
    pub(crate) event: u64,
}

impl Guest {
    pub(crate) fn new(options: VsockOptions, rx_buffers: usize) -> Self {
        let driver = Driver::start(Vsock::new(options));
        let mut guest = Self {
            driver,
            rx: VecDeque::new(),
            tx: Vec::new(),
            event: 0,
        };
        guest.fill(rx_buffers);
        guest
    }

    pub(crate) fn start() -> Self {
        Self::new(VsockOptions::default(), 64)
    }

    pub(crate) fn fill(&mut self, rx_buffers: usize) {
        for _ in 0..rx_buffers {
            let buffer = self.driver.alloc(4096);
            self.give_rx(buffer);
        }
        self.driver.kick(RX);
        self.event = self.driver.alloc(64);
        for nth in 0..8 {
            self.driver.add(EVENT, &[Buf::In(self.event + 8 * nth, 8)]);
        }
        self.driver.kick(EVENT);
    }

    pub(crate) fn give_rx(&mut self, buffer: u64) {
        self.driver
            .add(RX, &[Buf::In(buffer, 44), Buf::In(buffer + 44, 4052)]);
        self.rx.push_back(buffer);
    }

    /// The next packet, without giving its buffer back.
    pub(crate) fn receive(&mut self) -> Option<Packet> {
        let (_, len) = self.driver.used(RX)?;
        let buffer = self.rx.pop_front().unwrap();
        let packet = Packet::parse(&self.driver.bytes(buffer, len as usize));
        self.tx.push(buffer);
        Some(packet)
    }

    /// The next packet; its buffer goes back to the device.
    pub(crate) fn next(&mut self) -> Option<Packet> {
        let packet = self.receive()?;
        self.recycle();
        Some(packet)
    }

    pub(crate) fn recycle(&mut self) {
        for buffer in std::mem::take(&mut self.tx) {
            self.give_rx(buffer);
        }
        self.driver.kick(RX);
    }

    pub(crate) fn expect(&mut self, op: u16) -> Packet {
        let packet = self.next().expect("no packet");
        assert_eq!(packet.op, op, "{packet:?}");
        packet
    }

    pub(crate) fn send(&mut self, packet: &Packet) {
        self.send_raw(&packet.bytes(3));
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        // One buffer is enough: the device is done with it when `kick` returns, or stalls and keeps the ring full.
        let buffer = self.driver.alloc(0);
        self.driver.put(buffer, bytes);
        let middle = bytes.len().min(44) as u32;
        let rest = bytes.len() as u32 - middle;
        let mut bufs = vec![Buf::Out(buffer, middle)];
        if rest > 0 {
            bufs.push(Buf::Out(buffer + u64::from(middle), rest));
        }
        self.driver.add(TX, &bufs);
        self.driver.kick(TX);
        while self.driver.used(TX).is_some() {}
    }

    /// One turn of the owner's loop: every socket that is ready now. False if none was.
    pub(crate) fn turn(&mut self) -> bool {
        let mut entries = Vec::new();
        self.driver.dev.device().poll_fds(&mut entries);
        let mut any = false;
        for entry in entries {
            // SAFETY: the device keeps the descriptor open until it is used again, which is after this poll.
            let fd = unsafe { BorrowedFd::borrow_raw(entry.fd) };
            let mut fds = [PollFd::new(&fd, entry.interest)];
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            poll(&mut fds, Some(&now)).unwrap();
            let ready = fds[0].revents();
            if !ready.is_empty() {
                any = true;
                let mem = &self.driver.mem;
                self.driver.dev.host_ready(entry.token, ready, mem).unwrap();
                self.driver.pump();
            }
        }
        any
    }

    /// Turns of the owner's loop until no socket is ready.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.turn() {
                return;
            }
        }
        panic!("a socket stays ready and nothing is done about it");
    }

    pub(crate) fn open(&mut self, port: u32, greeting: Greeting) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mem = &self.driver.mem;
        self.driver.dev.open(port, theirs, greeting, mem).unwrap();
        ours.set_nonblocking(true).unwrap();
        ours
    }

    /// A connection that the host opened and the guest accepted.
    pub(crate) fn connected(&mut self, port: u32) -> (UnixStream, u32) {
        let stream = self.open(port, Greeting::Silent);
        let request = self.expect(REQUEST);
        assert_eq!(request.guest_port, port);
        self.send(&Packet::new(RESPONSE, request.host_port, port));
        (stream, request.host_port)
    }

    pub(crate) fn device(&self) -> &Vsock {
        self.driver.dev.device()
    }

    /// Handles every event as Linux does: kills the sockets, then gives the buffer back. The ids of the events.
    pub(crate) fn handle_events(&mut self) -> usize {
        let mut count = 0;
        while let Some((_, len)) = self.driver.used(EVENT) {
            assert_eq!(len, 4);
            count += 1;
            self.driver.add(EVENT, &[Buf::In(self.event, 8)]);
        }
        if count > 0 {
            self.driver.kick(EVENT);
        }
        count
    }
}

/// What can be read now: bytes, and whether the stream is at its end.
pub(crate) fn drain(stream: &mut UnixStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return (bytes, true),
            Ok(len) => bytes.extend(&piece[..len]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return (bytes, false),
            Err(error) => panic!("{error}"),
        }
    }
}
