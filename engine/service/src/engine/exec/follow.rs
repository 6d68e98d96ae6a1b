//! Output, from an offset on.
//!
//! Invariant: a follower holds one piece at a time, and asks for the next when that was taken: a slow reader loses bytes in
//! the guest, and is told how many. Where it goes on is known after each piece, and good for as long as the guest has it.

use std::time::Duration;

use brood_agent_proto::client::AttachEvent;
use brood_agent_proto::exec as agent;
use brood_agent_proto::exec::{AttachSpec, ExecId, ExecStatus, Follow};
use brood_agent_proto::{AgentError, Attachment, Client, ClientError};

use super::talk::{MOMENT, Talk, on_thread, refused};
use super::{ExecRow, Stream, Which};
use crate::engine::{Caller, Engine, EngineError, Scope};

/// How long output that the guest has may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// An offset of each stream: what is behind it was not seen yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Of standard output, or the terminal.
    pub stdout: u64,
    /// Of standard error.
    pub stderr: u64,
}

/// Which streams, from where on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// One.
    One(Stream, u64),
    /// Both.
    Both(Place),
}

impl From {
    fn spec(self, exec: ExecId, follow: Follow) -> AttachSpec {
        let (stdout, stderr) = match self {
            Self::One(Stream::Stdout, offset) => (agent::From::Offset(offset), agent::From::Now),
            Self::One(Stream::Stderr, offset) => (agent::From::Now, agent::From::Offset(offset)),
            Self::Both(place) => (
                agent::From::Offset(place.stdout),
                agent::From::Offset(place.stderr),
            ),
        };
        AttachSpec {
            exec,
            stdout,
            stderr,
            follow,
        }
    }

    fn has(self, stream: Stream) -> bool {
        match self {
            Self::One(one, _) => one == stream,
            Self::Both(_) => true,
        }
    }

    /// The same from behind a piece on.
    fn behind(self, piece: &agent::Output) -> Self {
        let len = u64::try_from(piece.bytes.0.len()).unwrap_or(u64::MAX);
        let end = piece.offset.saturating_add(len);
        match (self, piece.stream) {
            (Self::One(one, _), _) => Self::One(one, end),
            (Self::Both(place), Stream::Stdout) => Self::Both(Place {
                stdout: end,
                ..place
            }),
            (Self::Both(place), Stream::Stderr) => Self::Both(Place {
                stderr: end,
                ..place
            }),
        }
    }

    /// Nobody reads on from what was not made yet: such an offset is another machine's.
    fn check(self, status: &ExecStatus) -> Result<(), EngineError> {
        let asked = match self {
            Self::One(Stream::Stdout, offset) => [(offset, status.stdout_end), (0, 0)],
            Self::One(Stream::Stderr, offset) => [(offset, status.stderr_end), (0, 0)],
            Self::Both(place) => [
                (place.stdout, status.stdout_end),
                (place.stderr, status.stderr_end),
            ],
        };
        match asked.iter().find(|(offset, end)| offset > end) {
            None => Ok(()),
            Some((offset, end)) => Err(EngineError::Invalid(format!(
                "offset {offset} is ahead of the stream, which ends at {end}: it is of another machine or another program"
            ))),
        }
    }
}

/// A piece of output.
#[derive(Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its stream.
    pub stream: Stream,
    /// The offset of its first byte.
    pub offset: u64,
    /// Bytes before it that were overwritten before they were taken.
    pub lost: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// From where to go on behind it.
    pub next: From,
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Piece")
            .field("stream", &self.stream)
            .field("offset", &self.offset)
            .field("lost", &self.lost)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// What a follower gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// Output.
    Piece(Piece),
    /// The program has ended, and all its output was taken.
    Ended(ExecRow),
}

/// Output that was kept at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputAnswer {
    /// Pieces, in order within each stream.
    pub pieces: Vec<Piece>,
    /// From where to go on.
    pub next: From,
    /// Whether that is all there will be.
    pub ended: bool,
}

/// Somebody who follows a program's output.
pub struct Follower {
    engine: Engine,
    caller: Caller,
    which: Which,
    from: From,
    talk: Talk<Attachment<Client>>,
}

impl Engine {
    /// Output from an offset on that the guest has now, about `most` bytes of it.
    ///
    /// # Errors
    /// There is no such program, its machine has ended, the guest has forgotten it, or it has not made so much yet.
    pub async fn output(
        &self,
        caller: &Caller,
        which: Which,
        from: From,
        most: usize,
    ) -> Result<OutputAnswer, EngineError> {
        let (mut agent, status) = self.program(caller, which).await?;
        from.check(&status)?;
        let read = move || {
            let spec = from.spec(ExecId(which.exec), Follow::Snapshot);
            let mut attached = agent.attach(&spec)?;
            let mut answer = OutputAnswer {
                pieces: Vec::new(),
                next: from,
                ended: false,
            };
            let mut left = most;
            while left > 0 {
                match attached.next(PATIENCE)? {
                    None => return Err(ClientError::Timeout(PATIENCE)),
                    Some(AttachEvent::Ended { state, .. }) => {
                        answer.ended = state != agent::ExecState::Running;
                        break;
                    }
                    Some(AttachEvent::Output(piece)) if !from.has(piece.stream) => {}
                    Some(AttachEvent::Output(piece)) => {
                        let piece = shorten(piece, left);
                        left -= piece.bytes.0.len();
                        let piece = piece_of(answer.next, piece);
                        answer.next = piece.next;
                        answer.pieces.push(piece);
                    }
                }
            }
            Ok(answer)
        };
        let answer = on_thread(read).await?;
        answer.map_err(|error: ClientError| refused(&error))
    }

    /// Output from an offset on, and then what is made until the program ends.
    ///
    /// # Errors
    /// As [`Engine::output`].
    pub async fn follow(
        &self,
        caller: &Caller,
        which: Which,
        from: From,
    ) -> Result<Follower, EngineError> {
        let (agent, status) = self.program(caller, which).await?;
        from.check(&status)?;
        let spec = from.spec(ExecId(which.exec), Follow::UntilExit);
        let attached = on_thread(move || agent.into_attachment(&spec)).await?;
        Ok(Follower {
            engine: self.clone(),
            caller: caller.clone(),
            which,
            from,
            talk: Talk::new(attached.map_err(|error| refused(&error))?)?,
        })
    }

    /// A conversation about a program that the guest has.
    pub(super) async fn program(
        &self,
        caller: &Caller,
        which: Which,
    ) -> Result<(Client, ExecStatus), EngineError> {
        caller.may(Scope::Read)?;
        let machine = self.living(caller, which.machine)?;
        let known = self
            .store()
            .read(|read| read.exec(caller.tenant(), which.machine, which.exec))?;
        let agent = self.talk(&machine).await?;
        let asked = on_thread(move || {
            let mut agent = agent;
            agent
                .exec_status(ExecId(which.exec))
                .map(|status| (agent, status))
        });
        match (asked.await?, known) {
            (Ok(found), _) => Ok(found),
            (Err(ClientError::Agent(AgentError::NoSuchExec { .. })), Some(_)) => {
                let exec = which.exec;
                Err(EngineError::Conflict(format!(
                    "the guest has forgotten exec {exec} and its output to make room for others; its end is known still"
                )))
            }
            (Err(error), _) => Err(refused(&error)),
        }
    }
}

impl Follower {
    /// Until there may be something to take. Nothing is lost if this is dropped.
    pub async fn ready(&self) {
        self.talk.ready().await;
    }

    /// What is there, if anything is.
    ///
    /// # Errors
    /// The guest is gone, with the program and how that ended: come back with the last place.
    pub async fn take(&mut self) -> Result<Option<Followed>, EngineError> {
        let event = self.talk.read(|attached| attached.next(MOMENT).transpose());
        match event.await? {
            None => Ok(None),
            Some(Ok(AttachEvent::Output(piece))) if !self.from.has(piece.stream) => Ok(None),
            Some(Ok(AttachEvent::Output(piece))) => {
                let piece = piece_of(self.from, piece);
                self.from = piece.next;
                Ok(Some(Followed::Piece(piece)))
            }
            Some(Ok(AttachEvent::Ended { .. })) => self.ended().await.map(Some),
            Some(Err(error)) => match self.ended().await {
                Ok(ended) => Ok(Some(ended)),
                Err(_) => Err(refused(&error)),
            },
        }
    }

    async fn ended(&self) -> Result<Followed, EngineError> {
        let row = self.engine.exec(&self.caller, self.which);
        let row = row.await?;
        if row.ended.is_none() {
            let words = "the conversation with the guest is lost: follow again";
            return Err(EngineError::Failed(words.to_owned()));
        }
        Ok(Followed::Ended(row))
    }
}

/// The next thing that an attachment brings.
pub(super) async fn next(talk: &mut Talk<Attachment<Client>>) -> Result<AttachEvent, EngineError> {
    loop {
        talk.ready().await;
        let event = talk.read(|attached| attached.next(MOMENT).transpose());
        if let Some(event) = event.await? {
            return event.map_err(|error| refused(&error));
        }
    }
}

fn shorten(mut piece: agent::Output, most: usize) -> agent::Output {
    piece.bytes.0.truncate(most);
    piece
}

fn piece_of(from: From, piece: agent::Output) -> Piece {
    Piece {
        stream: piece.stream,
        offset: piece.offset,
        lost: piece.lost,
        next: from.behind(&piece),
        bytes: piece.bytes.0,
    }
}
