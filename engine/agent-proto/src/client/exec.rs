//! Exec sessions from the host. Invariant: an attachment holds its client, borrowed or owned, so nothing else can be asked
//! on that connection meanwhile; stdin and signals go over another client.

use std::borrow::BorrowMut;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::{Arrival, Client, ClientError};
use crate::blob::Blob;
use crate::error::AgentError;
use crate::exec::{
    AttachSpec, ExecId, ExecKey, ExecSpec, ExecState, ExecStatus, Output, Removal, SignalTarget,
    Stream, TtySize,
};
use crate::frame::CHUNK;
use crate::message::{Reply, Request};

/// An attachment to an exec session, over a client that it borrows or owns.
#[derive(Debug)]
pub struct Attachment<C: BorrowMut<Client>> {
    client: C,
    ended: bool,
}

/// What an attachment brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachEvent {
    /// A piece of output.
    Output(Output),
    /// The end; the client can be used again.
    Ended {
        /// How the program ended, if it did.
        state: ExecState,
        /// The offset to attach stdout from next.
        stdout_end: u64,
        /// The offset to attach stderr from next.
        stderr_end: u64,
    },
}

/// A program that ran to its end.
#[derive(Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// How it ended.
    pub state: ExecState,
    /// Its stdout, as far as its ring kept it.
    pub stdout: Vec<u8>,
    /// Its stderr, as far as its ring kept it.
    pub stderr: Vec<u8>,
    /// Bytes of both that were overwritten before they were read.
    pub lost: u64,
}

impl std::fmt::Debug for ExecOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecOutput")
            .field("state", &self.state)
            .field("stdout", &self.stdout.len())
            .field("stderr", &self.stderr.len())
            .field("lost", &self.lost)
            .finish()
    }
}

impl Client {
    /// Starts a program and returns its session.
    ///
    /// # Errors
    /// [`AgentError::Spawn`] with the step and errno, [`AgentError::WorkloadQuiesced`], [`AgentError::Limit`].
    pub fn exec(&mut self, spec: &ExecSpec) -> Result<ExecId, ClientError> {
        match self.call(&Request::Exec(Box::new(spec.clone())), Duration::ZERO)? {
            Reply::Started { exec, .. } => Ok(exec),
            other => Err(self.unexpected("Started", &other)),
        }
    }

    /// Starts a program, unless one was begun under `key`, and returns the session of whichever there is.
    ///
    /// # Errors
    /// Those of [`Self::exec`]; [`AgentError::NoSuchExec`] if one was begun and its session has been removed since.
    pub fn exec_once(&mut self, key: ExecKey, spec: &ExecSpec) -> Result<ExecId, ClientError> {
        let spec = Box::new(spec.clone());
        match self.call(&Request::ExecOnce { key, spec }, Duration::ZERO)? {
            Reply::Started { exec, .. } => Ok(exec),
            other => Err(self.unexpected("Started", &other)),
        }
    }

    /// The session that was begun under `key`, if one was.
    ///
    /// # Errors
    /// [`AgentError::NoSuchExec`] if its session has been removed since.
    pub fn exec_begun(&mut self, key: ExecKey) -> Result<Option<ExecId>, ClientError> {
        match self.call(&Request::ExecBegun { key }, Duration::ZERO)? {
            Reply::Begun(exec) => Ok(exec),
            other => Err(self.unexpected("Begun", &other)),
        }
    }

    /// Runs a program to its end, at most `limit`, and removes its session. At most `most` bytes of output are taken.
    ///
    /// # Errors
    /// Those of [`Self::exec`] and [`Attachment::next`]; [`ClientError::Timeout`] leaves the program running.
    pub fn run(
        &mut self,
        spec: &ExecSpec,
        limit: Duration,
        most: usize,
    ) -> Result<ExecOutput, ClientError> {
        let exec = self.exec(spec)?;
        let end = std::time::Instant::now().checked_add(limit);
        let mut output = ExecOutput {
            state: ExecState::Running,
            stdout: Vec::new(),
            stderr: Vec::new(),
            lost: 0,
        };
        let mut attachment = self.attach(&AttachSpec::all(exec))?;
        loop {
            let left = end.map_or(limit, |end| {
                end.saturating_duration_since(std::time::Instant::now())
            });
            match attachment.next(left)? {
                None => return Err(ClientError::Timeout(limit)),
                Some(AttachEvent::Ended { state, .. }) => {
                    output.state = state;
                    break;
                }
                Some(AttachEvent::Output(piece)) => {
                    output.lost = output.lost.saturating_add(piece.lost);
                    let sink = match piece.stream {
                        Stream::Stdout => &mut output.stdout,
                        Stream::Stderr => &mut output.stderr,
                    };
                    sink.extend_from_slice(&piece.bytes.0);
                    if output.stdout.len().saturating_add(output.stderr.len()) > most {
                        return Err(ClientError::TooMuch {
                            what: "bytes of output",
                            limit: u64::try_from(most).unwrap_or(u64::MAX),
                        });
                    }
                }
            }
        }
        drop(attachment);
        self.remove(exec, Removal::EndedOnly)?;
        Ok(output)
    }

    /// Attaches to a session's output.
    ///
    /// # Errors
    /// [`ClientError::Frame`] and [`ClientError::Timeout`]; the agent's refusal comes with the first event.
    pub fn attach(&mut self, spec: &AttachSpec) -> Result<Attachment<&mut Self>, ClientError> {
        Attachment::begin(self, spec)
    }

    /// The same, and the conversation is over with the attachment.
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub fn into_attachment(self, spec: &AttachSpec) -> Result<Attachment<Self>, ClientError> {
        Attachment::begin(self, spec)
    }

    /// Writes to a program's stdin, and returns when its pipe has taken all of it.
    ///
    /// # Errors
    /// [`AgentError::NoStdin`]; [`ClientError::Timeout`] if the program does not read.
    pub fn write_stdin(&mut self, exec: ExecId, bytes: &[u8]) -> Result<(), ClientError> {
        bytes.chunks(CHUNK).try_for_each(|chunk| {
            self.send_stdin(exec, chunk)?;
            match self.stdin_taken(self.timeout)? {
                Some(()) => Ok(()),
                None => Err(self.timed_out()),
            }
        })
    }

    /// Sends at most [`CHUNK`] bytes for a program's stdin without waiting until its pipe has taken them: that is what
    /// [`Self::stdin_taken`] waits for, and nothing else may be asked in between.
    ///
    /// # Errors
    /// [`ClientError::TooMuch`] for more bytes; [`ClientError::Frame`] and [`ClientError::Timeout`].
    pub fn send_stdin(&mut self, exec: ExecId, bytes: &[u8]) -> Result<(), ClientError> {
        if bytes.len() > CHUNK {
            return Err(ClientError::TooMuch {
                what: "bytes of stdin at once",
                limit: u64::try_from(CHUNK).unwrap_or(u64::MAX),
            });
        }
        let bytes = Blob::from(bytes);
        self.send(&Request::StdinWrite { exec, bytes })
    }

    /// Whether the bytes of [`Self::send_stdin`] were taken within `wait`; none if there is no word of it yet.
    ///
    /// # Errors
    /// As [`Self::write_stdin`].
    pub fn stdin_taken(&mut self, wait: Duration) -> Result<Option<()>, ClientError> {
        match self.wire.receive(wait, self.timeout)? {
            Arrival::Nothing => Ok(None),
            Arrival::Reply(Reply::Done) => Ok(Some(())),
            Arrival::Reply(Reply::Error(error)) => Err(self.refusal(error)),
            Arrival::Reply(other) => Err(self.unexpected("Done", &other)),
        }
    }

    /// Closes a program's stdin; on a terminal, types the end-of-file character.
    ///
    /// # Errors
    /// [`AgentError::NoStdin`].
    pub fn close_stdin(&mut self, exec: ExecId) -> Result<(), ClientError> {
        self.call_done(&Request::StdinClose { exec })
    }

    /// What is known of a session.
    ///
    /// # Errors
    /// [`AgentError::NoSuchExec`].
    pub fn exec_status(&mut self, exec: ExecId) -> Result<ExecStatus, ClientError> {
        match self.call(&Request::ExecStatus { exec }, Duration::ZERO)? {
            Reply::ExecStatus(status) => Ok(status),
            other => Err(self.unexpected("ExecStatus", &other)),
        }
    }

    /// All sessions, sorted by id.
    ///
    /// # Errors
    /// Those of any call.
    pub fn exec_list(&mut self) -> Result<Vec<ExecStatus>, ClientError> {
        match self.call(&Request::ExecList, Duration::ZERO)? {
            Reply::ExecList(list) => Ok(list),
            other => Err(self.unexpected("ExecList", &other)),
        }
    }

    /// Sends a signal to a running program.
    ///
    /// # Errors
    /// [`AgentError::Invalid`] for a number that is no signal, [`AgentError::Os`] if the program has ended.
    pub fn signal(
        &mut self,
        exec: ExecId,
        signal: i32,
        target: SignalTarget,
    ) -> Result<(), ClientError> {
        self.call_done(&Request::Signal {
            exec,
            signal,
            target,
        })
    }

    /// Resizes a session's terminal.
    ///
    /// # Errors
    /// [`AgentError::NoTty`].
    pub fn resize(&mut self, exec: ExecId, size: TtySize) -> Result<(), ClientError> {
        self.call_done(&Request::Resize { exec, size })
    }

    /// Forgets a session.
    ///
    /// # Errors
    /// [`AgentError::StillRunning`] unless it is to be killed.
    pub fn remove(&mut self, exec: ExecId, removal: Removal) -> Result<(), ClientError> {
        self.call_done(&Request::Remove { exec, removal })
    }
}

impl<C: BorrowMut<Client>> Attachment<C> {
    fn begin(mut client: C, spec: &AttachSpec) -> Result<Self, ClientError> {
        client.borrow_mut().send(&Request::Attach(*spec))?;
        Ok(Self {
            client,
            ended: false,
        })
    }

    /// The next event, or none if nothing came within `wait`.
    ///
    /// # Errors
    /// [`AgentError::NoSuchExec`] and [`AgentError::OffsetAhead`] at the first call; [`ClientError::Frame`] when the
    /// connection is lost, as after a fork: attach again from the last offset seen.
    pub fn next(&mut self, wait: Duration) -> Result<Option<AttachEvent>, ClientError> {
        if self.ended {
            return Err(ClientError::Broken);
        }
        let client = self.client.borrow_mut();
        match client.wire.receive(wait, client.timeout)? {
            Arrival::Nothing => Ok(None),
            Arrival::Reply(Reply::Output(output)) => Ok(Some(AttachEvent::Output(output))),
            Arrival::Reply(Reply::Ended {
                state,
                stdout_end,
                stderr_end,
            }) => {
                self.ended = true;
                Ok(Some(AttachEvent::Ended {
                    state,
                    stdout_end,
                    stderr_end,
                }))
            }
            Arrival::Reply(Reply::Error(error)) => {
                // A refusal ends the attachment in good order, a protocol error ends the conversation.
                self.ended = !matches!(error, AgentError::Protocol { .. });
                Err(ClientError::Agent(error))
            }
            Arrival::Reply(other) => Err(client.unexpected("Output", &other)),
        }
    }
}

impl<C: BorrowMut<Client>> AsFd for Attachment<C> {
    /// For polling; reading or writing it breaks the conversation.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.client.borrow().as_fd()
    }
}

impl<C: BorrowMut<Client>> Drop for Attachment<C> {
    /// Output of an unfinished attachment is still on its way, so the conversation cannot go on.
    fn drop(&mut self) {
        if !self.ended {
            self.client.borrow_mut().wire.break_off();
        }
    }
}
