//! Ended children. Invariant: a child the agent started is reaped by whoever started it and an orphan by
//! [`orphans`], never the other way round: a claim exists before the child can end.
//!
//! `unsafe` here: waitid(2), since the process id of its answer has no safe wrapper.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use brood_agent_proto::AgentError;
use brood_agent_proto::exec::ExecState;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::exec::spawn::Child;
use crate::serial::enter;

/// Children of this process that somebody waits for. A process has one set of children, hence a static.
static CLAIMED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
static CHANGED: Condvar = Condvar::new();

/// The promise of whoever started a child to wait for it.
#[derive(Debug)]
pub(crate) struct Claim {
    pid: i32,
    released: AtomicBool,
}

impl Claim {
    fn release(&self) {
        // Once only: the number may be another child's by now.
        if !self.released.swap(true, Ordering::AcqRel) {
            enter(&CLAIMED).remove(&self.pid);
            CHANGED.notify_all();
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release();
    }
}

/// Runs `clone`, and claims the child it makes before anybody can see it end.
pub(crate) fn claim_while(
    clone: impl FnOnce() -> Result<(Pid, OwnedFd), AgentError>,
) -> Result<Child, AgentError> {
    let mut claimed = enter(&CLAIMED);
    let (pid, pidfd) = clone()?;
    let raw = pid.as_raw_nonzero().get();
    claimed.insert(raw);
    drop(claimed);
    CHANGED.notify_all();
    Ok(Child {
        pid,
        pidfd,
        claim: Claim {
            pid: raw,
            released: AtomicBool::new(false),
        },
    })
}

/// Waits for `child` to end and reaps it.
pub(crate) fn wait(child: &Child) -> io::Result<ExecState> {
    let status = loop {
        match waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(status) => break status,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    };
    child.claim.release();
    let status = status.ok_or(io::ErrorKind::NotFound)?;
    Ok(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExecState::Exited { code },
        (None, Some(signal)) => ExecState::Signaled { signal },
        (None, None) => ExecState::Signaled { signal: 0 },
    })
}

/// Reaps orphans for ever, as process 1 must.
pub(crate) fn orphans() -> ! {
    loop {
        match ended_child() {
            Ok(pid) => reap_unless_claimed(pid),
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => wait_for_children(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                eprintln!("brood-agent: waiting for orphans: {error}");
                wait_for_children();
            }
        }
    }
}

/// A child that has ended, left as it is.
fn ended_child() -> io::Result<i32> {
    // SAFETY: siginfo_t is plain data for which zero is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOWAIT;
    // SAFETY: `info` is a siginfo_t that lives until the call returns.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: waitid(2) succeeded and so filled in the SIGCHLD fields.
    Ok(unsafe { info.si_pid() })
}

fn reap_unless_claimed(raw: i32) {
    let mut claimed = enter(&CLAIMED);
    if claimed.contains(&raw) {
        // Its owner has been told by its pidfd and will reap it at once.
        while claimed.contains(&raw) {
            claimed = CHANGED
                .wait(claimed)
                .unwrap_or_else(PoisonError::into_inner);
        }
        return;
    }
    if let Some(pid) = Pid::from_raw(raw) {
        match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED) {
            Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::CHILD) => {}
            Err(errno) => eprintln!("brood-agent: reaping orphan {raw}: {errno}"),
        }
    }
}

/// Without a child there is no descendant, so no orphan, until the agent starts a program.
fn wait_for_children() {
    let mut claimed = enter(&CLAIMED);
    while claimed.is_empty() {
        claimed = CHANGED
            .wait(claimed)
            .unwrap_or_else(PoisonError::into_inner);
    }
}
