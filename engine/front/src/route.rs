//! Every operation of the table has its route, and nothing else has one.
//!
//! Invariant: the router is made of the table; what is not in it is answered with a problem.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{RawPathParams, Request, State};
use axum::http::HeaderValue;
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use brood_api::{Code, Operation, Verb};
use brood_service::identity;

use crate::answer::{About, REQUEST_ID, refuse, respond};
use crate::call::Call;
use crate::fault::{Refusal, refusal};
use crate::handler::handle;
use crate::state::Shared;

/// Longest request id that a client may choose, bytes.
const MAX_REQUEST_ID: usize = 128;

/// All routes.
pub(crate) fn router(shared: Shared) -> Router {
    let mut router = Router::new();
    for operation in Operation::ALL {
        let verb = match operation.verb {
            Verb::Get => MethodFilter::GET,
            Verb::Post => MethodFilter::POST,
            Verb::Put => MethodFilter::PUT,
            Verb::Delete => MethodFilter::DELETE,
        };
        let serve =
            move |State(shared): State<Shared>, parameters: RawPathParams, request: Request| {
                serve(operation, shared, parameters, request)
            };
        // What names a path in a guest has slashes of its own.
        let path = operation.path.replace("{path}", "{*path}");
        router = router.route(&path, on(verb, serve));
    }
    router
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(no_such_route)
        .with_state(shared)
}

async fn serve(
    operation: &'static Operation,
    shared: Shared,
    parameters: RawPathParams,
    request: Request,
) -> Response {
    let since = Instant::now();
    let about = about(&request);
    let metrics = Arc::clone(&shared.metrics);
    let result = match Call::read(operation, shared, &parameters, request).await {
        Ok(call) => handle(operation.id, call).await,
        Err(problem) => Err(problem),
    };
    let problem = result.as_ref().err().map(|problem| problem.code);
    let response = respond(operation, result, &about, since);
    metrics.answered(operation.id.as_str(), response.status(), problem, since);
    response
}

/// The label of requests that no operation is meant by.
const NO_OPERATION: &str = "none";

async fn method_not_allowed(State(shared): State<Shared>, request: Request) -> Response {
    let (path, method) = (request.uri().path(), request.method());
    let words = format!("{path} is not asked with {method}");
    strange(&shared, refusal(Code::MethodNotAllowed, words), &request)
}

async fn no_such_route(State(shared): State<Shared>, request: Request) -> Response {
    let path: String = request.uri().path().chars().take(256).collect();
    let words = format!("there is nothing at {path}; all paths are in /v1/openapi.json");
    strange(&shared, refusal(Code::NoSuchRoute, words), &request)
}

fn strange(shared: &Shared, problem: Refusal, request: &Request) -> Response {
    let (code, since) = (problem.code, Instant::now());
    let response = refuse(problem, &about(request));
    let metrics = &shared.metrics;
    metrics.answered(NO_OPERATION, response.status(), Some(code), since);
    response
}

/// The client's own id for the request, if it has a good one, or a new one.
fn about(request: &Request) -> About {
    let good = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        (1..=MAX_REQUEST_ID).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    let own = request.headers().get(REQUEST_ID).filter(good).cloned();
    let request_id = own.unwrap_or_else(|| {
        let id = identity::machine_id().map(|id| id.to_string());
        let id = id.ok().and_then(|id| HeaderValue::from_str(&id).ok());
        // The kernel has no randomness to give: the request is served all the same.
        id.unwrap_or_else(|| HeaderValue::from_static("none"))
    });
    About {
        request_id,
        path: request.uri().path().to_owned(),
    }
}
