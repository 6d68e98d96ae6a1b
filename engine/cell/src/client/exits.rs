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

use brood_control::cpu_ns;
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
        self.status_within(pid, pidfd, LAST_BREATH)
    }

    /// As [`Exits::status_of`], where her parent tells of her within `limit` of her end, or never.
    fn status_within(
        &self,
        pid: u32,
        pidfd: &OwnedFd,
        limit: Duration,
    ) -> Result<EndCause, CellError> {
        wait_for_exit(pidfd)?;
        let ended = Deadline::now();
        let mut told = self.told();
        loop {
            if let Some(cause) = take(&mut told, pid) {
                return Ok(cause);
            }
            if self.reaper == Reaper::Supervisor {
                let left = limit.saturating_sub(ended.elapsed());
                if left.is_zero() || self.is_lost.load(Ordering::Relaxed) {
                    return Ok(EndCause::unknown());
                }
                let waited = self.changed.wait_timeout(told, left);
                told = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            // Its clock can be read until its status is taken, and by its parent alone is its number known to be its own.
            let seen = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let cpu_ns = match waitid(WaitId::PidFd(pidfd.as_fd()), seen) {
                Ok(Some(_)) => cpu_ns(pid),
                Ok(None) | Err(_) => None,
            };
            match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
                Ok(Some(status)) => {
                    return Ok(EndCause {
                        cpu_ns,
                        ending: None,
                        code: status.exit_status(),
                        signal: status.terminating_signal(),
                    });
                }
                Ok(None) | Err(Errno::INTR) => continue,
                Err(Errno::CHILD) if limit.saturating_sub(ended.elapsed()).is_zero() => {
                    return Ok(EndCause::unknown());
                }
                Err(Errno::CHILD) => {}
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
            cpu_ns: end.cpu_ns,
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

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::thread;

    use super::*;

    /// A process that waits until its input ends.
    fn child() -> (Child, OwnedFd) {
        let mut program = Command::new("cat");
        program.stdin(Stdio::piped()).stdout(Stdio::null());
        let child = program.spawn().expect("cat starts");
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).expect("pidfd");
        (child, pidfd)
    }

    /// One that has ended and was reaped by somebody else.
    fn reaped() -> (u32, OwnedFd) {
        let (mut child, pidfd) = child();
        drop(child.stdin.take());
        child.wait().expect("reaped");
        (child.id(), pidfd)
    }

    fn end(pid: u32, code: i32) -> ChildEnd {
        ChildEnd {
            pid,
            code: Some(code),
            signal: None,
            cpu_ns: None,
        }
    }

    #[test]
    fn each_end_that_was_told_is_given_out_once_to_who_asks_for_it() {
        let exits = Exits::default();
        (1..=3).for_each(|pid| exits.tell(end(pid, 10)));
        for pid in [2, 1, 3] {
            assert_eq!(take(&mut exits.told(), pid), Some(end(pid, 10).into()));
            assert_eq!(take(&mut exits.told(), pid), None);
        }
    }

    #[test]
    fn ends_that_nobody_asks_for_fill_no_memory_and_the_oldest_are_forgotten() {
        let exits = Exits::default();
        let last = 2 * MAX_UNASKED as u32;
        (1..=last).for_each(|pid| exits.tell(end(pid, 0)));
        assert_eq!(exits.told().len(), MAX_UNASKED);
        assert!(take(&mut exits.told(), last).is_some());
        assert!(take(&mut exits.told(), 1).is_none());
    }

    #[test]
    fn what_a_parent_tells_later_is_waited_for() {
        let (pid, pidfd) = reaped();
        let exits = Exits::default();
        thread::scope(|scope| {
            let asks = scope.spawn(|| exits.status_of(pid, &pidfd));
            // Long enough, on any host, for the one who asks to have looked; the claim holds however long it is.
            drop(reaped());
            exits.tell(end(pid, 9));
            let cause = asks.join().expect("no panic").expect("a cause");
            assert_eq!(cause, end(pid, 9).into());
        });
    }

    #[test]
    fn one_who_went_silently_is_waited_for_until_her_own_end_is_told() {
        let (pid, _pidfd) = reaped();
        let exits = Exits::default();
        exits.tell(end(pid + 1, 1));
        thread::scope(|scope| {
            let asks = scope.spawn(|| exits.of_silent(pid));
            // As above: however long this takes, the claim holds.
            drop(reaped());
            exits.tell(end(pid, 9));
            let cause = asks.join().expect("no panic");
            assert_eq!(cause, Some(end(pid, 9).into()));
        });
    }

    #[test]
    fn one_whose_end_nobody_tells_in_time_is_unknown() {
        let (pid, pidfd) = reaped();
        let cause = Exits::default().status_within(pid, &pidfd, Duration::ZERO);
        assert_eq!(cause.expect("a cause"), EndCause::unknown());
    }

    #[test]
    fn nobody_has_ended_before_the_kernel_says_so() {
        let (mut child, pidfd) = child();
        let (pid, input) = (child.id(), child.stdin.take());
        let exits = Exits::default();
        // The end of an earlier process of this number.
        exits.tell(end(pid, 3));
        thread::scope(|scope| {
            let asks = scope.spawn(|| {
                let status = exits.status_of(pid, &pidfd);
                let now = Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                };
                let gone = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&now));
                (status.is_ok(), gone)
            });
            drop(reaped());
            drop(input);
            assert_eq!(asks.join().expect("no panic"), (true, Ok(1)));
        });
        child.wait().expect("reaped");
    }
}
