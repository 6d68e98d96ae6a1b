//! Why a command did not do what it was told, and how that is said.
//!
//! Invariant: what a server refused is shown as it said it: in JSON byte for byte, in text with its cause and remedy.
//! What this side found wrong has the same fields.

use std::io;

use brood_api::{Code, Problem};
use brood_client::ClientError;
use serde::Serialize;

use super::exit::Exit;
use super::out::plain;

/// Why a command did not do what it was told.
#[derive(Debug)]
pub enum Failure {
    /// The server, or the way to it.
    Client(ClientError),
    /// The registry has a word for it, though it was found on this side.
    Here(Box<Problem>),
    /// Only this side can say so.
    Local(Local),
    /// Nobody reads on.
    Pipe,
}

/// A problem that no server sent.
#[derive(Debug, Serialize)]
pub struct Local {
    #[serde(skip)]
    exit: Exit,
    title: &'static str,
    detail: String,
    code: &'static str,
    cause: &'static str,
    remediation: &'static str,
    retryable: bool,
}

impl Failure {
    /// The command line means nothing.
    pub fn usage(detail: impl Into<String>) -> Self {
        Self::Local(Local {
            exit: Exit::Usage,
            title: "The command line means nothing",
            detail: detail.into(),
            code: "usage",
            cause: "A command, an option or a value is unknown, missing or not written as it should be.",
            remediation: "Look at --help of the command.",
            retryable: false,
        })
    }

    /// There is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::Here(Box::new(Problem::new(Code::NotFound, detail)))
    }

    /// A file or a terminal.
    pub fn local(detail: impl Into<String>) -> Self {
        Self::Local(Local {
            exit: Exit::Local,
            title: "Something on this side failed",
            detail: detail.into(),
            code: "local",
            cause: "A file or a terminal that the command needs is not there or not to be used.",
            remediation: "Look at the detail; nothing was asked of the server after it.",
            retryable: false,
        })
    }

    /// How the command ends.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Client(ClientError::Refused(refused)) => Exit::of(refused.problem.code),
            Self::Client(ClientError::Unreachable { .. }) => Exit::Unreachable,
            Self::Client(ClientError::NotUnderstood { .. }) => Exit::Server,
            Self::Client(ClientError::NotSent { .. }) => Exit::Usage,
            Self::Here(problem) => Exit::of(problem.code),
            Self::Local(local) => local.exit,
            Self::Pipe => Exit::Pipe,
        }
    }

    /// As one JSON object; none where nobody reads.
    pub fn json(&self) -> Option<String> {
        let written = match self {
            Self::Pipe => return None,
            Self::Client(ClientError::Refused(refused)) => Ok(refused.json.trim().to_owned()),
            Self::Client(error) => serde_json::to_string(&of_the_way(error)),
            Self::Here(problem) => serde_json::to_string(problem),
            Self::Local(local) => serde_json::to_string(local),
        };
        // Of strings and numbers alone this cannot fail.
        Some(written.unwrap_or_else(|_| "{}".to_owned()))
    }

    /// For people; none where nobody reads.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Pipe => None,
            Self::Client(ClientError::Refused(refused)) => Some(words(&refused.problem)),
            Self::Here(problem) => Some(words(problem)),
            Self::Client(error) => Some(local_words(&of_the_way(error))),
            Self::Local(local) => Some(local_words(local)),
        }
    }
}

fn words(problem: &Problem) -> String {
    let mut text = format!("{}: {}", problem.title, problem.detail);
    for mistake in &problem.errors {
        text.push_str(&format!("\n  {}: {}", mistake.pointer, mistake.detail));
    }
    if let Some(denial) = &problem.denial {
        text.push_str(&format!(
            "\n  denied by '{}' ({})",
            denial.binding, denial.code
        ));
    }
    text.push_str(&format!("\n  cause:  {}", problem.cause));
    text.push_str(&format!("\n  remedy: {}", problem.remediation));
    if let Some(millis) = problem.retry_after_ms {
        text.push_str(&format!("\n  ask again after {millis} ms"));
    }
    if let Some(request) = &problem.request_id {
        text.push_str(&format!("\n  request {request}"));
    }
    plain(&text)
}

fn local_words(local: &Local) -> String {
    let Local {
        title,
        detail,
        remediation,
        ..
    } = local;
    plain(&format!("{title}: {detail}\n  remedy: {remediation}"))
}

/// What no server said.
fn of_the_way(error: &ClientError) -> Local {
    let mut detail = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        detail.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    match error {
        ClientError::Unreachable { .. } => Local {
            exit: Exit::Unreachable,
            title: "The server cannot be reached",
            detail,
            code: "unreachable",
            cause: "Nobody listens at this address, or the connection broke before the answer was whole.",
            remediation: "Start it with `brood up`, or name another with --url or BROOD_URL.",
            retryable: true,
        },
        _ => Local {
            exit: Exit::Server,
            title: "The answer is none of this API",
            detail,
            code: "not_understood",
            cause: "Something else than brood listens there, or a brood of another version.",
            remediation: "Look at --url or BROOD_URL, and at `brood info` of that server's version.",
            retryable: false,
        },
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// Of standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::Pipe;
        }
        Self::local(format!("cannot write to standard output: {error}"))
    }
}
