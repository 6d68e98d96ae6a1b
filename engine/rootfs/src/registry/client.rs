//! A registry over HTTP. Invariant: each request has an end, by a timeout on each part of it and on each piece of its answer;
//! how often anything is repeated is a number.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use ureq::http::header::{ACCEPT, AUTHORIZATION, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use ureq::http::{Response, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy};

use super::challenge::Challenge;
use super::credentials::Credentials;
use super::error::PullError;
use super::reference::Reference;
use super::refusal::{WORDS, refused};

/// Redirects that are followed.
const REDIRECTS: u32 = 5;

/// Whether a registry may be asked without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainHttp {
    /// This host's own only.
    Local,
    /// Any, as the operator asked for it.
    Asked,
}

/// What an operator sets.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// Logins. Default: none.
    pub credentials: Credentials,
    /// Without TLS. Default: this host's own only.
    pub plain_http: PlainHttp,
    /// Certificates of who vouches for registries, PEM. Default: Debian's package ca-certificates.
    pub roots: PathBuf,
    /// The address of a proxy for whatever is asked over TLS, `http://[USER:PASSWORD@]HOST:PORT`. Default: none.
    pub proxy: Option<String>,
    /// How long a connection, the begin of an answer, and each piece of it may take. Default: 30 seconds.
    pub patience: Duration,
    /// How often one blob is tried. Each attempt goes on where the last one ended. Default: 4.
    pub attempts: u32,
    /// How long a registry that has had too many requests may have one wait. Default: 60 seconds.
    pub longest_wait: Duration,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            credentials: Credentials::default(),
            plain_http: PlainHttp::Local,
            roots: PathBuf::from("/etc/ssl/certs/ca-certificates.crt"),
            proxy: None,
            patience: Duration::from_secs(30),
            attempts: 4,
            longest_wait: Duration::from_secs(60),
        }
    }
}

/// Who asks registries.
#[derive(Debug)]
pub struct Registry {
    pub(super) options: RegistryOptions,
    /// One that speaks TLS only, and one that need not.
    secure: Agent,
    plain: Agent,
    /// What was told to show, with the repository that it is for.
    known: Mutex<Option<(String, String)>>,
}

/// What is asked for.
pub(super) struct Ask<'a> {
    pub(super) reference: &'a Reference,
    /// Below the repository, for instance `manifests/latest`.
    pub(super) path: &'a str,
    pub(super) accept: &'a str,
    /// The first byte that is wanted.
    pub(super) from: u64,
}

impl Registry {
    /// With these options.
    ///
    /// # Errors
    /// The certificates cannot be read.
    pub fn new(options: RegistryOptions) -> Result<Self, PullError> {
        let patience = Some(options.patience);
        let config = || {
            Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(REDIRECTS)
                .user_agent(concat!("brood/", env!("CARGO_PKG_VERSION")))
                // The environment is read by programs and not here.
                .proxy(None)
                .timeout_resolve(patience)
                .timeout_connect(patience)
                .timeout_recv_response(patience)
                .timeout_per_read(patience)
        };
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(roots(&options.roots)?)
            .build();
        let proxy = options.proxy.as_deref().map(Proxy::new);
        let proxy = proxy
            .transpose()
            .map_err(|error| unreachable("the proxy", error))?;
        let secure = config().https_only(true).proxy(proxy);
        let secure = secure.tls_config(tls.clone()).build();
        let plain = config().tls_config(tls).build();
        Ok(Self {
            options,
            secure: secure.new_agent(),
            plain: plain.new_agent(),
            known: Mutex::default(),
        })
    }

    /// An answer with content.
    pub(super) fn get(&self, ask: &Ask<'_>) -> Result<Response<Body>, PullError> {
        let reference = ask.reference;
        let repository = reference.repository();
        let scope = format!("{} {repository}", reference.registry());
        let shown = self.shown(&scope);
        let mut answer = self.call(ask, shown.as_deref())?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            let show = self.introduce(ask, &answer)?;
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((scope, show.clone()));
            answer = self.call(ask, Some(&show))?;
        }
        match answer.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                Ok(answer)
            }
            _ => Err(refused(ask, answer)),
        }
    }

    fn shown(&self, scope: &str) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.as_ref().filter(|(of, _)| of == scope);
        known.map(|(_, show)| show.clone())
    }

    /// One request; a registry that has had too many is asked again after the wait that it wants.
    fn call(&self, ask: &Ask<'_>, show: Option<&str>) -> Result<Response<Body>, PullError> {
        let url = self.url(ask);
        let mut waits = self.options.attempts;
        loop {
            let mut request = self.agent(&url).get(&url).header(ACCEPT, ask.accept);
            if let Some(show) = show {
                request = request.header(AUTHORIZATION, show);
            }
            if ask.from > 0 {
                request = request.header(RANGE, format!("bytes={}-", ask.from));
            }
            let answer = request.call().map_err(|error| unreachable(&url, error))?;
            if answer.status() != StatusCode::TOO_MANY_REQUESTS {
                return Ok(answer);
            }
            let wait =
                header(&answer, &RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok());
            let seconds: u64 = wait.unwrap_or(self.options.longest_wait.as_secs());
            waits = waits.saturating_sub(1);
            if waits == 0 || Duration::from_secs(seconds) > self.options.longest_wait {
                return Err(PullError::TooMany {
                    registry: ask.reference.registry().to_owned(),
                    seconds,
                });
            }
            std::thread::sleep(Duration::from_secs(seconds));
        }
    }

    fn agent(&self, url: &str) -> &Agent {
        if url.starts_with("https:") {
            &self.secure
        } else {
            &self.plain
        }
    }

    /// This host's own registries speak plain HTTP, all others TLS unless the operator says otherwise.
    fn url(&self, ask: &Ask<'_>) -> String {
        let reference = ask.reference;
        let plain = reference.is_local() || self.options.plain_http == PlainHttp::Asked;
        let scheme = if plain { "http" } else { "https" };
        let (host, repository) = (reference.host(), reference.repository());
        format!("{scheme}://{host}/v2/{repository}/{}", ask.path)
    }

    /// What to show to a registry that wants to know who asks.
    fn introduce(&self, ask: &Ask<'_>, answer: &Response<Body>) -> Result<String, PullError> {
        let registry = ask.reference.registry();
        let login = self.options.credentials.login(registry);
        let unauthorized = |hint: String| PullError::Unauthorized {
            registry: registry.to_owned(),
            what: what(ask),
            hint,
        };
        let challenges = answer.headers().get_all(WWW_AUTHENTICATE);
        let challenge = challenges
            .iter()
            .filter_map(|value| value.to_str().ok())
            .find_map(Challenge::parse);
        match challenge {
            Some(Challenge::Basic) => match login {
                Some(login) => Ok(login.basic()),
                None => Err(unauthorized(self.hint(registry))),
            },
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => {
                let own = format!("repository:{}:pull", ask.reference.repository());
                let mut query = vec![("scope", scope.unwrap_or(own))];
                query.extend(service.map(|service| ("service", service)));
                let token = self.token(ask, &realm, &query)?;
                Ok(format!("Bearer {token}"))
            }
            None => Err(unauthorized(
                "it says in no way that is understood here how".to_owned(),
            )),
        }
    }

    fn token(
        &self,
        ask: &Ask<'_>,
        realm: &str,
        query: &[(&str, String)],
    ) -> Result<String, PullError> {
        let registry = ask.reference.registry();
        let secure = realm.starts_with("https://");
        let plain = ask.reference.is_local() || self.options.plain_http == PlainHttp::Asked;
        if !secure && !(plain && realm.starts_with("http://")) {
            return Err(PullError::Plain {
                url: realm.to_owned(),
            });
        }
        let pairs = query.iter().map(|(name, value)| (*name, value.as_str()));
        let mut request = self.agent(realm).get(realm).query_pairs(pairs);
        let login = self.options.credentials.login(registry);
        if let Some(login) = login {
            request = request.header(AUTHORIZATION, login.basic());
        }
        let answer = request.call().map_err(|error| unreachable(realm, error))?;
        let status = answer.status();
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return Err(PullError::Unauthorized {
                registry: registry.to_owned(),
                what: what(ask),
                hint: self.hint(registry),
            });
        }
        #[derive(Deserialize)]
        struct Given {
            token: Option<String>,
            access_token: Option<String>,
        }
        let none = |what: String| PullError::Token {
            realm: realm.to_owned(),
            what,
        };
        if status != StatusCode::OK {
            return Err(none(format!("it answered {}", status.as_u16())));
        }
        let bytes = answer
            .into_body()
            .into_with_config()
            .limit(WORDS)
            .read_to_vec();
        let bytes = bytes.map_err(|error| unreachable(realm, error))?;
        let given: Given = serde_json::from_slice(&bytes)
            .map_err(|error| none(format!("it answered something else ({error})")))?;
        let token = given.token.or(given.access_token);
        // It becomes part of a header.
        let usable = token.filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()));
        usable.ok_or_else(|| none("it answered without one".to_owned()))
    }

    fn hint(&self, registry: &str) -> String {
        let credentials = &self.options.credentials;
        match (credentials.login(registry), credentials.helper(registry)) {
            (Some(_), _) => "it does not take the login that it was shown".to_owned(),
            (None, Some(helper)) => format!(
                "docker keeps its login with the helper '{helper}', which is not asked here: give the login in a file"
            ),
            (None, None) => format!("there is no login for '{registry}'"),
        }
    }
}

pub(super) fn what(ask: &Ask<'_>) -> String {
    format!("{}/{}", ask.reference.repository(), ask.path)
}

pub(super) fn header<'a>(
    answer: &'a Response<Body>,
    name: &ureq::http::HeaderName,
) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

pub(super) fn unreachable(url: &str, error: ureq::Error) -> PullError {
    let url = url.to_owned();
    match error {
        ureq::Error::Timeout(what) => PullError::Slow {
            url,
            what: what.to_string(),
        },
        ureq::Error::RequireHttpsOnly(url) => PullError::Plain { url },
        error => PullError::Unreachable {
            url,
            source: Box::new(error),
        },
    }
}

fn roots(path: &Path) -> Result<RootCerts, PullError> {
    let failed = |source| PullError::Roots {
        path: path.to_owned(),
        source,
    };
    let pem = match fs::read(path) {
        Ok(pem) => pem,
        // A host without any can ask registries without TLS.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed(error)),
    };
    let mut certificates: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(failed(io::Error::other(error))),
        }
    }
    Ok(RootCerts::new_with_certs(&certificates))
}
