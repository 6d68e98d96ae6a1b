//! Problems on the wire, RFC 9457.
//!
//! Invariant: a problem is made of a [`Code`], so that title, cause, remedy and whether to ask again are the registry's;
//! only the detail is the occasion's. What a policy said stands in it unchanged.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::code::{Code, Entry};
use crate::mistake::Mistake;

/// Something that was not done, and what to do about it (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Where the kind of problem is described: `/v1/problems/CODE`.
    pub r#type: String,
    /// What kind of problem it is, in words that do not change.
    pub title: String,
    /// The status of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What happened this time.
    pub detail: String,
    /// The path that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// For programs.
    pub code: Code,
    /// Why such a thing happens.
    pub cause: String,
    /// What to do about it.
    pub remediation: String,
    /// Whether the same request may be answered otherwise later.
    pub retryable: bool,
    /// When to ask again, milliseconds from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The request, as in the log and in `X-Request-Id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Each field that is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Mistake>,
    /// Who said no, and in which words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denial: Option<Denied>,
}

/// A policy's own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Denied {
    /// The binding that said no.
    pub binding: String,
    /// Its own code.
    pub code: String,
    /// Its own words.
    pub message: String,
}

impl Problem {
    /// A problem of a kind, with what happened this time.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let Entry {
            title,
            cause,
            remediation,
            retryable,
        } = code.entry();
        Self {
            r#type: format!("/v1/problems/{code}"),
            title: title.to_owned(),
            status: None,
            detail: detail.into(),
            instance: None,
            code,
            cause: cause.to_owned(),
            remediation: remediation.to_owned(),
            retryable,
            retry_after_ms: None,
            request_id: None,
            errors: Vec::new(),
            denial: None,
        }
    }

    /// A policy's denial: its words are the detail, and it says whether to ask again.
    pub fn denied(denial: Denied, retry_after_ms: Option<u64>) -> Self {
        Self {
            retryable: retry_after_ms.is_some(),
            retry_after_ms,
            denial: Some(denial.clone()),
            ..Self::new(Code::Denied, denial.message)
        }
    }

    /// The same, to be asked again after so many milliseconds.
    #[must_use]
    pub fn retry_after(mut self, millis: u64) -> Self {
        self.retry_after_ms = Some(millis);
        self
    }
}

impl From<crate::DecodeError> for Problem {
    fn from(error: crate::DecodeError) -> Self {
        let detail = error.to_string();
        match error {
            crate::DecodeError::Syntax { .. } => Self::new(Code::MalformedJson, detail),
            crate::DecodeError::Mistakes { mistakes } => Self {
                errors: mistakes,
                ..Self::new(Code::InvalidRequest, detail)
            },
        }
    }
}

/// All kinds of problems.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Registry {
    /// One of each, without an occasion.
    pub problems: Vec<RegistryEntry>,
}

/// A kind of problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RegistryEntry {
    /// For programs.
    pub code: Code,
    /// What kind it is.
    #[schema(value_type = String)]
    pub title: &'static str,
    /// Why such a thing happens.
    #[schema(value_type = String)]
    pub cause: &'static str,
    /// What to do about it.
    #[schema(value_type = String)]
    pub remediation: &'static str,
    /// Whether the same request may be answered otherwise later.
    pub retryable: bool,
}

impl From<Code> for RegistryEntry {
    fn from(code: Code) -> Self {
        let Entry {
            title,
            cause,
            remediation,
            retryable,
        } = code.entry();
        Self {
            code,
            title,
            cause,
            remediation,
            retryable,
        }
    }
}

impl Registry {
    /// All of them.
    pub fn all() -> Self {
        Self {
            problems: Code::ALL.iter().map(|code| (*code).into()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policys_denial_reaches_the_caller_in_its_own_words() {
        let denial = Denied {
            binding: "quota".to_owned(),
            code: "quota".to_owned(),
            message: "team-a has 50 of 50 vCPUs".to_owned(),
        };
        let problem = Problem::denied(denial.clone(), Some(2000));
        assert_eq!(problem.detail, denial.message);
        assert!(problem.retryable);
        let json = serde_json::to_value(&problem).expect("JSON");
        assert_eq!(json["code"], "denied");
        assert_eq!(json["denial"]["message"], "team-a has 50 of 50 vCPUs");
        assert_eq!(json["type"], "/v1/problems/denied");
        assert!(!Problem::denied(denial, None).retryable);
    }
}
