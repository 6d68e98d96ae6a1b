//! The engine's end of a cell: start it, ask it, hear it, reap it.
//!
//! A reader thread takes packets off all sockets, hands disks their layers and wakes whoever waits.
//! Invariant: a [`Cell`] owns its process; dropping it kills it and sees it reaped, so nothing is left behind. A
//! daughter whose mother has ended becomes a child of the process that called [`become_reaper`].

mod birth;
mod collapse;
mod exits;
mod line;
mod reader;

pub use collapse::Collapsed;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{self, Stdio};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant as Deadline};

use brood_bare_guest::mailbox::{self, Command, Outcome};
use brood_units::Instant;
use brood_vmm::now;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::protocol::{
    Ask, BirthTimes, Checkpoint, Ending, Event, ForkSpec, ForkTimes, GuestSpec, MAX_DAUGHTERS,
    MachineSpec, Refusal, Reply, Request, Sealed, Start, Stats, VERSION,
};
use crate::seqpacket::{Control, SocketError};
use line::{Inbox, Kin, Line};

/// How long a cell may take to answer before it counts as hung; boot loads a kernel, sealing copies RAM.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cell could not be started, asked or heard.
#[derive(Debug, thiserror::Error)]
pub enum CellError {
    /// The program could not be started.
    #[error("cannot start the cell program {program}")]
    Start {
        /// Its path.
        program: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The control socket failed.
    #[error("cannot talk to the cell")]
    Socket(#[from] SocketError),
    /// The cell refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The cell ended before it answered.
    #[error("the cell ended before it answered: {0}")]
    Ended(EndCause),
    /// No answer in time.
    #[error("the cell did not answer within {0:?}; it is hung or the host is overloaded")]
    Hung(Duration),
    /// The answer is of another kind than the question.
    #[error("the cell answered something else: {0}")]
    Confused(String),
    /// A daughter was not born.
    #[error("daughter {index} was not born: {reason}")]
    Stillborn {
        /// Which one of the fork.
        index: u32,
        /// Why.
        reason: String,
    },
    /// A system call on the engine's side failed.
    #[error("{operation} failed")]
    Call {
        /// The call.
        operation: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// How a cell's process ended: what it said last, and what the kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndCause {
    /// The cell's own last words, if it had any.
    pub ending: Option<Ending>,
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
}

impl EndCause {
    fn unknown() -> Self {
        Self {
            ending: None,
            code: None,
            signal: None,
        }
    }
}

impl std::fmt::Display for EndCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.ending, self.signal, self.code) {
            (Some(ending), _, _) => write!(f, "{ending:?}"),
            (None, Some(signal), _) => write!(f, "killed by signal {signal}"),
            (None, None, Some(code)) => write!(f, "exited with {code} without a word"),
            (None, None, None) => write!(f, "it is gone and its status went to another process"),
        }
    }
}

/// The program that is a cell, and the arguments that say so.
#[derive(Clone, Debug)]
pub struct CellProgram {
    /// Its path.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// Where the files of disk layers come from: unlinked files in one directory.
#[derive(Clone, Debug)]
pub struct LayerSource {
    directory: PathBuf,
}

impl LayerSource {
    /// Layers in `directory`, whose file system needs O_TMPFILE (man 2 open).
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    fn fresh(&self) -> io::Result<File> {
        use rustix::fs::{Mode, OFlags, open};
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        Ok(open(&self.directory, flags, Mode::RUSR | Mode::WUSR)?.into())
    }
}

/// What warm daughters of one template are made of.
#[derive(Debug)]
pub struct WarmParts {
    fds: Vec<OwnedFd>,
}

impl WarmParts {
    /// The files: sealed RAM, state, then the disk's.
    pub fn into_files(self) -> Vec<OwnedFd> {
        self.fds
    }
}

/// A fork as the engine sees it.
#[derive(Debug)]
pub struct Fork {
    /// When the engine asked.
    pub asked: Instant,
    /// When the mother's stages ended.
    pub times: ForkTimes,
    /// The daughters, or why one is missing, in order.
    pub daughters: Vec<Result<Cell, CellError>>,
    /// The checkpoint, if one was to be kept.
    pub checkpoint: Option<Result<Cell, CellError>>,
}

/// Makes this process the one that inherits and reaps the daughters of its cells (PR_SET_CHILD_SUBREAPER).
///
/// # Errors
/// The kernel refuses.
pub fn become_reaper() -> Result<(), CellError> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(call("PR_SET_CHILD_SUBREAPER"))
}

/// A running cell.
pub struct Cell {
    line: Arc<Line>,
    next_ask: u64,
    pid: u32,
    pidfd: Option<OwnedFd>,
    birth: BirthTimes,
    reaped: Option<EndCause>,
}

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cell")
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

impl Cell {
    /// Starts the program of a cell; it waits for [`Cell::boot`] or [`Cell::load`].
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(program: &CellProgram, layers: LayerSource) -> Result<Self, CellError> {
        let (ours, theirs) = Control::pair().map_err(call("socketpair"))?;
        let child = process::Command::new(&program.path)
            .args(&program.arguments)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|source| CellError::Start {
                program: program.path.clone(),
                source,
            })?;
        let exits = Arc::default();
        let mut cell = Self::over(ours, Kin { layers, exits })?;
        cell.pid = child.id();
        let pid = Pid::from_child(&child);
        cell.pidfd = Some(pidfd_open(pid, PidfdFlags::empty()).map_err(call("pidfd_open"))?);
        Ok(cell)
    }

    /// Makes the machine; the guest runs after [`Cell::resume`]. `files` are `/dev/kvm`, the base image if the disk
    /// has one, then kernel and initramfs for Linux.
    ///
    /// # Errors
    /// The cell refuses, with cause and remedy.
    pub fn boot(
        &mut self,
        machine: &MachineSpec,
        guest: &GuestSpec,
        files: &[BorrowedFd<'_>],
    ) -> Result<(), CellError> {
        let request = Request::Boot {
            version: VERSION,
            machine: machine.clone(),
            guest: guest.clone(),
        };
        self.ready(request, files)
    }

    /// Makes this cell a warm daughter: mapped, split, state loaded, never yet in the guest.
    ///
    /// # Errors
    /// The cell refuses.
    pub fn load(&mut self, kvm: BorrowedFd<'_>, parts: &WarmParts) -> Result<(), CellError> {
        let files: Vec<_> = std::iter::once(kvm)
            .chain(parts.fds.iter().map(AsFd::as_fd))
            .collect();
        self.ready(Request::Load { version: VERSION }, &files)
    }

    /// Lets the guest run; for a warm daughter this is the claim.
    ///
    /// # Errors
    /// The cell refuses.
    pub fn resume(&mut self) -> Result<(), CellError> {
        self.done(Request::Resume, &[])
    }

    /// Stops the guest between two instructions.
    ///
    /// # Errors
    /// The cell refuses.
    pub fn pause(&mut self) -> Result<(), CellError> {
        self.done(Request::Pause, &[])
    }

    /// Forks the machine as it is now into `daughters`, all from one point.
    ///
    /// # Errors
    /// The point could not be taken; the mother runs on. If she herself ends before she answers, whoever was born of it
    /// ends as well. A daughter that failed is an error in her place.
    pub fn fork(
        &mut self,
        daughters: u32,
        checkpoint: Checkpoint,
        start: Start,
    ) -> Result<Fork, CellError> {
        if daughters > MAX_DAUGHTERS {
            return Err(Refusal {
                operation: format!("fork into {daughters} daughters"),
                cause: format!("one fork makes at most {MAX_DAUGHTERS}"),
                remedy: "keep a checkpoint and fork that several times".to_owned(),
            }
            .into());
        }
        let count = daughters + u32::from(checkpoint == Checkpoint::Keep);
        let mut ours = Vec::with_capacity(count as usize);
        let mut theirs = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let (our, their) = Control::pair().map_err(call("socketpair"))?;
            ours.push(our);
            theirs.push(their);
        }
        let asked = now();
        let request = Request::Fork(ForkSpec {
            daughters,
            checkpoint,
            start,
        });
        let files: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        let id = self.ask(request, &files)?;
        drop(files);
        drop(theirs);
        let answer = self.answer(id);
        let (times, point) = match answer {
            Ok((Reply::Forked { times, point }, _)) => (times, point),
            Ok((other, _)) => return Err(CellError::Confused(format!("{other:?}"))),
            Err(error @ CellError::Ended(_)) => {
                drop(birth::deliver(ours, &self.line.kin, None));
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let mut born = birth::deliver(ours, &self.line.kin, Some(point));
        let checkpoint = match checkpoint {
            Checkpoint::Keep => born.pop(),
            Checkpoint::Drop => None,
        };
        Ok(Fork {
            asked,
            times,
            daughters: born,
            checkpoint,
        })
    }

    /// Moves RAM into a sealed image; the guest stands still meanwhile.
    ///
    /// # Errors
    /// The cell refuses; the guest runs on.
    pub fn seal(&mut self) -> Result<Sealed, CellError> {
        match self.request(Request::Seal, &[])? {
            (Reply::Sealed(sealed), _) => Ok(sealed),
            (other, _) => Err(CellError::Confused(format!("{other:?}"))),
        }
    }

    /// Seals this paused machine and gives out what warm daughters of it are made of.
    ///
    /// # Errors
    /// The machine is not paused, or the host is out of memory.
    pub fn template(&mut self) -> Result<WarmParts, CellError> {
        match self.request(Request::Template, &[])? {
            (Reply::Template, fds) => Ok(WarmParts { fds }),
            (other, _) => Err(CellError::Confused(format!("{other:?}"))),
        }
    }

    /// Counters and times.
    ///
    /// # Errors
    /// The cell does not answer.
    pub fn stats(&mut self) -> Result<Stats, CellError> {
        match self.request(Request::Stats, &[])? {
            (Reply::Stats(stats), _) => Ok(stats),
            (other, _) => Err(CellError::Confused(format!("{other:?}"))),
        }
    }

    /// Console output from `offset` on: lost bytes, next offset, output.
    ///
    /// # Errors
    /// The cell does not answer.
    pub fn console(&mut self, offset: u64) -> Result<(u64, u64, Vec<u8>), CellError> {
        match self.request(Request::Console { offset }, &[])? {
            (Reply::Console { lost, next, bytes }, _) => Ok((lost, next, bytes)),
            (other, _) => Err(CellError::Confused(format!("{other:?}"))),
        }
    }

    /// Asks for something that is answered with "done".
    ///
    /// # Errors
    /// The cell refuses.
    pub fn done(&mut self, request: Request, files: &[BorrowedFd<'_>]) -> Result<(), CellError> {
        match self.request(request, files)? {
            (Reply::Done, _) => Ok(()),
            (other, _) => Err(CellError::Confused(format!("{other:?}"))),
        }
    }

    /// A stream to the guest's vsock `port`; it fails at the first read if nobody listens there.
    ///
    /// # Errors
    /// The cell refuses.
    pub fn connect(&mut self, port: u32) -> Result<std::os::unix::net::UnixStream, CellError> {
        let (ours, theirs) =
            std::os::unix::net::UnixStream::pair().map_err(|source| CellError::Call {
                operation: "socketpair",
                source,
            })?;
        self.done(Request::VsockOpen { port }, &[theirs.as_fd()])?;
        Ok(ours)
    }

    /// Sends a command to the bare guest's vCPU and waits for its answer.
    ///
    /// # Errors
    /// The cell refuses, or no answer comes in time.
    pub fn command(&mut self, vcpu: u32, command: Command) -> Result<Outcome, CellError> {
        self.begin_command(vcpu, command)?;
        self.outcome(vcpu)
    }

    /// Sends a command to the bare guest's vCPU without waiting; [`Cell::outcome`] waits.
    ///
    /// # Errors
    /// The cell refuses.
    pub fn begin_command(&mut self, vcpu: u32, command: Command) -> Result<(), CellError> {
        let (operation, arguments) = command.encode();
        self.done(
            Request::Mailbox {
                vcpu,
                operation,
                arguments,
            },
            &[],
        )
    }

    /// The bare guest's next answer on `vcpu`.
    ///
    /// # Errors
    /// None comes in time, or the cell ended.
    pub fn outcome(&mut self, vcpu: u32) -> Result<Outcome, CellError> {
        let wanted = |event: &Event| matches!(event, Event::MailboxReply { vcpu: from, .. } if *from == vcpu);
        match self.event(wanted, PATIENCE)? {
            (Event::MailboxReply { value, .. }, _) => Ok(mailbox::outcome(value)),
            (other, _) => Err(CellError::Confused(format!("{other:?}"))),
        }
    }

    /// The first event that `wanted` accepts, waiting up to `limit`; others stay queued.
    ///
    /// # Errors
    /// None came, or the cell ended.
    pub fn event(
        &mut self,
        wanted: impl Fn(&Event) -> bool,
        limit: Duration,
    ) -> Result<(Event, Vec<OwnedFd>), CellError> {
        self.wait_for(limit, |inbox| {
            let at = inbox.events.iter().position(|(event, _)| wanted(event))?;
            inbox.events.remove(at)
        })
    }

    /// When the guest first ran after its last resume; waits for it.
    ///
    /// # Errors
    /// It did not run in time, or the cell ended.
    pub fn first_instruction(&mut self) -> Result<Instant, CellError> {
        match self.event(
            |event| matches!(event, Event::FirstInstruction { .. }),
            PATIENCE,
        )? {
            (Event::FirstInstruction { at }, _) => Ok(at),
            (other, _) => Err(CellError::Confused(format!("{other:?}"))),
        }
    }

    /// Forgets events not yet looked at.
    pub fn clear_events(&mut self) {
        self.line.inbox().events.clear();
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// When the stages of its birth ended; zeros for a cell that was not forked.
    pub fn birth(&self) -> BirthTimes {
        self.birth
    }

    /// Asks the cell to end, then waits until it is gone.
    ///
    /// # Errors
    /// It cannot be reaped.
    pub fn end(mut self) -> Result<EndCause, CellError> {
        self.begin_end();
        self.reap()
    }

    /// Kills the process without a word, as the kernel's out-of-memory killer would.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill(&self) -> Result<(), CellError> {
        match &self.pidfd {
            Some(pidfd) => {
                pidfd_send_signal(pidfd, Signal::KILL).map_err(call("pidfd_send_signal"))
            }
            None => Ok(()),
        }
    }

    /// Waits until the process has ended by itself and says how.
    ///
    /// # Errors
    /// It cannot be reaped.
    pub fn wait(mut self) -> Result<EndCause, CellError> {
        self.reap()
    }

    /// Ends many cells at once: all are told first, then all are reaped.
    ///
    /// # Errors
    /// One cannot be reaped; the others are.
    pub fn end_all(cells: impl IntoIterator<Item = Self>) -> Result<Vec<EndCause>, CellError> {
        let mut cells: Vec<_> = cells.into_iter().collect();
        cells.iter_mut().for_each(Self::begin_end);
        let causes: Vec<_> = cells.iter_mut().map(Self::reap).collect();
        causes.into_iter().collect()
    }

    fn begin_end(&mut self) {
        // A cell that hears it says so; one that cannot be told has ended or ends by the signal.
        if self.reaped.is_none() && self.ask(Request::Kill, &[]).is_err() {
            self.kill().ok();
        }
    }

    fn over(fd: OwnedFd, kin: Kin) -> Result<Self, CellError> {
        let line = Arc::new(Line::new(Control::new(fd), kin));
        reader::hear(Arc::clone(&line))?;
        Ok(Self {
            line,
            next_ask: 1,
            pid: 0,
            pidfd: None,
            birth: BirthTimes::default(),
            reaped: None,
        })
    }

    fn ready(&mut self, request: Request, files: &[BorrowedFd<'_>]) -> Result<(), CellError> {
        match self.request(request, files)? {
            (Reply::Ready { .. }, _) => Ok(()),
            (other, _) => Err(CellError::Confused(format!("{other:?}"))),
        }
    }

    fn request(
        &mut self,
        request: Request,
        files: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), CellError> {
        let id = self.ask(request, files)?;
        self.answer(id)
    }

    fn ask(&mut self, request: Request, files: &[BorrowedFd<'_>]) -> Result<u64, CellError> {
        let id = self.next_ask;
        self.next_ask += 1;
        match self.line.control.send(&Ask { id, request }, files) {
            Ok(()) => Ok(id),
            Err(SocketError::Closed) => Err(self.ended()),
            Err(error) => Err(error.into()),
        }
    }

    fn answer(&mut self, id: u64) -> Result<(Reply, Vec<OwnedFd>), CellError> {
        let (result, fds) = self.wait_for(PATIENCE, |inbox| inbox.answers.remove(&id))?;
        Ok((result?, fds))
    }

    fn wait_for<T>(
        &mut self,
        limit: Duration,
        mut find: impl FnMut(&mut Inbox) -> Option<T>,
    ) -> Result<T, CellError> {
        let deadline = Deadline::now() + limit;
        let mut inbox = self.line.inbox();
        loop {
            if let Some(found) = find(&mut inbox) {
                return Ok(found);
            }
            if inbox.closed {
                drop(inbox);
                return Err(self.ended());
            }
            let left = deadline.saturating_duration_since(Deadline::now());
            if left.is_zero() {
                return Err(CellError::Hung(limit));
            }
            inbox = self
                .line
                .changed
                .wait_timeout(inbox, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// How a cell that closed its socket has ended; one that goes on without it is killed.
    fn ended(&mut self) -> CellError {
        if self
            .pidfd
            .as_ref()
            .is_some_and(|pidfd| !exits::ends_soon(pidfd))
        {
            // It has ended after all if this fails.
            self.kill().ok();
        }
        self.reap().map_or_else(|error| error, CellError::Ended)
    }

    fn reap(&mut self) -> Result<EndCause, CellError> {
        if let Some(cause) = &self.reaped {
            return Ok(cause.clone());
        }
        let mut cause = match &self.pidfd {
            Some(pidfd) => self.line.kin.exits.status_of(self.pid, pidfd)?,
            None => EndCause::unknown(),
        };
        // The reader sees the end of the socket once the process is gone, after everything the cell said.
        let mut inbox = self.line.inbox();
        while !inbox.closed {
            inbox = self
                .line
                .changed
                .wait(inbox)
                .unwrap_or_else(PoisonError::into_inner);
        }
        cause.ending = inbox.ending.clone();
        drop(inbox);
        self.reaped = Some(cause.clone());
        Ok(cause)
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        if self.reaped.is_none() && self.pidfd.is_some() {
            // Killing what is gone already is the only way these fail, and then there is nothing to do.
            self.kill().ok();
            self.reap().ok();
        }
        rustix::net::shutdown(self.line.control.fd(), rustix::net::Shutdown::Both).ok();
    }
}

fn call(operation: &'static str) -> impl Fn(Errno) -> CellError {
    move |errno| CellError::Call {
        operation,
        source: errno.into(),
    }
}
