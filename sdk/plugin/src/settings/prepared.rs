//! What `prepare` stores and the hooks read back: values by key, as postcard bytes.
//!
//! Nothing in them is versioned: the host prepares anew whenever the component or its settings change.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Diagnostics;
use crate::config;
use crate::types::HookError;

/// Collects what the hooks will read.
#[derive(Debug, Default)]
pub struct Prepared {
    entries: Vec<(String, Vec<u8>)>,
    failed: Vec<(String, postcard::Error)>,
}

impl Prepared {
    /// Stores a value. Store what one call needs under one key: a hook asks only for the keys it reads, so the settings
    /// of 200 tenants cost a call no more than those of one.
    pub fn put<T: Serialize>(&mut self, key: impl Into<String>, value: &T) {
        let key = key.into();
        match postcard::to_allocvec(value) {
            Ok(bytes) => self.entries.push((key, bytes)),
            Err(error) => self.failed.push((key, error)),
        }
    }

    pub(super) fn into_entries(mut self, wrong: &mut Diagnostics) -> Vec<(String, Vec<u8>)> {
        for (key, error) in &self.failed {
            wrong.add(
                &[],
                &format!("cannot store what was made of {key}: {error}"),
            );
        }
        self.entries.sort_unstable();
        let twice = self
            .entries
            .windows(2)
            .filter(|pair| matches!(pair, [one, other] if one.0 == other.0));
        for pair in twice {
            let key = pair.first().map(|entry| entry.0.as_str());
            wrong.add(&[], &format!("stored twice: {}", key.unwrap_or_default()));
        }
        self.entries
    }
}

/// Reads back the value of one key that `prepare` always stores.
///
/// # Errors
///
/// It is not there, or of another type than it was stored with.
pub fn prepared<T: DeserializeOwned>(key: &str) -> Result<T, HookError> {
    let found = lookup([key])?.into_iter().next().flatten();
    found.ok_or_else(|| HookError::Misconfigured(format!("nothing is prepared under {key}")))
}

/// Reads back the values of several keys of one type, in their order and in one call of the host.
///
/// # Errors
///
/// One is of another type than it was stored with.
pub fn lookup<T: DeserializeOwned, K: Into<String>>(
    keys: impl IntoIterator<Item = K>,
) -> Result<Vec<Option<T>>, HookError> {
    let keys: Vec<String> = keys.into_iter().map(Into::into).collect();
    let found = config::prepared(&keys);
    found
        .into_iter()
        .map(|bytes| bytes.map(|bytes| decode(&bytes)).transpose())
        .collect()
}

/// Decodes what [`Prepared::put`] encoded.
///
/// # Errors
///
/// The bytes are of another type.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, HookError> {
    postcard::from_bytes(bytes)
        .map_err(|error| HookError::Misconfigured(format!("prepared settings: {error}")))
}
