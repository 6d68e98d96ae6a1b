//! Who the objects belong to.

use brood_units::Timestamp;

use crate::{Read, StoreError, Write};

impl Read<'_> {
    /// All tenants, by name.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn tenants(&self) -> Result<Vec<String>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT name FROM tenants ORDER BY name")?;
        let names = statement.query_map([], |row| row.get(0))?;
        Ok(names.collect::<Result<_, _>>()?)
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
