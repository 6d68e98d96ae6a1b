//! Clients of the listener and the line they begin with.
//!
//! ```text
//!  client ── connect ──► listener ── accept ──► greeter ──"CONNECT <port>\n"──► connection ──► "OK <host_port>\n"
//! ```
//!
//! Invariant: a client that says nothing, or too much, costs one descriptor and a line, and keeps nobody else out.

use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketFlags, accept_with, recv};

use super::Vsock;
use super::conn::Greeting;

/// Clients that may be connected without having sent their line; the oldest goes when there are more.
const GREETERS_MAX: usize = 64;
/// Clients accepted at once.
const ACCEPTS: usize = 16;
/// Longest line: `CONNECT 4294967295\n`, with some room.
const LINE_MAX: usize = 32;

#[derive(Debug)]
pub(super) struct Greeter {
    stream: UnixStream,
    line: Vec<u8>,
}

impl Vsock {
    pub(super) fn accept_clients(&mut self) {
        for _ in 0..ACCEPTS {
            let Some(listener) = &self.host.listener else {
                return;
            };
            match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(stream) => {
                    if self.host.greeters.len() >= GREETERS_MAX {
                        self.host.greeters.pop_first();
                    }
                    let greeter = Greeter::new(stream.into());
                    let id = self.host.token();
                    self.host.greeters.insert(id, greeter);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => {
                    self.host.listener_paused = true;
                    return;
                }
            }
        }
    }

    /// Polls the listener again: a descriptor may have become free.
    pub(super) fn resume_listener(&mut self) {
        self.host.listener_paused = false;
    }

    pub(super) fn greet(&mut self, id: u64) {
        let Some(greeter) = self.host.greeters.get_mut(&id) else {
            return;
        };
        match greeter.read_line() {
            Line::Partial => {}
            Line::Wrong => {
                self.host.greeters.remove(&id);
                self.resume_listener();
            }
            Line::Connect(port) => {
                if let Some(greeter) = self.host.greeters.remove(&id) {
                    // Refused for want of a driver or of room: the client sees its connection closed.
                    if self
                        .open_stream(port, greeter.stream, Greeting::OkLine)
                        .is_err()
                    {
                        self.resume_listener();
                    }
                }
            }
        }
    }
}

/// What a client has sent.
enum Line {
    Partial,
    Connect(u32),
    Wrong,
}

impl Greeter {
    fn new(stream: UnixStream) -> Self {
        let line = Vec::new();
        Self { stream, line }
    }

    /// Gives the socket up without closing it.
    pub(super) fn forget(self) {
        std::mem::forget(self.stream);
    }

    /// Reads up to the end of the line and not one byte further: what follows is for the guest.
    fn read_line(&mut self) -> Line {
        let mut peeked = [0; LINE_MAX];
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        let len = match recv(&self.stream, &mut peeked, flags) {
            Ok((_, 0)) => return Line::Wrong,
            Ok((_, len)) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Line::Partial,
            Err(_) => return Line::Wrong,
        };
        let seen = peeked.get(..len).unwrap_or_default();
        let end = seen.iter().position(|byte| *byte == b'\n');
        let take = end.map_or(len, |end| end + 1);
        let mut taken = [0; LINE_MAX];
        let target = taken.get_mut(..take).unwrap_or_default();
        match recv(&self.stream, &mut *target, RecvFlags::DONTWAIT) {
            Ok((_, len)) if len == take => self.line.extend_from_slice(target),
            _ => return Line::Wrong,
        }
        match (end, self.line.len() <= LINE_MAX) {
            (_, false) => Line::Wrong,
            (None, true) => Line::Partial,
            (Some(_), true) => parse_connect(&self.line).map_or(Line::Wrong, Line::Connect),
        }
    }
}

fn parse_connect(line: &[u8]) -> Option<u32> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let digits = line.strip_prefix("CONNECT ")?;
    let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

impl AsRawFd for Greeter {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}
