//! Where the server is, with which key it is asked, and how its answers are shown.
//!
//! Invariant: what the command line says wins over the environment, and that over what is usual.

use std::path::{Path, PathBuf};

use brood_client::{Address, ApiKey, Client};
use clap::{Args, ValueEnum};

use super::failure::Failure;
use crate::serve::LISTEN;

const URL: &str = "BROOD_URL";
const KEY: &str = "BROOD_KEY";
const KEY_FILE: &str = "BROOD_KEY_FILE";

/// Options of every command that asks a server.
#[derive(Args, Clone, Debug)]
pub struct Session {
    /// The server; BROOD_URL, or http://127.0.0.1:7070, if not said.
    #[arg(long, global = true, value_name = "URL", help_heading = "Server")]
    url: Option<String>,
    /// The key; BROOD_KEY if not said. Other users of this host see it: a file is better.
    #[arg(
        long,
        global = true,
        value_name = "KEY",
        help_heading = "Server",
        conflicts_with = "key_file"
    )]
    key: Option<String>,
    /// A file with the key; BROOD_KEY_FILE, or brood/key in the configuration directory (~/.config), if not said.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Server")]
    key_file: Option<PathBuf>,
    /// How answers and problems are shown.
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "text",
        help_heading = "Server"
    )]
    pub output: Format,
}

/// How answers are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON value; one a line where there is no end.
    Json,
}

impl Session {
    /// A client of the server that is meant.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let url = self.url.clone().or_else(|| variable(URL));
        let url = url.unwrap_or_else(|| format!("http://{LISTEN}"));
        let address: Address = url
            .parse()
            .map_err(|error| Failure::usage(format!("{error}")))?;
        Ok(Client::new(address, self.key()?))
    }

    fn key(&self) -> Result<Option<ApiKey>, Failure> {
        let said = |text: &str, whence: &str| {
            let key = ApiKey::new(text);
            let key = key.ok_or_else(|| {
                Failure::usage(format!("{whence} is no key: it is one word, brood_…"))
            });
            key.map(Some)
        };
        if let Some(key) = &self.key {
            return said(key, "--key");
        }
        let read = |path: &Path| {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| {
                Failure::local(format!(
                    "cannot read the key file {}: {error}",
                    path.display()
                ))
            })?;
            said(&text, &format!("what {} holds", path.display()))
        };
        if let Some(path) = &self.key_file {
            return read(path);
        }
        if let Some(key) = variable(KEY) {
            return said(&key, KEY);
        }
        if let Some(path) = variable(KEY_FILE) {
            return read(Path::new(&path));
        }
        match usual_file().filter(|path| path.exists()) {
            Some(path) => read(&path),
            // The server says so where one is needed.
            None => Ok(None),
        }
    }
}

/// A variable that says something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where a user keeps a key by convention (XDG Base Directory Specification 0.8).
fn usual_file() -> Option<PathBuf> {
    let home = || variable("HOME").map(|home| Path::new(&home).join(".config"));
    let directory = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(home)?;
    Some(directory.join("brood/key"))
}
