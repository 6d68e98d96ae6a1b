//! The cells that are kept: who lives, and how those ended that nobody has noted yet.
//!
//! ```text
//!  started, kept ──► living ──► gone: its pidfd says so ──► ended: its status is known ──► noted: forgotten
//!                      └───────── status of a child ───────────▲
//! ```
//!
//! A daughter's status is taken by the cell she was forked by, which tells it; only a process that is gone is believed to
//! have ended. Invariant: an end is recorded once, and stays until it is noted; descriptors of one that has ended are
//! closed. What is known of processes that are not kept is bounded.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use brood_control::{ChildEnd, MAX_WORDS};
use brood_units::{MachineId, Timestamp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use super::watch::{Source, Watch};
use crate::protocol::{Entry, MAX_LISTED};
use crate::{End, EndOfProcess};

/// The most processes that are not kept of which words or ends are remembered.
const MAX_STRANGERS: usize = 1024;

/// A living cell.
pub(super) struct Living {
    pub(super) pid: u32,
    pub(super) control: OwnedFd,
    pub(super) pidfd: OwnedFd,
}

enum Ward {
    Living(Living, Option<ChildEnd>),
    Ended(u32, End),
}

/// All of them.
#[derive(Default)]
pub(super) struct Wards {
    by_id: BTreeMap<MachineId, Ward>,
    /// Those that live.
    by_pid: HashMap<u32, MachineId>,
    /// Last words of those whose end is not known yet.
    words: HashMap<u32, String>,
    /// Those that are gone, and until when the cell that forked them may tell how they ended.
    gone: Vec<(Instant, u32)>,
    /// Those whose end is known and not recorded yet.
    due: Vec<u32>,
    /// Ends of those that were not kept, to be told, and remembered in case they are kept later.
    strangers_due: Vec<ChildEnd>,
    strangers: VecDeque<EndOfProcess>,
}

impl Wards {
    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn knows(&self, id: &MachineId) -> bool {
        self.by_id.contains_key(id)
    }

    pub(super) fn living(&self, id: &MachineId) -> Option<&Living> {
        match self.by_id.get(id) {
            Some(Ward::Living(living, _)) => Some(living),
            _ => None,
        }
    }

    /// Keeps a cell. One that has ended already has the end that was told of her.
    pub(super) fn keep(
        &mut self,
        id: MachineId,
        living: Living,
        watch: &mut Watch,
    ) -> Result<(), Errno> {
        watch.add(&living.pidfd, Source::Ward(living.pid))?;
        let pid = living.pid;
        // Of another process with this number, if she lives.
        let earlier = self.strangers.iter().position(|end| end.pid == pid);
        let earlier = earlier.and_then(|at| self.strangers.remove(at));
        let told = earlier.filter(|_| has_ended(&living.pidfd)).map(|known| {
            self.words.extend(known.end.words.map(|words| (pid, words)));
            self.due.push(pid);
            ChildEnd {
                pid,
                code: known.end.code,
                signal: known.end.signal,
                cpu_ns: known.end.cpu_ns,
            }
        });
        self.by_pid.insert(pid, id);
        self.by_id.insert(id, Ward::Living(living, told));
        Ok(())
    }

    /// Takes back [`Wards::keep`].
    pub(super) fn forget(&mut self, id: &MachineId, watch: &mut Watch) {
        if let Some(Ward::Living(living, _)) = self.by_id.remove(id) {
            watch.remove(&living.pidfd);
            self.by_pid.remove(&living.pid);
        }
    }

    /// The process of a ward is gone.
    pub(super) fn gone(&mut self, pid: u32, until: Instant, watch: &mut Watch) {
        let Some(living) = self.by_pid.get(&pid).and_then(|id| self.living(id)) else {
            return;
        };
        watch.remove(&living.pidfd);
        self.gone.push((until, pid));
    }

    /// The kernel has told how a child ended.
    pub(super) fn told(&mut self, end: ChildEnd) {
        let ward = self
            .by_pid
            .get(&end.pid)
            .and_then(|id| self.by_id.get_mut(id));
        match ward {
            Some(Ward::Living(_, told)) => {
                *told = Some(end);
                self.due.push(end.pid);
            }
            _ => self.strangers_due.push(end),
        }
    }

    /// A cell has told how one that it forked has ended.
    pub(super) fn told_by_cell(&mut self, end: ChildEnd) {
        let ward = self.by_pid.get(&end.pid).and_then(|id| self.living(id));
        if ward.is_none_or(|living| has_ended(&living.pidfd)) {
            self.told(end);
        }
    }

    /// A process has said why it ends next.
    pub(super) fn said(&mut self, pid: u32, words: String) {
        let is_short = words.len() <= MAX_WORDS;
        if is_short && (self.by_pid.contains_key(&pid) || self.words.len() < MAX_STRANGERS) {
            self.words.insert(pid, words);
        }
    }

    /// How long until one that is gone is given up.
    pub(super) fn deadline(&self, now: Instant) -> Option<Duration> {
        let next = self.gone.iter().map(|(until, _)| *until).min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Records what is known by now, and gives it out.
    pub(super) fn take_known(
        &mut self,
        now: Instant,
        at: Timestamp,
        watch: &mut Watch,
    ) -> Vec<EndOfProcess> {
        let mut due = std::mem::take(&mut self.due);
        due.extend(
            self.gone
                .iter()
                .filter(|(until, _)| *until <= now)
                .map(|(_, pid)| *pid),
        );
        self.gone.retain(|(_, pid)| !due.contains(pid));
        let mut known = Vec::new();
        for pid in due {
            known.extend(self.record(pid, at, watch));
        }
        for told in std::mem::take(&mut self.strangers_due) {
            let end = self.end(told.pid, Some(told), at);
            let pid = told.pid;
            let end = EndOfProcess { id: None, pid, end };
            if self.strangers.len() == MAX_STRANGERS {
                self.strangers.pop_front();
            }
            self.strangers.push_back(end.clone());
            known.push(end);
        }
        known
    }

    fn record(&mut self, pid: u32, at: Timestamp, watch: &mut Watch) -> Option<EndOfProcess> {
        let id = self.by_pid.remove(&pid)?;
        let told = match self.by_id.get(&id) {
            Some(Ward::Living(living, told)) => {
                watch.remove(&living.pidfd);
                *told
            }
            _ => None,
        };
        let end = self.end(pid, told, at);
        self.by_id.insert(id, Ward::Ended(pid, end.clone()));
        let id = Some(id);
        Some(EndOfProcess { id, pid, end })
    }

    fn end(&mut self, pid: u32, told: Option<ChildEnd>, at: Timestamp) -> End {
        End {
            words: self.words.remove(&pid),
            code: told.and_then(|end| end.code),
            signal: told.and_then(|end| end.signal),
            cpu_ns: told.and_then(|end| end.cpu_ns),
            at,
            heard: instant(),
        }
    }

    /// Those behind `after`, and whether there are more than fit.
    pub(super) fn list(&self, after: Option<MachineId>) -> (Vec<Entry>, bool) {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let mut behind = self.by_id.range((from, Unbounded)).map(|(id, ward)| {
            let (pid, end) = match ward {
                Ward::Living(living, _) => (living.pid, None),
                Ward::Ended(pid, end) => (*pid, Some(end.clone())),
            };
            Entry { id: *id, pid, end }
        });
        let entries = behind.by_ref().take(MAX_LISTED).collect();
        (entries, behind.next().is_some())
    }

    /// Forgets those that have ended; the first that lives if one does, and then none is forgotten.
    pub(super) fn noted(&mut self, ids: &[MachineId]) -> Result<(), MachineId> {
        if let Some(living) = ids.iter().find(|id| self.living(id).is_some()) {
            return Err(*living);
        }
        for id in ids {
            self.by_id.remove(id);
        }
        Ok(())
    }
}

impl Living {
    /// Kills the process; one that has ended already is as good as killed.
    pub(super) fn kill(&self) {
        pidfd_send_signal(&self.pidfd, Signal::KILL).ok();
    }
}

/// The clock of [`brood_units::Instant`].
fn instant() -> brood_units::Instant {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let nanos = |part: i64| u64::try_from(part).unwrap_or(0);
    brood_units::Instant::from_nanos(nanos(now.tv_sec) * 1_000_000_000 + nanos(now.tv_nsec))
}

/// Whether the process has ended (man 2 pidfd_open).
fn has_ended(pidfd: &OwnedFd) -> bool {
    let at_once = Timespec::default();
    let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(poll(&mut polled, Some(&at_once)), Ok(1))
}
