//! Keys that callers authenticate with.
//!
//! Invariant: a key itself never comes here, only the hash that it is found by.

use brood_units::{KeyId, Timestamp};
use rusqlite::{OptionalExtension, Row};

use crate::row::{bytes, get, json, maybe_time, millis, time, to_json};
use crate::{Read, StoreError, Write};

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// Its name for the engine.
    pub id: KeyId,
    /// Whose it is.
    pub tenant: String,
    /// A part of the tenant.
    pub project: String,
    /// Its name for people.
    pub name: String,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    /// What it may do.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends by itself.
    pub expires: Option<Timestamp>,
    /// When it was ended.
    pub revoked: Option<Timestamp>,
}

fn key(row: &Row<'_>) -> Result<KeyRow, StoreError> {
    Ok(KeyRow {
        id: KeyId::from_bytes(bytes(row, "id")?),
        tenant: get(row, "tenant")?,
        project: get(row, "project")?,
        name: get(row, "name")?,
        hash: get(row, "hash")?,
        scopes: json(row, "scopes")?,
        created: time(row, "created_ms")?,
        expires: maybe_time(row, "expires_ms")?,
        revoked: maybe_time(row, "revoked_ms")?,
    })
}

impl Read<'_> {
    /// The key with this hash, ended or not.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn key_by_hash(&self, hash: &[u8; 32]) -> Result<Option<KeyRow>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT * FROM keys WHERE hash = ?1")?;
        let row = statement.query_row([hash], |row| Ok(key(row))).optional()?;
        row.transpose()
    }

    /// All keys of a tenant, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn keys(&self, tenant: &str) -> Result<Vec<KeyRow>, StoreError> {
        self.all(
            "SELECT * FROM keys WHERE tenant = ?1 ORDER BY created_ms, id",
            [tenant],
            key,
        )
    }

    /// Whether anybody can authenticate at all.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn has_keys(&self) -> Result<bool, StoreError> {
        let some = "SELECT EXISTS (SELECT 1 FROM keys WHERE revoked_ms IS NULL)";
        Ok(self.connection.query_row(some, [], |row| row.get(0))?)
    }
}

impl Write<'_> {
    /// A new key of a tenant that is there.
    ///
    /// # Errors
    /// [`StoreError::Exists`], or the database cannot be written.
    pub fn add_key(&mut self, key: &KeyRow) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO keys VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            (
                key.id.as_bytes(),
                &key.tenant,
                &key.project,
                &key.name,
                key.hash,
                to_json(&key.scopes)?,
                key.created.as_millis(),
                millis(key.expires),
                millis(key.revoked),
            ),
        )?;
        Ok(())
    }

    /// When a key that was not ended ends by itself; whether there was one.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn expire_key(
        &mut self,
        tenant: &str,
        id: KeyId,
        expires: Timestamp,
    ) -> Result<bool, StoreError> {
        let expire =
            "UPDATE keys SET expires_ms = ?3 WHERE tenant = ?1 AND id = ?2 AND revoked_ms IS NULL";
        let changed = self.execute(expire, (tenant, id.as_bytes(), expires.as_millis()))?;
        Ok(changed > 0)
    }

    /// Ends a key of a tenant; whether there was one that had not ended.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn revoke_key(
        &mut self,
        tenant: &str,
        id: KeyId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let revoke =
            "UPDATE keys SET revoked_ms = ?3 WHERE tenant = ?1 AND id = ?2 AND revoked_ms IS NULL";
        let changed = self.execute(revoke, (tenant, id.as_bytes(), now.as_millis()))?;
        Ok(changed > 0)
    }
}
