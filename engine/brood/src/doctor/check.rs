//! One row of the examination. Invariant: a row that is not ok has a remedy, and one that is ok has none.

use serde::Serialize;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Slower or less than it could be.
    Warn,
    /// Something does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it came out.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// Why it matters.
    pub why: &'static str,
    /// What to do; empty where the check is ok.
    pub remedy: String,
}

/// A check whose outcome is still open.
#[derive(Clone, Copy)]
pub(super) struct Question {
    pub(super) name: &'static str,
    pub(super) why: &'static str,
}

impl Question {
    pub(super) fn ok(self, found: impl Into<String>) -> Check {
        self.check(Status::Ok, found.into(), String::new())
    }

    pub(super) fn warn(self, found: impl Into<String>, remedy: impl Into<String>) -> Check {
        self.check(Status::Warn, found.into(), remedy.into())
    }

    pub(super) fn fail(self, found: impl Into<String>, remedy: impl Into<String>) -> Check {
        self.check(Status::Fail, found.into(), remedy.into())
    }

    fn check(self, status: Status, found: String, remedy: String) -> Check {
        Check {
            name: self.name,
            status,
            found,
            why: self.why,
            remedy,
        }
    }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
