//! A stream with a deadline. Invariant: each read and write gets only what is left of the deadline as its timeout, so
//! a guest that sends a byte now and then gains nothing; and none goes past the end of the conversation, if it has one.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use brood_crash_point::crash_point;

use super::ClientError;
use crate::frame::{self, FrameError};
use crate::message::{Reply, Request};

#[derive(Debug)]
pub(super) struct Wire {
    stream: UnixStream,
    started: Instant,
    deadline: Option<Instant>,
    /// By when the whole conversation must be over, whatever single calls allow.
    end: Option<Instant>,
    /// Bytes read since [`Wire::begin`].
    consumed: u64,
    /// Added to the deadline at the first byte.
    grace: Duration,
    broken: bool,
}

/// What came before the deadline.
pub(super) enum Arrival {
    Reply(Reply),
    /// Not a single byte.
    Nothing,
}

pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
    )
}

impl Wire {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            started: Instant::now(),
            deadline: None,
            end: None,
            consumed: 0,
            grace: Duration::ZERO,
            broken: false,
        }
    }

    /// Starts a deadline. Fails only if the stream cannot be made blocking.
    pub(super) fn begin(&mut self, timeout: Duration) -> io::Result<()> {
        self.stream.set_nonblocking(false)?;
        self.restart(timeout, Duration::ZERO);
        Ok(())
    }

    pub(super) fn end_by(&mut self, end: Option<Instant>) {
        self.end = end;
    }

    fn restart(&mut self, timeout: Duration, grace: Duration) {
        self.started = Instant::now();
        // A timeout beyond what an Instant can hold is no deadline.
        self.deadline = self.started.checked_add(timeout);
        self.consumed = 0;
        self.grace = grace;
    }

    pub(super) fn break_off(&mut self) {
        self.broken = true;
    }

    pub(super) fn send(&mut self, request: &Request, timeout: Duration) -> Result<(), ClientError> {
        if self.broken {
            return Err(ClientError::Broken);
        }
        self.restart(timeout, Duration::ZERO);
        let written = crash_point(request.point(), || frame::write_frame(self, request));
        written.map_err(|error| match error {
            // Nothing was written: the conversation goes on.
            FrameError::Length { .. } | FrameError::Garbage { .. } => ClientError::Frame(error),
            FrameError::Io(cause) if is_timeout(&cause) => {
                self.broken = true;
                ClientError::Timeout(self.waited())
            }
            FrameError::Io(cause) => self.last_words(cause),
            FrameError::Closed => {
                self.broken = true;
                ClientError::Frame(error)
            }
        })
    }

    /// An agent that closes a conversation says why first; that is worth more than "broken pipe".
    fn last_words(&mut self, cause: io::Error) -> ClientError {
        self.broken = true;
        self.restart(Duration::from_millis(100), Duration::ZERO);
        match frame::read_frame(self) {
            Ok(Reply::Error(error)) => ClientError::Agent(error),
            _ => ClientError::Frame(FrameError::Io(cause)),
        }
    }

    /// One reply: its first byte within `wait`, the rest within `timeout` of that.
    pub(super) fn receive(
        &mut self,
        wait: Duration,
        timeout: Duration,
    ) -> Result<Arrival, ClientError> {
        if self.broken {
            return Err(ClientError::Broken);
        }
        self.restart(wait, timeout);
        match frame::read_frame(self) {
            Ok(reply) => Ok(Arrival::Reply(reply)),
            Err(FrameError::Io(cause)) if is_timeout(&cause) && self.consumed == 0 => {
                Ok(Arrival::Nothing)
            }
            Err(error) => {
                self.broken = true;
                Err(match error {
                    FrameError::Io(cause) if is_timeout(&cause) => {
                        ClientError::Timeout(self.waited())
                    }
                    other => ClientError::Frame(other),
                })
            }
        }
    }

    /// How long the current wait has been going on, to the millisecond.
    pub(super) fn waited(&self) -> Duration {
        let waited = self.started.elapsed().as_millis();
        Duration::from_millis(u64::try_from(waited).unwrap_or(u64::MAX))
    }

    /// What is left of the deadline, `None` for no deadline.
    fn left(&self) -> io::Result<Option<Duration>> {
        let earliest = self.deadline.into_iter().chain(self.end).min();
        match earliest {
            None => Ok(None),
            Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                // setsockopt takes whole microseconds and reads zero as "for ever".
                Some(left) if left >= Duration::from_micros(1) => Ok(Some(left)),
                _ => Err(io::ErrorKind::TimedOut.into()),
            },
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        let read = self.stream.read(buffer)?;
        if self.consumed == 0 && read > 0 {
            self.deadline = self
                .deadline
                .and_then(|deadline| deadline.checked_add(self.grace));
        }
        self.consumed = self
            .consumed
            .saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        Ok(read)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
