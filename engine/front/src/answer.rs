//! Answers and problems as responses.
//!
//! Invariant: every response has a request id, and every one that is no success is `application/problem+json`.

use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use brood_api::{Code, Operation, Outcome, Problem, Reply};
use serde::Serialize;

use crate::fault::{Refusal, refusal};
use crate::{status, ui};

/// Names a request in answers and logs.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// <https://www.w3.org/TR/server-timing/>
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Stages and the microseconds that they took.
pub(crate) type Stages = Vec<(&'static str, f64)>;

/// What a handler answers with.
pub(crate) enum Answer {
    /// JSON.
    Json(Bytes),
    /// JSON, and where the time went.
    Timed(Bytes, Stages),
    /// Nothing.
    Done,
    /// Text of the media type that the table names.
    Text(Bytes),
    /// A file of the page at `/ui`.
    Page(&'static str),
    /// Bytes as they come.
    Bytes(Body),
    /// Lines of text as they come, of this media type.
    Lines(&'static str, Body),
    /// A stream of events.
    Stream(Body),
    /// The connection becomes a WebSocket.
    Socket(Response),
}

impl Answer {
    /// An object.
    pub(crate) fn of(value: &impl Serialize) -> Result<Self, Refusal> {
        encode(value).map(Self::Json)
    }

    /// An object, and where the time went.
    pub(crate) fn timed(value: &impl Serialize, stages: Stages) -> Result<Self, Refusal> {
        encode(value).map(|json| Self::Timed(json, stages))
    }
}

fn encode(value: &impl Serialize) -> Result<Bytes, Refusal> {
    let json = serde_json::to_vec(value);
    json.map(Bytes::from).map_err(|error| {
        let words = format!("the answer cannot be written down: {error}");
        refusal(Code::Failed, words)
    })
}

/// The response to a request that came at `since`.
pub(crate) fn respond(
    operation: &Operation,
    result: Result<Answer, Refusal>,
    about: &About,
    since: Instant,
) -> Response {
    let answer = match result {
        Ok(answer) => answer,
        Err(problem) => return refuse(problem, about),
    };
    let mut stages = Vec::new();
    let (mut response, media) = match answer {
        Answer::Json(json) => (Response::new(json.into()), Some("application/json")),
        Answer::Timed(json, timed) => {
            stages = timed;
            (Response::new(json.into()), Some("application/json"))
        }
        Answer::Text(text) => (Response::new(text.into()), media_of(operation)),
        Answer::Page(text) => {
            let mut response = Response::new(text.into());
            ui::protect(response.headers_mut());
            (response, media_of(operation))
        }
        Answer::Bytes(body) => (Response::new(body), Some("application/octet-stream")),
        Answer::Lines(media, body) => (Response::new(body), Some(media)),
        Answer::Done => (Response::new(Body::empty()), None),
        Answer::Stream(body) => (Response::new(body), Some("text/event-stream")),
        Answer::Socket(response) => (response, None),
    };
    *response.status_mut() = status::of(Outcome::Reply(operation.reply));
    let headers = response.headers_mut();
    if let Some(media) = media {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    }
    stages.push(("total", since.elapsed().as_secs_f64() * 1e6));
    if let Ok(timing) = HeaderValue::from_str(&server_timing(&stages)) {
        headers.insert(SERVER_TIMING, timing);
    }
    about.mark(headers);
    response
}

/// The media type of text that an operation sends.
fn media_of(operation: &Operation) -> Option<&'static str> {
    match operation.reply {
        Reply::Text(media) => Some(media),
        _ => None,
    }
}

/// A request by its names.
pub(crate) struct About {
    pub(crate) request_id: HeaderValue,
    pub(crate) path: String,
}

impl About {
    fn mark(&self, headers: &mut HeaderMap) {
        headers.insert(REQUEST_ID, self.request_id.clone());
    }
}

/// The response that a problem is.
pub(crate) fn refuse(problem: Refusal, about: &About) -> Response {
    let code = problem.code;
    let status = status::of(Outcome::Problem(code));
    let retry_after_ms = problem.retry_after_ms;
    let problem = Problem {
        status: Some(status.as_u16()),
        instance: Some(about.path.clone()),
        request_id: about.request_id.to_str().ok().map(str::to_owned),
        ..*problem
    };
    let (status, body) = match serde_json::to_vec(&problem) {
        Ok(json) => (status, Body::from(json)),
        // Of strings and numbers alone this cannot happen; a problem without words is still one.
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, Body::from("{}")),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let media = HeaderValue::from_static("application/problem+json");
    headers.insert(CONTENT_TYPE, media);
    if status == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer realm=\"brood\"");
        headers.insert(WWW_AUTHENTICATE, scheme);
    }
    if status == StatusCode::UPGRADE_REQUIRED {
        // RFC 9110 §15.5.22: to what.
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    if let Some(millis) = retry_after_ms {
        // RFC 9110 §10.2.3: whole seconds.
        headers.insert(RETRY_AFTER, HeaderValue::from(millis.div_ceil(1000)));
    }
    about.mark(headers);
    response
}

fn server_timing(stages: &[(&'static str, f64)]) -> String {
    let metric = |(stage, micros): &(&str, f64)| format!("{stage};dur={:.3}", micros / 1000.0);
    stages.iter().map(metric).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_timing_is_in_milliseconds() {
        let stages = [("decide", 310.4), ("total", 2000.0)];
        assert_eq!(server_timing(&stages), "decide;dur=0.310, total;dur=2.000");
    }

    #[test]
    fn a_problem_says_where_and_when_to_ask_again() {
        let about = About {
            request_id: HeaderValue::from_static("r1"),
            path: "/v1/machines".to_owned(),
        };
        let response = refuse(
            Box::new(refusal(Code::Busy, "later").retry_after(1200)),
            &about,
        );
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        let headers = response.headers();
        assert_eq!(headers[RETRY_AFTER], "2");
        assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
        assert_eq!(headers[REQUEST_ID], "r1");
        let response = refuse(refusal(Code::MissingKey, "none"), &about);
        assert!(response.headers().contains_key(WWW_AUTHENTICATE));
    }
}
