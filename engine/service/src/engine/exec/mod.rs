//! Programs in machines, as objects that outlive who started them.
//!
//! ```text
//!  start ─► agent: a session ─► row (commit) ─► answer          a task waits for the end ─► row (commit)
//!  look ──► row; no end known ─► agent ─► row (commit) ─► answer
//!  follow ─► agent: attach from an offset ─► pieces, as fast as they are taken ─► the end
//! ```
//!
//! Invariant: a session lives in the guest, with its output and under its id, so that daughters have their mother's and a
//! reader who comes back goes on from an offset. The engine keeps what has to outlive the guest: that it was started, and
//! how it ended. Nobody's output is held in memory beyond a piece at a time; bytes that were overwritten before somebody
//! took them are counted.

mod follow;
mod input;
mod look;
mod once;
mod start;
mod talk;

pub use brood_agent_proto::exec::{SignalTarget, Stdin, Stream, TtySize};
pub use brood_store::{ExecRow, ExecState};

pub use follow::{Followed, Follower, From, OutputAnswer, Piece, Place};
pub use input::{Keyboard, StdinWrite, Terminal};
pub use start::{Ran, StartExec, Started};

use brood_agent_proto::exec as agent;
use brood_units::{MachineId, Timestamp};

/// Which program of which machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Which {
    /// The machine.
    pub machine: MachineId,
    /// The program, as her agent calls it.
    pub exec: u32,
}

/// Words of a program that are kept with it, bytes. Rows are copied for each daughter.
const ARGV_BYTES: usize = 1024;

/// The program and its arguments as they are kept.
fn cut(argv: &[String]) -> Vec<String> {
    let mut left = ARGV_BYTES;
    let mut kept = Vec::new();
    for word in argv {
        if word.len() > left || kept.len() >= ARGV_BYTES / 8 {
            let end = word.floor_char_boundary(left.min(word.len()));
            kept.push(format!("{}…", word.get(..end).unwrap_or_default()));
            break;
        }
        left -= word.len();
        kept.push(word.clone());
    }
    kept
}

/// A row with what an agent says of its program.
fn seen(row: ExecRow, state: agent::ExecState, now: Timestamp) -> ExecRow {
    let (state, code, signal) = match state {
        agent::ExecState::Running => (ExecState::Running, None, None),
        agent::ExecState::Exited { code } => (ExecState::Exited, Some(code), None),
        agent::ExecState::Signaled { signal } => (ExecState::Signaled, None, Some(signal)),
        agent::ExecState::TimedOut => (ExecState::TimedOut, None, None),
    };
    ExecRow {
        state,
        code,
        signal,
        ended: (state != ExecState::Running).then_some(now),
        ..row
    }
}

/// The row of a program that is seen for the first time.
fn new_row(
    machine: MachineId,
    tenant: &str,
    exec: u32,
    argv: &[String],
    now: Timestamp,
) -> ExecRow {
    ExecRow {
        machine,
        exec,
        tenant: tenant.to_owned(),
        argv: cut(argv),
        state: ExecState::Running,
        code: None,
        signal: None,
        created: now,
        ended: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_kept_are_few_and_say_that_they_were_cut() {
        let short = ["sh".to_owned(), "-c".to_owned(), "true".to_owned()];
        assert_eq!(cut(&short), short);
        let long = ["sh".to_owned(), "é".repeat(1000), "x".to_owned()];
        let kept = cut(&long);
        assert_eq!(kept.len(), 2);
        assert!(kept.concat().len() <= ARGV_BYTES + '…'.len_utf8());
        assert!(kept[1].starts_with('é') && kept[1].ends_with('…'));
        let many = vec![String::new(); 10_000];
        assert!(cut(&many).len() <= ARGV_BYTES / 8 + 1);
    }
}
