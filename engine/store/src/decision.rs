//! What policies said about an intent.

use brood_units::{IntentId, Timestamp};

use crate::row::{bytes, get, time};
use crate::{Read, StoreError, Write};

/// What one binding said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionRow {
    /// The intent, or the request that came to none.
    pub intent: IntentId,
    /// Whose request it was.
    pub tenant: String,
    /// When.
    pub at: Timestamp,
    /// What was said, JSON.
    pub body: String,
}

impl Read<'_> {
    /// What was said about an intent, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn decisions(
        &self,
        tenant: &str,
        intent: IntentId,
    ) -> Result<Vec<DecisionRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT * FROM decisions WHERE intent = ?2 AND tenant = ?1 ORDER BY seq",
        )?;
        let mut rows = statement.query((tenant, intent.as_bytes()))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(DecisionRow {
                intent: IntentId::from_bytes(bytes(row, "intent")?),
                tenant: get(row, "tenant")?,
                at: time(row, "at_ms")?,
                body: get(row, "body")?,
            });
        }
        Ok(found)
    }
}

impl Write<'_> {
    /// Keeps what was said.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn record(&mut self, row: &DecisionRow) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO decisions (intent, tenant, at_ms, body) VALUES (?1, ?2, ?3, ?4)",
            (
                row.intent.as_bytes(),
                &row.tenant,
                row.at.as_millis(),
                &row.body,
            ),
        )?;
        Ok(())
    }
}
