//! What the agent answers when it cannot do what was asked. Invariant: every variant names the operation that failed
//! and carries the facts as fields; the connection stays usable unless the variant is [`AgentError::Protocol`].

use serde::{Deserialize, Serialize};

use crate::errno::Errno;
use crate::exec::ExecId;
use crate::file::FileOp;
use crate::fork::StampStep;

/// A request failed in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum AgentError {
    /// A frame was no message, or not one expected at this point; the agent closes the connection.
    #[error("protocol: {detail}")]
    Protocol {
        /// What was wrong with it.
        detail: String,
    },
    /// A limit of the agent is reached.
    #[error("at most {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: String,
        /// The most there may be.
        limit: u64,
    },
    /// The request makes no sense as given.
    #[error("invalid {field}: {detail}")]
    Invalid {
        /// The field at fault.
        field: String,
        /// Why.
        detail: String,
    },
    /// The workload is quiesced, so nothing may be started in it.
    #[error("the workload is quiesced")]
    WorkloadQuiesced,
    /// No exec session has this id.
    #[error("no exec session {exec}")]
    NoSuchExec {
        /// The id asked for.
        exec: ExecId,
    },
    /// The exec session's process has not ended.
    #[error("exec session {exec} is still running")]
    StillRunning {
        /// The session.
        exec: ExecId,
    },
    /// The exec session has no stdin to write to, or it was closed.
    #[error("exec session {exec} has no open stdin")]
    NoStdin {
        /// The session.
        exec: ExecId,
    },
    /// The exec session has no terminal.
    #[error("exec session {exec} has no terminal")]
    NoTty {
        /// The session.
        exec: ExecId,
    },
    /// An attachment asked for bytes its stream has not made. The client has followed another machine: a daughter
    /// has only made what its mother had made at the fork.
    #[error("offset {offset} is ahead of the stream, which ends at {end}")]
    OffsetAhead {
        /// The offset asked for, in bytes from the start of the stream.
        offset: u64,
        /// Where the stream ends.
        end: u64,
    },
    /// A process could not be started.
    #[error("spawn: {step:?} failed: {errno}")]
    Spawn {
        /// The step that failed.
        step: SpawnStep,
        /// Why.
        errno: Errno,
    },
    /// A file operation failed.
    #[error("{op:?} {path}: {errno}")]
    File {
        /// The operation.
        op: FileOp,
        /// The path as given.
        path: String,
        /// Why.
        errno: Errno,
    },
    /// A system call of the agent failed.
    #[error("{op}: {errno}")]
    Os {
        /// What the agent was doing.
        op: String,
        /// Why.
        errno: Errno,
    },
    /// The workload did not stop in time. It runs again.
    #[error(
        "the workload did not freeze within {waited_ms} ms: in the way is {}",
        list(blockers)
    )]
    QuiesceRefused {
        /// How long was waited, in milliseconds.
        waited_ms: u64,
        /// Processes that had not stopped; the first [`Blocker::MOST`].
        blockers: Vec<Blocker>,
    },
    /// A step of the fork protocol was refused.
    #[error("fork protocol: {0}")]
    Fork(ForkRefusal),
    /// A step of the stamp failed. The workload stays frozen and this machine can only be ended.
    #[error("stamp: {step:?} failed: {errno}: {detail}")]
    StampFailed {
        /// The step.
        step: StampStep,
        /// Why; `EIO` where a program failed rather than a system call.
        errno: Errno,
        /// The path, hook or command, and the end of what it printed.
        detail: String,
    },
}

/// A process that had not stopped when the quiesce timed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// Its process id in the guest.
    pub pid: u32,
    /// Its command name, `/proc/PID/comm`.
    pub comm: String,
}

impl Blocker {
    /// The most blockers that are reported.
    pub const MOST: usize = 64;
}

/// The first few by name, which the guest chose, so at most as much of it as Linux keeps (TASK_COMM_LEN) and printable.
fn list(blockers: &[Blocker]) -> String {
    const SHOWN: usize = 8;
    let name = |blocker: &Blocker| -> String {
        let comm: String = blocker.comm.chars().take(15).collect();
        format!("process {} ({})", blocker.pid, comm.escape_debug())
    };
    let mut names: Vec<_> = blockers.iter().take(SHOWN).map(name).collect();
    match blockers.len().saturating_sub(SHOWN) {
        0 if names.is_empty() => names.push("nothing that can be seen".to_owned()),
        0 => {}
        more => names.push(format!("{more} more")),
    }
    names.join(", ")
}

/// Why a step of the fork protocol was refused. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ForkRefusal {
    /// The workload is not quiesced.
    #[error("the workload is not quiesced")]
    NotQuiesced,
    /// The workload is quiesced, or about to be.
    #[error("the workload is already quiesced")]
    AlreadyQuiesced,
    /// The token is not that of the quiesce.
    #[error("the token is not that of this quiesce")]
    WrongToken,
    /// Thaw came on another connection than the quiesce, stamp came on the same one, or confirm and thaw came on
    /// another connection than the stamp.
    #[error("not allowed on this connection")]
    WrongConnection,
    /// The machine was stamped, or a stamp was begun: the mother's thaw is not accepted any more.
    #[error("the machine has been stamped")]
    AlreadyStamped,
    /// Confirm or thaw before a stamp.
    #[error("the machine is not stamped")]
    NotStamped,
    /// Thaw before confirm.
    #[error("the stamp is not confirmed")]
    NotConfirmed,
    /// The thaw names another machine than the stamp.
    #[error("the machine was stamped with another id")]
    WrongMachine,
    /// An earlier stamp failed; this machine can only be ended.
    #[error("an earlier stamp failed")]
    StampFailed,
}

/// The steps between a request to run a program and the program running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpawnStep {
    /// Looking up user and group.
    User,
    /// Making the cgroup.
    Cgroup,
    /// Making pipes.
    Pipe,
    /// Making the terminal.
    Pty,
    /// Cloning the process.
    Clone,
    /// Starting a session and taking the terminal.
    Session,
    /// Putting stdin, stdout and stderr in place.
    Stdio,
    /// Setting group ids.
    Groups,
    /// Setting user ids.
    Uid,
    /// Changing to the working directory.
    Cwd,
    /// Executing the program.
    Exec,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_quiesce_names_the_processes_in_the_way_and_lets_no_name_break_the_line() {
        let blocker = |pid: u32, comm: &str| Blocker {
            pid,
            comm: comm.to_owned(),
        };
        let refused = |blockers| {
            AgentError::QuiesceRefused {
                waited_ms: 5,
                blockers,
            }
            .to_string()
        };
        let text = refused(vec![
            blocker(130, "sh"),
            blocker(7, "a\nb\x1b[2J and far too long"),
        ]);
        assert!(
            text.ends_with("in the way is process 130 (sh), process 7 (a\\nb\\u{1b}[2J and far)"),
            "{text}"
        );
        let many = refused((0..20).map(|pid| blocker(pid, "x")).collect());
        assert!(many.ends_with("process 7 (x), 12 more"), "{many}");
        assert!(refused(Vec::new()).ends_with("nothing that can be seen"));
    }
}
