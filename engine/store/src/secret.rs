//! Secrets of tenants.
//!
//! Invariant: what comes here is encrypted; this crate has no key and no way to read it.

use brood_units::Timestamp;
use rusqlite::{OptionalExtension, Row};

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

/// What is known of a secret without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretSummary {
    /// Its name.
    pub name: String,
    /// The newest version.
    pub newest: u32,
    /// How many versions are kept.
    pub versions: u32,
    /// When the oldest of these was made.
    pub created: Timestamp,
    /// When the newest was made.
    pub updated: Timestamp,
}

impl Read<'_> {
    /// A version of a secret, the newest if none is named.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn secret(
        &self,
        tenant: &str,
        name: &str,
        version: Option<u32>,
    ) -> Result<Option<SecretRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT * FROM secrets WHERE tenant = ?1 AND name = ?2 AND (?3 IS NULL OR version = ?3)
             ORDER BY version DESC LIMIT 1",
        )?;
        let found = statement.query_row((tenant, name, version), |row| Ok(secret(row)));
        found.optional()?.transpose()
    }

    /// All secrets of a tenant, by name.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn secrets(&self, tenant: &str) -> Result<Vec<SecretSummary>, StoreError> {
        self.all(
            "SELECT name, max(version) AS newest, count(*) AS versions,
                min(created_ms) AS first_ms, max(created_ms) AS last_ms
             FROM secrets WHERE tenant = ?1 GROUP BY name ORDER BY name",
            [tenant],
            |row| {
                Ok(SecretSummary {
                    name: get(row, "name")?,
                    newest: number(row, "newest")?,
                    versions: number(row, "versions")?,
                    created: time(row, "first_ms")?,
                    updated: time(row, "last_ms")?,
                })
            },
        )
    }

    /// One secret of any tenant, with the tenant: a key that opens it is the key that all were sealed with.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn some_secret(&self) -> Result<Option<(String, SecretRow)>, StoreError> {
        let one = "SELECT * FROM secrets LIMIT 1";
        let found = self.connection.query_row(one, [], |row| {
            Ok(get(row, "tenant").and_then(|tenant| Ok((tenant, secret(row)?))))
        });
        found.optional()?.transpose()
    }
}

fn secret(row: &Row<'_>) -> Result<SecretRow, StoreError> {
    Ok(SecretRow {
        name: get(row, "name")?,
        version: number(row, "version")?,
        sealed: get(row, "sealed")?,
        created: time(row, "created_ms")?,
    })
}

impl Write<'_> {
    /// A new version of a secret, sealed by `seal` for the version that it is told; which one.
    ///
    /// # Errors
    /// Those of `seal`, or the database cannot be written.
    pub fn add_secret<E: From<StoreError>>(
        &mut self,
        tenant: &str,
        name: &str,
        now: Timestamp,
        seal: impl FnOnce(u32) -> Result<Vec<u8>, E>,
    ) -> Result<u32, E> {
        let count = "INSERT INTO secret_versions VALUES (?1, ?2, 1)
             ON CONFLICT DO UPDATE SET last = last + 1";
        self.execute(count, (tenant, name))?;
        let last = "SELECT last FROM secret_versions WHERE tenant = ?1 AND name = ?2";
        let last = self
            .connection
            .query_row(last, (tenant, name), |row| Ok(number(row, "last")));
        let version = last.map_err(StoreError::from)??;
        let sealed = seal(version)?;
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
