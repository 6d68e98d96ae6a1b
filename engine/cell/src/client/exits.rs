//! How processes of one lineage ended.
//!
//! A daughter is a child of the cell she was forked by while that cell lives, and then of this process, the reaper of
//! all cells. So her status is either taken here or told by her parent; whoever waits looks in both places. Under a
//! supervisor, which is the reaper in this one's place, statuses come from it and from nobody else.
//! Invariant: a status is given out once, and those nobody asks for are forgotten, oldest first.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant as Deadline};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::error::call;
use super::{CellError, EndCause};
use crate::protocol::ChildEnd;

/// How long one who closed her socket may take to end, and a parent to tell how her child ended.
const LAST_BREATH: Duration = Duration::from_secs(10);
/// A child that changes hands, because her parent has just ended, is looked for again this often.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// The most ends that wait to be asked for.
const MAX_UNASKED: usize = 8192;

/// What is known of ends: of one lineage, or of all cells of a supervisor.
#[derive(Debug, Default)]
pub(super) struct Exits {
    told: Mutex<VecDeque<ChildEnd>>,
    changed: Condvar,
    reaper: Reaper,
    /// The supervisor has gone. Set while `told` is locked.
    is_lost: AtomicBool,
}

/// Who takes the statuses that no cell takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reaper {
    /// This process.
    #[default]
    Own,
    /// The supervisor, which tells them all.
    Supervisor,
}

impl Exits {
    pub(super) fn of_supervisor() -> Self {
        Self {
            reaper: Reaper::Supervisor,
            ..Self::default()
        }
    }

    /// A cell has taken the status of a child; a supervisor hears that from the cell as well, and tells it.
    pub(super) fn tell_by_cell(&self, end: ChildEnd) {
        if self.reaper == Reaper::Own {
            self.tell(end);
        }
    }

    /// The supervisor has gone: those who wait for its word wait no longer.
    pub(super) fn lose(&self) {
        let _told = self.told();
        self.is_lost.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Whoever takes statuses has taken one. An earlier process of the same number is forgotten.
    pub(super) fn tell(&self, end: ChildEnd) {
        let mut told = self.told();
        told.retain(|earlier| earlier.pid != end.pid);
        if told.len() == MAX_UNASKED {
            told.pop_front();
        }
        told.push_back(end);
        self.changed.notify_all();
    }

    /// Waits for the end of a process of the lineage and takes its status; none if it is not to be had.
    pub(super) fn status_of(&self, pid: u32, pidfd: &OwnedFd) -> Result<EndCause, CellError> {
        wait_for_exit(pidfd)?;
        let deadline = Deadline::now() + LAST_BREATH;
        let mut told = self.told();
        loop {
            if let Some(cause) = take(&mut told, pid) {
                return Ok(cause);
            }
            if self.reaper == Reaper::Supervisor {
                let left = deadline.saturating_duration_since(Deadline::now());
                if left.is_zero() || self.is_lost.load(Ordering::Relaxed) {
                    return Ok(EndCause::unknown());
                }
                let waited = self.changed.wait_timeout(told, left);
                told = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
                Ok(Some(status)) => {
                    return Ok(EndCause {
                        ending: None,
                        code: status.exit_status(),
                        signal: status.terminating_signal(),
                    });
                }
                Ok(None) | Err(Errno::INTR) => continue,
                Err(Errno::CHILD) if Deadline::now() < deadline => {}
                Err(Errno::CHILD) => return Ok(EndCause::unknown()),
                Err(errno) => return Err(call("waitid")(errno)),
            }
            told = self
                .changed
                .wait_timeout(told, LOOK_AGAIN)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The end of a process that closed its socket without a word. It is never killed by its number, which is only what
    /// another process has said.
    pub(super) fn of_silent(&self, pid: u32) -> Option<EndCause> {
        let known = |told: &VecDeque<ChildEnd>| told.iter().any(|end| end.pid == pid);
        let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
        match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(pidfd) => ends_soon(&pidfd)
                .then(|| self.status_of(pid, &pidfd).ok())
                .flatten(),
            // Reaped already: her parent tells, or has told.
            Err(_) => {
                let told = self.told();
                let (mut told, _) = self
                    .changed
                    .wait_timeout_while(told, LAST_BREATH, |told| !known(told))
                    .unwrap_or_else(PoisonError::into_inner);
                take(&mut told, pid)
            }
        }
    }

    fn told(&self) -> MutexGuard<'_, VecDeque<ChildEnd>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of `pid`, if it was told; whoever takes it is the one who asked.
fn take(told: &mut VecDeque<ChildEnd>, pid: u32) -> Option<EndCause> {
    let at = told.iter().position(|end| end.pid == pid)?;
    told.remove(at).map(EndCause::from)
}

impl From<ChildEnd> for EndCause {
    fn from(end: ChildEnd) -> Self {
        Self {
            ending: None,
            code: end.code,
            signal: end.signal,
        }
    }
}

/// Whether a process that has closed its socket ends within a last breath.
pub(super) fn ends_soon(pidfd: &OwnedFd) -> bool {
    let limit = Timespec {
        tv_sec: LAST_BREATH.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(poll(&mut polled, Some(&limit)), Ok(1))
}

fn wait_for_exit(pidfd: &OwnedFd) -> Result<(), CellError> {
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], None) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(call("poll")(errno)),
        }
    }
}
