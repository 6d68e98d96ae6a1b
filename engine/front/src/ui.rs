//! The page at `/ui`: three files in the program, which look through the API with the key of whoever opened them.
//!
//! Invariant: it asks this server and no other, and nothing that is no file of its own is run: the policy of its content
//! allows neither scripts nor styles within a page (<https://www.w3.org/TR/CSP3/>).

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue};

/// The page.
pub(crate) const PAGE: &str = include_str!("ui/index.html");
/// Its script.
pub(crate) const SCRIPT: &str = include_str!("ui/console.js");
/// Its style.
pub(crate) const STYLE: &str = include_str!("ui/console.css");

const HEADERS: [(HeaderName, &str); 4] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    // Another version of the program has another page.
    (CACHE_CONTROL, "no-cache"),
];

/// Puts what the files are allowed into their answers.
pub(crate) fn protect(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
