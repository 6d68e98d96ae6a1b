//! Sends a session's output to one client. Invariant: the session's lock is held to copy one piece, never while
//! sending, so a slow client delays nobody and at worst loses bytes, which it is told.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use brood_agent_proto::blob::Blob;
use brood_agent_proto::exec::{AttachSpec, ExecState, Follow, From, Output, Stream};
use brood_agent_proto::frame::{self, CHUNK, FrameError};
use brood_agent_proto::{AgentError, Reply};
use rustix::event::{PollFd, PollFlags, poll};

use super::ring::Ring;
use super::session::Session;
use crate::serial::enter;

/// Where a client is in the two streams.
struct Cursor {
    stdout: u64,
    stderr: u64,
}

/// When to end.
#[derive(Clone, Copy)]
enum Until {
    Exit(Sent),
    Offsets(u64, u64),
}

/// What is sent of the output.
#[derive(Clone, Copy)]
enum Sent {
    Everything,
    Nothing,
}

/// What to do next.
enum Next {
    Send(Output),
    Wait,
    End(ExecState),
}

/// How an attachment went.
pub(crate) enum Attached {
    /// The last frame was sent; the conversation goes on.
    Ended,
    /// It could not begin.
    Refused(AgentError),
    /// The client has gone, or said something it must not.
    Gone,
}

/// Sends output until the attachment ends or the client goes away.
pub(crate) fn attach(session: &Session, spec: &AttachSpec, client: &mut UnixStream) -> Attached {
    let mut output = enter(&session.output);
    let cursor = start(&output.stdout, spec.stdout).and_then(|stdout| {
        let stderr = start(&output.stderr, spec.stderr)?;
        Ok(Cursor { stdout, stderr })
    });
    let mut cursor = match cursor {
        Ok(cursor) => cursor,
        Err(error) => return Attached::Refused(error),
    };
    let until = match spec.follow {
        Follow::UntilExit => Until::Exit(Sent::Everything),
        Follow::Exit => Until::Exit(Sent::Nothing),
        Follow::Snapshot => Until::Offsets(output.stdout.end(), output.stderr.end()),
    };
    let watcher = match output.watch() {
        Ok(watcher) => watcher,
        Err(error) => return Attached::Refused(crate::fail::os("watching a session", &error)),
    };
    drop(output);
    loop {
        let sent = match next(session, &mut cursor, until) {
            Next::Send(output) => frame::write_frame(client, &Reply::Output(output)),
            Next::Wait => wait(&watcher, client).map_err(FrameError::Io),
            Next::End(state) => {
                let ended = Reply::Ended {
                    state,
                    stdout_end: cursor.stdout,
                    stderr_end: cursor.stderr,
                };
                return match frame::write_frame(client, &ended) {
                    Ok(()) => Attached::Ended,
                    Err(_) => Attached::Gone,
                };
            }
        };
        if sent.is_err() {
            return Attached::Gone;
        }
    }
}

fn start(ring: &Ring, from: From) -> Result<u64, AgentError> {
    match from {
        From::Oldest => Ok(ring.start()),
        From::Now => Ok(ring.end()),
        From::Offset(offset) if offset > ring.end() => Err(AgentError::OffsetAhead {
            offset,
            end: ring.end(),
        }),
        From::Offset(offset) => Ok(offset),
    }
}

fn next(session: &Session, cursor: &mut Cursor, until: Until) -> Next {
    let output = enter(&session.output);
    let (stdout_until, stderr_until) = match until {
        Until::Exit(Sent::Everything) => (u64::MAX, u64::MAX),
        Until::Exit(Sent::Nothing) => (0, 0),
        Until::Offsets(stdout, stderr) => (stdout, stderr),
    };
    for (stream, at, until) in [
        (Stream::Stdout, &mut cursor.stdout, stdout_until),
        (Stream::Stderr, &mut cursor.stderr, stderr_until),
    ] {
        let most = usize::try_from(until.saturating_sub(*at)).unwrap_or(usize::MAX);
        if let Some(piece) = output.ring(stream).read(*at, most.min(CHUNK)) {
            *at = piece
                .offset
                .saturating_add(u64::try_from(piece.bytes.len()).unwrap_or(u64::MAX));
            return Next::Send(Output {
                stream,
                lost: piece.lost,
                offset: piece.offset,
                bytes: Blob(piece.bytes),
            });
        }
    }
    if matches!(until, Until::Offsets(..)) || output.state != ExecState::Running {
        return Next::End(output.state);
    }
    Next::Wait
}

/// Waits for a change. Fails if the client went away or sent something.
fn wait(watcher: &impl AsFd, client: &UnixStream) -> io::Result<()> {
    let mut fds = [
        PollFd::new(watcher, PollFlags::IN),
        PollFd::new(client, PollFlags::IN | PollFlags::RDHUP),
    ];
    match poll(&mut fds, None) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    }
    let [_, talk] = &fds;
    if !talk.revents().is_empty() {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let mut count = [0; 8];
    match rustix::io::read(watcher, &mut count) {
        Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
