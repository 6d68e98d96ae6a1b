//! Answers of registries that are no content, as errors. Invariant: of what a registry says only so much is read and shown, and
//! nothing of it moves a cursor.

use serde::Deserialize;
use ureq::Body;
use ureq::http::{Response, StatusCode};

use super::client::{Ask, what};
use super::error::PullError;

/// Bytes of what a registry says about an error, or a token service as its token.
pub(super) const WORDS: u64 = 1 << 20;
/// Letters of that which are shown.
const SHOWN: usize = 300;

/// What a registry said instead of content.
pub(super) fn refused(ask: &Ask<'_>, answer: Response<Body>) -> PullError {
    let status = answer.status();
    let registry = ask.reference.registry().to_owned();
    let what = what(ask);
    match status {
        StatusCode::NOT_FOUND => PullError::NotFound { registry, what },
        StatusCode::FORBIDDEN => PullError::Forbidden {
            registry,
            what,
            said: said(answer),
        },
        StatusCode::UNAUTHORIZED => PullError::Unauthorized {
            registry,
            what,
            hint: format!(
                "it does not take the login that it was shown{}",
                said(answer)
            ),
        },
        _ => PullError::Status {
            registry,
            what,
            status: status.as_u16(),
            said: said(answer),
        },
    }
}

/// The words of an error (distribution-spec, "Error Codes"), after a colon; none if there are none.
fn said(answer: Response<Body>) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Said>,
    }
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let bytes = answer
        .into_body()
        .into_with_config()
        .limit(WORDS)
        .read_to_vec();
    // What cannot be read has nothing to say; its status stands.
    let Ok(bytes) = bytes else {
        return String::new();
    };
    let Ok(errors) = serde_json::from_slice::<Errors>(&bytes) else {
        return String::new();
    };
    let words = errors
        .errors
        .iter()
        .map(|error| format!("{} {}", error.code, error.message));
    let words = words.collect::<Vec<_>>().join("; ");
    let words: String = words
        .chars()
        .take(SHOWN)
        .flat_map(char::escape_debug)
        .collect();
    format!(": {words}")
}
