//! Who the objects belong to.

use brood_units::Timestamp;

use crate::row::{get, time};
use crate::{Page, Read, StoreError, Write};

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRow {
    /// Its place in lists.
    pub seq: i64,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
}

impl Read<'_> {
    /// A page of tenants, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn tenants(&self, page: Page) -> Result<Vec<TenantRow>, StoreError> {
        let sql = "SELECT rowid AS seq, name, created_ms FROM tenants WHERE rowid > ?1
             ORDER BY rowid LIMIT ?2";
        self.all(sql, (page.after, page.limit), |row| {
            Ok(TenantRow {
                seq: get(row, "seq")?,
                name: get(row, "name")?,
                created: time(row, "created_ms")?,
            })
        })
    }

    /// Whether there is a tenant of this name.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn has_tenant(&self, name: &str) -> Result<bool, StoreError> {
        let some = "SELECT EXISTS (SELECT 1 FROM tenants WHERE name = ?1)";
        Ok(self.connection.query_row(some, [name], |row| row.get(0))?)
    }
}

impl Write<'_> {
    /// A tenant that is there already stays as it is.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn put_tenant(&mut self, name: &str, now: Timestamp) -> Result<(), StoreError> {
        let insert = "INSERT INTO tenants VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        self.execute(insert, (name, now.as_millis()))?;
        Ok(())
    }
}
