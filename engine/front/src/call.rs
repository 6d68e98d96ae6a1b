//! A request, decoded: who calls, with which parameters, which body, under which key of their own.
//!
//! Invariant: a call exists only for somebody whose key allows the operation, and its body is whole and within its bounds.

use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, Request as HttpRequest};
use brood_api::key::Scope as ApiScope;
use brood_api::{Code, Mistake, MistakeKind, Operation, Problem, Reply, Request, Verb};
use brood_service::engine::{Caller, Engine, Idempotency, KEY_PREFIX, Scope};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use crate::fault::{Refusal, problem, refusal};
use crate::metric::Open;
use crate::state::Shared;

/// Longest `Idempotency-Key`, bytes.
const MAX_IDEMPOTENCY_KEY: usize = 255;

/// The place that a request's connection has among all; whoever keeps the connection keeps it.
#[derive(Clone)]
pub(crate) struct Connection(
    #[expect(dead_code, reason = "it is held")] Arc<(OwnedSemaphorePermit, Open)>,
);

impl Connection {
    pub(crate) fn new(place: OwnedSemaphorePermit, open: Open) -> Self {
        Self(Arc::new((place, open)))
    }
}

/// A request to one operation.
pub(crate) struct Call {
    pub(crate) shared: Shared,
    pub(crate) headers: HeaderMap,
    caller: Option<Caller>,
    path: Vec<(String, String)>,
    query: Option<String>,
    body: Bytes,
    /// A body that is read as it comes. It is never locked: calls are shared, and a body is not.
    stream: Mutex<Option<Body>>,
    idempotency: Option<Idempotency>,
    socket: Option<Result<(WebSocketUpgrade, Connection), Refusal>>,
}

impl Call {
    /// Reads a request to its end.
    pub(crate) async fn read(
        operation: &Operation,
        shared: Shared,
        parameters: &RawPathParams,
        request: HttpRequest<Body>,
    ) -> Result<Self, Refusal> {
        let (mut parts, body) = request.into_parts();
        let caller = match operation.scope {
            Some(scope) => {
                let caller = authenticate(&shared.engine, &parts.headers)?;
                shared.rates.take(&caller)?;
                caller.may(service_scope(scope)).map_err(problem)?;
                Some(caller)
            }
            None => None,
        };
        let mut stream = None;
        let body = match operation.body {
            brood_api::Body::Bytes => {
                stream = Some(body);
                Bytes::new()
            }
            brood_api::Body::None => read_body(&shared, body).await.and_then(no_body)?,
            brood_api::Body::Json(_) => {
                check_media_type(&parts.headers)?;
                read_body(&shared, body).await?
            }
        };
        let key = parts.headers.get("idempotency-key");
        let idempotency = match key.map(|key| key.to_str().unwrap_or_default()) {
            None => None,
            Some(key) => idempotency(operation, key, parts.uri.path(), &body)?,
        };
        let socket = match operation.reply {
            Reply::Socket(_) => {
                let wanted = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
                let wanted = wanted
                    .map_err(|rejection| refusal(Code::UpgradeRequired, rejection.body_text()));
                let connection = parts.extensions.remove::<Connection>();
                // Whoever asks for something that is not there is told that first.
                connection.map(|connection| wanted.map(|wanted| (wanted, connection)))
            }
            _ => None,
        };
        Ok(Self {
            socket,
            shared,
            headers: parts.headers,
            caller,
            path: parameters
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            query: parts.uri.query().map(str::to_owned),
            body,
            stream: Mutex::new(stream),
            idempotency,
        })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// Who calls.
    pub(crate) fn caller(&self) -> Result<&Caller, Refusal> {
        let none = || {
            refusal(
                Code::MissingKey,
                "this operation is for somebody with a key",
            )
        };
        self.caller.as_ref().ok_or_else(none)
    }

    /// The caller's own key for this request, once.
    pub(crate) fn idempotency(&mut self) -> Option<Idempotency> {
        self.idempotency.take()
    }

    /// The connection, to become a WebSocket.
    pub(crate) fn socket(&mut self) -> Result<(WebSocketUpgrade, Connection), Refusal> {
        let none = || {
            let words = "the request does not ask for a WebSocket";
            refusal(Code::UpgradeRequired, words)
        };
        self.socket.take().ok_or_else(none)?
    }

    /// A parameter of the path.
    pub(crate) fn text(&self, name: &str) -> Result<&str, Refusal> {
        let found = self.path.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).ok_or_else(|| {
            let words = format!("the path has no '{name}'");
            refusal(Code::NoSuchRoute, words)
        })
    }

    /// The same, as an id.
    pub(crate) fn id<T: FromStr<Err = brood_units::ParseIdError>>(
        &self,
        name: &'static str,
    ) -> Result<T, Refusal> {
        let parsed = self.text(name)?.parse();
        parsed.map_err(|error: brood_units::ParseIdError| invalid(name, error.to_string()))
    }

    /// The body.
    pub(crate) fn body<T: Request>(&self) -> Result<T, Refusal> {
        brood_api::decode(&self.body).map_err(|error| Box::new(error.into()))
    }

    /// What comes next of a body of any length; none at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Refusal> {
        let stream = self.stream.get_mut();
        let stream = stream.unwrap_or_else(PoisonError::into_inner);
        let Some(body) = stream else {
            return Ok(None);
        };
        let time = self.shared.options.body_time;
        loop {
            let Ok(frame) = tokio::time::timeout(time, body.frame()).await else {
                let millis = time.as_millis();
                let words = format!("nothing more of the body came for {millis} ms");
                return Err(refusal(Code::BodyTooSlow, words));
            };
            match frame {
                None => return Ok(None),
                // Trailers are no data.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    Err(_) => continue,
                },
                Some(Err(error)) => {
                    return Err(invalid("", format!("the body ended early: {error}")));
                }
            }
        }
    }

    /// The query.
    pub(crate) fn query<T: Request>(&self) -> Result<T, Refusal> {
        let query = self.query.as_deref().unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes()).into_owned();
        brood_api::decode_parameters(pairs).map_err(|error| Box::new(error.into()))
    }

    /// Which of two media types the caller would rather have.
    pub(crate) fn prefers<'a>(&self, first: &'a str, second: &'a str) -> Result<&'a str, Refusal> {
        let accept = self
            .headers
            .get(ACCEPT)
            .and_then(|accept| accept.to_str().ok());
        let Some(accept) = accept else {
            return Ok(first);
        };
        let chosen = accept.split(',').find_map(|range| {
            let range = range.split(';').next().unwrap_or_default().trim();
            let general = |media: &str| media.split('/').next().map(|kind| format!("{kind}/*"));
            let fits = |media: &str| {
                range == "*/*"
                    || range.eq_ignore_ascii_case(media)
                    || general(media).is_some_and(|general| range == general)
            };
            [first, second].into_iter().find(|media| fits(media))
        });
        chosen.ok_or_else(|| {
            let words = format!("this operation answers with {first} or {second}");
            refusal(Code::NotAcceptable, words)
        })
    }
}

/// A parameter or header that is not what it should be.
pub(crate) fn invalid(name: &str, detail: String) -> Refusal {
    let mistake = Mistake {
        pointer: name.to_owned(),
        kind: MistakeKind::WrongType,
        detail: detail.clone(),
        nearest: None,
    };
    Box::new(Problem {
        errors: vec![mistake],
        ..*refusal(Code::InvalidRequest, detail)
    })
}

/// The key of `Authorization: Bearer` (RFC 6750 §2.1).
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let missing = |words: &str| Err(refusal(Code::MissingKey, words));
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(header), None) = (all.next(), all.next()) else {
        return missing("there is not exactly one Authorization header");
    };
    let Ok(header) = header.to_str() else {
        return missing("the Authorization header has characters that no key has");
    };
    let Some((scheme, key)) = header.split_once(' ') else {
        return missing("the Authorization header is not written `Bearer brood_…`");
    };
    let key = key.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || !key.starts_with(KEY_PREFIX) {
        return missing("the Authorization header is not written `Bearer brood_…`");
    }
    Ok(key)
}

fn authenticate(engine: &Engine, headers: &HeaderMap) -> Result<Caller, Refusal> {
    engine.authenticate(bearer(headers)?).map_err(problem)
}

/// The table's scope as the engine has it.
pub(crate) fn service_scope(scope: ApiScope) -> Scope {
    match scope {
        ApiScope::Read => Scope::Read,
        ApiScope::Write => Scope::Write,
        ApiScope::Keys => Scope::Keys,
        ApiScope::Operator => Scope::Operator,
        ApiScope::Metrics => Scope::Metrics,
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let media = headers.get(CONTENT_TYPE).map(|media| media.to_str());
    let json = match &media {
        // RFC 9110 §8.3: what is not said may be guessed.
        None => true,
        Some(Ok(media)) => {
            let media = media.split(';').next().unwrap_or_default().trim();
            media.eq_ignore_ascii_case("application/json")
        }
        Some(Err(_)) => false,
    };
    if json {
        return Ok(());
    }
    let words = "this operation takes application/json";
    Err(refusal(Code::UnsupportedMediaType, words))
}

async fn read_body(shared: &Shared, body: Body) -> Result<Bytes, Refusal> {
    let options = &shared.options;
    let too_large = || {
        let words = format!("the body has more than {} bytes", options.body_bytes);
        refusal(Code::BodyTooLarge, words)
    };
    // Who says so beforehand is told at once.
    if usize::try_from(body.size_hint().lower()).is_ok_and(|bytes| bytes > options.body_bytes) {
        return Err(too_large());
    }
    let whole = Limited::new(body, options.body_bytes).collect();
    let Ok(read) = tokio::time::timeout(options.body_time, whole).await else {
        let millis = options.body_time.as_millis();
        let words = format!("the body was not here after {millis} ms");
        return Err(refusal(Code::BodyTooSlow, words));
    };
    match read {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        // Nobody may be there to read this.
        Err(error) => {
            let words = format!("the body ended early: {error}");
            Err(refusal(Code::MalformedJson, words))
        }
    }
}

fn no_body(body: Bytes) -> Result<Bytes, Refusal> {
    // Some clients send an empty object where there is nothing to say.
    if body.is_empty() || body.trim_ascii() == b"{}" {
        return Ok(body);
    }
    Err(invalid(
        "",
        "this operation takes no body: leave it out".to_owned(),
    ))
}

fn idempotency(
    operation: &Operation,
    key: &str,
    path: &str,
    body: &[u8],
) -> Result<Option<Idempotency>, Refusal> {
    if operation.verb == Verb::Get {
        return Ok(None);
    }
    let name = "Idempotency-Key";
    if !operation.takes_idempotency_key() {
        let words = "this operation does not remember its answers: leave the header out";
        return Err(invalid(name, words.to_owned()));
    }
    let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
    if key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY || !visible {
        let words = format!("a key has 1 to {MAX_IDEMPOTENCY_KEY} visible characters of ASCII");
        return Err(invalid(name, words));
    }
    Ok(Some(Idempotency {
        route: format!("{} {path}", operation.id.as_str()),
        key: key.to_owned(),
        body_hash: Sha256::digest(body).into(),
    }))
}

#[cfg(test)]
mod tests;
