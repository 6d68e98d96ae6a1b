//! Secrets of tenants.
//!
//! Invariant: what comes here is encrypted; this crate has no key and no way to read it.

use brood_units::Timestamp;
use rusqlite::OptionalExtension;

use crate::row::{get, number, time};
use crate::{Read, StoreError, Write};

/// One version of a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretRow {
    /// Its name.
    pub name: String,
    /// From 1.
    pub version: u32,
    /// Encrypted.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created: Timestamp,
}

impl std::fmt::Debug for SecretRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "SecretRow({} v{}, {} bytes)",
            self.name,
            self.version,
            self.sealed.len()
        )
    }
}

impl Read<'_> {
    /// The newest version of a secret.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn secret(&self, tenant: &str, name: &str) -> Result<Option<SecretRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT * FROM secrets WHERE tenant = ?1 AND name = ?2 ORDER BY version DESC LIMIT 1",
        )?;
        let found = statement.query_row((tenant, name), |row| {
            Ok((|| {
                Ok(SecretRow {
                    name: get(row, "name")?,
                    version: number(row, "version")?,
                    sealed: get(row, "sealed")?,
                    created: time(row, "created_ms")?,
                })
            })())
        });
        found.optional()?.transpose()
    }
}

impl Write<'_> {
    /// A new version of a secret; which one.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn add_secret(
        &mut self,
        tenant: &str,
        name: &str,
        sealed: &[u8],
        now: Timestamp,
    ) -> Result<u32, StoreError> {
        let version = self
            .secret(tenant, name)?
            .map_or(1, |newest| newest.version.saturating_add(1));
        self.execute(
            "INSERT INTO secrets VALUES (?1, ?2, ?3, ?4, ?5)",
            (tenant, name, version, sealed, now.as_millis()),
        )?;
        Ok(version)
    }

    /// Removes all versions of a secret; how many there were.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn remove_secret(&mut self, tenant: &str, name: &str) -> Result<usize, StoreError> {
        self.execute(
            "DELETE FROM secrets WHERE tenant = ?1 AND name = ?2",
            (tenant, name),
        )
    }
}
