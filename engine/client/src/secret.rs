//! Secrets: put, listed, removed, never read.

use brood_api::OperationId as Id;
use brood_api::secret::{Secret, SecretList, SecretSpec};

use crate::ask::Ask;
use crate::{Client, ClientError};

impl Client {
    /// The tenant's secrets by name, without their values.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn list_secrets(&self) -> Result<SecretList, ClientError> {
        self.call(Ask::to(Id::ListSecrets))
    }

    /// Gives a secret a value, as a new version.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn put_secret(&self, name: &str, spec: &SecretSpec) -> Result<Secret, ClientError> {
        self.call(Ask::to(Id::PutSecret).at(name).json(spec)?)
    }

    /// Removes all versions of a secret.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn remove_secret(&self, name: &str) -> Result<(), ClientError> {
        self.done(Ask::to(Id::RemoveSecret).at(name))
    }
}
