//! What policies said about an intent, and the log of all that they said.

use brood_units::{IntentId, MachineId, Timestamp};
use rusqlite::Row;

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

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionEntry {
    /// Its number; numbers grow and are never used twice.
    pub seq: i64,
    /// What was said.
    pub row: DecisionRow,
}

/// Which entries of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecisionQuery {
    /// Whose requests; none for everybody's.
    pub tenant: Option<String>,
    /// Requests that were about this machine, or that it came of.
    pub machine: Option<MachineId>,
    /// Those alone that stopped their request.
    pub denied: bool,
}

fn entry(row: &Row<'_>) -> Result<DecisionEntry, StoreError> {
    Ok(DecisionEntry {
        seq: get(row, "seq")?,
        row: DecisionRow {
            intent: IntentId::from_bytes(bytes(row, "intent")?),
            tenant: get(row, "tenant")?,
            at: time(row, "at_ms")?,
            body: get(row, "body")?,
        },
    })
}

/// Which rows; of a body, `subject` and `denies` are looked at.
const LOGGED: &str = "(?2 IS NULL OR tenant = ?2)
    AND (?3 IS NULL OR json_extract(body, '$.subject') = ?4
                    OR intent = (SELECT intent FROM machines WHERE id = ?3))
    AND (NOT ?5 OR json_extract(body, '$.denies'))";

impl Read<'_> {
    /// Entries of the log behind `after`, or the newest ones, at most `limit`, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn decision_log(
        &self,
        query: &DecisionQuery,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Vec<DecisionEntry>, StoreError> {
        let order = if after.is_some() { "ASC" } else { "DESC" };
        let sql = format!(
            "SELECT * FROM decisions WHERE seq > ?1 AND {LOGGED} ORDER BY seq {order} LIMIT ?6"
        );
        let values = (
            after.unwrap_or(0),
            &query.tenant,
            query.machine.as_ref().map(MachineId::as_bytes),
            query.machine.as_ref().map(ToString::to_string),
            query.denied,
            limit,
        );
        let mut found = self.all(&sql, values, entry)?;
        found.sort_unstable_by_key(|entry| entry.seq);
        Ok(found)
    }

    /// What was said about an intent, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn decisions(
        &self,
        tenant: &str,
        intent: IntentId,
    ) -> Result<Vec<DecisionRow>, StoreError> {
        self.all(
            "SELECT * FROM decisions WHERE intent = ?2 AND tenant = ?1 ORDER BY seq",
            (tenant, intent.as_bytes()),
            |row| Ok(entry(row)?.row),
        )
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
