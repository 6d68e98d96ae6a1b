//! The key that a client authenticates with, and the operations on keys and tenants.
//!
//! Invariant: a key is never in a `Debug` output.

use std::fmt;

use brood_api::OperationId as Id;
use brood_api::key::{KeySpec, Keys, NewKey, RotateSpec};
use brood_api::tenant::{NewTenant, Tenant, TenantSpec};
use brood_api::{ListQuery, Page};
use brood_units::KeyId;

use crate::ask::Ask;
use crate::{Client, ClientError};

/// A key: `brood_…`.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// A key as it was shown when it was made; what surrounds it in a file is left out. None if it cannot be one: it is
    /// empty, or has characters that no header has.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let good = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        good.then(|| Self(text.to_owned()))
    }

    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a key in the place of another; under the same `once` once.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn rotate_key(
        &self,
        id: KeyId,
        spec: &RotateSpec,
        once: Option<&str>,
    ) -> Result<NewKey, ClientError> {
        self.call(Ask::to(Id::RotateKey).at(id).json(spec)?.once(once))
    }

    /// All tenants, for an operator.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn list_tenants(&self, query: &ListQuery) -> Result<Page<Tenant>, ClientError> {
        let ask = Ask::to(Id::ListTenants).query("limit", query.limit);
        self.call(ask.query("cursor", query.cursor))
    }

    /// All keys of the tenant.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn list_keys(&self) -> Result<Keys, ClientError> {
        self.call(Ask::to(Id::ListKeys))
    }

    /// Makes a key; under the same `once` once.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn create_key(&self, spec: &KeySpec, once: Option<&str>) -> Result<NewKey, ClientError> {
        self.call(Ask::to(Id::CreateKey).json(spec)?.once(once))
    }

    /// Revokes a key.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn revoke_key(&self, id: KeyId) -> Result<(), ClientError> {
        self.done(Ask::to(Id::RevokeKey).at(id))
    }

    /// Makes a tenant with its first key; under the same `once` once.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn create_tenant(
        &self,
        spec: &TenantSpec,
        once: Option<&str>,
    ) -> Result<NewTenant, ClientError> {
        self.call(Ask::to(Id::CreateTenant).json(spec)?.once(once))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_word_and_is_not_shown() {
        let key = ApiKey::new("brood_00ff\n").expect("a key");
        assert_eq!(key.bearer(), "Bearer brood_00ff");
        assert!(!format!("{key:?}").contains("00ff"));
        for text in ["", " \n", "a b", "brood_\u{e9}", "two\nlines"] {
            assert!(ApiKey::new(text).is_none(), "{text:?}");
        }
    }
}
