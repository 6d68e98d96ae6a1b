//! The host's side: opening connections, sockets that become ready, connections that end.
//!
//! Invariant: no socket is ever waited for, and none stays readable in a poll set without being read: interest in it
//! is dropped while its bytes have nowhere to go.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::client::Greeter;
use super::conn::{Conn, Greeting, Key, Moved, Phase, flush};
use super::packet;
use super::{OpenError, Vsock};

/// Ports given to the host's end of connections that the host opens; guests use them for nothing else.
pub(super) const FIRST_HOST_PORT: u32 = 1 << 30;
/// Names a socket in a poll set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VsockToken {
    /// The listener.
    Listener,
    /// A client that has not sent its line yet.
    Greeter(u64),
    /// A connection.
    Connection {
        /// Port on the host's side.
        host_port: u32,
        /// Port on the guest's side.
        guest_port: u32,
    },
    /// What is left of a connection that the guest has closed: bytes for a slow reader.
    Remainder(u64),
}

/// A socket to be polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollEntry {
    /// The descriptor. It stays open until the device is next used.
    pub fd: RawFd,
    /// What to wait for; hang-up and error always count.
    pub interest: PollFlags,
    /// What to call `host_ready` with.
    pub token: VsockToken,
}

/// A connection that the guest has opened, for the owner of the port.
#[derive(Debug)]
pub struct GuestConnect {
    /// The host port the guest connected to.
    pub port: u32,
    /// The guest's own port.
    pub guest_port: u32,
    /// Nonblocking stream to the guest.
    pub stream: UnixStream,
}

/// Sockets that are no connections, or not any more.
#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) listener: Option<UnixListener>,
    /// accept(2) failed for want of descriptors: not polled until something was closed.
    pub(super) listener_paused: bool,
    pub(super) greeters: BTreeMap<u64, Greeter>,
    remainders: BTreeMap<u64, Remainder>,
    pub(super) backlog: VecDeque<GuestConnect>,
    next_token: u64,
}

#[derive(Debug)]
struct Remainder {
    stream: UnixStream,
    held: VecDeque<u8>,
}

impl Host {
    pub(super) fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// Number of connections that the guest has closed and the host has not read to their end.
    pub(super) fn remainders(&self) -> usize {
        self.remainders.len()
    }

    /// Gives up every socket without closing it.
    pub(super) fn forget(&mut self) {
        if let Some(listener) = self.listener.take() {
            std::mem::forget(listener);
        }
        let greeters = std::mem::take(&mut self.greeters).into_values();
        greeters.for_each(Greeter::forget);
        let remainders = std::mem::take(&mut self.remainders).into_values();
        remainders.for_each(|remainder| std::mem::forget(remainder.stream));
        let backlog = std::mem::take(&mut self.backlog).into_iter();
        backlog.for_each(|connect| std::mem::forget(connect.stream));
        self.listener_paused = false;
    }

    /// Closes everything that leads to the guest.
    pub(super) fn close_streams(&mut self) {
        self.greeters.clear();
        self.backlog.clear();
        self.listener_paused = false;
    }
}

impl Vsock {
    /// Opens a connection to `port` of the guest over `stream`, which must be nonblocking.
    pub(super) fn open_stream(
        &mut self,
        port: u32,
        stream: UnixStream,
        greeting: Greeting,
    ) -> Result<VsockToken, OpenError> {
        if !self.active {
            return Err(OpenError::Inactive);
        }
        if !self.has_room() {
            return Err(OpenError::TooMany);
        }
        let key = Key {
            host_port: self.next_free_port().ok_or(OpenError::TooMany)?,
            guest_port: port,
        };
        let mut conn = Conn::new(stream, Phase::Requested, greeting);
        conn.pending.request = true;
        self.table.insert(key, conn);
        Ok(token_of(key))
    }

    /// Whether one more connection may exist.
    pub(super) fn has_room(&self) -> bool {
        self.table.len() + self.host.remainders() < self.options.max_connections
    }

    /// Whether a connection of the guest to `port` can be taken.
    pub(super) fn room_for_guest_connect(&self, port: u32) -> bool {
        self.ports.contains(&port)
            && self.has_room()
            && self.host.backlog.len() < self.options.backlog
    }

    /// Makes the pair of sockets of a connection that the guest opens; the device's end, if there is one.
    pub(super) fn queue_guest_connect(&mut self, key: Key) -> Option<UnixStream> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let (ours, theirs) = pair.ok()?;
        self.host.backlog.push_back(GuestConnect {
            port: key.host_port,
            guest_port: key.guest_port,
            stream: theirs.into(),
        });
        Some(ours.into())
    }

    /// Ports are given in ascending order, which a fork continues on both sides: a port of a connection that died
    /// in the fork is not met again.
    fn next_free_port(&mut self) -> Option<u32> {
        for _ in 0..=self.options.max_connections {
            let port = self.next_port;
            self.next_port = match port {
                u32::MAX | 0xffff_fffe => FIRST_HOST_PORT,
                port => port + 1,
            };
            if !self.table.uses_host_port(port) && !self.ports.contains(&port) {
                return Some(port);
            }
        }
        None
    }

    /// Every socket to be polled now.
    pub(super) fn sockets(&self, entries: &mut Vec<PollEntry>) {
        let mut add = |fd: RawFd, interest, token| {
            entries.push(PollEntry {
                fd,
                interest,
                token,
            });
        };
        if let Some(listener) = &self.host.listener
            && !self.host.listener_paused
        {
            add(listener.as_raw_fd(), PollFlags::IN, VsockToken::Listener);
        }
        for (id, greeter) in &self.host.greeters {
            let token = VsockToken::Greeter(*id);
            add(greeter.as_raw_fd(), PollFlags::IN, token);
        }
        for (id, remainder) in &self.host.remainders {
            let token = VsockToken::Remainder(*id);
            add(remainder.stream.as_raw_fd(), PollFlags::OUT, token);
        }
        for (key, conn) in self.table.iter() {
            let interest = conn.interest();
            // Once the peer has hung up poll(2) says so for ever: only what can still be done is waited for.
            if let Some(stream) = &conn.stream
                && !(interest.is_empty() && conn.hung_up)
            {
                add(stream.as_raw_fd(), interest, token_of(key));
            }
        }
    }

    /// The socket `token` is ready; afterwards the receive queue has to be processed.
    pub(super) fn socket_ready(&mut self, token: VsockToken, ready: PollFlags) {
        match token {
            VsockToken::Listener => self.accept_clients(),
            VsockToken::Greeter(id) => self.greet(id),
            VsockToken::Remainder(id) => self.flush_remainder(id, ready),
            VsockToken::Connection {
                host_port,
                guest_port,
            } => self.stream_ready(
                Key {
                    host_port,
                    guest_port,
                },
                ready,
            ),
        }
    }

    fn flush_remainder(&mut self, id: u64, ready: PollFlags) {
        let Some(remainder) = self.host.remainders.get_mut(&id) else {
            return;
        };
        let (moved, _) = flush(&remainder.stream, &mut remainder.held);
        let dead = ready.intersects(PollFlags::ERR | PollFlags::HUP) && moved == Moved::Later;
        if moved != Moved::Later || dead {
            self.host.remainders.remove(&id);
            self.resume_listener();
        }
    }

    fn stream_ready(&mut self, key: Key, ready: PollFlags) {
        let Some(conn) = self.table.conn_mut(key) else {
            return;
        };
        let hung_up = ready.intersects(PollFlags::HUP | PollFlags::ERR);
        conn.hung_up |= hung_up;
        if conn.phase == Phase::Requested {
            if hung_up {
                self.break_off(key);
            }
            return;
        }
        if ready.contains(PollFlags::OUT) && !conn.resume_sending() {
            self.break_off(key);
            return;
        }
        conn.readable |= ready.contains(PollFlags::IN) || hung_up;
        if hung_up && (conn.ended || conn.guest_shut & packet::SHUT_RECEIVE != 0) {
            // Nothing is left to be read for the guest.
            conn.note_end();
        }
        self.table.enqueue(key);
    }

    /// The host's side is gone: so is the connection, and the guest is told if it knows of it.
    pub(super) fn break_off(&mut self, key: Key) {
        if let Some(conn) = self.table.remove(key) {
            if conn.announced {
                self.table.reset(key);
            }
            self.resume_listener();
        }
    }

    /// The guest's side is gone: what the host has not taken yet is kept for it.
    pub(super) fn let_go(&mut self, key: Key) {
        if let Some(conn) = self.table.remove(key) {
            self.resume_listener();
            if let (Some(stream), false) = (conn.stream, conn.held.is_empty()) {
                let remainder = Remainder {
                    stream,
                    held: conn.held,
                };
                let id = self.host.token();
                self.host.remainders.insert(id, remainder);
            }
        }
    }
}

impl Conn {
    fn interest(&self) -> PollFlags {
        let mut interest = PollFlags::empty();
        let listening = self.guest_shut & packet::SHUT_RECEIVE == 0;
        if self.phase == Phase::Open && listening && !self.readable && !self.ended {
            interest |= PollFlags::IN;
        }
        if !self.held.is_empty() {
            interest |= PollFlags::OUT;
        }
        interest
    }

    /// The host socket came to its end: in this direction, or in both if its peer is gone.
    pub(super) fn note_end(&mut self) {
        self.ended = true;
        self.readable = false;
        self.hung_up |= self.stream.as_ref().is_some_and(is_hung_up);
        let shut = if self.hung_up {
            // Nobody takes what the guest sends.
            self.stream = None;
            self.held = VecDeque::new();
            packet::SHUT_BOTH
        } else {
            packet::SHUT_SEND
        };
        self.pending.shutdown |= self.host_shut | shut != self.host_shut;
        self.host_shut |= shut;
    }
}

fn token_of(key: Key) -> VsockToken {
    VsockToken::Connection {
        host_port: key.host_port,
        guest_port: key.guest_port,
    }
}

fn is_hung_up(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let ready = poll(&mut fds, Some(&now));
    let [fd] = fds;
    ready.is_ok() && fd.revents().intersects(PollFlags::HUP | PollFlags::ERR)
}
