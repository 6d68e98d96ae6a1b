//! The small state of plugins.

use brood_units::Timestamp;
use rusqlite::Row;

use crate::row::{get, maybe_time, millis};
use crate::{Read, StoreError, Write};

/// What a key of a plugin holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginValue {
    /// Bytes.
    Bytes(Vec<u8>),
    /// A number that is added to.
    Counter(i64),
}

/// A value and when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginEntry {
    /// What is held.
    pub value: PluginValue,
    /// None is for ever.
    pub expires: Option<Timestamp>,
}

fn entry(row: &Row<'_>) -> Result<(String, PluginEntry), StoreError> {
    let value = match get::<Option<i64>>(row, "counter")? {
        Some(count) => PluginValue::Counter(count),
        None => PluginValue::Bytes(get(row, "bytes")?),
    };
    let expires = maybe_time(row, "expires_ms")?;
    Ok((get(row, "key")?, PluginEntry { value, expires }))
}

impl Read<'_> {
    /// All entries of a plugin, by key.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn plugin_state(&self, plugin: &str) -> Result<Vec<(String, PluginEntry)>, StoreError> {
        self.all(
            "SELECT * FROM plugin_state WHERE plugin = ?1 ORDER BY key",
            [plugin],
            entry,
        )
    }
}

impl Write<'_> {
    /// Changes entries of a plugin; none removes one.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn change_plugin_state(
        &mut self,
        plugin: &str,
        changes: &[(String, Option<PluginEntry>)],
    ) -> Result<(), StoreError> {
        for (key, entry) in changes {
            let Some(entry) = entry else {
                let delete = "DELETE FROM plugin_state WHERE plugin = ?1 AND key = ?2";
                self.execute(delete, (plugin, key))?;
                continue;
            };
            let (bytes, counter) = match &entry.value {
                PluginValue::Bytes(bytes) => (Some(bytes), None),
                PluginValue::Counter(count) => (None, Some(*count)),
            };
            self.execute(
                "INSERT OR REPLACE INTO plugin_state VALUES (?1, ?2, ?3, ?4, ?5)",
                (plugin, key, bytes, counter, millis(entry.expires)),
            )?;
        }
        Ok(())
    }
}
