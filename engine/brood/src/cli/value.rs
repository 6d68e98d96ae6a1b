//! Values of options that are more than a word.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use brood_api::Span;
use brood_api::fork::File;

use super::failure::Failure;

/// `KEY=VALUE`.
#[derive(Clone, Debug)]
pub(super) struct Pair(pub(super) String, pub(super) String);

pub(super) fn pair(text: &str) -> Result<Pair, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok(Pair(key.to_owned(), value.to_owned())),
        _ => Err("write it KEY=VALUE".to_owned()),
    }
}

/// The last of those with the same key.
pub(super) fn map(pairs: Vec<Pair>) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|Pair(key, value)| (key, value))
        .collect()
}

/// A length of time as the API reads it.
pub(super) fn span(text: &str) -> Result<Span, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

/// `GUEST=LOCAL`: a file here, and where it goes.
#[derive(Clone, Debug)]
pub(super) struct Copied {
    guest: String,
    local: PathBuf,
}

pub(super) fn copied(text: &str) -> Result<Copied, String> {
    let Pair(guest, local) = pair(text).map_err(|_| "write it GUEST-PATH=LOCAL-FILE".to_owned())?;
    Ok(Copied {
        guest,
        local: local.into(),
    })
}

impl Copied {
    /// The file, read, with its permission bits.
    pub(super) fn read(self) -> Result<File, Failure> {
        let failed = |error: std::io::Error| {
            let name = self.local.display();
            Failure::local(format!(
                "cannot read {name}, which has to be UTF-8: {error}"
            ))
        };
        let text = std::fs::read_to_string(&self.local).map_err(failed)?;
        let permissions = std::fs::metadata(&self.local)
            .map_err(failed)?
            .permissions();
        Ok(File {
            path: self.guest,
            text,
            mode: Some(permissions.mode() & 0o7777),
        })
    }
}
