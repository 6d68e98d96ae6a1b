//! What a command's exit status says.
//!
//! Invariant: one status for each kind of end, and none below 110 but what every program has: those belong to the programs
//! that `brood exec` runs, whose status it passes on.

use std::process::ExitCode;

use brood_api::Code;

/// How a command ended, where it was not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Something on this side: a file, a terminal.
    Local,
    /// The command line, or the request that was made of it, means nothing.
    Usage,
    /// There is no such thing, or it has ended.
    NotFound,
    /// The key is missing, not valid, or does not allow it.
    Key,
    /// A policy says no.
    Denied,
    /// It cannot be done in the present state.
    Conflict,
    /// Not now.
    Busy,
    /// Nobody answers.
    Unreachable,
    /// The server failed, or is none that this command knows.
    Server,
    /// Whoever read the output has gone.
    Pipe,
}

impl Exit {
    /// All of them, with what they say.
    pub const ALL: &[(Self, &str)] = &[
        (Self::Local, "something on this side failed, such as a file"),
        (Self::Usage, "the command line or the request means nothing"),
        (Self::NotFound, "there is no such object, or it has ended"),
        (
            Self::Key,
            "the key is missing, not valid, or does not allow it",
        ),
        (Self::Denied, "a policy denies it"),
        (Self::Conflict, "it cannot be done in the present state"),
        (Self::Busy, "there is no room for it now; ask again later"),
        (Self::Unreachable, "the server cannot be reached"),
        (
            Self::Server,
            "the server failed, or is none of this version",
        ),
        (Self::Pipe, "whoever read the output has gone"),
    ];

    /// The status.
    pub const fn status(self) -> u8 {
        match self {
            Self::Local => 1,
            // clap's own.
            Self::Usage => 2,
            Self::NotFound => 110,
            Self::Key => 111,
            Self::Denied => 112,
            Self::Conflict => 113,
            Self::Busy => 114,
            Self::Unreachable => 115,
            Self::Server => 116,
            // As a shell says it of a program that SIGPIPE ended.
            Self::Pipe => 141,
        }
    }

    /// How a command ends that was refused so.
    pub const fn of(code: Code) -> Self {
        match code {
            Code::MalformedJson
            | Code::InvalidRequest
            | Code::UnsupportedMediaType
            | Code::NotAcceptable
            | Code::BodyTooLarge => Self::Usage,
            Code::NotFound | Code::Ended => Self::NotFound,
            Code::MissingKey | Code::BadKey | Code::MissingScope => Self::Key,
            Code::Denied => Self::Denied,
            Code::Conflict | Code::IdempotencyKeyReused | Code::SnapshotUnfit => Self::Conflict,
            Code::RateLimited
            | Code::Busy
            | Code::RequestInFlight
            | Code::Stopping
            | Code::BodyTooSlow => Self::Busy,
            Code::NoSuchRoute
            | Code::UpgradeRequired
            | Code::MethodNotAllowed
            | Code::StoreFull
            | Code::SnapshotDamaged
            | Code::SnapshotDiskFull
            | Code::StoreFailed
            | Code::Failed => Self::Server,
        }
    }

    /// All statuses in words, for `--help`.
    pub fn help() -> String {
        let mut help = "Exit status:\n    0  it is done".to_owned();
        for (exit, words) in Self::ALL {
            help.push_str(&format!("\n  {:>3}  {words}", exit.status()));
        }
        help.push_str(
            "\n`exec` ends with the status of its program: 128 + N if signal N ended it, 124 if it ran out of time.\
             \n\nWith `-o json`, standard output is one JSON value, the answer or the problem; the status says which.\
             \n`doctor`, `plugin` and `demo` have `--json`.",
        );
        help
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_a_status_of_its_own_and_the_readme_lists_it() {
        let readme = include_str!("../../../../README.md");
        let mut all: Vec<_> = Exit::ALL.iter().map(|(exit, _)| exit.status()).collect();
        for (exit, words) in Exit::ALL {
            let row = format!("| {} | {words} |", exit.status());
            assert!(readme.contains(&row), "README.md has no row '{row}'");
        }
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), Exit::ALL.len());
        for code in Code::ALL {
            assert!(Exit::ALL.iter().any(|(exit, _)| *exit == Exit::of(*code)));
        }
    }
}
