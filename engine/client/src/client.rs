//! Requests and their answers.
//!
//! Invariant: an answer is what its type says, or an error; no redirect is followed and no proxy asked, so that a key goes
//! to the address it was meant for and nowhere else.

use std::io::Read;
use std::time::Duration;

use brood_api::{Problem, Verb};
use serde::de::DeserializeOwned;
use ureq::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use ureq::http::{Method, Request, Response};
use ureq::{Agent, AsSendBody, Body, SendBody};

use crate::ask::{Ask, JSON};
use crate::{Address, ApiKey, ClientError, Refused};

const BYTES: &str = "application/octet-stream";
/// The longest answer that is read, bytes.
const LONGEST: u64 = 64 << 20;
/// So much of an answer that is not understood is shown, characters.
const SHOWN: usize = 200;
/// So long a host may take to be found and to accept a connection. How long a request takes is its own matter: a fork of
/// a large machine may take minutes.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    address: Address,
    key: Option<ApiKey>,
}

impl Client {
    /// A client of the server there. Without a key only what needs none is answered.
    pub fn new(address: Address, key: Option<ApiKey>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .user_agent(concat!("brood/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: Agent::new_with_config(config),
            address,
            key,
        }
    }

    pub(crate) fn key(&self) -> Option<&ApiKey> {
        self.key.as_ref()
    }

    /// Where its server is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Asks for something.
    pub(crate) fn call<A: DeserializeOwned>(&self, ask: Ask) -> Result<A, ClientError> {
        let mut response = self.send(ask)?;
        self.read_json(&mut response)
    }

    pub(crate) fn read_json<A: DeserializeOwned>(
        &self,
        response: &mut Response<Body>,
    ) -> Result<A, ClientError> {
        let status = response.status().as_u16();
        let body = self.whole(response)?;
        serde_json::from_slice(&body)
            .map_err(|error| self.not_understood(status, &error.to_string(), &body))
    }

    /// Asks for something to be done.
    pub(crate) fn done(&self, ask: Ask) -> Result<(), ClientError> {
        self.send(ask).map(|_| ())
    }

    /// Sends a request; a response that is a success.
    pub(crate) fn send(&self, mut ask: Ask) -> Result<Response<Body>, ClientError> {
        let body = ask.body.take();
        let post = matches!(ask.target()?.0, Verb::Post);
        // What has a body by its nature says so even if it is empty (RFC 9110 §8.6).
        match body.or_else(|| post.then(Vec::new)) {
            Some(body) if body.is_empty() => self.run(&ask, None, body),
            Some(body) => self.run(&ask, Some(JSON), body),
            None => self.run(&ask, None, ()),
        }
    }

    /// The same with bytes as they come.
    pub(crate) fn send_bytes(
        &self,
        ask: &Ask,
        mut bytes: impl Read,
    ) -> Result<Response<Body>, ClientError> {
        self.run(ask, Some(BYTES), SendBody::from_reader(&mut bytes))
    }

    fn run(
        &self,
        ask: &Ask,
        media: Option<&str>,
        body: impl AsSendBody,
    ) -> Result<Response<Body>, ClientError> {
        let (verb, target) = ask.target()?;
        let method = match verb {
            Verb::Get => Method::GET,
            Verb::Post => Method::POST,
            Verb::Put => Method::PUT,
            Verb::Delete => Method::DELETE,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{target}", self.address))
            .header(ACCEPT, ask.accept);
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key.bearer());
        }
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        if let Some(media) = media {
            request = request.header(CONTENT_TYPE, media);
        }
        let sent = self.agent.run(request.body(body).map_err(not_sent)?);
        let mut response = sent.map_err(|error| self.unreachable(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = self.whole(&mut response)?;
        Err(self.refused(status, &body))
    }

    pub(crate) fn whole(&self, response: &mut Response<Body>) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        let mut reader = response.body_mut().as_reader().take(LONGEST + 1);
        let read = reader.read_to_end(&mut body);
        read.map_err(|error| self.unreachable(error))?;
        if u64::try_from(body.len()).is_ok_and(|length| length > LONGEST) {
            let status = response.status().as_u16();
            let why = format!("it has more than {LONGEST} bytes");
            return Err(self.not_understood(status, &why, &[]));
        }
        Ok(body)
    }

    pub(crate) fn refused(&self, status: u16, body: &[u8]) -> ClientError {
        match serde_json::from_slice::<Problem>(body) {
            Ok(problem) => refused(problem, String::from_utf8_lossy(body).into_owned()),
            Err(error) => self.not_understood(status, &error.to_string(), body),
        }
    }

    pub(crate) fn unreachable(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> ClientError {
        ClientError::Unreachable {
            address: self.address.clone(),
            source: source.into(),
        }
    }

    pub(crate) fn not_understood(&self, status: u16, why: &str, body: &[u8]) -> ClientError {
        let text = String::from_utf8_lossy(body);
        let shown: String = text.chars().take(SHOWN).collect();
        ClientError::NotUnderstood {
            address: self.address.clone(),
            status,
            why: format!("{why}; it begins '{}'", shown.escape_debug()),
        }
    }
}

pub(crate) fn refused(problem: Problem, json: String) -> ClientError {
    ClientError::Refused(Box::new(Refused { problem, json }))
}

fn not_sent(error: ureq::http::Error) -> ClientError {
    ClientError::NotSent {
        why: error.to_string(),
    }
}
