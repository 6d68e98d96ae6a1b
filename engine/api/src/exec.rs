//! Programs in a machine's guest.
//!
//! Invariant: what a program is given is bounded here, so that it always fits what the guest's agent takes.

mod input;
mod output;

use std::collections::BTreeMap;

use brood_units::MachineId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::mistake::Mistakes;
use crate::{IdText, Request, Span, Time, limit, shape};

pub use input::{SignalSpec, SignalTarget, StdinSpec, TerminalAsk, TtySize};
pub use output::{
    Base64, Lost, Offset, Output, OutputPiece, OutputQuery, ParseOffsetError, Stream, Streams,
    TerminalQuery, TerminalWord,
};

/// Most words of a program.
const MAX_ARGV: usize = 4096;
/// Most bytes of all words of a program, and of all its variables.
const MAX_ARGV_BYTES: usize = 128 << 10;
const MAX_ENV_BYTES: usize = 64 << 10;
/// Longest name of a user, bytes.
const MAX_USER: usize = 255;

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecSpec {
    /// The program and its arguments, 128 KiB at most. A program without `/` is looked for in `PATH`.
    #[schema(schema_with = shape::words)]
    pub argv: Vec<String>,
    /// Variables put over the guest's own, 64 KiB at most.
    #[schema(schema_with = shape::env)]
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The working directory; `/` if not said.
    #[schema(schema_with = shape::cwd)]
    pub cwd: Option<String>,
    /// `name`, `uid`, `name:group` or `uid:gid`; root if not said.
    #[schema(pattern = r"^[^\x00]+$", max_length = 255)]
    pub user: Option<String>,
    /// Ends the program and its descendants after it has run for so long; `60s` if not said and the answer waits for its
    /// end, else it runs as long as it likes.
    pub timeout: Option<Span>,
    /// A terminal of this size, in which its output streams are one.
    pub tty: Option<TtySize>,
    /// Whether something can be written to it; if not said, only if it has a terminal.
    pub stdin: Option<bool>,
    /// Whether it is answered after its end, with its output. If not said, it is, unless it has a terminal or stdin.
    pub wait: Option<bool>,
}

impl ExecSpec {
    /// Whether something can be written to it.
    pub fn has_stdin(&self) -> bool {
        self.stdin.unwrap_or(self.tty.is_some())
    }

    /// Whether it is answered after its end.
    pub fn waits(&self) -> bool {
        self.wait
            .unwrap_or_else(|| self.tty.is_none() && !self.has_stdin())
    }
}

impl Request for ExecSpec {
    fn check(&self, mistakes: &mut Mistakes) {
        if self.argv.first().is_none_or(String::is_empty) {
            mistakes.out_of_range("/argv", "a program is needed, such as [\"uname\", \"-a\"]");
        }
        if self.argv.iter().any(|argument| argument.contains('\0')) {
            mistakes.out_of_range("/argv", "an argument has no NUL");
        }
        // Each word ends with a NUL, as in execve(2).
        let bytes: usize = self.argv.iter().map(|word| word.len() + 1).sum();
        if self.argv.len() > MAX_ARGV || bytes > MAX_ARGV_BYTES {
            let words = self.argv.len();
            mistakes.out_of_range(
                "/argv",
                format!(
                    "{words} words with {bytes} bytes: at most {MAX_ARGV} with {MAX_ARGV_BYTES}; put the rest into a file"
                ),
            );
        }
        limit::env(&self.env, mistakes);
        let bytes: usize = self
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len() + 2)
            .sum();
        if bytes > MAX_ENV_BYTES {
            mistakes.out_of_range(
                "/env",
                format!("{bytes} bytes of variables: at most {MAX_ENV_BYTES}"),
            );
        }
        if let Some(cwd) = &self.cwd {
            limit::guest_path("/cwd", cwd, mistakes);
        }
        let user = self.user.as_deref();
        if user.is_some_and(|user| user.is_empty() || user.len() > MAX_USER || user.contains('\0'))
        {
            mistakes.out_of_range(
                "/user",
                format!("a user has 1 to {MAX_USER} bytes and no NUL: leave it out for root"),
            );
        }
        if self.timeout.is_some_and(|timeout| timeout.as_millis() == 0) {
            mistakes.out_of_range("/timeout", "a program needs some time: 1ms at least");
        }
        if let Some(tty) = self.tty {
            tty.look("/tty", mistakes);
        }
    }
}

/// Whether and how a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecState {
    /// It runs.
    Running,
    /// It exited, with `code`.
    Exited,
    /// A signal ended it, the one in `signal`.
    Signaled,
    /// It ran longer than its timeout and was killed.
    TimedOut,
    /// How it ended is not known: its machine has ended with it, or has forgotten it.
    Lost,
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Exec {
    /// Its number in its machine. Daughters have their mother's programs under the same numbers.
    pub id: u32,
    /// The machine.
    #[schema(value_type = IdText)]
    pub machine: MachineId,
    /// The program and its arguments; beyond 1024 bytes they are cut, and end with `…`.
    pub argv: Vec<String>,
    /// Whether and how it ended.
    pub state: ExecState,
    /// Its exit code, if it exited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// When it was started, or first seen.
    pub created_at: Time,
    /// When its end was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
}

/// A program that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StartedExec {
    /// The program.
    #[serde(flatten)]
    pub exec: Exec,
    /// Standard output as text, if its end was waited for; what is no UTF-8 is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// Standard error as text, if its end was waited for; what is no UTF-8 is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// Bytes of either that are not in here, because there were too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
}

/// The programs of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Execs {
    /// The programs by number, those that the machine has of her mother included; the newest thousand.
    pub items: Vec<Exec>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DecodeError, decode};

    fn places(body: &serde_json::Value) -> Vec<String> {
        match decode::<ExecSpec>(body.to_string().as_bytes()) {
            Err(DecodeError::Mistakes { mistakes }) => {
                mistakes.into_iter().map(|one| one.pointer).collect()
            }
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn what_a_guest_would_not_take_is_refused_at_its_place() {
        let refused = [
            (serde_json::json!({"argv": []}), "/argv"),
            (serde_json::json!({"argv": [""]}), "/argv"),
            (serde_json::json!({"argv": ["a\u{0}"]}), "/argv"),
            (serde_json::json!({"argv": vec!["a"; 4097]}), "/argv"),
            (
                serde_json::json!({"argv": ["a".repeat(128 << 10)]}),
                "/argv",
            ),
            (
                serde_json::json!({"argv": ["a"], "env": {"A": "a".repeat(64 << 10)}}),
                "/env",
            ),
            (serde_json::json!({"argv": ["a"], "cwd": "tmp"}), "/cwd"),
            (serde_json::json!({"argv": ["a"], "user": ""}), "/user"),
            (
                serde_json::json!({"argv": ["a"], "timeout": "0s"}),
                "/timeout",
            ),
            (
                serde_json::json!({"argv": ["a"], "tty": {"cols": 0, "rows": 1}}),
                "/tty/cols",
            ),
        ];
        for (body, place) in refused {
            assert_eq!(places(&body), [place]);
        }
    }

    #[test]
    fn who_can_be_written_to_is_not_waited_for_unless_somebody_says_so() {
        let spec = |rest: &str| {
            let body = format!(r#"{{"argv": ["a"]{rest}}}"#);
            let spec: ExecSpec = decode(body.as_bytes()).expect("a program");
            (spec.has_stdin(), spec.waits())
        };
        assert_eq!(spec(""), (false, true));
        assert_eq!(spec(r#", "wait": false"#), (false, false));
        assert_eq!(spec(r#", "stdin": true"#), (true, false));
        assert_eq!(spec(r#", "stdin": true, "wait": true"#), (true, true));
        let tty = r#", "tty": {"cols": 80, "rows": 24}"#;
        assert_eq!(spec(tty), (true, false));
        assert_eq!(spec(&format!(r#"{tty}, "stdin": false"#)), (false, false));
    }
}
