//! Whose images may be pulled: a name and password for each registry, as `docker login` keeps them.
//!
//! Invariant: a password is shown by nothing, not even `Debug`. Helper programs and identity tokens are not supported and said
//! to be, where they are all that there is.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// A name and its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    user: String,
    password: String,
}

impl Login {
    /// Of `user`.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            password: password.into(),
        }
    }

    /// RFC 7617
    pub(super) fn basic(&self) -> String {
        let pair = format!("{}:{}", self.user, self.password);
        format!("Basic {}", STANDARD.encode(pair))
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({:?}, …)", self.user)
    }
}

/// Logins by registry.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    logins: BTreeMap<String, Login>,
    /// Registries whose logins are with a helper program, and its name; the last resort under no name.
    helpers: BTreeMap<String, String>,
}

/// A file of logins was refused.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It cannot be read.
    #[error("reading {} failed", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: std::io::Error,
    },
    /// It is no configuration of docker.
    #[error("{} is no config.json of docker: look at line {line}, column {column}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it is wrong. No part of it is shown.
        line: usize,
        /// The letter in that line.
        column: usize,
    },
    /// A login in it means nothing.
    #[error("{}: the login for '{registry}' is no USER:PASSWORD in base64: log in again", path.display())]
    Login {
        /// The file.
        path: PathBuf,
        /// Whose login.
        registry: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct File {
    auths: BTreeMap<String, Auth>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl Credentials {
    /// Adds a login for a registry, `HOST` or `HOST:PORT`.
    #[must_use]
    pub fn with(mut self, registry: &str, login: Login) -> Self {
        self.logins.insert(key(registry), login);
        self
    }

    /// Those of docker's `config.json`.
    ///
    /// # Errors
    /// It cannot be read, or is something else.
    pub fn of_docker(path: &Path) -> Result<Self, CredentialsError> {
        let bytes = std::fs::read(path).map_err(|source| CredentialsError::Read {
            path: path.to_owned(),
            source,
        })?;
        let file: File =
            serde_json::from_slice(&bytes).map_err(|error| CredentialsError::Json {
                path: path.to_owned(),
                line: error.line(),
                column: error.column(),
            })?;
        let mut credentials = Self::default();
        for (registry, auth) in file.auths {
            let login = match (&auth.auth, auth.username, auth.password) {
                (Some(auth), _, _) if !auth.is_empty() => {
                    decoded(auth).ok_or_else(|| CredentialsError::Login {
                        path: path.to_owned(),
                        registry: registry.clone(),
                    })?
                }
                (_, Some(user), Some(password)) => Login { user, password },
                // Its helper has it.
                _ => continue,
            };
            credentials.logins.insert(key(&registry), login);
        }
        credentials.helpers = file
            .cred_helpers
            .into_iter()
            .map(|(registry, helper)| (key(&registry), helper))
            .chain(file.creds_store.map(|helper| (String::new(), helper)))
            .collect();
        Ok(credentials)
    }

    pub(super) fn login(&self, registry: &str) -> Option<&Login> {
        self.logins.get(&key(registry))
    }

    /// The helper that may have the login of a registry.
    pub(super) fn helper(&self, registry: &str) -> Option<&str> {
        let helper = self.helpers.get(&key(registry));
        helper.or_else(|| self.helpers.get("")).map(String::as_str)
    }
}

fn decoded(auth: &str) -> Option<Login> {
    let text = String::from_utf8(STANDARD.decode(auth).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Login::new(user, password.trim_end_matches('\0')))
}

/// Docker writes Docker Hub as the address of its first API, and others with or without a scheme.
fn key(registry: &str) -> String {
    let host = registry
        .strip_prefix("https://")
        .or_else(|| registry.strip_prefix("http://"))
        .unwrap_or(registry);
    let host = host.split('/').next().unwrap_or(host);
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Credentials, CredentialsError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config.json");
        std::fs::write(&path, json).expect("written");
        Credentials::of_docker(&path)
    }

    #[test]
    fn what_docker_login_writes_is_read() {
        let credentials = of(
            r#"{"auths": {"https://index.docker.io/v1/": {"auth": "YW5uOnM6ZWNyZXQ="},
                          "r.example:5000": {"username": "bob", "password": "pw"}, "helped.example": {}},
                "credHelpers": {"helped.example": "pass"}, "HttpHeaders": {"x": "y"}}"#,
        )
        .expect("a configuration");
        assert_eq!(
            credentials.login("docker.io"),
            Some(&Login::new("ann", "s:ecret"))
        );
        assert_eq!(
            credentials.login("r.example:5000"),
            Some(&Login::new("bob", "pw"))
        );
        assert_eq!(credentials.login("r.example"), None);
        assert_eq!(credentials.helper("helped.example"), Some("pass"));
        assert_eq!(credentials.helper("r.example"), None);
    }

    #[test]
    fn password_is_in_no_message() {
        let login = Login::new("ann", "s3cret");
        assert_eq!(format!("{login:?}"), "Login(\"ann\", …)");
        for json in [
            r#"{"auths": {"r": {"auth": "s3cret!"}}}"#,
            r#"{"auths": "s3cret"}"#,
        ] {
            let error = of(json).expect_err("it is wrong");
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let said = format!("{error} {source:?}");
            assert!(!said.contains("s3cret"), "{said}");
        }
    }
}
