//! Programs in a machine's guest, run to their end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::mistake::Mistakes;
use crate::{Request, Span, limit};

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecSpec {
    /// The program and its arguments. A program without `/` is looked for in `PATH`.
    #[schema(example = json!(["uname", "-a"]), min_items = 1)]
    pub argv: Vec<String>,
    /// Variables put over the guest's own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The working directory; `/` if not said.
    pub cwd: Option<String>,
    /// `name`, `uid`, `name:group` or `uid:gid`; root if not said.
    pub user: Option<String>,
    /// Ends the program and its descendants after it has run for so long; `60s` if not said.
    pub timeout: Option<Span>,
}

impl Request for ExecSpec {
    fn check(&self, mistakes: &mut Mistakes) {
        if self.argv.first().is_none_or(String::is_empty) {
            mistakes.out_of_range("/argv", "a program is needed, such as [\"uname\", \"-a\"]");
        }
        if self.argv.iter().any(|argument| argument.contains('\0')) {
            mistakes.out_of_range("/argv", "an argument has no NUL");
        }
        limit::env(&self.env, mistakes);
        if let Some(cwd) = &self.cwd {
            limit::guest_path("/cwd", cwd, mistakes);
        }
        if self.timeout.is_some_and(|timeout| timeout.as_millis() == 0) {
            mistakes.out_of_range("/timeout", "a program needs some time: 1ms at least");
        }
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "how")]
pub enum ExecEnd {
    /// It exited.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
    },
    /// It ran longer than its timeout and was killed.
    TimedOut,
}

/// A program that ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Exec {
    /// How it ended.
    pub end: ExecEnd,
    /// Standard output as text; what is no UTF-8 is replaced.
    pub stdout: String,
    /// Standard error as text; what is no UTF-8 is replaced.
    pub stderr: String,
    /// Bytes of either that are lost, because there were too many.
    pub lost: u64,
}
