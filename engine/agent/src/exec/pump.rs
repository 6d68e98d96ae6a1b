//! The thread behind a running program: takes its output, enforces its timeout, reaps it. Invariant: it never waits for
//! an attachment, and after the program's end it goes on taking what its descendants write until they close the
//! streams or the session is removed.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use brood_agent_proto::exec::{ExecState, Stream};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::session::Session;
use crate::freezer::timespec;
use crate::gate::Gate;
use crate::init::reap;
use crate::serial::enter;

/// One read. A pipe holds 64 KiB; a terminal gives 4 KiB at most.
const READ: usize = 16 * 1024;

/// After the program's end, at most so much is taken of a stream before the end is announced: a descendant may write
/// for ever.
const DRAIN: usize = 1 << 20;

/// After the program's end, its terminal's output is on its way for a moment; the hang-up that follows ends the wait.
const HANGUP: Duration = Duration::from_secs(1);

pub(super) struct Pump {
    session: Arc<Session>,
    gate: Arc<Gate>,
    sources: Sources,
    clock: Option<RunClock>,
    running: bool,
    timed_out: bool,
}

/// Where output comes from; none once it was closed.
pub(super) struct Sources {
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

/// A deadline that stands still while the workload is frozen.
struct RunClock {
    deadline: Instant,
    /// Frozen time that is in the deadline already.
    counted: Duration,
}

/// What a read brought.
#[derive(PartialEq, Eq)]
enum Took {
    Bytes(usize),
    Nothing,
    End,
}

impl Pump {
    pub(super) fn new(
        session: Arc<Session>,
        gate: Arc<Gate>,
        sources: Sources,
        timeout: Option<Duration>,
        stopped: Duration,
    ) -> Self {
        let clock = timeout
            .and_then(|timeout| Instant::now().checked_add(timeout))
            .map(|deadline| RunClock {
                deadline,
                counted: stopped,
            });
        Self {
            session,
            gate,
            sources,
            clock,
            running: true,
            timed_out: false,
        }
    }

    pub(super) fn run(mut self) {
        let mut buffer = vec![0; READ];
        while self.running || self.sources.stdout.is_some() || self.sources.stderr.is_some() {
            if self.session.closed.load(Ordering::Acquire) && !self.running {
                return;
            }
            let Ok(ready) = self.wait() else {
                eprintln!("brood-agent: poll failed; a program's output is lost");
                return;
            };
            if ready.stdout {
                self.take(Stream::Stdout, &mut buffer);
            }
            if ready.stderr {
                self.take(Stream::Stderr, &mut buffer);
            }
            if ready.ended {
                self.end(&mut buffer);
            } else if self.running {
                self.enforce();
            }
            if self.session.closed.load(Ordering::Acquire) {
                // Only the end is still of interest.
                self.sources.stdout = None;
                self.sources.stderr = None;
            }
        }
    }

    fn wait(&self) -> Result<Ready, Errno> {
        let session = &self.session;
        let mut fds = Vec::with_capacity(4);
        // Removal raises `wake` once; it is never drained, so it is only watched while it has something to tell.
        let closed = session.closed.load(Ordering::Acquire);
        if !closed {
            fds.push(PollFd::new(&session.wake, PollFlags::IN));
        }
        let first = fds.len();
        let sources = [&self.sources.stdout, &self.sources.stderr];
        fds.extend(
            sources
                .iter()
                .filter_map(|source| source.as_ref())
                .map(|fd| PollFd::new(fd, PollFlags::IN)),
        );
        if self.running {
            fds.push(PollFd::new(&session.child.pidfd, PollFlags::IN));
        }
        let timeout = self
            .clock
            .as_ref()
            .filter(|_| self.running && !self.timed_out);
        let timeout =
            timeout.map(|clock| timespec(clock.deadline.saturating_duration_since(Instant::now())));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let mut hits = fds.iter().skip(first).map(|fd| !fd.revents().is_empty());
        let mut hit = |watched: bool| watched && hits.next().unwrap_or(false);
        Ok(Ready {
            stdout: hit(self.sources.stdout.is_some()),
            stderr: hit(self.sources.stderr.is_some()),
            ended: hit(self.running),
        })
    }

    /// Takes one buffer of a stream, and closes the source at its end.
    fn take(&mut self, stream: Stream, buffer: &mut [u8]) -> Took {
        let source = match stream {
            Stream::Stdout => &mut self.sources.stdout,
            Stream::Stderr => &mut self.sources.stderr,
        };
        let Some(fd) = source else {
            return Took::End;
        };
        match rustix::io::read(fd, &mut *buffer) {
            Ok(read) if read > 0 => {
                let bytes = buffer.get(..read).unwrap_or_default();
                enter(&self.session.output).push(stream, bytes);
                Took::Bytes(read)
            }
            Err(Errno::AGAIN | Errno::INTR) => Took::Nothing,
            // A terminal whose other side is closed reads as EIO.
            Ok(_) | Err(_) => {
                *source = None;
                Took::End
            }
        }
    }

    /// The program has ended: what it wrote is taken first, so that an attachment that sees the end has seen it all.
    fn end(&mut self, buffer: &mut [u8]) {
        if self.session.has_tty() {
            self.drain_terminal(buffer);
        } else {
            for stream in [Stream::Stdout, Stream::Stderr] {
                let mut taken = 0;
                while let Took::Bytes(read) = self.take(stream, buffer) {
                    taken += read;
                    if taken >= DRAIN {
                        break;
                    }
                }
            }
        }
        // Reaping and the new state under one lock: nobody may signal a process id that is free again.
        let mut output = enter(&self.session.output);
        let state = match reap::wait(&self.session.child) {
            Ok(ended)
                if self.timed_out
                    && ended
                        == (ExecState::Signaled {
                            signal: libc::SIGKILL,
                        }) =>
            {
                ExecState::TimedOut
            }
            Ok(ended) => ended,
            Err(error) => {
                eprintln!("brood-agent: waiting for an ended program: {error}");
                ExecState::Signaled { signal: 0 }
            }
        };
        output.end(state);
        drop(output);
        self.running = false;
    }

    fn drain_terminal(&mut self, buffer: &mut [u8]) {
        let deadline = Instant::now() + HANGUP;
        let mut taken = 0;
        while taken < DRAIN {
            match self.take(Stream::Stdout, buffer) {
                Took::Bytes(read) => taken += read,
                Took::End => return,
                Took::Nothing => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let Some(fd) = self.sources.stdout.as_ref().filter(|_| !left.is_zero()) else {
                        return;
                    };
                    let mut fds = [PollFd::new(fd, PollFlags::IN)];
                    if !matches!(
                        poll(&mut fds, Some(&timespec(left))),
                        Ok(_) | Err(Errno::INTR)
                    ) {
                        return;
                    }
                }
            }
        }
    }

    /// Kills the program if it has run too long.
    fn enforce(&mut self) {
        let Some(clock) = self.clock.as_mut().filter(|_| !self.timed_out) else {
            return;
        };
        if Instant::now() < clock.deadline {
            return;
        }
        // While it is frozen it makes no output, so nothing is missed by waiting here.
        let stopped = self.gate.stopped_until_running();
        let new = stopped.saturating_sub(clock.counted);
        if !new.is_zero() {
            clock.deadline += new;
            clock.counted = stopped;
            return;
        }
        self.timed_out = true;
        if let Err(error) = self.session.kill_all() {
            eprintln!("brood-agent: killing a program that ran too long: {error}");
        }
    }
}

struct Ready {
    stdout: bool,
    stderr: bool,
    ended: bool,
}
