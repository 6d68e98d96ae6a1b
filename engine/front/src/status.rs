//! Which status an outcome has: RFC 9110 §15 and RFC 6585.

use axum::http::StatusCode;
use brood_api::{Code, Outcome, Reply};

/// The status of an outcome.
pub(crate) fn of(outcome: Outcome) -> StatusCode {
    match outcome {
        Outcome::Reply(Reply::Created(_)) => StatusCode::CREATED,
        Outcome::Reply(
            Reply::Found(_)
            | Reply::FoundOrStream(_)
            | Reply::FoundOrLines(_)
            | Reply::Bytes
            | Reply::Text(_),
        ) => StatusCode::OK,
        Outcome::Reply(Reply::Done) => StatusCode::NO_CONTENT,
        Outcome::Reply(Reply::Socket(_)) => StatusCode::SWITCHING_PROTOCOLS,
        Outcome::Problem(code) => of_problem(code),
    }
}

fn of_problem(code: Code) -> StatusCode {
    match code {
        Code::MalformedJson | Code::InvalidRequest => StatusCode::BAD_REQUEST,
        Code::MissingKey | Code::BadKey => StatusCode::UNAUTHORIZED,
        Code::MissingScope | Code::Denied => StatusCode::FORBIDDEN,
        Code::NoSuchRoute | Code::NotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        Code::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
        Code::Conflict | Code::RequestInFlight | Code::SnapshotUnfit => StatusCode::CONFLICT,
        Code::Ended => StatusCode::GONE,
        Code::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
        Code::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::IdempotencyKeyReused | Code::SnapshotDamaged => StatusCode::UNPROCESSABLE_ENTITY,
        Code::Busy | Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        Code::StoreFailed | Code::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        Code::StoreFull | Code::SnapshotDiskFull => StatusCode::INSUFFICIENT_STORAGE,
    }
}
