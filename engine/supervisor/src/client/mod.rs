//! The engine's end of the supervisor: find or start it, ask it, hear from it.
//!
//! One thread takes packets off the socket and wakes whoever waits for an answer; ends of processes go to the function
//! that was given. Invariant: a supervisor that is gone, hung or of another version is an error in words at every ask.

mod error;
mod launch;

pub use error::{AskError, ConnectError};
pub use launch::SupervisorProgram;

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use brood_control::{Control, SocketError};
use brood_crash_point::crash_point;
use brood_units::MachineId;

use crate::EndOfProcess;
use crate::protocol::{Ask, Entry, FromSupervisor, MAX_KEPT, Refusal, Reply, Request, VERSION};

/// How long the supervisor may take to answer before it counts as hung; starting a program is the most it does.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ids of one packet.
const MAX_IDS: usize = 512;

/// What the supervisor says unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A process below it has ended.
    Ended(EndOfProcess),
    /// It is gone, and its cells end.
    Gone {
        /// Why, as far as is known.
        reason: String,
    },
}

/// A cell that the supervisor keeps: its process and duplicates of what it is reached by.
#[derive(Debug)]
pub struct CellHandle {
    /// Its process id.
    pub pid: u32,
    /// The engine's end of its control socket.
    pub control: OwnedFd,
    /// Its pidfd.
    pub pidfd: OwnedFd,
}

/// A cell to be kept: machine, process id, the engine's end of its control socket, its pidfd.
pub type Kept<'a> = (MachineId, u32, BorrowedFd<'a>, BorrowedFd<'a>);

/// The connection of this engine to its supervisor.
#[derive(Debug)]
pub struct Supervisor {
    line: Arc<Line>,
    pid: u32,
}

type Answer = (Result<Reply, Refusal>, Vec<OwnedFd>);

#[derive(Debug)]
struct Line {
    control: Control,
    inbox: Mutex<Inbox>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inbox {
    last_ask: u64,
    /// Asks whose answer somebody waits for; others are dropped.
    awaited: HashSet<u64>,
    answers: HashMap<u64, Answer>,
    /// Whether ends and losses are told: not before the greeting, nor once this end is dropped.
    is_served: bool,
    gone: Option<String>,
}

impl Supervisor {
    /// Connects to the supervisor of the state directory; starts `program` if there is none. From then on `heard` is
    /// called, on a thread of its own, for each process that ends and for the end of the supervisor.
    ///
    /// # Errors
    /// It cannot be started, another engine is connected, or it speaks another version.
    pub fn connect(
        directory: &Path,
        program: &SupervisorProgram,
        heard: impl FnMut(Said) + Send + 'static,
    ) -> Result<Self, ConnectError> {
        launch::connect(directory, program, heard)
    }

    fn greet(
        control: Control,
        child: Option<Child>,
        heard: impl FnMut(Said) + Send + 'static,
    ) -> Result<Self, AskError> {
        let line = Arc::new(Line {
            control,
            inbox: Mutex::default(),
            changed: Condvar::new(),
        });
        let reader = Arc::clone(&line);
        std::thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(move || reader.listen(child, heard))
            .map_err(AskError::Thread)?;
        let mut supervisor = Self { line, pid: 0 };
        let hello = Request::Hello { version: VERSION };
        match supervisor.ask("supervisor: hello", hello, &[])? {
            (Reply::Welcome { pid, .. }, _) => supervisor.pid = pid,
            (other, _) => return Err(AskError::Confused(format!("{other:?}"))),
        }
        Ok(supervisor)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it is known to be gone.
    pub fn is_gone(&self) -> bool {
        self.line.inbox().gone.is_some()
    }

    /// Starts the program of a cell.
    ///
    /// # Errors
    /// The id is taken, or the program cannot be started.
    pub fn start(
        &self,
        id: MachineId,
        program: &Path,
        arguments: &[String],
    ) -> Result<CellHandle, AskError> {
        let request = Request::Start {
            id,
            program: PathBuf::from(program),
            arguments: arguments.to_vec(),
        };
        self.cell("supervisor: start", request)
    }

    /// Has cells kept that were born, not started. From then on they outlive this engine.
    ///
    /// # Errors
    /// An id is taken; of the packets of [`MAX_KEPT`] before that one all are kept, of the others none.
    pub fn keep(&self, cells: &[Kept<'_>]) -> Result<(), AskError> {
        for cells in cells.chunks(MAX_KEPT) {
            let fds: Vec<_> = cells
                .iter()
                .flat_map(|(_, _, control, pidfd)| [*control, *pidfd])
                .collect();
            let cells = cells.iter().map(|(id, pid, _, _)| (*id, *pid)).collect();
            self.done("supervisor: keep", Request::Keep { cells }, &fds)?;
        }
        Ok(())
    }

    /// All cells that are kept, and those whose end was not noted, by id.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn list(&self) -> Result<Vec<Entry>, AskError> {
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let after = all.last().map(|entry| entry.id);
            match self.ask("supervisor: list", Request::List { after }, &[])? {
                (Reply::List { entries, more }, _) => {
                    all.extend(entries);
                    if !more {
                        return Ok(all);
                    }
                }
                (other, _) => return Err(AskError::Confused(format!("{other:?}"))),
            }
        }
    }

    /// Duplicates of what a living cell is reached by.
    ///
    /// # Errors
    /// It has ended or is not known.
    pub fn duplicate(&self, id: MachineId) -> Result<CellHandle, AskError> {
        self.cell("supervisor: duplicate", Request::Duplicate { id })
    }

    /// Says that how these have ended was noted, so that they are forgotten.
    ///
    /// # Errors
    /// One of them lives.
    pub fn noted(&self, ids: &[MachineId]) -> Result<(), AskError> {
        for ids in ids.chunks(MAX_IDS) {
            let request = Request::Noted { ids: ids.to_vec() };
            self.done("supervisor: noted", request, &[])?;
        }
        Ok(())
    }

    /// Kills a cell; its end is told as any other.
    ///
    /// # Errors
    /// It has ended or is not known.
    pub fn kill(&self, id: MachineId) -> Result<(), AskError> {
        self.done("supervisor: kill", Request::Kill { id }, &[])
    }

    fn cell(&self, point: &str, request: Request) -> Result<CellHandle, AskError> {
        let (reply, fds) = self.ask(point, request, &[])?;
        match (reply, <[OwnedFd; 2]>::try_from(fds)) {
            (Reply::Cell { pid }, Ok([control, pidfd])) => Ok(CellHandle {
                pid,
                control,
                pidfd,
            }),
            (other, _) => Err(AskError::Confused(format!("{other:?}"))),
        }
    }

    fn done(&self, point: &str, request: Request, fds: &[BorrowedFd<'_>]) -> Result<(), AskError> {
        match self.ask(point, request, fds)? {
            (Reply::Done, _) => Ok(()),
            (other, _) => Err(AskError::Confused(format!("{other:?}"))),
        }
    }

    /// One ask, which is the crash point called `point`.
    fn ask(
        &self,
        point: &str,
        request: Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), AskError> {
        let id = {
            let mut inbox = self.line.inbox();
            inbox.last_ask += 1;
            let id = inbox.last_ask;
            inbox.awaited.insert(id);
            id
        };
        let ask = Ask { id, request };
        let answer = match crash_point(point, || self.line.control.send(&ask, fds)) {
            // What it said last is known once the reader has heard the end.
            Ok(()) | Err(SocketError::Closed) => self.line.answer(id),
            Err(error) => Err(error.into()),
        };
        self.line.inbox().awaited.remove(&id);
        let (result, fds) = answer?;
        Ok((result?, fds))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.line.inbox().is_served = false;
        // The reader hears the end and goes.
        rustix::net::shutdown(self.line.control.as_fd(), rustix::net::Shutdown::Both).ok();
    }
}

impl Line {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, id: u64) -> Result<Answer, AskError> {
        let deadline = Instant::now() + PATIENCE;
        let mut inbox = self.inbox();
        loop {
            if let Some(answer) = inbox.answers.remove(&id) {
                return Ok(answer);
            }
            if let Some(reason) = &inbox.gone {
                return Err(AskError::Gone {
                    reason: reason.clone(),
                });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(AskError::Hung(PATIENCE));
            }
            let waited = self.changed.wait_timeout(inbox, left);
            inbox = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Hears the supervisor to its end; the reader thread.
    fn listen(&self, child: Option<Child>, mut heard: impl FnMut(Said)) {
        let mut words = None;
        let reason = loop {
            match self.control.receive::<FromSupervisor>() {
                Ok((FromSupervisor::Answer { id: 0, result }, _)) => {
                    words = result.err().map(|refusal| refusal.to_string());
                }
                Ok((FromSupervisor::Answer { id, result }, fds)) => {
                    let mut inbox = self.inbox();
                    inbox.is_served |= matches!(result, Ok(Reply::Welcome { .. }));
                    if inbox.awaited.contains(&id) {
                        inbox.answers.insert(id, (result, fds));
                    }
                    self.changed.notify_all();
                }
                Ok((FromSupervisor::Ended(end), _)) => heard(Said::Ended(end)),
                Err(SocketError::Closed) => {
                    break words.unwrap_or_else(|| "it has ended".to_owned());
                }
                Err(error) => break error.to_string(),
            }
        };
        let is_served = {
            let mut inbox = self.inbox();
            inbox.gone = Some(reason.clone());
            inbox.is_served
        };
        self.changed.notify_all();
        if is_served {
            heard(Said::Gone { reason });
        }
        // Its parent takes its status, whenever it ends; a later engine is not its parent and has nothing to take.
        if let Some(mut child) = child {
            child.wait().ok();
        }
    }
}
