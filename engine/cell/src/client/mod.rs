//! The engine's end of a cell: start it, ask it, hear it, reap it.
//!
//! A reader thread takes packets off all sockets, hands disks their layers and wakes whoever waits.
//! Invariant: a [`Cell`] owns its process; dropping it kills it and sees it reaped, so nothing is left behind. A
//! daughter whose mother has ended becomes a child of the process that called [`become_reaper`].

mod adopt;
mod birth;
mod collapse;
mod end;
mod error;
mod exits;
mod fork;
mod guest;
mod line;
mod reader;
mod snapshot;

pub use adopt::{Ends, Handle};
pub use collapse::Collapsed;
pub use error::{CellError, EndCause};
pub use fork::{Births, Fork};
pub use snapshot::{RestoreParts, Saved};

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{self, Stdio};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant as Deadline};

use brood_crash_point::crash_point;
use brood_units::MachineId;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::protocol::{
    Ask, BirthTimes, Event, GuestSpec, MachineSpec, Reply, Request, Sealed, Stats, VERSION,
};
use brood_control::{Control, SocketError};
use error::call;
use line::{Inbox, Kin, Line};

/// How long a cell may take to answer before it counts as hung; boot loads a kernel, sealing copies RAM.
const PATIENCE: Duration = Duration::from_secs(60);

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
    /// The id under which a supervisor keeps it.
    kept_as: Option<MachineId>,
    /// It goes on when this is dropped.
    outlives: bool,
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
        let mut cell = Self::over(ours, Kin { layers, exits }, 1)?;
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

    /// Forgets events not yet looked at.
    pub fn clear_events(&mut self) {
        self.line.inbox().events.clear();
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What becomes readable when its process ends, if the kernel could give one out.
    pub fn process(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// When the stages of its birth ended; zeros for a cell that was not forked.
    pub fn birth(&self) -> BirthTimes {
        self.birth
    }

    /// Answers to asks before `first_ask` are for somebody else, and so are events before its own answer.
    fn over(fd: OwnedFd, kin: Kin, first_ask: u64) -> Result<Self, CellError> {
        let line = Arc::new(Line::new(Control::new(fd), kin, first_ask));
        reader::hear(Arc::clone(&line))?;
        Ok(Self {
            line,
            next_ask: first_ask,
            pid: 0,
            pidfd: None,
            birth: BirthTimes::default(),
            reaped: None,
            kept_as: None,
            outlives: false,
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
        self.next_ask = self.next_ask.wrapping_add(1);
        let point = request.name();
        let ask = Ask { id, request };
        match crash_point(point, || self.line.control.send(&ask, files)) {
            Ok(()) => Ok(id),
            Err(SocketError::Closed) => Err(self.ended()),
            Err(error) => Err(error.into()),
        }
    }

    fn answer(&mut self, id: u64) -> Result<(Reply, Vec<OwnedFd>), CellError> {
        self.answer_within(id, PATIENCE)
    }

    fn answer_within(
        &mut self,
        id: u64,
        limit: Duration,
    ) -> Result<(Reply, Vec<OwnedFd>), CellError> {
        let (result, fds) = self.wait_for(limit, |inbox| inbox.answers.remove(&id))?;
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
}
