//! The host-side client: blocking, over any connected `UnixStream`. Invariant: no call waits past its deadline however
//! slowly the guest sends, and after a failure in the middle of a conversation the client refuses further calls
//! ([`ClientError::Broken`]) rather than misread what is still on its way.

mod exec;
mod file;
mod fork;
mod stat;
mod wire;

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

pub use exec::{AttachEvent, Attachment, ExecOutput};
pub use fork::{Confirmed, Quiesced, StampTicket, Stamped};

use brood_crash_point::crash_point;

use crate::error::AgentError;
use crate::frame::FrameError;
use crate::hello::{self, HelloError};
use crate::message::{Reply, Request};
use wire::{Arrival, Wire};

/// A conversation with one agent.
#[derive(Debug)]
pub struct Client {
    wire: Wire,
    timeout: Duration,
}

/// A call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The hello failed.
    #[error("no agent answered")]
    Hello(#[source] HelloError),
    /// The agent speaks another version.
    #[error("the agent speaks version {theirs}, this engine {ours}")]
    Version {
        /// Our version.
        ours: u16,
        /// The agent's.
        theirs: u16,
    },
    /// The agent said no. The client is still usable, except after [`AgentError::Protocol`].
    #[error("the agent refused")]
    Agent(#[source] AgentError),
    /// The conversation failed.
    #[error("the conversation with the agent failed")]
    Frame(#[source] FrameError),
    /// Nothing came, or not all of it, before the deadline.
    #[error("the agent did not answer within {0:?}")]
    Timeout(Duration),
    /// A reply to another question.
    #[error("the agent answered {got} where {wanted} was due")]
    Unexpected {
        /// What was due.
        wanted: &'static str,
        /// What came.
        got: &'static str,
    },
    /// An earlier failure left the conversation in an unknown state.
    #[error("an earlier failure ended this conversation")]
    Broken,
    /// The agent sent more than the caller allows.
    #[error("the agent sent more than {limit} {what}")]
    TooMuch {
        /// What there was too much of.
        what: &'static str,
        /// The most that is allowed.
        limit: u64,
    },
    /// Reading the bytes to send, or storing those that came, failed on the host.
    #[error("the host's side of a file transfer failed")]
    Local(#[source] std::io::Error),
    /// A daughter does not have the identity it was stamped with.
    #[error("the daughter reports {field} '{reported}', stamped was '{stamped}'")]
    Identity {
        /// Which part.
        field: &'static str,
        /// What it was stamped with.
        stamped: String,
        /// What it reports, at most 128 characters of it.
        reported: String,
    },
}

impl Client {
    /// Exchanges hellos over `stream`. `timeout` bounds this and every later call; the time a quiesce, a stamp or a
    /// wait for output may take by its own nature is added to it.
    ///
    /// # Errors
    /// [`ClientError::Hello`], [`ClientError::Version`], [`ClientError::Timeout`].
    pub fn handshake(stream: UnixStream, timeout: Duration) -> Result<Self, ClientError> {
        let mut wire = Wire::new(stream);
        wire.begin(timeout)
            .map_err(|_| ClientError::Timeout(timeout))?;
        let late = |error: HelloError| match error {
            HelloError::Io(cause) if wire::is_timeout(&cause) => ClientError::Timeout(timeout),
            other => ClientError::Hello(other),
        };
        let greet = || hello::write(&mut wire, hello::VERSION);
        match crash_point("agent: hello", greet) {
            // Whoever closes at once has said why: that comes with the hello, and is read by the first call.
            Err(HelloError::Io(cause)) if cause.kind() == std::io::ErrorKind::BrokenPipe => {}
            written => written.map_err(late)?,
        }
        let theirs = hello::read(&mut wire).map_err(late)?;
        if theirs != hello::VERSION {
            return Err(ClientError::Version {
                ours: hello::VERSION,
                theirs,
            });
        }
        Ok(Self { wire, timeout })
    }

    /// Changes the bound of later calls.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// The instant by which every call of this conversation ends, however much time each has by itself; none lifts it.
    pub fn end_by(&mut self, end: Option<Instant>) {
        self.wire.end_by(end);
    }

    fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let timeout = self.timeout;
        self.wire.send(request, timeout)
    }

    fn receive(&mut self, extra: Duration) -> Result<Reply, ClientError> {
        let timeout = self.timeout.saturating_add(extra);
        match self.wire.receive(timeout, timeout)? {
            Arrival::Reply(Reply::Error(error)) => Err(self.refusal(error)),
            Arrival::Reply(reply) => Ok(reply),
            Arrival::Nothing => Err(self.timed_out()),
        }
    }

    fn refusal(&mut self, error: AgentError) -> ClientError {
        if matches!(error, AgentError::Protocol { .. }) {
            self.wire.break_off();
        }
        ClientError::Agent(error)
    }

    fn timed_out(&mut self) -> ClientError {
        self.wire.break_off();
        ClientError::Timeout(self.wire.waited())
    }

    fn call(&mut self, request: &Request, extra: Duration) -> Result<Reply, ClientError> {
        self.send(request)?;
        self.receive(extra)
    }

    fn call_done(&mut self, request: &Request) -> Result<(), ClientError> {
        match self.call(request, Duration::ZERO)? {
            Reply::Done => Ok(()),
            other => Err(self.unexpected("Done", &other)),
        }
    }

    fn unexpected(&mut self, wanted: &'static str, got: &Reply) -> ClientError {
        self.wire.break_off();
        ClientError::Unexpected {
            wanted,
            got: got.name(),
        }
    }
}

impl AsFd for Client {
    /// For polling; reading or writing it breaks the conversation.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}
