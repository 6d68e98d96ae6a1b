//! Freezes and thaws the workload: every user process but the agent. Invariant: after [`Freezer::freeze`] either every
//! such process is frozen, or every cgroup is as it was found.
//!
//! ```text
//! cgroup root ─┬─ (kernel threads; user processes are moved to workload/)
//!              ├─ brood-agent/            the agent alone, never frozen
//!              ├─ workload/exec-N/        one for each exec session
//!              ├─ brood-stamp-N/          programs of the Nth stamp; runs during it, part of the workload after
//!              └─ init.scope/, system.slice/, …   in a bigger root
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use brood_agent_proto::Blocker;
use brood_agent_proto::fork::QuiesceReport;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cgroup::{self, State};
use crate::stat::{self, TaskState};

const AGENT: &str = "brood-agent";
const WORKLOAD: &str = "workload";

/// Cgroups looked at when searching for what is in the way.
const MOST_SEARCHED: usize = 4096;

/// Freezes everything below one cgroup root.
#[derive(Debug)]
pub(crate) struct Freezer {
    root: PathBuf,
    /// Top-level cgroups that this freezer froze.
    frozen: Vec<PathBuf>,
    /// Top-level cgroups that the guest itself had frozen, and only it may thaw.
    found: Vec<PathBuf>,
    stamps: u64,
}

/// The workload did not freeze. Everything is as it was found.
#[derive(Debug)]
pub(crate) enum FreezeError {
    /// These processes had not stopped at the deadline.
    Blocked(Vec<Blocker>),
    /// The cgroup file system refused.
    Io {
        operation: &'static str,
        error: io::Error,
    },
}

impl Freezer {
    pub(crate) fn new(root: &Path) -> io::Result<Self> {
        cgroup::make(&root.join(WORKLOAD))?;
        Ok(Self {
            root: root.to_owned(),
            frozen: Vec::new(),
            found: Vec::new(),
            stamps: 0,
        })
    }

    /// The cgroup of the workload.
    pub(crate) fn workload(&self) -> PathBuf {
        self.root.join(WORKLOAD)
    }

    /// Moves this process into the agent's cgroup.
    pub(crate) fn adopt_self(&self) -> io::Result<()> {
        let own = self.root.join(AGENT);
        cgroup::make(&own)?;
        cgroup::write(&own, "cgroup.procs", "0")
    }

    /// A cgroup that is not frozen, for programs of a stamp.
    pub(crate) fn make_stamp_cgroup(&mut self) -> io::Result<PathBuf> {
        self.stamps = self.stamps.saturating_add(1);
        let path = self.root.join(format!("brood-stamp-{}", self.stamps));
        cgroup::make(&path)?;
        Ok(path)
    }

    /// Freezes the workload until `deadline`.
    pub(crate) fn freeze(&mut self, deadline: Instant) -> Result<QuiesceReport, FreezeError> {
        let start = Instant::now();
        match self.freeze_all(deadline) {
            Ok(()) => Ok(QuiesceReport {
                took_ns: u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
                cgroups: u32::try_from(self.frozen.len()).unwrap_or(u32::MAX),
            }),
            Err(error) => {
                if let Err(thaw) = self.thaw() {
                    return Err(io_error("thawing after a refused quiesce", thaw));
                }
                Err(error)
            }
        }
    }

    /// Until nothing new turns up: what is not frozen yet may start processes and make cgroups.
    fn freeze_all(&mut self, deadline: Instant) -> Result<(), FreezeError> {
        loop {
            let moved = self
                .move_strays()
                .map_err(|error| io_error("moving processes to the workload", error))?;
            let added = self
                .freeze_new()
                .map_err(|error| io_error("freezing a cgroup", error))?;
            self.wait(deadline)?;
            if moved == 0 && added == 0 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(FreezeError::Blocked(Vec::new()));
            }
        }
    }

    /// Moves user processes out of the root and the agent's cgroup, and returns how many.
    fn move_strays(&self) -> io::Result<usize> {
        let own = std::process::id();
        let mut moved = 0;
        for from in [self.root.clone(), self.root.join(AGENT)] {
            let pids = match cgroup::processes(&from) {
                Ok(pids) => pids,
                Err(error) if cgroup::is_gone(&error) => continue,
                Err(error) => return Err(error),
            };
            for pid in pids {
                if pid == own || stat::is_kernel_thread(pid) {
                    continue;
                }
                match cgroup::write(&self.workload(), "cgroup.procs", &pid.to_string()) {
                    Ok(()) => moved += 1,
                    // It ended.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(moved)
    }

    /// Freezes top-level cgroups that are not frozen, and returns how many.
    fn freeze_new(&mut self) -> io::Result<usize> {
        let own = self.root.join(AGENT);
        let mut added = 0;
        for child in cgroup::children(&self.root)? {
            if child == own || self.frozen.contains(&child) || self.found.contains(&child) {
                continue;
            }
            match std::fs::read_to_string(child.join("cgroup.freeze")) {
                Ok(text) if text.trim() == "1" => {
                    self.found.push(child);
                    continue;
                }
                Ok(_) => {}
                Err(error) if cgroup::is_gone(&error) => continue,
                Err(error) => return Err(error),
            }
            match cgroup::write(&child, "cgroup.freeze", "1") {
                Ok(()) => {
                    self.frozen.push(child);
                    added += 1;
                }
                Err(error) if cgroup::is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(added)
    }

    fn wait(&self, deadline: Instant) -> Result<(), FreezeError> {
        for cgroup in self.frozen.iter().chain(&self.found) {
            match wait_frozen(cgroup, deadline) {
                Ok(State::Frozen | State::Gone) => {}
                Ok(State::Thawed) => {
                    return Err(FreezeError::Blocked(self.blockers()));
                }
                Err(error) => return Err(io_error("watching cgroup.events", error)),
            }
        }
        Ok(())
    }

    /// Thaws what [`Self::freeze`] froze. On failure the rest is thawed all the same and the first error returned.
    pub(crate) fn thaw(&mut self) -> io::Result<()> {
        self.found.clear();
        let mut first = Ok(());
        let mut kept = Vec::new();
        for cgroup in self.frozen.drain(..) {
            match cgroup::write(&cgroup, "cgroup.freeze", "0") {
                Err(error) if !cgroup::is_gone(&error) => {
                    kept.push(cgroup);
                    first = first.and(Err(error));
                }
                _ => {}
            }
        }
        self.frozen = kept;
        first
    }

    /// Processes that are not frozen: those seen running or in uninterruptible sleep, or else all in cgroups that are
    /// not frozen.
    fn blockers(&self) -> Vec<Blocker> {
        let mut todo: Vec<PathBuf> = self.frozen.iter().chain(&self.found).cloned().collect();
        let mut pids = Vec::new();
        for _ in 0..MOST_SEARCHED {
            let Some(cgroup) = todo.pop() else { break };
            let thawed = cgroup::open_events(&cgroup)
                .ok()
                .flatten()
                .and_then(|events| cgroup::state(&events).ok());
            if thawed == Some(State::Thawed) {
                pids.extend(cgroup::processes(&cgroup).unwrap_or_default());
                todo.extend(cgroup::children(&cgroup).unwrap_or_default());
            }
        }
        let (busy, idle): (Vec<u32>, Vec<u32>) = pids
            .into_iter()
            .partition(|pid| stat::task_state(*pid) == TaskState::Busy);
        let chosen = if busy.is_empty() { idle } else { busy };
        chosen
            .into_iter()
            .take(Blocker::MOST)
            .map(|pid| Blocker {
                pid,
                comm: stat::comm(pid),
            })
            .collect()
    }
}

fn io_error(operation: &'static str, error: io::Error) -> FreezeError {
    FreezeError::Io { operation, error }
}

/// Waits for `frozen 1`. The kernel raises `POLLPRI` on `cgroup.events` when a value in it changes.
fn wait_frozen(cgroup: &Path, deadline: Instant) -> io::Result<State> {
    let Some(events) = cgroup::open_events(cgroup)? else {
        return Ok(State::Gone);
    };
    loop {
        let state = cgroup::state(&events)?;
        let left = deadline.saturating_duration_since(Instant::now());
        if state != State::Thawed || left.is_zero() {
            return Ok(state);
        }
        let mut fds = [PollFd::new(&events, PollFlags::PRI)];
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A relative time for poll(2).
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A tree of plain files in the place of cgroups: it does as told and tells what it is made to.
    fn tree() -> (tempfile::TempDir, Freezer) {
        let root = tempfile::tempdir().expect("a directory");
        let freezer = Freezer::new(root.path()).expect("workload/");
        (root, freezer)
    }

    fn add(root: &Path, name: &str, freeze: &str) -> PathBuf {
        let cgroup = root.join(name);
        fs::create_dir(&cgroup).expect("a cgroup");
        fs::write(cgroup.join("cgroup.freeze"), freeze).expect("its switch");
        fs::write(cgroup.join("cgroup.events"), "populated 0\nfrozen 1\n").expect("its events");
        cgroup
    }

    fn freeze(freezer: &mut Freezer) -> Result<QuiesceReport, FreezeError> {
        freezer.freeze(Instant::now() + Duration::from_secs(60))
    }

    /// A directory cannot be read or written as a file.
    fn spoil(file: &Path) {
        fs::remove_file(file).ok();
        fs::create_dir(file).expect("a directory in its place");
    }

    fn refused(result: Result<QuiesceReport, FreezeError>, wanted: &str) {
        let operation = match result {
            Err(FreezeError::Io { operation, .. }) => operation,
            _ => "none",
        };
        assert_eq!(operation, wanted);
    }

    #[test]
    fn cgroups_that_are_gone_are_passed_over_and_the_others_frozen() {
        let (root, mut freezer) = tree();
        fs::create_dir(root.path().join("gone")).expect("without a switch");
        let one = add(root.path(), "one", "0\n");
        assert_eq!(freeze(&mut freezer).expect("frozen").cgroups, 1);
        let switch = || fs::read_to_string(one.join("cgroup.freeze")).expect("its switch");
        assert_eq!(switch().trim(), "1");
        freezer.thaw().expect("thawed");
        assert_eq!(switch().trim(), "0");
    }

    #[test]
    fn what_the_guest_froze_is_neither_counted_nor_thawed() {
        let (root, mut freezer) = tree();
        let found = add(root.path(), "found", "1\n");
        assert_eq!(freeze(&mut freezer).expect("frozen").cgroups, 0);
        freezer.thaw().expect("thawed");
        let switch = fs::read_to_string(found.join("cgroup.freeze")).expect("its switch");
        assert_eq!(switch, "1\n");
    }

    #[test]
    fn processes_that_cannot_be_listed_refuse_the_freeze() {
        let (root, mut freezer) = tree();
        spoil(&root.path().join("cgroup.procs"));
        refused(freeze(&mut freezer), "moving processes to the workload");
    }

    #[test]
    fn a_process_that_cannot_be_moved_refuses_the_freeze() {
        let (root, mut freezer) = tree();
        let mut program = std::process::Command::new("cat");
        program.stdin(std::process::Stdio::piped());
        let mut stray = program.spawn().expect("cat starts");
        fs::write(root.path().join("cgroup.procs"), stray.id().to_string()).expect("its list");
        spoil(&freezer.workload().join("cgroup.procs"));
        refused(freeze(&mut freezer), "moving processes to the workload");
        drop(stray.stdin.take());
        stray.wait().expect("reaped");
    }

    #[test]
    fn the_agents_own_cgroup_is_never_frozen() {
        let (root, mut freezer) = tree();
        let own = add(root.path(), AGENT, "0\n");
        assert_eq!(freeze(&mut freezer).expect("frozen").cgroups, 0);
        let switch = fs::read_to_string(own.join("cgroup.freeze")).expect("its switch");
        assert_eq!(switch, "0\n");
    }

    #[test]
    fn a_switch_that_cannot_be_read_or_set_refuses_the_freeze_and_thaws_the_others() {
        let (root, mut freezer) = tree();
        let one = add(root.path(), "one", "0\n");
        let other = add(root.path(), "other", "0\n");
        let switch = other.join("cgroup.freeze");
        spoil(&switch);
        refused(freeze(&mut freezer), "freezing a cgroup");
        fs::remove_dir(&switch).expect("removed");
        // It can be read, and written by nobody.
        std::os::unix::fs::symlink("/proc/version", &switch).expect("a link");
        refused(freeze(&mut freezer), "freezing a cgroup");
        let switch = fs::read_to_string(one.join("cgroup.freeze")).expect("its switch");
        assert_ne!(switch.trim(), "1");
    }

    #[test]
    fn a_cgroup_that_does_not_thaw_is_an_error_and_is_thawed_by_the_next_try() {
        let (root, mut freezer) = tree();
        let switch = add(root.path(), "one", "0\n").join("cgroup.freeze");
        freeze(&mut freezer).expect("frozen");
        spoil(&switch);
        assert!(freezer.thaw().is_err());
        fs::remove_dir(&switch).expect("removed");
        fs::write(&switch, "1").expect("its switch");
        freezer.thaw().expect("thawed");
        assert_eq!(fs::read_to_string(&switch).expect("its switch").trim(), "0");
    }
}
